"""Estimating T(α) and the true class fractions from the labels alone.

Both methods rest on one assumption, named in every result: the true class fractions do not depend on α
(Medina-Rosales et al., arXiv:2308.11007, section 2.3.3). Then p(ỹ | α) = Σ_y f_y p(ỹ | y, α) (eq. 15), and T is
found from how the labels drift.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares, minimize
from scipy.special import log_softmax, xlogy

from truemorph.arrays import float_array
from truemorph.bias.binning import bin_index
from truemorph.bias.likelihood import check_labels, label_log_likelihood, observed_log_probabilities
from truemorph.bias.transitions import CLASS_NAMES, FAMILIES, Array, Transition, as_resolution
from truemorph.errors import InputError

ASSUMPTION = "true class fractions do not depend on alpha"

# Half of the 95 % point of chi-squared with one degree of freedom.
SIGNIFICANT_GAIN = 1.92

# Bounds of the search: parameters within these factors of the α seen, class fractions within exp(-9) of 0 or 1.
_SCALE_BELOW, _SCALE_ABOVE, _LOGIT_BOUND = 0.1, 5.0, 9.0


@dataclass(frozen=True)
class TransitionFit:
    """An estimate of T(α) with its errors.

    Attributes
    ----------
    transition : Transition
        T(α) at the best parameters.
    class_fractions : array, shape (K,)
        True class fractions, in the order smooth, disk.
    stderr : dict of str to float
        Standard error of each parameter, and of the disk fraction ("disk_fraction"); NaN where the data do
        not set one (see `warnings`).
    log_likelihood : float
        Σ log p(ỹ | α) (weighted if weights were given) at the estimate, whatever the method.
    aic : float
        Akaike's criterion, 2 × parameters - 2 log-likelihood.
    warnings : tuple of str
        Reasons not to trust the estimate as it stands.
    method, family, assumption : str
        How it was made, and what it rests on.
    n_objects : int
        Galaxies used.
    """

    transition: Transition
    class_fractions: np.ndarray
    stderr: dict[str, float]
    log_likelihood: float
    aic: float
    warnings: tuple[str, ...]
    method: str
    family: str
    n_objects: int
    labels: np.ndarray
    alpha: np.ndarray
    assumption: str = ASSUMPTION

    def plot(self, ax: Any = None, bins: int = 12) -> Any:
        """Draw the observed smooth fraction in equal-count bins of α with the fitted curve.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Where to draw; a new figure if not given.
        bins : int, default 12
            Equal-count bins for the points.

        Returns
        -------
        matplotlib axes
        """
        from matplotlib.figure import Figure

        if ax is None:
            ax = Figure(figsize=(5.5, 3.6), layout="constrained").add_subplot()
        order = np.argsort(self.alpha, kind="stable")
        index = bin_index(order.size, min(bins, order.size))
        counts = np.bincount(index)
        smooth = np.bincount(index, weights=self.labels[order] == 0) / counts
        middle = np.bincount(index, weights=self.alpha[order]) / counts
        grid = np.linspace(0, self.alpha.max(), 200)
        with np.errstate(divide="ignore"):
            log_fractions = np.broadcast_to(np.log(self.class_fractions), (grid.size, 2))
        curve = np.exp(observed_log_probabilities(log_fractions, grid, self.transition))[:, 0]
        ax.errorbar(
            middle,
            smooth,
            np.sqrt(smooth * (1 - smooth) / counts),
            fmt="o",
            ms=4,
            color="0.25",
            label="labels",
        )
        ax.plot(grid, curve, color="C3", label=f"{self.family} fit")
        ax.axhline(self.class_fractions[0], ls="--", lw=1, color="C3", label="true smooth fraction")
        ax.set(xlabel=r"resolution $\alpha$", ylabel="fraction labelled smooth", ylim=(0, 1))
        ax.legend(frameon=False)
        return ax


@dataclass(frozen=True)
class _Search:
    """The unconstrained space an estimator moves in: log of each positive parameter, logits of fractions."""

    family: type
    names: tuple[str, ...]
    n_classes: int
    lower: np.ndarray
    upper: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, family: str, alpha: np.ndarray, disk_fraction: float) -> _Search:
        chosen = FAMILIES.get(family)
        if chosen is None or not hasattr(chosen, "scale_free"):
            fittable = [name for name, one in FAMILIES.items() if hasattr(one, "scale_free")]
            raise InputError(f"unknown family {family!r}; families to fit: {', '.join(fittable)}")
        names = tuple(chosen.scale_free)
        positive = alpha[alpha > 0]
        n_free = chosen.n_classes - 1
        lower = [np.log(positive.min() * _SCALE_BELOW)] * len(names) + [-_LOGIT_BOUND] * n_free
        upper = [np.log(positive.max() * _SCALE_ABOVE)] * len(names) + [_LOGIT_BOUND] * n_free
        logit = float(np.clip(np.log(disk_fraction / (1 - disk_fraction)), -3, 3))
        middle = np.log(np.median(positive) * np.array(list(chosen.scale_free.values())))
        starts = np.array([[*(middle + shift), *[logit] * n_free] for shift in (0.0, -0.7, 0.7)])
        low, high = np.array(lower), np.array(upper)
        return cls(chosen, names, chosen.n_classes, low, high, np.clip(starts, low, high))

    def unpack(self, point: np.ndarray) -> tuple[Transition, np.ndarray]:
        """Transition and log class fractions, shape (K,), at a point of the search space."""
        scales = dict(zip(self.names, np.exp(point[: len(self.names)]).tolist(), strict=True))
        return self.family(**scales), log_softmax(np.concatenate([[0.0], point[len(self.names) :]]))

    def at_bound(self, point: np.ndarray) -> np.ndarray:
        return (point - self.lower < 1e-3) | (self.upper - point < 1e-3)


def _differences(function: Callable[[np.ndarray], np.ndarray], point: np.ndarray) -> np.ndarray:
    """Central differences of a vector-valued function, shape (P, …)."""
    step = 1e-4
    shifts = np.eye(point.size) * step
    return np.stack([(function(point + s) - function(point - s)) / (2 * step) for s in shifts])


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Inverse of an information matrix; NaN where the data do not determine the parameters."""
    try:
        inverse = np.linalg.inv(matrix)
    except np.linalg.LinAlgError:
        return np.full_like(matrix, np.nan)
    return inverse if np.all(np.diag(inverse) > 0) else np.full_like(matrix, np.nan)


