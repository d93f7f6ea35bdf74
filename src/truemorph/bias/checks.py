"""Check an estimate: T(α) against the labels, and galaxies with gold labels against all galaxies.

Experts often classify bright, nearby or peculiar galaxies first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import chi2, rankdata

from truemorph.bias.binning import Bins
from truemorph.bias.result import Data, TransitionFit
from truemorph.bias.transitions import DISK, SMOOTH
from truemorph.findings import Finding
from truemorph.plotting import BLUE, GREY, axes_or_new, legend
from truemorph.results import Result, quantity_table

# Significance level of the checks, about 2.6 standard errors.
LEVEL = 0.01
_BINS, _FEWEST = 12, 20
_STRATA = 100
_PARTS = 4
_GOLD_PER_PART = 20
_NOTICEABLE = 0.02


@dataclass(frozen=True, repr=False)
class Calibration(Result):
    """Fitted and observed probability of a "smooth" label, in equal-count bins of the fitted probability.

    Attributes
    ----------
    fitted, observed, stderr : array, shape (B,)
    chi_squared, p_value : float
        Σ ((observed - fitted) / binomial error)² and its p-value.
    what : str
        Which labels: of all galaxies, or of gold disks (then it is the flip probability).
    findings : tuple of Finding
        "family-rejected" if the p-value is below 0.01.
    """

    fitted: np.ndarray
    observed: np.ndarray
    stderr: np.ndarray
    chi_squared: float
    p_value: float
    what: str
    findings: tuple[Finding, ...] = ()

    def summary(self) -> str:
        """Return χ² and its p-value as text."""
        return f"{self.what}: χ² = {self.chi_squared:.1f} in {self.fitted.size} bins (p = {self.p_value:.2g})"

    def to_table(self) -> Any:
        """Return a table with one row per bin."""
        return quantity_table(
            {
                "fitted": (self.fitted, "", f"fitted probability, {self.what}"),
                "observed": (self.observed, "", f"observed fraction, {self.what}"),
                "stderr": (self.stderr, "", "binomial standard error"),
            },
            chi_squared=self.chi_squared,
            p_value=self.p_value,
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw observed against fitted probability; return matplotlib axes."""
        ax = axes_or_new(ax, (4.2, 3.8))
        ax.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--", label="perfect calibration")
        label = f"observed labels (p = {self.p_value:.2g})"
        ax.errorbar(self.fitted, self.observed, self.stderr, fmt="o", ms=4, color=BLUE, label=label)
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        ax.set(xlabel=f"fitted fraction, {self.what}", ylabel="observed fraction")
        legend(ax)
        return ax


