"""DCV14: logistic regression on catalogue features, fitted through T(α) by expectation-maximisation.

Source: Cabrera, Miller & Schneider 2014 (ICPR), as used in Medina-Rosales et al. (arXiv:2308.11007, section
2.3.1): the E step is the posterior of the true class, the M step a logistic regression on it and the θ that
best explains the flips.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from truemorph.bias.estimation import SIGNIFICANT_GAIN
from truemorph.bias.likelihood import label_log_likelihood, posterior
from truemorph.bias.transitions import FAMILIES, MatrixTransition, Transition, as_resolution
from truemorph.errors import InputError, TruemorphWarning


class DebiasedLogisticRegression(ClassifierMixin, BaseEstimator):
    """Logistic regression for the true class, from labels that flip with α (DCV14).

    Parameters
    ----------
    family : str, default "rayleigh"
        Transition family whose parameters are fitted together with the regression.
    transition : Transition, optional
        A fixed T(α) instead; `family` is then ignored.
    C : float, default 100.0
        Inverse strength of the ridge penalty on the coefficients of the standardised features.
    max_iter : int, default 200
        EM iterations.
    tol : float, default 1e-5
        EM stops when the mean log-likelihood of the labels grows by less. EM creeps near the maximum, so a few
        quasi-Newton steps on the same (penalised) likelihood finish the climb.

    Attributes
    ----------
    classes_ : array, shape (K,)
    coef_ : array, shape (K, P)
    intercept_ : array, shape (K,)
        Coefficients of the raw features; class 0 is the reference (zero).
    transition_ : Transition
        T(α) at the estimate.
    stderr_ : dict of str to float
        Standard errors of T's fitted parameters, from the observed information of all parameters together.
    log_likelihood_ : float
        Σ log p(ỹ | x, α).
    n_iter_ : int
        EM iterations.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, alpha = rng.normal(size=(4000, 1)), rng.lognormal(2.3, 0.5, 4000)
    >>> disk = rng.random(4000) < 1 / (1 + np.exp(-3 * X[:, 0]))
    >>> seen = disk & (rng.random(4000) > np.exp(-(alpha**2) / (2 * 9.0**2)))
    >>> model = DebiasedLogisticRegression().fit(X, seen.astype(int), alpha=alpha)
    >>> bool(abs(model.transition_.theta - 9.0) < 4 * model.stderr_["theta"])
    True
    """

    def __init__(
        self,
        family: str = "rayleigh",
        transition: Transition | None = None,
        C: float = 100.0,
        max_iter: int = 200,
        tol: float = 1e-5,
    ) -> None:
        self.family = family
        self.transition = transition
        self.C = C
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: Any, y: Any, alpha: Any = None, sample_weight: Any = None) -> DebiasedLogisticRegression:
        """Fit regression and T(α).

        Parameters
        ----------
        X : array, shape (N, P)
            Features of each galaxy, finite.
        y : array, shape (N,)
            Observed labels; integers 0 = smooth, 1 = disk where α is given.
        alpha : array, shape (N,), optional
            Resolution. Without it labels are taken at their word (plain logistic regression), with a warning.
        sample_weight : array, shape (N,), optional
            Sampling weights, mean 1 for errors on the scale of N galaxies.

        Raises
        ------
        InputError
            If α has the wrong length, is negative or missing, or labels are not 0 and 1.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_ = unique_labels(y)
        if self.classes_.size < 2:
            raise InputError(f"needs two classes, got one class only: {self.classes_[0]!r}")
        if not self.C > 0:
            raise InputError(f"C must be positive; got {self.C}")
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if not weights.any():
            raise InputError("sample_weight is zero for every galaxy: nothing to fit")
        labels = np.searchsorted(self.classes_, y)
        names: tuple[str, ...] = ()
        if alpha is None:
            warnings.warn(
                "no alpha given: labels are taken at their word, nothing is debiased; pass alpha=",
                TruemorphWarning,
                stacklevel=2,
            )
            alpha = np.ones(y.size)
            transition: Transition = MatrixTransition.identity(self.classes_.size)
        else:
            alpha = as_resolution(np.asarray(alpha, dtype=np.float64))
            if alpha.size != y.size or not np.all(np.isfinite(alpha)):
                raise InputError(f"alpha needs one finite value a galaxy; got {alpha.size} for {y.size}")
            transition, names = self._start(alpha)
            if not np.array_equal(self.classes_, np.arange(transition.n_classes)):
                raise InputError(
                    f"with alpha, labels must be the integers 0 to {transition.n_classes - 1} "
                    f"(0 = smooth, 1 = disk); got {self.classes_.tolist()}"
                )

        mean = np.average(X, axis=0, weights=weights)
        scale = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weights))
        scale = np.where(scale > 0, scale, 1.0)
        design = np.column_stack([(X - mean) / scale, np.ones(y.size)])
        coefficients = np.zeros((self.classes_.size - 1, design.shape[1]))
        previous = -np.inf
        self.n_iter_ = 0
        while self.n_iter_ < self.max_iter:
            self.n_iter_ += 1
            log_p = _log_probabilities(design, coefficients)
            total = float(np.average(label_log_likelihood(log_p, labels, alpha, transition), weights=weights))
            if total - previous < self.tol:
                break
            previous = total
            expected = posterior(np.exp(log_p), labels, alpha, transition)  # E step
            coefficients = self._regress(design, expected, weights, coefficients)  # M step
            transition = self._best_transition(transition, names, expected, labels, alpha, weights)
        coefficients, self.transition_ = self._finish(design, coefficients, transition, names, labels, alpha, weights)
        transition = self.transition_
        log_p = _log_probabilities(design, coefficients)
        self.log_likelihood_ = float(np.sum(weights * label_log_likelihood(log_p, labels, alpha, transition)))
        self.stderr_ = self._errors(design, coefficients, names, labels, alpha, weights)
        for name, error in self.stderr_.items():
            # Labels taken at their word: what T(α) has to beat.
            plain = self._regress(design, np.eye(self.classes_.size)[labels], weights, coefficients)
            at_their_word = _log_probabilities(design, plain)[np.arange(labels.size), labels]
            gain = self.log_likelihood_ - float(np.sum(weights * at_their_word))
            if gain < SIGNIFICANT_GAIN or not error < 0.5 * transition.parameters()[name]:
                warnings.warn(
                    f"{name} = {transition.parameters()[name]:.3g} ± {error:.2g}, log-likelihood {gain:.1f} above "
                    "labels taken at their word: these labels do not determine how they flip",
                    TruemorphWarning,
                    stacklevel=2,
                )
        raw = coefficients[:, :-1] / scale
        self.coef_ = np.vstack([np.zeros(X.shape[1]), raw])
        self.intercept_ = np.concatenate([[0.0], coefficients[:, -1] - raw @ mean])
        return self

    def _start(self, alpha: np.ndarray) -> tuple[Transition, tuple[str, ...]]:
        if self.transition is not None:
            return self.transition, ()
        family = FAMILIES.get(self.family)
        if family is None or not hasattr(family, "scale_free"):
            raise InputError(f"unknown family {self.family!r} to fit; try 'rayleigh'")
        if not np.any(alpha > 0):
            raise InputError("alpha is zero for every galaxy: T(alpha) can't be learned")
        middle = float(np.median(alpha[alpha > 0]))
        scales = {name: factor * middle for name, factor in family.scale_free.items()}
        return family(**scales), tuple(scales)

    def _finish(
        self,
        design: np.ndarray,
        coefficients: np.ndarray,
        transition: Transition,
        names: tuple[str, ...],
        labels: np.ndarray,
        alpha: np.ndarray,
        weights: np.ndarray,
    ) -> tuple[np.ndarray, Transition]:
        """Climb from where EM stopped to the maximum of the penalised likelihood of the labels."""
        family, fixed, n = type(transition), transition.parameters(), weights.sum()

        def moved(log_scales: np.ndarray) -> Transition:
            return family(**{**fixed, **dict(zip(names, np.exp(log_scales).tolist(), strict=True))})

        def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
            log_scales, at = point[: len(names)], point[len(names) :].reshape(coefficients.shape)
            log_p = _log_probabilities(design, at)
            now = moved(log_scales) if names else transition
            penalised = at.copy()
            penalised[:, -1] = 0.0
            value = 0.5 / self.C * np.sum(penalised**2)
            value -= np.sum(weights * label_log_likelihood(log_p, labels, alpha, now))
            # d log p(ỹ | x, α) / d logit_k = p(k | x, ỹ, α) - p(k | x)
            residual = weights[:, None] * (np.exp(log_p) - posterior(np.exp(log_p), labels, alpha, now))[:, 1:]
            slopes = []
            for shift in np.eye(len(names)) * 1e-5:
                up, down = (
                    np.sum(weights * label_log_likelihood(log_p, labels, alpha, moved(log_scales + s)))
                    for s in (shift, -shift)
                )
                slopes.append((down - up) / 2e-5)
            gradient = np.concatenate([slopes, (residual.T @ design + penalised / self.C).ravel()])
            return value / n, gradient / n

        start = np.concatenate([np.log([fixed[name] for name in names]), coefficients.ravel()])
        bounds = [_log_bounds(alpha)] * len(names) + [(None, None)] * coefficients.size
        best = minimize(
            objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-13, "gtol": 1e-8}
        ).x
        scales = best[: len(names)]
        return best[len(names) :].reshape(coefficients.shape), moved(scales) if names else transition

    def _regress(self, design: np.ndarray, expected: np.ndarray, weights: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Weighted multinomial regression on soft labels, ridge on all but the intercept."""
        n = weights.sum()

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            coefficients = flat.reshape(start.shape)
            log_p = _log_probabilities(design, coefficients)
            penalised = coefficients.copy()
            penalised[:, -1] = 0.0
            value = -np.sum(weights[:, None] * expected * log_p) + 0.5 / self.C * np.sum(penalised**2)
            residual = weights[:, None] * (np.exp(log_p) - expected)[:, 1:]
            return value / n, (residual.T @ design + penalised / self.C).ravel() / n

        return minimize(objective, start.ravel(), jac=True, method="L-BFGS-B").x.reshape(start.shape)

    @staticmethod
    def _best_transition(
        transition: Transition,
        names: tuple[str, ...],
        expected: np.ndarray,
        labels: np.ndarray,
        alpha: np.ndarray,
        weights: np.ndarray,
    ) -> Transition:
        """T's parameters that maximise the expected log-probability of the labels."""
        if not names:
            return transition
        family, fixed = type(transition), transition.parameters()
        rows = np.arange(labels.size)

        def objective(log_scales: np.ndarray) -> float:
            moved = family(**{**fixed, **dict(zip(names, np.exp(log_scales).tolist(), strict=True))})
            log_t = moved.log_matrix(alpha)[rows, :, labels]
            terms = np.where(expected > 0, expected * np.where(expected > 0, log_t, 0.0), 0.0)
            return -float(np.average(terms.sum(axis=1), weights=weights))

        start = np.log([fixed[name] for name in names])
        bounds = [_log_bounds(alpha)] * len(names)
        best = np.exp(minimize(objective, start, method="L-BFGS-B", bounds=bounds).x).tolist()
        return family(**{**fixed, **dict(zip(names, best, strict=True))})

    def _errors(
        self,
        design: np.ndarray,
        coefficients: np.ndarray,
        names: tuple[str, ...],
        labels: np.ndarray,
        alpha: np.ndarray,
        weights: np.ndarray,
    ) -> dict[str, float]:
        """Standard errors of T's parameters from the observed information of all parameters."""
        if not names:
            return {}
        family, fixed = type(self.transition_), self.transition_.parameters()

        def terms(point: np.ndarray) -> np.ndarray:
            scales = dict(zip(names, np.exp(point[: len(names)]).tolist(), strict=True))
            log_p = _log_probabilities(design, point[len(names) :].reshape(coefficients.shape))
            return weights * label_log_likelihood(log_p, labels, alpha, family(**{**fixed, **scales}))

        point = np.concatenate([np.log([fixed[name] for name in names]), coefficients.ravel()])
        information = -_hessian(lambda at: float(terms(at).sum()), point)
        ridge = np.zeros_like(coefficients)
        ridge[:, :-1] = 1 / self.C
        information += np.diag(np.concatenate([np.zeros(len(names)), ridge.ravel()]))
        try:
            covariance = np.linalg.inv(information)
        except np.linalg.LinAlgError:
            covariance = np.full_like(information, np.nan)
        if np.ptp(weights) > 0:  # sampling weights: the sandwich
            step = 1e-4
            scores = np.stack([(terms(point + s) - terms(point - s)) / (2 * step) for s in np.eye(point.size) * step])
            covariance = covariance @ (scores @ scores.T) @ covariance
        variance = np.diag(covariance)[: len(names)]
        errors = np.sqrt(np.where(variance > 0, variance, np.nan))
        return {name: float(fixed[name] * error) for name, error in zip(names, errors, strict=True)}

    def predict_proba(self, X: Any) -> np.ndarray:
        """p(y | x) of the true class, shape (N, K)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        return softmax(X @ self.coef_.T + self.intercept_, axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Most probable true class, shape (N,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[np.argmax(probabilities, axis=1)]


def _log_bounds(alpha: np.ndarray) -> tuple[float, float]:
    """Range in which a scale of T(α) is looked for: no data speak of scales far outside the α seen."""
    return float(np.log(alpha[alpha > 0].min() * 0.1)), float(np.log(alpha.max() * 5))


def _log_probabilities(design: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    scores = design @ coefficients.T
    return log_softmax(np.column_stack([np.zeros(scores.shape[0]), scores]), axis=1)


def _hessian(function: Callable[[np.ndarray], float], point: np.ndarray) -> np.ndarray:
    """Second central differences, shape (P, P)."""
    n, step = point.size, 1e-3
    shifts = np.eye(n) * step
    hessian = np.empty((n, n))
    for i in range(n):
        for j in range(i, n):
            corners = (
                function(point + shifts[i] + shifts[j])
                - function(point + shifts[i] - shifts[j])
                - function(point - shifts[i] + shifts[j])
                + function(point - shifts[i] - shifts[j])
            )
            hessian[i, j] = hessian[j, i] = corners / (4 * step**2)
    return hessian