def _by_likelihood(
    search: _Search, terms: Callable[[np.ndarray], np.ndarray], weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Maximise Σ w log p(ỹ | α); covariance from the observed information (sandwich if weighted)."""

    def objective(point: np.ndarray) -> float:
        return -float(np.sum(terms(point) if weights is None else weights * terms(point)))

    bounds = list(zip(search.lower, search.upper, strict=True))
    fits = [minimize(objective, start, method="L-BFGS-B", bounds=bounds) for start in search.starts]
    point = min(fits, key=lambda fit: fit.fun).x
    free = ~search.at_bound(point)
    scores = _differences(terms, point)[free]  # (P, N)

    def gradient(at: np.ndarray) -> np.ndarray:
        moved = _differences(terms, at)[free]
        return moved.sum(axis=1) if weights is None else moved @ weights

    information = -_differences(gradient, point)[free]
    covariance = _inverse(0.5 * (information + information.T))
    if weights is not None:
        weighted = scores * weights
        covariance = covariance @ (weighted @ weighted.T) @ covariance
    return point, _embed(covariance, free)


def _embed(covariance: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Covariance of all parameters: NaN in the rows of those that sit at a bound."""
    full = np.full((free.size, free.size), np.nan)
    full[np.ix_(free, free)] = covariance
    return full


def _by_bins(
    search: _Search, labels: np.ndarray, alpha: np.ndarray, bins: int, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The paper's estimator: least squares on class fractions at the midpoints of equal-count bins (eq. 16)."""
    order = np.argsort(alpha, kind="stable")
    index = bin_index(order.size, bins)
    sorted_alpha = alpha[order]
    ends = np.flatnonzero(np.diff(index, append=bins))
    begins = np.concatenate([[0], ends[:-1] + 1])
    midpoints = 0.5 * (sorted_alpha[begins] + sorted_alpha[ends])
    members = np.eye(search.n_classes)[labels[order]]
    if weights is not None:
        members = members * weights[order, None]
    observed = np.stack([np.bincount(index, weights=column) for column in members.T], axis=1)
    observed = observed / observed.sum(axis=1, keepdims=True)

    def residuals(point: np.ndarray) -> np.ndarray:
        transition, log_fractions = search.unpack(point)
        rows = np.broadcast_to(log_fractions, (midpoints.size, search.n_classes))
        return (np.exp(observed_log_probabilities(rows, midpoints, transition)) - observed).ravel()

    least_biased = np.clip(observed[-1], 0.01, 0.99)
    start = search.starts[0].copy()
    start[len(search.names) :] = np.log(least_biased[1:] / least_biased[0])
    start = np.clip(start, search.lower + 1e-6, search.upper - 1e-6)
    point = least_squares(residuals, start, bounds=(search.lower, search.upper), x_scale="jac").x
    free = ~search.at_bound(point)
    slopes = _differences(residuals, point)[free].reshape(free.sum(), bins, -1)
    errors = residuals(point).reshape(bins, -1)
    # Bins are independent, the classes within one are not: sum over classes before the outer product.
    scores = np.einsum("pbk,bk->pb", slopes, errors)
    bread = _inverse(np.einsum("pbk,qbk->pq", slopes, slopes))
    return point, _embed(bread @ (scores @ scores.T) @ bread, free)


def _warnings(
    search: _Search, point: np.ndarray, stderr: dict[str, float], transition: Transition, alpha: np.ndarray
) -> list[str]:
    notes = []
    bound = search.at_bound(point)
    for name, stuck in zip(search.names, bound, strict=False):
        if stuck:
            notes.append(
                f"{name} = {getattr(transition, name):.3g} sits at the edge of its search range: "
                "the labels do not determine it"
            )
        elif not stderr[name] < 0.5 * getattr(transition, name):
            notes.append(f"{name} is known to no better than half its value: the likelihood is nearly flat")
    if bound[len(search.names) :].any():
        notes.append(
            "a class fraction is at 0 or 1: labels alone can't tell flips from a missing class here; "
            "errors of the other parameters hold it fixed"
        )
    if np.ptp(alpha) < 1e-9 * alpha.max():
        notes.append("every galaxy has the same alpha: T(alpha) can't be learned from these labels")
    return notes


def fit_transition(
    labels: Array,
    alpha: Array,
    family: str = "rayleigh",
    method: str | None = None,
    bins: int = 1525,
    weights: Array | None = None,
) -> TransitionFit:
    """Estimate T(α) from biased labels, assuming that true class fractions do not depend on α.

    Parameters
    ----------
    labels : array of int, shape (N,)
        Observed labels, 0 = smooth, 1 = disk.
    alpha : array, shape (N,)
        Resolution; θ comes out in its unit.
    family : str, default "rayleigh"
        Transition family (eq. 5 is Rayleigh).
    method : {None, "likelihood", "binned"}
        "likelihood" (default): unbinned maximum likelihood, no bins to choose. "binned": the paper's least
        squares over equal-count bins (eq. 16), for reproduction: few bins bias it, because the midpoint of
        the wide last bin is not where its galaxies are.
    bins : int, default 1525
        Bins of "binned": the paper's number, 64 galaxies each in its 97,600; at most one a galaxy.
    weights : array, shape (N,), optional
        Sampling weights, where galaxies were selected by their label (balanced samples). Errors are then of
        the sandwich form.

    Returns
    -------
    TransitionFit

    Raises
    ------
    InputError
        If shapes disagree, α is NaN or negative, a label is not a class, or only one class is present.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> alpha = rng.lognormal(2.3, 0.45, 20000)
    >>> disk = rng.random(20000) < 0.75
    >>> flipped = rng.random(20000) < np.exp(-(alpha**2) / (2 * 11.25**2))
    >>> fit = fit_transition((disk & ~flipped).astype(int), alpha)
    >>> bool(abs(fit.transition.theta - 11.25) < 4 * fit.stderr["theta"])
    True
    """
    method = "likelihood" if method is None else method
    if method not in ("likelihood", "binned"):
        raise InputError(f'method is "likelihood" or "binned"; got {method!r}')
    alpha = np.asarray(as_resolution(float_array(alpha, "alpha")))
    n_classes = getattr(FAMILIES.get(family), "n_classes", 2)
    labels = check_labels(labels, n_classes if isinstance(n_classes, int) else 2)
    if labels.size != alpha.size:
        raise InputError(f"labels and alpha must have one value a galaxy; got {labels.size} and {alpha.size}")
    if weights is not None:
        weights = np.asarray(weights, dtype=np.float64)
        if weights.shape != alpha.shape or not np.all((weights > 0) & np.isfinite(weights)):
            raise InputError("weights must be positive and finite, one a galaxy")
        weights = weights / weights.mean()  # log-likelihoods then keep the scale of N galaxies
    present = np.unique(labels)
    if present.size < 2:
        only = CLASS_NAMES[int(present[0])] if present.size else "no"
        raise InputError(f"only {only} labels among {labels.size} galaxies: T(alpha) needs both classes")
    if not np.all(np.isfinite(alpha)) or not np.any(alpha > 0):
        raise InputError("alpha must be finite, and positive for some galaxies, to estimate T(alpha)")

    search = _Search.of(family, alpha, float(np.average(labels, weights=weights)))

    def terms(point: np.ndarray) -> np.ndarray:
        transition, log_fractions = search.unpack(point)
        rows = np.broadcast_to(log_fractions, (alpha.size, search.n_classes))
        return label_log_likelihood(rows, labels, alpha, transition)

    notes = []
    if method == "likelihood":
        point, covariance = _by_likelihood(search, terms, weights)
    else:
        if bins < search.lower.size + 1:
            raise InputError(f"binned needs more bins than parameters ({search.lower.size}); got {bins}")
        if bins > labels.size:
            notes.append(f"{bins} bins asked for {labels.size} galaxies: used one galaxy a bin")
        point, covariance = _by_bins(search, labels, alpha, min(bins, labels.size), weights)

    transition, log_fractions = search.unpack(point)
    errors = np.sqrt(np.diag(covariance))
    stderr = {name: float(getattr(transition, name) * error) for name, error in zip(search.names, errors, strict=False)}
    fractions = np.exp(log_fractions)
    stderr["disk_fraction"] = float(fractions[1] * (1 - fractions[1]) * errors[-1])
    total = terms(point)
    log_likelihood = float(np.sum(total if weights is None else weights * total))
    notes += _warnings(search, point, stderr, transition, alpha)
    impossible = int(np.sum((alpha == 0) & (labels == 1)))
    if impossible:
        notes.append(f"{impossible} disk labels at alpha = 0, where no disk can be seen: check their radii")
    resolved = alpha > 0
    by_galaxy = total if weights is None else weights * total
    shares = np.bincount(labels[resolved], weights=None if weights is None else weights[resolved], minlength=2)
    gain = float(by_galaxy[resolved].sum() - np.sum(xlogy(shares, shares / shares.sum())))
    if gain < SIGNIFICANT_GAIN:
        notes.append(
            f"the labels show no significant drift with alpha (log-likelihood {gain:.1f} above constant fractions): "
            f"{search.names[0]} is an upper limit at most"
        )
    return TransitionFit(
        transition=transition,
        class_fractions=fractions,
        stderr=stderr,
        log_likelihood=log_likelihood,
        aic=2 * point.size - 2 * log_likelihood,
        warnings=tuple(notes),
        method=method,
        family=family,
        n_objects=labels.size,
        labels=labels,
        alpha=alpha,
    )
