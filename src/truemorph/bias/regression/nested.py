"""The regression on gold labels of a question that does not apply to all galaxies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from truemorph.bias.binning import Bins
from truemorph.bias.curves.transitions import ANSWER_UNKNOWN, UNKNOWN
from truemorph.bias.regression.gold import DRAWN_ON, SAMPLES, GoldRegression, as_labelled, drawn_counts
from truemorph.workers import one_thread


@dataclass(frozen=True)
class NestedRegression:
    """Whether a question applies, class 0 or another, and its answer where it does: p(applies) p(answer | applies).

    Two regressions, each with bin effects of its own size. Galaxies for which it is only known that the question
    applies (`ANSWER_UNKNOWN`) enter the first.
    """

    applies: GoldRegression | None  # None: it applies to all galaxies
    answers: GoldRegression

    @classmethod
    def fit(
        cls, terms: np.ndarray, gold: np.ndarray, bins: Bins, n_classes: int, fields: np.ndarray | None = None
    ) -> NestedRegression:
        """Fit to galaxies with a gold label, as `GoldRegression.fit`."""
        whether = np.where(gold == UNKNOWN, UNKNOWN, gold != 0)
        answered = np.where(gold > 0, gold - 1, UNKNOWN)
        applies = None
        if np.any(gold == 0):
            applies = GoldRegression.fit(terms, whether, bins, 2, True, fields)
        answers = GoldRegression.fit(terms, answered, bins, n_classes - 1, True, fields)
        return cls(applies, answers)

    def joint(
        self, rows: np.ndarray, gold: np.ndarray, draws: tuple[np.ndarray | None, np.ndarray | None] = (None, None)
    ) -> np.ndarray:
        """Return probabilities of all classes, shape (n, K), or for draws of the coefficients, (n, S, K)."""
        of_applies, of_answers = draws
        answers = self.answers.predicted(rows, of_answers)
        applies = np.ones(answers.shape[:-1])
        if self.applies is not None:
            applies = self.applies.predicted(rows, of_applies)[..., 1]
            applies[gold[rows] == ANSWER_UNKNOWN] = 1.0
        return np.concatenate([1 - applies[..., None], applies[..., None] * answers], axis=-1)

    def probabilities(self, gold: np.ndarray) -> np.ndarray:
        """Return the probabilities of all galaxies, shape (N, K), as `GoldRegression.probabilities`."""
        return as_labelled(self.joint(np.arange(gold.size), gold), gold)

    @one_thread()
    def fractions(self, gold: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return class fractions in each bin and draws of them, as `GoldRegression.fractions`."""
        rng, bins = np.random.default_rng(seed), self.answers.bins
        n_classes = self.answers.coefficients.shape[1] + 2
        counted = np.stack([bins.sums(gold == k) for k in range(n_classes)], axis=1)
        draws = None if self.applies is None else self.applies.draws(rng), rng.permutation(self.answers.draws(rng))
        expected, drawn = counted.copy(), np.tile(counted, (SAMPLES, 1, 1))
        shuffled = rng.permutation(np.flatnonzero(gold < 0))
        for b in range(bins.count):
            others = shuffled[bins.index[shuffled] == b]
            if others.size == 0:
                continue
            w, q = bins.weights[others], self.joint(others, gold)
            expected[b] += w @ q
            drawn[:, b] += drawn_counts(rng, w, q, self.joint(others[:DRAWN_ON], gold, draws)[..., 1:])
        return expected / bins.totals[:, None], drawn / drawn.sum(axis=2, keepdims=True)