def calibration(fit: TransitionFit) -> Calibration:
    """Compare the fitted probability of a "smooth" label with the labels, in bins.

    With gold labels, this is the flip probability of gold disks; without, p(ỹ = smooth | α) of all galaxies. There are
    12 equal-count bins, or fewer (at least two) if bins would have fewer than 20 galaxies.

    Parameters
    ----------
    fit : TransitionFit

    Examples
    --------
    >>> from truemorph import simulate_catalogue
    >>> table = simulate_catalogue(4000, gold=400)
    >>> labels, alpha, gold = (table[name].fill_null(-1).to_numpy() for name in ("label", "alpha", "gold"))
    >>> from truemorph import fit_transition
    >>> found = calibration(fit_transition(labels, alpha, "rayleigh", gold=gold))
    >>> bool(found.p_value > 0.01)  # the labels flip as the fit says
    True
    """
    fit = getattr(fit, "fit", fit)  # of a study
    gold, weights, hit = fit.data.gold, fit.data.gold_weights, (fit.labels == SMOOTH).astype(float)
    n_seen = int((~np.isnan(np.diag(fit.covariance)))[: fit.space.size].sum())
    if gold is None:
        fitted, what = fit.label_probabilities[:, SMOOTH], "labelled smooth"
        n_seen += 1  # for the class fractions; a regression on z uses most of its parameters within bins
    else:
        disks = gold == DISK
        fitted, what = np.asarray(fit.transition.flip_probability(fit.alpha[disks])), "gold disks labelled smooth"
        hit, weights = hit[disks], weights[disks]
    cut = Bins.cut(fitted, min(_BINS, max(2, fitted.size // _FEWEST), fitted.size), weights)
    mean, observed = cut.means(np.column_stack([fitted, hit])).T
    counts = cut.effective_counts()
    stderr = np.sqrt(np.clip(mean * (1 - mean), 1 / (counts + 2) ** 2, None) / counts)
    chi_squared = float(np.sum(((observed - mean) / stderr) ** 2))
    degrees = max(1, counts.size - n_seen)
    p_value = float(chi2.sf(chi_squared, degrees))
    findings: tuple[Finding, ...] = ()
    if p_value < LEVEL:
        reason = f"(calibration p = {p_value:.1g})"
        message = f"The gold labels reject the {fit.family} family {reason}."
        action = 'Choose another family (`family`, such as "monotone"), or use the fractions from gold labels.'
        if gold is None:
            message = (
                f"The labels reject the {fit.family} family with constant class fractions {reason}: either the bias "
                "curve has another shape, or class fractions change with α."
            )
            action = "Give gold labels (`gold`) to distinguish the two, or try another family (`family`)."
        findings = (Finding("family-rejected", "caution", message, action),)
    return Calibration(mean, observed, stderr, chi_squared, p_value, what, findings)


def selection_findings(data: Data) -> list[Finding]:
    """Warn if gold rows have other observed labels than all rows at the same α, unless their selection is known.

    Labels are 0 and 1, or vote fractions. If gold rows are a random part of the rows, their labels are a sample without
    replacement from their stratum of α. The sum of the excess over strata then has a known variance (Mantel & Haenszel
    1959, JNCI 22, 719; here for K classes and weights, in four parts of the range of α so that excesses of opposite
    sign do not cancel). The fraction of gold rows may vary with α.
    """
    if data.probability is not None:
        return _known_selection(data.probability, data.known)
    observed, alpha, known, weights = data.observed, data.resolution, data.known, data.weights
    stratum = _strata(alpha, known)
    part = _parts(stratum, known)
    parts = [part == one for one in np.unique(part[known])]
    found = [_excess(observed[rows], stratum[rows], known[rows], weights[rows]) for rows in parts]
    degrees = len(found) * (observed.shape[1] - 1)
    p_value = float(chi2.sf(sum(chi_squared for chi_squared, _ in found), degrees))
    worst = int(np.argmax([chi_squared for chi_squared, _ in found]))
    difference, rows = found[worst][1], parts[worst]
    label = 1 + int(np.argmax(np.abs(difference[1:])))  # for two classes, the disk class is sufficient
    if p_value >= LEVEL or abs(difference[label]) < _NOTICEABLE:
        return []
    fraction = np.average(observed[rows & known, label], weights=weights[rows & known])
    low, high = alpha[rows].min(), alpha[rows].max()
    message = (
        f"The galaxies with a gold label are not a random part of all galaxies (p = {p_value:.1g}): at α from "
        f"{low:.3g} to {high:.3g}, {fraction:.1%} of them are labelled class {label}, but "
        f"{fraction - difference[label]:.1%} of all galaxies are. The result only holds for such galaxies."
    )
    action = "Exclude galaxies that could not get a gold label (`where`), or give sampling weights (`weights`)."
    return [Finding("gold-not-random", "caution", message, action)]


def _known_selection(probability: np.ndarray, known: np.ndarray) -> list[Finding]:
    """Return that gold labels were chosen with known probabilities, and whether some galaxies could not be chosen."""
    chosen, never = probability[known], int(np.sum(probability == 0))
    chances = f"known probabilities ({chosen.min():.2g} to {chosen.max():.2g})"
    message = f"Galaxies were selected for gold labels with {chances}, which the estimate takes into account."
    findings = [Finding("selection-known", "note", message)]
    if never:
        message = (
            f"{never:,} of {probability.size:,} galaxies could not be selected for a gold label, for lack of an image "
            "for example. Their classes are predicted from galaxies of the same label and α."
        )
        action = "Leave them out (`where`), or find their images."
        findings.append(Finding("gold-cannot-reach", "caution", message, action))
    return findings


def balance_findings(columns: Mapping[str, np.ndarray], data: Data) -> list[Finding]:
    """Warn if gold rows differ from all rows at the same α in a column that the estimate does not use.

    Each is tested as in `selection_findings`, at a level of 1 % divided by the number of columns; NaN are left out.
    """
    known, stratum = data.known, _strata(data.resolution, data.known)
    unbalanced = []
    for name, values in columns.items():
        good = np.isfinite(values)
        if (known & good).sum() < _GOLD_PER_PART or np.ptp(values[good]) == 0:
            continue
        ranks = (rankdata(values[good]) / good.sum() - 0.5) * np.sqrt(12)  # of standard deviation 1
        both = np.column_stack([-ranks, ranks])
        chi_squared, difference = _excess(both, stratum[good], known[good], data.weights[good])
        if chi2.sf(chi_squared, 1) < LEVEL / len(columns) and abs(difference[1]) > _NOTICEABLE:
            unbalanced.append((name, difference[1]))
    if not unbalanced:
        return []
    unbalanced.sort(key=lambda one: -abs(one[1]))
    named = ", ".join(f"{name} ({difference:+.2f} σ)" for name, difference in unbalanced)
    message = (
        f"The galaxies with a gold label differ from all galaxies at the same α in {named}. If the true class depends "
        "on such a column, the disk fraction is biased."
    )
    action = "Give these columns as covariates (`intrinsic`), or sampling weights (`weights`)."
    return [Finding("gold-unbalanced", "caution", message, action)]


def _strata(alpha: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return each row's stratum: equal-count bins of α, with five gold rows or more in the mean."""
    count = int(np.clip(known.sum() // 5, 1, _STRATA))
    stratum = np.empty(alpha.size, dtype=np.int64)
    stratum[np.argsort(alpha, kind="stable")] = np.arange(alpha.size) * count // alpha.size
    return stratum


def _parts(stratum: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return each row's part of the range of α: consecutive strata with equal numbers of gold rows."""
    drawn = np.bincount(stratum[known], minlength=stratum.max() + 1)
    count = int(np.clip(drawn.sum() // _GOLD_PER_PART, 1, _PARTS))
    middle = np.cumsum(drawn) - 0.5 * drawn
    return np.minimum(count * middle / drawn.sum(), count - 1).astype(np.int64)[stratum]


def _excess(
    observed: np.ndarray, stratum: np.ndarray, known: np.ndarray, weights: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return χ² and the mean difference, shape (K,), between labels of gold rows and those of their strata."""
    strata, index, size = np.unique(stratum, return_inverse=True, return_counts=True)
    drawn = np.bincount(index[known], minlength=strata.size)
    total = np.bincount(index, weights=weights)
    mean = np.stack([np.bincount(index, weights=weights * column) / total for column in observed.T], axis=1)
    residual = weights[:, None] * (observed - mean[index])
    excess = residual[known].sum(axis=0)
    scale = drawn * (size - drawn) / (size * np.maximum(size - 1.0, 1.0))
    covariance = residual.T @ (residual * scale[index, None])
    chi_squared = excess @ np.linalg.pinv(covariance, rcond=1e-9, hermitian=True) @ excess
    return float(chi_squared), excess / weights[known].sum()
