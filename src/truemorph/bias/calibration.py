"""Does a fitted T(α) describe the labels? Fitted against observed probabilities, bin by bin."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import chi2

from truemorph.bias.binning import Bins
from truemorph.bias.likelihood import observed_log_probabilities
from truemorph.bias.result import TransitionFit
from truemorph.bias.transitions import DISK, SMOOTH
from truemorph.errors import InputError
from truemorph.findings import Finding
from truemorph.io import plain
from truemorph.results import Result, quantity_table

# Below this probability the checks call a difference real: about 2.6 standard errors.
LEVEL = 0.01
_FEWEST = 20


@dataclass(frozen=True, repr=False)
class Calibration(Result):
    """Fitted against observed probability of a "smooth" label, in equal-count bins of the fitted one.

    Attributes
    ----------
    fitted, observed, stderr : array, shape (B,)
    chi_squared, p_value : float
        Σ ((observed - fitted) / binomial error)² and its tail probability.
    what : str
        Whose labels: all galaxies', or gold disks' (then it is the flip probability itself).
    findings : tuple of Finding
        "family-rejected" where the p-value is below 0.01.
    """

    fitted: np.ndarray
    observed: np.ndarray
    stderr: np.ndarray
    chi_squared: float
    p_value: float
    what: str
    findings: tuple[Finding, ...] = ()

    def summary(self) -> str:
        """Return χ² and its probability as text."""
        return f"{self.what}: χ² = {self.chi_squared:.1f} in {self.fitted.size} bins (p = {self.p_value:.2g})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return plain(asdict(self))

    def to_table(self) -> Any:
        """Return a table of one row a bin."""
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
        """Draw observed against fitted; returns matplotlib axes."""
        from truemorph.bias.plots import plot_calibration

        return plot_calibration(self, ax)


def calibration(fit: TransitionFit, bins: int = 12) -> Calibration:
    """Compare a fit's probabilities of "smooth" labels with the labels, bin by bin.

    With gold labels: the flip probability on gold disks. Without: p(ỹ = smooth | α) on all galaxies.

    Parameters
    ----------
    fit : TransitionFit
    bins : int, default 12
        Equal-count bins of the fitted probability; fewer, two at least, where a bin would have under 20 galaxies.

    Raises
    ------
    InputError
        If there are fewer than two bins.
    """
    if bins < 2:
        raise InputError(f"calibration needs at least 2 bins; got {bins}")
    labels, alpha = fit.labels, fit.alpha
    weights = fit.data.weights
    n_seen = int((~np.isnan(np.diag(fit.covariance)))[: fit.space.size].sum())
    trusted = fit.data.gold
    if trusted is not None and np.any(trusted == DISK):
        chosen = trusted == DISK
        fitted = np.asarray(fit.transition.flip_probability(alpha[chosen]))
        hit, what = (labels[chosen] == SMOOTH).astype(float), "gold disks labelled smooth"
        weights = weights[chosen]
    else:
        fractions = fit.class_fractions if fit.probabilities is None else fit.probabilities
        with np.errstate(divide="ignore"):
            log_fractions = np.broadcast_to(np.log(fractions), (labels.size, fit.transition.n_classes))
        fitted = np.exp(observed_log_probabilities(log_fractions, alpha, fit.transition))[:, SMOOTH]
        hit, what = (labels == SMOOTH).astype(float), "labelled smooth"
        n_seen += 1  # the class fractions; a regression on z spends most of its parameters within bins
    cut = Bins.cut(fitted, min(bins, max(2, fitted.size // _FEWEST), fitted.size), weights)
    mean, observed = cut.means(np.column_stack([fitted, hit])).T
    counts = cut.effective_counts()
    stderr = np.sqrt(np.clip(mean * (1 - mean), 1 / (counts + 2) ** 2, None) / counts)
    chi_squared = float(np.sum(((observed - mean) / stderr) ** 2))
    degrees = max(1, counts.size - n_seen)
    p_value = float(chi2.sf(chi_squared, degrees))
    findings = (_rejected(fit, p_value, trusted is not None),) if p_value < LEVEL else ()
    return Calibration(mean, observed, stderr, chi_squared, p_value, what, findings)


def _rejected(fit: TransitionFit, p_value: float, with_gold: bool) -> Finding:
    if with_gold:
        return Finding(
            "family-rejected",
            "caution",
            f"The gold labels reject the {fit.family} family (calibration p = {p_value:.1g}).",
            'Choose another family (`family`, such as "monotone"), or rely on the fractions from gold labels.',
        )
    return Finding(
        "family-rejected",
        "caution",
        f"The labels reject the {fit.family} family with constant class fractions (calibration p = {p_value:.1g}): "
        "either the bias curve has another shape, or class fractions change with α.",
        "Give gold labels (`gold`), which tell these apart, or try another family (`family`).",
    )
