"""Fit the model of vote counts (see `truemorph.bias.vote_model`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import log_softmax

from truemorph.bias.maximum import climb, differences, maximise, with_differences
from truemorph.bias.result import Settings, TransitionFit
from truemorph.bias.sample import Sample
from truemorph.bias.transitions import LOGIT_BOUND, Space
from truemorph.bias.vote_model import VoteModel

# Logits of ρ: bounds, and where the search starts for smooth galaxies and disks.
_RHO_BOUNDS, _RHO_START = (-7.0, 4.0), (-1.5, -1.0)
# The search begins with about so many galaxies.
_ROUGH = 3_000


def _vote_numbers(votes: np.ndarray, most: int = 25) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers of votes per galaxy and their frequencies; at most `most` values, by quantiles."""
    per_galaxy = votes.sum(axis=1)
    numbers, counts = np.unique(per_galaxy, return_counts=True)
    if numbers.size > most:
        middle = np.quantile(per_galaxy, (np.arange(most) + 0.5) / most, method="nearest")
        numbers, counts = np.unique(middle, return_counts=True)
    return numbers.astype(np.int64), counts / counts.sum()


def by_votes(space: Space, sample: Sample, settings: Settings) -> TransitionFit:
    """Maximise the likelihood of counts: Σ w log Σ_y f_y BetaBinomial(k; n, μ_y(α), ρ_y).

    A point is [T's point, logit of the disk fraction, logits of ρ]. Rows with a gold label have only that class.
    """
    assert sample.votes is not None
    votes, numbers, n = sample.votes, _vote_numbers(sample.votes), space.size
    ruled_out = np.full(votes.shape, False)
    if sample.gold is not None:
        ruled_out = (sample.gold[:, None] >= 0) & (sample.gold[:, None] != np.arange(2))

    def terms(point: np.ndarray, rows: slice = slice(None)) -> np.ndarray:
        given = VoteModel.at(space, point, numbers).log_probabilities(votes[rows], sample.argument[rows])
        joint = np.where(ruled_out[rows], -np.inf, log_softmax([0.0, point[n]]) + given)
        return np.logaddexp(joint[:, 0], joint[:, 1])

    lower = np.concatenate([space.lower, [-LOGIT_BOUND], [_RHO_BOUNDS[0]] * 2])
    upper = np.concatenate([space.upper, [LOGIT_BOUND], [_RHO_BOUNDS[1]] * 2])
    starts = np.array([np.concatenate([start, [0.5], _RHO_START]) for start in space.starts])
    part = slice(None, None, max(1, len(votes) // _ROUGH))
    rough = with_differences(lambda at: float(sample.weights[part] @ terms(at, part)))
    begin, _ = climb(rough, starts, lower, upper, sample.weights[part].size)
    objective = with_differences(lambda at: float(sample.weights @ terms(at)))
    best = maximise(objective, begin[None], lower, upper, len(votes))

    def scores() -> np.ndarray:
        return differences(terms, best.point) * sample.weights

    covariance = best.covariance(scores() @ scores().T if np.ptp(sample.weights) else None)
    model, variance = VoteModel.at(space, best.point, numbers), covariance[n, n]
    rho = model.overdispersion
    rho_stderr = rho * (1 - rho) * np.sqrt(np.diag(covariance)[n + 1 :])
    fit = TransitionFit.of(
        space,
        sample,
        settings,
        best.point,
        covariance,
        model.class_fractions,
        float(model.class_fractions.prod() * np.sqrt(variance)) if variance > 0 else float("nan"),
        log_likelihood=best.value,
        n_parameters=best.point.size,
        influence=lambda: np.nan_to_num(best.covariance()) @ scores(),
        at_bound=not best.free[n],
        votes=model,
    )
    names = ("overdispersion_smooth", "overdispersion_disk")
    values, errors = (dict(zip(names, one.tolist(), strict=True)) for one in (rho, rho_stderr))
    return replace(fit, values=fit.values | values, stderr=fit.stderr | errors)
