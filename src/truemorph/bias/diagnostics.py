"""Can this T(α) be trusted? Families compared, calibration, confounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import chi2, norm

from truemorph.arrays import float_array
from truemorph.bias import conditional
from truemorph.bias import gold as gold_labels
from truemorph.bias.binning import Bins
from truemorph.bias.estimation import ASSUMPTIONS, fit_transition
from truemorph.bias.evidence import UNKNOWN
from truemorph.bias.likelihood import check_weights, observed_log_probabilities
from truemorph.bias.profiles import evidence_of
from truemorph.bias.regression import fit_softmax
from truemorph.bias.result import TransitionFit
from truemorph.bias.transitions import DISK, SMOOTH, Array, as_resolution
from truemorph.errors import InputError

COMPARED = ("rayleigh", "weibull", "fisk", "monotone")
# Below this the checks call a difference real: about 2.6 standard errors.
LEVEL = 0.01
_NOTICEABLE = 0.02


@dataclass(frozen=True)
class FamilyComparison:
    """Families fitted to the same data.

    Attributes
    ----------
    fits : dict of str to TransitionFit
    log_likelihood, aic : dict of str to float
        Of the labels; with gold labels, of the gold rows' flips under fits to those rows alone.
    best : str
        The family of lowest AIC.
    rayleigh_p_value : float
        Likelihood-ratio test of Rayleigh inside Weibull (shape 2): probability of so large a gain by chance (Wald's
        test where rows have weights); NaN if one of them was not fitted.
    failed : dict of str to str
        Families that could not be fitted, and why.
    left_out : int
        Rows at α = 0, which are not compared on.
    """

    fits: dict[str, TransitionFit]
    log_likelihood: dict[str, float]
    aic: dict[str, float]
    best: str
    rayleigh_p_value: float
    failed: dict[str, str]
    left_out: int = 0

    def table(self) -> list[dict[str, Any]]:
        """One row a family, best first: family, parameters, log-likelihood, AIC above the best, disk fraction."""
        lowest = self.aic[self.best]
        return [
            {
                "family": name,
                "values": self.fits[name].values,
                "stderr": self.fits[name].stderr,
                "log_likelihood": self.log_likelihood[name],
                "delta_aic": self.aic[name] - lowest,
                "disk_fraction": float(self.fits[name].class_fractions[DISK]),
            }
            for name in sorted(self.aic, key=lambda one: self.aic[one])
        ]

    def plot(self, ax: Any = None) -> Any:
        """Draw all families over the data; returns matplotlib axes."""
        from truemorph.bias.plots import plot_families

        return plot_families(self, ax)

    def plot_aic(self, ax: Any = None) -> Any:
        """Draw how far each family's AIC lies above the best; returns matplotlib axes."""
        from truemorph.bias.plots import plot_aic

        return plot_aic(self, ax)


