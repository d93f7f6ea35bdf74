"""Goodness of fit: whether labels occur as often as a fit of T(α) says.

In bins of α, of α and each other observable, and of the fitted probability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, cycle
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.special import chdtrc

from truemorph.bias.binning import limits_of_bins
from truemorph.bias.checks.selection import LEVEL
from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.mixture import standardised
from truemorph.bias.regression.curve import gold_maximum
from truemorph.bias.regression.maximum import class_variances, differences
from truemorph.bias.result import TransitionFit
from truemorph.bias.sample import Sample
from truemorph.findings import Finding, Findings, findings_in
from truemorph.plotting import BLUE, GREY, ORANGE, RED, SKY, legend, plain_text
from truemorph.results import Result, quantity_table

# Largest number of bins, and Σ p (1 - p) in each: about the smaller of the numbers of both outcomes.
_BINS, _INFORMATION = 12, 8.0
# An outcome is tested if it has so much information, or occurs so often although the fit excludes it.
_LEAST_INFORMATION, _TOO_OFTEN = 1.0, 3
# Directions of the differences with a smaller part of their variance are left out: the parameters follow the labels.
_PART_LEFT = 0.2
# Of more galaxies, a random part of this size is tested.
_MOST = 200_000
# Kinds of labels that a legend inside a figure can name.
_NAMED = 8


class Calibration(Result):
    """Fitted and observed probabilities of labels, in bins of α.

    With gold labels, of each wrong label given the true class; without, p(ỹ | α) of all galaxies. Bins have equal
    amounts of information, Σ p (1 - p). If T depends on other observables, too, bins of α are divided into bins of
    each.

    Attributes
    ----------
    what : tuple of str, length B
        Which labels of which galaxies, such as "disk labelled smooth".
    alpha : array, shape (B,)
        Mean α of the bin.
    fitted, observed, stderr : array, shape (B,)
        Probability at the maximum of the likelihood, observed fraction, and its binomial error.
    chi_squared : float
        Of the differences, whose covariance includes that of the fitted parameters.
    degrees : int
        Degrees of freedom.
    p_value : float
        Where the fit depends on more than α, bins of the fitted probability are tested too; the smallest p-value times
        the number of tests.
    observables : dict of str to array, shape (B,)
        Mean of each other observable in the bin.
    findings : tuple of Finding
        "family-rejected" if the p-value is below 0.01.
    """

    what: tuple[str, ...]
    alpha: np.ndarray
    fitted: np.ndarray
    observed: np.ndarray
    stderr: np.ndarray
    chi_squared: float
    degrees: int
    p_value: float
    findings: Findings = ()
    observables: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Calibration:
        """Rebuild it from what `to_dict` returns."""
        arrays: dict[str, Any] = {name: np.array(described[name]) for name in ("alpha", "fitted", "observed", "stderr")}
        arrays["observables"] = {name: np.array(values) for name, values in described.get("observables", {}).items()}
        return cls(**{**described, **arrays, "what": tuple(described["what"]), "findings": findings_in(described)})

    def summary(self) -> str:
        """Return χ² and its p-value as text."""
        about = ", ".join(dict.fromkeys(self.what))
        return f"{about}: χ² = {self.chi_squared:.1f}, {self.degrees} degrees of freedom (p = {self.p_value:.2g})"

    def to_table(self) -> Any:
        """Return a table with one row per bin."""
        return quantity_table(
            {
                "what": (list(self.what), "which labels"),
                "alpha": (self.alpha, "mean α"),
                **{name: (values, f"mean {name}") for name, values in self.observables.items()},
                "fitted": (self.fitted, "fitted probability"),
                "observed": (self.observed, "observed fraction"),
                "stderr": (self.stderr, "binomial standard error"),
            },
            chi_squared=self.chi_squared,
            degrees=self.degrees,
            p_value=self.p_value,
        )

    _figure_size = 4.2, 3.8

    def draw(self, ax: Any) -> None:
        """Draw observed against fitted probability."""
        ax.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--", label=f"perfect calibration (p = {self.p_value:.2g})")
        kinds = dict.fromkeys(self.what)
        for kind, color, marker in zip(kinds, cycle((BLUE, ORANGE, RED, SKY)), cycle("os^vD<>")):
            rows = np.array([what == kind for what in self.what])
            values = self.fitted[rows], self.observed[rows], self.stderr[rows]
            ax.errorbar(*values, fmt=marker, ms=4, color=color, label=plain_text(kind))
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="fitted fraction", ylabel="observed fraction")
        if len(kinds) <= _NAMED:
            legend(ax)
        else:
            ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=7)


@dataclass(frozen=True)
class _Outcomes:
    """What could happen to n galaxies, and what did: K outcomes whose probabilities depend on Q fitted parameters."""

    sample: Sample  # these galaxies; the outcome is the label
    names: tuple[tuple[str, ...], ...]  # of each group and outcome; "" for one, which the others determine
    group: np.ndarray  # (n,): number of each galaxy's group
    probabilities: np.ndarray  # (n, K)
    slopes: np.ndarray  # (Q, n, K): derivatives of the probabilities
    part: float = 1.0  # these galaxies are this part of those fitted


def _of_gold(fit: TransitionFit) -> _Outcomes:
    """Labels of the galaxies with a gold label, at the maximum of their likelihood."""
    best, gold = gold_maximum(fit.space, fit.sample), fit.sample.take(fit.sample.known)
    each = np.arange(gold.labels.size)

    def given(point: np.ndarray) -> np.ndarray:
        return fit.space.build(point).matrix(gold.argument)[each, gold.gold]

    slopes = differences(given, best.point).reshape(-1, *gold.observed.shape) * best.free[:, None, None]
    names = tuple(
        tuple("" if label == true else f"{true} labelled {label}" for label in gold.classes) for true in gold.classes
    )
    return _Outcomes(gold, names, gold.gold, given(best.point), slopes)


def _of_labels(fit: TransitionFit) -> _Outcomes:
    """Labels of all galaxies: p(ỹ | z, α) = Σ_y p(ỹ | y, α) p(y | z)."""
    n, free = fit.labels.size, ~np.isnan(np.diag(fit.covariance))
    rows = np.arange(n) if n <= _MOST else np.sort(np.random.default_rng(0).choice(n, _MOST, replace=False))
    sample, design = fit.sample.take(rows), standardised(fit.sample.intrinsic)[rows]
    every = fit.class_fractions if fit.probabilities is None else fit.probabilities[rows]
    prior = np.broadcast_to(every, sample.observed.shape)

    def given(point: np.ndarray) -> np.ndarray:
        return np.einsum("nk,nks->ns", prior, fit.space.build(point).matrix(sample.argument))

    of_t = differences(given, fit.point).reshape(-1, *prior.shape) * free[:, None, None]
    matrix, fitted = fit.transition.matrix(sample.argument), given(fit.point)
    # d p(y | z) / d coefficient = p(y) (δ - p(class)) z
    of_z = [prior[:, [k]] * (matrix[:, k] - fitted) * z[:, None] for k in range(1, sample.n_classes) for z in design.T]
    names = ((*(f"labelled {label}" for label in sample.classes[:-1]), ""),)
    nobody = np.zeros(rows.size, int)
    return _Outcomes(sample, names, nobody, fitted, np.concatenate([of_t, of_z]), rows.size / n)


def _of_paths(fit: TransitionFit, transition: TreeTransition) -> Calibration:
    """Fractions of votes for each answer to each question, given the true class, in bins of α.

    A galaxy's fraction k / n has the variance μ (1 - μ) / v with v = n / (1 + (n - 1) ρ), and is weighted by v.
    """
    asked, rows = transition.asked, np.flatnonzero(fit.sample.known)
    sample = fit.sample.take(rows[np.argsort(fit.sample.alpha[rows], kind="stable")])
    assert sample.paths is not None
    design, means = transition.design(sample.argument), transition.log_answers(sample.argument, votes=True)
    votes = asked.along[sample.paths].astype(float) if sample.counts is None else sample.counts
    chi_squared, degrees, begin = 0.0, 0, 0
    what, columns = list[str](), [np.empty((4, 0))]
    for q, (question, part) in enumerate(zip(asked.questions, asked.parts, strict=True)):
        counts, answers = votes[:, part], list(question.answers)
        for true, name in enumerate(asked.classes):
            size = (len(answers) - 1) * design.shape[1]
            at = slice(begin, begin + size)
            begin += size + (transition.overdispersion is not None)
            rho = 0.0 if transition.overdispersion is None else transition.overdispersion[q][true]
            here = np.flatnonzero((sample.gold == true) & (counts.sum(axis=1) > 0))
            n, mean = counts[here].sum(axis=1), np.exp(means[q][here, true])
            observed = counts[here] / n[:, None]
            v, w = n / (1 + (n - 1) * rho), sample.gold_weights[here]
            information = v * (mean * (1 - mean)).max(axis=1)
            if information.sum() < _LEAST_INFORMATION:
                continue
            bins = int(np.clip(information.sum() / _INFORMATION, 1, _BINS))
            sizes = np.diff(limits_of_bins(sample.alpha[here], bins, information))
            member = np.repeat(np.eye(sizes.size), sizes, axis=0) * (w * v)[:, None]  # (n, B)
            away, spread = member.T @ (observed - mean)[:, 1:], class_variances(mean)
            slopes = np.einsum("nb,nij,nt->bijt", member, spread, design[here]).reshape(away.size, size)
            scatter = np.einsum("nb,nc,nij,n->bicj", member, member, spread, 1 / v).reshape(away.size, -1)
            squared, number = _squared(away.ravel(), scatter - slopes @ fit.covariance[at, at] @ slopes.T, scatter)
            chi_squared, degrees = chi_squared + squared, degrees + number
            total = member.sum(axis=0)
            for a in range(1, len(answers)):
                of_bins = [sample.alpha[here], mean[:, a], observed[:, a]]
                error = np.sqrt(mean[:, a] * (1 - mean[:, a]) / v @ member**2) / total
                what += [f"{name}: {answers[a]}"] * sizes.size
                columns.append(np.stack([*(member.T @ values / total for values in of_bins), error]))
    return _compared(fit, what, columns, [(chi_squared, degrees)])


def _compared(
    fit: TransitionFit, what: Sequence[str], columns: Sequence[np.ndarray], tests: Sequence[tuple[float, int]]
) -> Calibration:
    """Return the result of several tests, χ² and degrees of freedom, and what is shown of bins, shape (4 + J, B)."""
    p_value, chi_squared, degrees = min((float(chdtrc(n, x)) if n else 1.0, x, n) for x, n in tests)
    p_value = min(1.0, len(tests) * p_value)
    alpha, fitted, observed, error, *others = np.concatenate(columns, axis=1)
    by_name = dict(zip(fit.sample.observable_names, others, strict=False))
    rejected = (_rejected(fit, p_value),) if p_value < LEVEL else ()
    return Calibration(tuple(what), alpha, fitted, observed, error, chi_squared, degrees, p_value, rejected, by_name)


@dataclass(frozen=True)
class _Cells:
    """One outcome of one group, in bins of a column."""

    name: str
    group: int
    outcome: int
    members: csr_array  # (B, n): 1 for the galaxies in each bin


def _cells(outcomes: _Outcomes, *columns: np.ndarray) -> list[_Cells]:
    """Divide the galaxies of each group into bins with equal information on each outcome, as many of each column."""
    cells = []
    for group, names in enumerate(outcomes.names):
        rows = np.flatnonzero(outcomes.group == group)
        for outcome, name in enumerate(names):
            p = outcomes.probabilities[:, outcome]
            information, often = p * (1 - p), np.count_nonzero(outcomes.sample.labels[rows] == outcome)
            if not name or (information[rows].sum() < _LEAST_INFORMATION and often < _TOO_OFTEN):
                continue
            bins, parts = int(np.clip(information[rows].sum() / _INFORMATION, 1, _BINS)), [rows]
            for column in columns:
                side = round(bins ** (1 / len(columns)))
                parts = [part for whole in parts for part in _divided(whole, column, information, side)]
            places = np.ones(rows.size), np.concatenate(parts), np.cumsum([0, *map(len, parts)])
            cells.append(_Cells(name, group, outcome, csr_array(places, (len(parts), outcomes.group.size))))
    return cells


def _divided(rows: np.ndarray, column: np.ndarray, amounts: np.ndarray, bins: int) -> list[np.ndarray]:
    """Divide rows into bins of a column with equal amounts."""
    rows = rows[np.argsort(column[rows], kind="stable")]
    return np.split(rows, limits_of_bins(column[rows], bins, amounts[rows])[1:-1])


def _squared(away: np.ndarray, covariance: np.ndarray, scatter: np.ndarray) -> tuple[float, int]:
    """Return χ² of differences, shape (B,), and its degrees of freedom; `scatter` is their covariance without a fit."""
    scale = np.sqrt(np.maximum(np.diag(scatter), 1e-9))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    kept = values > _PART_LEFT
    return float(np.sum((vectors[:, kept].T @ (away / scale)) ** 2 / values[kept])), int(kept.sum())


def _chi_squared(outcomes: _Outcomes, cells: list[_Cells]) -> tuple[float, int]:
    """Return χ² of all cells, and its degrees of freedom.

    The sums of observed minus fitted, R = e - J (θ̂ - θ), have the covariance of e, the multinomial scatter at the true
    parameters, less what the fit takes up: θ̂ - θ = I⁻¹ S with score S (Moore & Spruill 1975, Ann. Stat. 3, 599; here
    with weights).
    """
    p, w, slopes = outcomes.probabilities, outcomes.sample.gold_weights, outcomes.slopes
    sums, blocks = [], []
    for cell in cells:
        k, members = cell.outcome, cell.members
        residual = members @ (w * ((outcomes.sample.labels == k) - p[:, k]))
        sums.append((residual, *(members @ (weight * slopes[:, :, k]).T for weight in (w, w**2))))
        row = []
        for other in cells:
            block: np.ndarray = np.zeros((members.shape[0], other.members.shape[0]))
            if cell.group == other.group:
                scatter = w**2 * p[:, k] * ((k == other.outcome) - p[:, other.outcome])
                block = (members.multiply(scatter) @ other.members.T).toarray()
            row.append(block)
        blocks.append(row)
    e, j, c = map(np.concatenate, zip(*sums, strict=True))
    scaled = slopes / np.sqrt(np.maximum(p, 1e-12))
    information, products = (np.einsum("pnk,qnk,n->pq", scaled, scaled, weight) / outcomes.part for weight in (w, w**2))
    inverse = np.linalg.pinv(information, rcond=1e-10, hermitian=True)
    # θ̂ also rests on galaxies that are not tested; S and e share those that are.
    shared, scatter = c @ inverse @ j.T, np.block(blocks)
    return _squared(e, scatter - shared - shared.T + j @ inverse @ products @ inverse @ j.T, scatter)


def calibration(fit: TransitionFit) -> Calibration:
    """Compare the labels with the probabilities that a fit gives them, in bins.

    With gold labels, p(ỹ | y, α) of each wrong label; without, p(ỹ | α) of all galaxies; of paths through a tree, the
    fractions of votes for each answer, given the true class. The p-value takes account of the fitted parameters, with
    any family.

    Parameters
    ----------
    fit : TransitionFit

    Returns
    -------
    Calibration

    Examples
    --------
    >>> from truemorph import simulate_catalogue
    >>> table = simulate_catalogue(4000, gold=400)
    >>> labels, alpha, gold = (table[name].fill_null(-1).to_numpy() for name in ("label", "alpha", "gold"))
    >>> from truemorph import fit_transition
    >>> checked = calibration(fit_transition(labels, alpha, "rayleigh", gold=gold))
    >>> bool(checked.p_value > 0.01)  # the labels flip as the fit says
    True
    """
    if isinstance(fit.transition, TreeTransition):
        return _of_paths(fit, fit.transition)
    outcomes = _of_gold(fit) if fit.sample.has_gold else _of_labels(fit)
    sample, p = outcomes.sample, outcomes.probabilities
    observables = sample.observables.T
    by_alpha, by_others = _cells(outcomes, sample.alpha), [_cells(outcomes, sample.alpha, axis) for axis in observables]
    tested = [by_alpha, *by_others]
    if by_others or fit.probabilities is not None:  # not a function of α alone
        tested.append(_cells(outcomes, p[np.arange(len(p)), outcomes.group]))
    tests = [_chi_squared(outcomes, cells) if cells else (0.0, 0) for cells in tested]
    what, columns = list[str](), [np.empty((4 + len(observables), 0))]
    for bins in chain(*(by_others or [by_alpha])):
        weights, members = sample.gold_weights, bins.members
        total = members @ weights
        values = sample.alpha, p[:, bins.outcome], sample.labels == bins.outcome, *observables
        means = [members @ (weights * value) / total for value in values]
        counts, fitted = total**2 / (members @ weights**2), means[1]
        what += [bins.name] * total.size
        means.insert(3, np.sqrt(np.clip(fitted * (1 - fitted), 1 / (counts + 2) ** 2, None) / counts))
        columns.append(np.stack(means))
    return _compared(fit, what, columns, tests)


def _rejected(fit: TransitionFit, p_value: float) -> Finding:
    reason = f"(calibration p = {p_value:.1g})"
    if fit.family == "tree":
        message = (
            f"Votes of galaxies with gold labels differ from the T(α) of paths by more than their errors {reason}."
        )
        action = (
            "Corrected fractions do not rest on T(α). For posteriors and training, compare fitted with observed votes "
            "(calibration), and give observables (`observables`)."
        )
        return Finding("family-rejected", "caution", message, action)
    message = f"The gold labels reject the {fit.family} family {reason}."
    action = 'Choose another family (`family`, such as "monotone"), or use the fractions from gold labels.'
    if not fit.sample.has_gold:
        message = (
            f"The labels reject the {fit.family} family with constant class fractions {reason}: either the bias curve "
            "has another shape, or class fractions change with α."
        )
        action = "Give gold labels (`gold`) to distinguish the two, or try another family (`family`)."
    return Finding("family-rejected", "caution", message, action)
