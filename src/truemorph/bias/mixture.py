"""T(α) and class probabilities fitted together: p(ỹ | z, α) = Σ_y p(ỹ | y, α) p(y | z).

p(y | z) is a logistic regression on intrinsic properties z (Medina-Rosales et al., arXiv:2308.11007, section 2.3.1,
after Cabrera, Miller & Schneider 2014). With a design matrix of ones it is one class fraction for all (eq. 15).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax

from truemorph.bias.binning import equal_count_edges
from truemorph.bias.likelihood import check_columns, label_columns, log_sum_exp
from truemorph.bias.maximum import Maximum, class_variances, climb, differences, information_matrix, maximise, polish
from truemorph.bias.result import Data, TransitionFit
from truemorph.bias.transitions import DISK, Space, Transition
from truemorph.errors import InputError
from truemorph.findings import Finding

# A parameter is sought on so many galaxies before it is on all.
_ROUGH = 20_000
_LOGIT_BOUND = 9.0
# R² of log α on intrinsic columns beyond which a fit warns, and refuses.
_EXPLAINED, _REFUSED = 0.95, 0.999
RIDGE = 1e-3
# What T calls impossible is very unlikely, not an error.
_FLOOR = -1e4


@dataclass(frozen=True)
class Mixture:
    """Labels whose likelihood is that of a mixture of classes; a point is [T's point, coefficients class by class].

    Attributes
    ----------
    space : Space
        Of T; of size 0 where T is known.
    labels, alpha, weights : array, shape (N,)
        α may have several columns.
    design : array, shape (N, Q)
        Of p(y | z): ones, then standardised columns.
    ridge : float
        Penalty on all coefficients but the intercepts.
    offset : array, shape (N,), optional
        Added to the logit of the disk class: a trend that is assumed, not fitted.
    """

    space: Space
    labels: np.ndarray
    alpha: np.ndarray
    weights: np.ndarray
    design: np.ndarray
    ridge: float = 0.0
    offset: np.ndarray | None = None

    @property
    def _penalty(self) -> np.ndarray:
        return np.concatenate([[0.0], np.full(self.design.shape[1] - 1, self.ridge)])

    @cached_property
    def same_for_all(self) -> bool:
        """Whether all galaxies have the same class fractions."""
        return self.design.shape[1] == 1 and self.offset is None

    def rows(self, chosen: np.ndarray | slice) -> Mixture:
        """The same of some galaxies."""
        parts = {name: getattr(self, name)[chosen] for name in ("labels", "alpha", "weights", "design")}
        return replace(self, **parts, offset=None if self.offset is None else self.offset[chosen])

    def grouped(self, most: int = 512) -> Mixture:
        """Merge neighbours in α of the same label into at most `most` rows each.

        α becomes their mean, which changes the log-likelihood in the second order of their spread only. The class
        fractions must be the same for all, but for an offset, which is that of the mean.
        """
        merged = []
        for label in range(self.space.n_classes):
            members = np.flatnonzero(self.labels == label)
            if members.size == 0:
                continue
            members = members[np.argsort(self.alpha[members], kind="stable")]
            begin = equal_count_edges(members.size, min(most, members.size))[:-1]
            weights = np.add.reduceat(self.weights[members], begin)
            alpha = np.add.reduceat(self.weights[members] * self.alpha[members], begin) / weights
            merged.append((np.full(begin.size, label), alpha, weights))
        labels, alpha, weights = (np.concatenate(parts) for parts in zip(*merged, strict=True))
        return replace(self, labels=labels, alpha=alpha, weights=weights, design=np.ones((labels.size, 1)))

    def split(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """T's point, and coefficients of shape (K - 1, Q)."""
        return point[: self.space.size], point[self.space.size :].reshape(self.space.n_classes - 1, -1)

    def log_prior(self, coefficients: np.ndarray) -> np.ndarray:
        """log p(y | z), shape (N, K), or (1, K) where it is the same for all."""
        design = self.design[:1] if self.same_for_all else self.design
        scores = np.column_stack([np.zeros(len(design)), design @ coefficients.T])
        if self.offset is not None:
            scores[:, 1] += self.offset
        return np.asarray(log_softmax(scores, axis=1))

    def log_labels(self, at: np.ndarray) -> np.ndarray:
        """log p(ỹ_n | y, α_n) for every y, shape (N, K)."""
        return label_columns(self.space.build(at), self.labels, self.alpha)

    def terms(self, point: np.ndarray) -> np.ndarray:
        """log p(ỹ_n | z_n, α_n), shape (N,)."""
        at, coefficients = self.split(point)
        return log_sum_exp(list((self.log_prior(coefficients) + np.maximum(self.log_labels(at), _FLOOR)).T))

    def after(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """log p(ỹ | z, α), shape (N,); p(y | z) and the posterior p(y | ỹ, α, z), shape (N, K) each."""
        at, coefficients = self.split(point)
        log_p = self.log_prior(coefficients)
        joint = log_p + np.maximum(self.log_labels(at), _FLOOR)
        total = log_sum_exp(list(joint.T))
        return total, np.exp(log_p), np.exp(joint - total[:, None])

    def scores(self, point: np.ndarray) -> np.ndarray:
        """Slopes of each galaxy's log-probability in all parameters, shape (P + (K - 1) Q, N)."""
        _, p, posterior = self.after(point)
        at, _ = self.split(point)
        of_z = np.einsum("nk,nq->kqn", (posterior - p)[:, 1:], self.design).reshape(-1, len(self.design))
        return np.concatenate([self._slopes_of_t(at, posterior), of_z])

    def _slopes_of_t(self, at: np.ndarray, posterior: np.ndarray) -> np.ndarray:
        """Posterior mean of d log p(ỹ | y, α) / d T's parameters, shape (P, N)."""
        if not self.space.size:
            return np.empty((0, self.labels.size))
        slopes = differences(lambda where: np.maximum(self.log_labels(where), _FLOOR), at)
        return np.asarray(np.einsum("nk,pnk->pn", posterior, slopes))

    def objective(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        """Penalised log-likelihood and its slopes."""
        total, p, posterior = self.after(point)
        at, coefficients = self.split(point)
        value = float(self.weights @ total) - 0.5 * float(np.sum(self._penalty * coefficients**2))
        residual = self.weights[:, None] * (posterior - p)[:, 1:]
        of_z = residual.T @ self.design - self._penalty * coefficients
        return value, np.concatenate([self._slopes_of_t(at, posterior) @ self.weights, of_z.ravel()])

    def information(self, point: np.ndarray) -> np.ndarray:
        """Minus the second derivatives: analytic in the coefficients, differences in T's few parameters."""
        n, rest = self.space.size, point[self.space.size :]
        _, p, posterior = self.after(point)
        variances = (class_variances(p) - class_variances(posterior)) * self.weights[:, None, None]
        out = np.empty((point.size, point.size))
        out[n:, n:] = information_matrix(self.design, variances)
        out[n:, n:] += np.diag(np.tile(self._penalty, self.space.n_classes - 1))
        if n:
            rows = -differences(lambda at: self.objective(np.concatenate([at, rest]))[1], point[:n])
            out[:n], out[n:, :n] = rows, rows[:, n:].T
        return out

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of a point: T's, and of the logits of class fractions where these are all there is."""
        size = (self.space.n_classes - 1) * self.design.shape[1]
        edge = np.full(size, _LOGIT_BOUND if self.same_for_all else np.inf)
        return np.concatenate([self.space.lower, -edge]), np.concatenate([self.space.upper, edge])

    def starts(self) -> np.ndarray:
        """Points to begin from: the space's own starts beside the labelled fractions."""
        counts = np.bincount(self.labels, weights=self.weights, minlength=self.space.n_classes)
        fractions = np.clip(counts / counts.sum(), 0.02, 0.98)
        flat = np.zeros((self.space.n_classes - 1, self.design.shape[1]))
        flat[:, 0] = np.clip(np.log(fractions[1:] / fractions[0]), -3, 3)
        return np.array([np.concatenate([start, flat.ravel()]) for start in self.space.starts])


@dataclass(frozen=True)
class MixtureFit:
    """T and p(y | z) at the maximum of the likelihood."""

    mixture: Mixture
    maximum: Maximum

    @property
    def transition(self) -> Transition:
        """T(α)."""
        return self.mixture.space.build(self.point_of_t)

    @property
    def point_of_t(self) -> np.ndarray:
        """Point of T, shape (P,)."""
        return self.mixture.split(self.maximum.point)[0]

    @property
    def coefficients(self) -> np.ndarray:
        """Coefficients of p(y | z), shape (K - 1, Q)."""
        return self.mixture.split(self.maximum.point)[1]

    @cached_property
    def covariance(self) -> np.ndarray:
        """Covariance of the point: inverse information, the sandwich where galaxies have different weights."""
        if np.ptp(self.mixture.weights) == 0:
            return self.maximum.covariance()
        scores = self.mixture.scores(self.maximum.point) * self.mixture.weights
        return self.maximum.covariance(scores @ scores.T)

    @property
    def log_likelihood(self) -> float:
        """Weighted log-likelihood of the labels, without the penalty."""
        return float(self.mixture.weights @ self.mixture.terms(self.maximum.point))

    def probabilities(self) -> np.ndarray:
        """p(y | z) of every galaxy, shape (N, K)."""
        p = np.exp(self.mixture.log_prior(self.coefficients))
        return np.broadcast_to(p, (self.mixture.labels.size, p.shape[1]))

    def influence(self) -> np.ndarray:
        """How far each galaxy pulls T's point, shape (P, N)."""
        scores = self.mixture.scores(self.maximum.point) * self.mixture.weights
        return (np.nan_to_num(self.maximum.covariance()) @ scores)[: self.mixture.space.size]


def fit_mixture(mixture: Mixture, start: np.ndarray | None = None, steps: int = 500) -> MixtureFit:
    """Maximise the likelihood: on a part of the galaxies, or on groups of neighbours, first, then on all.

    Parameters
    ----------
    mixture : Mixture
    start : array, shape (P + (K - 1) Q,), optional
        A point near the maximum, if one is known.
    steps : int
        Most iterations.
    """
    lower, upper = mixture.bounds()
    starts = mixture.starts() if start is None else start[None]
    n = mixture.labels.size
    if mixture.same_for_all and mixture.alpha.ndim == 1:
        few = mixture.grouped()
        found = maximise(few.objective, starts, lower, upper, n, few.information, steps)
        best = polish(mixture.objective, found.point, found.information, lower, upper, found.steps)
        return MixtureFit(mixture, best)
    if n > 2 * _ROUGH:
        part = mixture.rows(slice(None, None, n // _ROUGH))
        starts = climb(part.objective, starts, lower, upper, part.labels.size, steps)[0][None]
    return MixtureFit(mixture, maximise(mixture.objective, starts, lower, upper, n, mixture.information, steps))


def check_intrinsic(intrinsic: object, n: int) -> tuple[np.ndarray, list[Finding]]:
    """Return intrinsic columns as a finite (N, P) array without constant ones, and findings on what was left out.

    Raises
    ------
    InputError
        If the shape is wrong, a value is missing, or no column varies.
    """
    columns = check_columns(intrinsic, "intrinsic", n)
    varies = np.ptp(columns, axis=0) > 1e-12 * np.abs(columns).max(axis=0)
    if not varies.any():
        raise InputError("every intrinsic column is constant: nothing to condition on; leave intrinsic out")
    findings = [
        Finding("column-constant", "note", f"Intrinsic column {j} is constant and was left out.")
        for j in np.flatnonzero(~varies)
    ]
    return columns[:, varies], findings


def explained_variance(alpha: np.ndarray, intrinsic: np.ndarray, seed: int = 0) -> float:
    """Share of the variance of log α that intrinsic columns predict in galaxies held out (R²).

    The larger of a cubic polynomial's, in the columns and their logarithms where positive, and gradient-boosted
    trees'. At constant PSF luminosity, size and redshift leave nothing of α free.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.preprocessing import PolynomialFeatures
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(seed)
    rows = rng.permutation(alpha.size)[:_ROUGH]
    target = np.log(np.maximum(alpha[rows], alpha[alpha > 0].min()))
    columns = intrinsic[rows]
    logs = [np.log(column) for column in columns.T if column.min() > 0]
    wide = np.column_stack([columns, *logs])
    wide = (wide - wide.mean(axis=0)) / np.where(wide.std(axis=0) > 0, wide.std(axis=0), 1.0)
    held = np.arange(rows.size) % 3 == 0
    if held.sum() < 10 or np.ptp(target) == 0:
        return 0.0
    cubic = PolynomialFeatures(3 if wide.shape[1] <= 6 else 2).fit_transform(wide)
    answers = []
    if cubic.shape[1] * 3 < rows.size:
        answers.append(cubic[held] @ np.linalg.lstsq(cubic[~held], target[~held], rcond=None)[0])
    if rows.size >= 200:
        # One thread: so few rows don't need more, and threads that wait for a busy core can take minutes.
        with threadpool_limits(1, "openmp"):
            trees = HistGradientBoostingRegressor(random_state=seed).fit(columns[~held], target[~held])
            answers.append(trees.predict(columns[held]))
    spread = np.sum((target[held] - target[~held].mean()) ** 2)
    return max([0.0, *(float(1 - np.sum((target[held] - guess) ** 2) / spread) for guess in answers)])


def explained_findings(alpha: np.ndarray, columns: np.ndarray, seed: int) -> list[Finding]:
    """Say where intrinsic columns leave little of α free.

    Raises
    ------
    InputError
        If they leave nothing.
    """
    explained = explained_variance(alpha, columns, seed)
    if explained > _REFUSED:
        raise InputError(
            f"the intrinsic columns determine alpha (R² = {explained:.4f} of log alpha): at constant PSF nothing is "
            "left to learn flips from; leave out radius or redshift, or use galaxies with different PSFs"
        )
    if explained > _EXPLAINED:
        return [
            Finding(
                "columns-determine-alpha",
                "caution",
                f"The intrinsic columns explain {explained:.1%} of the variance of log α (more than "
                f"{_EXPLAINED:.0%}), so little is left to separate bias from real differences.",
                "Leave out radius or redshift (`intrinsic`), or use galaxies with different PSFs.",
            )
        ]
    return []


def standardised(columns: np.ndarray) -> np.ndarray:
    """Design matrix: a column of ones, then the columns with mean 0 and spread 1."""
    return np.column_stack([np.ones(columns.shape[0]), (columns - columns.mean(axis=0)) / columns.std(axis=0)])


def mixture_of(space: Space, data: Data, design: np.ndarray | None = None, ridge: float = 0.0) -> Mixture:
    """Return the mixture of checked data; without a design matrix class fractions are the same for all galaxies."""
    design = np.ones((data.labels.size, 1)) if design is None else design
    return Mixture(space, data.labels, data.alpha, data.weights, design, ridge)


def by_likelihood(space: Space, data: Data) -> TransitionFit:
    """Maximise Σ w log p(ỹ | α) (eq. 15)."""
    found = fit_mixture(mixture_of(space, data))
    best = found.maximum
    return fractions_estimate(space, data, best.point, found.covariance, best.free, influence=found.influence)


def fractions_estimate(
    space: Space, data: Data, point: np.ndarray, covariance: np.ndarray, free: np.ndarray, **found: Any
) -> TransitionFit:
    """Turn a point [T's, logits of class fractions] into a result, with what else was found."""
    n = space.size
    fractions = softmax(np.concatenate([[0.0], point[n:]]))
    slope = fractions[DISK] * ((np.arange(1, data.n_classes) == DISK) - fractions[1:])
    variance = slope @ covariance[n:, n:] @ slope
    return TransitionFit.of(
        space,
        data,
        point[:n],
        covariance[:n, :n],
        fractions,
        float(np.sqrt(variance)) if variance > 0 else float("nan"),
        log_likelihood=float(data.weights @ mixture_of(space, data).terms(point)),
        n_parameters=point.size,
        fraction_at_bound=not free[n:].all(),
        **found,
    )


def by_condition(space: Space, data: Data) -> TransitionFit:
    """Fit T together with a logistic p(y | z)."""
    assert data.intrinsic is not None
    found = fit_mixture(mixture_of(space, data, standardised(data.intrinsic), RIDGE))
    n, probabilities = space.size, found.probabilities()
    # The disk fraction is a mean of p(y | z): its error by the delta method, and the scatter of a mean.
    p, share = probabilities[:, DISK], data.weights / data.weights.sum()
    inner = class_variances(probabilities)[:, DISK - 1]  # (N, K - 1)
    slope = np.einsum("nk,nq->kq", inner * share[:, None], found.mixture.design).ravel()
    variance = np.var(p) / p.size + slope @ found.covariance[n:, n:] @ slope
    return TransitionFit.of(
        space,
        data,
        found.point_of_t,
        found.covariance[:n, :n],
        share @ probabilities,
        float(np.sqrt(variance)),
        log_likelihood=found.log_likelihood,
        n_parameters=found.maximum.point.size,
        influence=found.influence,
        probabilities=probabilities,
    )