def compare_families(
    labels: Array, alpha: Array, families: Sequence[str] = COMPARED, **options: Any
) -> FamilyComparison:
    """Fit several families to the same data and say which it prefers.

    Parameters
    ----------
    labels, alpha
        As for `fit_transition`.
    families : sequence of str
    **options
        Passed to `fit_transition`.

    Returns
    -------
    FamilyComparison

    Raises
    ------
    InputError
        If no family can be fitted.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> alpha = rng.lognormal(2.8, 0.45, 30000)
    >>> flips = 1 / (1 + (alpha / 12) ** 2.2)
    >>> labels = ((rng.random(30000) < 0.7) & (rng.random(30000) > flips)).astype(int)
    >>> compare_families(labels, alpha, ("rayleigh", "fisk")).best
    'fisk'
    """
    if isinstance(families, str):
        families = (families,)
    left_out, labels, alpha, options = _without_unresolved(labels, alpha, options)
    fits: dict[str, TransitionFit] = {}
    compared: dict[str, tuple[float, int]] = {}
    failed: dict[str, str] = {}
    for family in families:
        try:
            fit = fit_transition(labels, alpha, family, **options)
            fits[family] = fit
            if fit.method == "gold":
                alone = fit if fit.gold_weight == 0 else fit.inputs.again(gold_weight=0.0)
                compared[family] = alone.flip_log_likelihood, fit.space.size if fit.space else fit.n_parameters
            else:
                compared[family] = fit.log_likelihood, fit.n_parameters
        except InputError as problem:
            failed[family] = str(problem)
            fits.pop(family, None)
    if not fits:
        raise InputError(f"no family could be fitted: {'; '.join(dict.fromkeys(failed.values()))}")
    aic = {name: 2 * free - 2 * value for name, (value, free) in compared.items()}
    p_value = float("nan")
    if {"rayleigh", "weibull"} <= compared.keys():
        wide = fits["weibull"]
        gain = compared["weibull"][0] - compared["rayleigh"][0]
        p_value = float(chi2.sf(2 * max(gain, 0.0), 1))
        if "weights" in wide.inputs.per_row:  # weighted rows make no likelihood: Wald's test with the sandwich error
            off = np.log(wide.values["shape"] / 2) * wide.values["shape"] / wide.stderr["shape"]
            p_value = float(chi2.sf(off**2, 1))
    return FamilyComparison(
        fits=fits,
        log_likelihood={name: value for name, (value, _) in compared.items()},
        aic=aic,
        best=min(aic, key=lambda one: aic[one]),
        rayleigh_p_value=p_value,
        failed=failed,
        left_out=left_out,
    )


def _without_unresolved(
    labels: Array, alpha: Array, options: dict[str, Any]
) -> tuple[int, Array, Array, dict[str, Any]]:
    """Leave out rows at α = 0, which say nothing about the shape of T and can forbid one."""
    resolution = float_array(alpha, "alpha")
    resolved = (resolution if resolution.ndim == 1 else resolution[:, 0]) != 0
    n, left_out = resolved.size, int((~resolved).sum())
    named = [name for name in ("gold", "weights", "intrinsic") if options.get(name) is not None]
    per_row: dict[str, Any] = {name: np.asarray(options[name]) for name in named}
    if not left_out or any(len(one) != n for one in (np.asarray(labels), *per_row.values())):
        return 0, labels, alpha, options
    kept = {name: values[resolved] for name, values in per_row.items()}
    return left_out, np.asarray(labels)[resolved], resolution[resolved], {**options, **kept}


@dataclass(frozen=True)
class Calibration:
    """Fitted against observed probability of a "smooth" label, in equal-count bins of the fitted one.

    Attributes
    ----------
    fitted, observed, stderr : array, shape (B,)
    chi_squared, p_value : float
        Σ ((observed - fitted) / binomial error)² and its tail probability.
    what : str
        Whose labels: all galaxies', or gold disks' (then it is the flip probability itself).
    """

    fitted: np.ndarray
    observed: np.ndarray
    stderr: np.ndarray
    chi_squared: float
    p_value: float
    what: str

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
        Equal-count bins of the fitted probability.

    Raises
    ------
    InputError
        If there are fewer than two bins.
    """
    if bins < 2:
        raise InputError(f"calibration needs at least 2 bins; got {bins}")
    labels, alpha = fit.labels, fit.alpha
    weights = fit.inputs.per_row.get("weights", np.ones(labels.size))
    n_seen = 0 if fit.space is None else int((~np.isnan(np.diag(fit.covariance)))[: fit.space.size].sum())
    trusted = fit.inputs.per_row.get("gold")
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
    cut = Bins.cut(fitted, min(bins, fitted.size), weights)
    mean, observed = cut.means(np.column_stack([fitted, hit])).T
    counts = cut.effective_counts()
    stderr = np.sqrt(np.clip(mean * (1 - mean), 1 / (counts + 2) ** 2, None) / counts)
    chi_squared = float(np.sum(((observed - mean) / stderr) ** 2))
    degrees = max(1, counts.size - n_seen)
    return Calibration(mean, observed, stderr, chi_squared, float(chi2.sf(chi_squared, degrees)), what)


@dataclass(frozen=True)
class ConfoundingCheck:
    """Whether true class fractions depend on α.

    Attributes
    ----------
    checked : bool
        False where there is nothing to check with.
    confounded : bool
        Class fractions depend on α: estimates that assume they don't (`likelihood`, `binned`) are biased.
    unexplained : bool
        They depend on α beyond what the intrinsic columns explain: `conditional` is biased too.
    drift, drift_stderr : float
        Disk fraction of the best resolved third minus that of the worst resolved third, from gold labels or as
        predicted from the intrinsic columns.
    unexplained_p_value : float
        Probability of so much dependence on α beyond the columns (or, without columns, at all) by chance.
    statement : str
        The answer in a sentence.
    """

    checked: bool
    confounded: bool
    unexplained: bool
    drift: float
    drift_stderr: float
    unexplained_p_value: float
    statement: str


def confounding_check(
    labels: Array,
    alpha: Array,
    intrinsic: Array | None = None,
    gold: Array | None = None,
    family: str = "rayleigh",
    weights: Array | None = None,
    seed: int = 0,
) -> ConfoundingCheck:
    """Say whether class fractions depend on α, and whether intrinsic columns explain it.

    With gold labels the question is put to them directly: a logistic regression of the true class with and without
    log α and its square, beside the intrinsic columns if given. Without: T and p(y | z) are fitted together, the
    predicted fractions are compared between the worst and the best resolved third, and log α is offered to
    p(y | z) as one more column; that last test leans on the family of T.

    Parameters
    ----------
    labels, alpha, intrinsic, gold
        As for `fit_transition`; α of shape (N,).
    family : str, default "rayleigh"
        Of T, where there are no gold labels.
    weights : array, shape (N,), optional
        Sampling weights.
    seed : int

    Returns
    -------
    ConfoundingCheck
        With `checked=False` where neither columns nor gold labels are given.

    Raises
    ------
    InputError
        As `fit_transition`.
    """
    resolution = float_array(alpha, "alpha")
    resolution = resolution[:, 0] if resolution.ndim == 2 else resolution  # the first observable
    as_resolution(resolution)
    n = np.asarray(labels).shape[0] if np.ndim(labels) else 0
    if n != resolution.size:
        raise InputError(f"labels and alpha must have one value a galaxy; got {n} and {resolution.size}")
    if intrinsic is None and gold is None:
        return ConfoundingCheck(
            False, False, False, float("nan"), float("nan"), float("nan"),
            "not checked: there are no intrinsic columns and no gold labels to check with, so the estimate rests on "
            f'the assumption "{ASSUMPTIONS["likelihood"]}"',
        )  # fmt: skip
    if not np.any(resolution > 0) or np.ptp(resolution) == 0:
        raise InputError("alpha is the same for every galaxy: nothing can depend on it")
    u = np.log(np.maximum(resolution, resolution[resolution > 0].min()))
    u = (u - u.mean()) / u.std()
    w = np.ones(n) if weights is None else check_weights(weights, n)
    if gold is not None:
        return _check_with_gold(u, intrinsic, gold, w)
    fit = fit_transition(labels, resolution, family, "conditional", intrinsic=intrinsic, weights=weights, seed=seed)
    columns = fit.inputs.per_row["intrinsic"]
    assert fit.space is not None
    evidence = evidence_of(fit)
    design = np.column_stack([conditional.standardised(columns), u])
    wider = conditional.fit_logistic(fit.space, evidence, design, seed)
    gain = max(0.0, wider.log_likelihood - fit.log_likelihood) * n / np.sum(w**2)  # weighted rows weigh as fewer
    p_value = float(chi2.sf(2 * gain, 1))
    narrow = conditional.fit_logistic(fit.space, evidence, design[:, :-1], seed)
    drift, error = _predicted_drift(narrow, fit.space.size, u, w)
    return _verdict(drift, error, p_value, "the intrinsic columns predict", "the intrinsic columns explain")


def _predicted_drift(
    found: conditional.ConditionalMaximum, n: int, u: np.ndarray, weights: np.ndarray
) -> tuple[float, float]:
    """Difference of mean p(disk | z) between thirds of α, with the errors of coefficients and of means."""
    p = np.exp(found.log_probabilities)[:, DISK]
    low, high = u <= np.quantile(u, 1 / 3), u >= np.quantile(u, 2 / 3)
    share = weights * (high / np.sum(weights * high) - low / np.sum(weights * low))
    variances = conditional.class_variances(np.exp(found.log_probabilities))[:, DISK - 1]
    slope = np.einsum("nk,nq->kq", variances * share[:, None], found.design).ravel()
    scatter = p[low].var() / low.sum() + p[high].var() / high.sum()
    return float(share @ p), float(np.sqrt(slope @ found.covariance[n:, n:] @ slope + scatter))


def _check_with_gold(u: np.ndarray, intrinsic: Array | None, gold: Array, weights: np.ndarray) -> ConfoundingCheck:
    trusted = gold_labels.check_gold(gold, u.size, gold_labels.classes_in(gold))
    known = trusted != UNKNOWN
    truth, at, w = np.eye(int(trusted.max()) + 1)[trusted[known]], u[known], weights[known]
    w = w * w.sum() / np.sum(w**2)  # weighted rows weigh as fewer
    base = np.ones((at.size, 1))
    if intrinsic is not None:
        columns, _ = conditional.check_intrinsic(intrinsic, u.size)
        base = conditional.standardised(columns)[known]
    wide = np.column_stack([base, at, at**2 - 1])

    def log_likelihood(design: np.ndarray) -> float:
        ridge = np.full(design.shape[1], 1e-6)
        return float(np.sum(w[:, None] * truth * fit_softmax(design, truth, ridge, w).log_probabilities(design)))

    gain = max(0.0, log_likelihood(wide) - log_likelihood(base))
    p_value = float(chi2.sf(2 * gain, 2 * (truth.shape[1] - 1)))
    disk = truth[:, DISK]
    low, high = at <= np.quantile(at, 1 / 3), at >= np.quantile(at, 2 / 3)
    means = [np.average(disk[part], weights=w[part]) for part in (low, high)]
    shares = [np.sum(w[part] ** 2) / w[part].sum() ** 2 for part in (low, high)]
    error = float(np.sqrt(sum(m * (1 - m) * share for m, share in zip(means, shares, strict=True))))
    explained = "the intrinsic columns explain" if intrinsic is not None else "chance explains"
    return _verdict(float(means[1] - means[0]), error, p_value, "gold labels show", explained)


def _verdict(drift: float, error: float, p_value: float, who: str, explained: str) -> ConfoundingCheck:
    significant = norm.isf(LEVEL / 2)
    confounded = bool(abs(drift) > significant * error and abs(drift) > _NOTICEABLE)
    unexplained = p_value < LEVEL
    said = [
        f"{who} a disk fraction that {'rises' if drift > 0 else 'falls'} by {abs(drift):.3f} ± {error:.3f} "
        "from the worst to the best resolved third"
    ]
    if confounded:
        said.append("estimates that assume constant class fractions (likelihood, binned) are biased")
    if unexplained:
        said.append(f"class fractions depend on alpha beyond what {explained} (p = {p_value:.1g})")
    if not confounded and not unexplained:
        said.append("no dependence on alpha is found")
    return ConfoundingCheck(True, confounded or unexplained, unexplained, drift, error, p_value, "; ".join(said))
