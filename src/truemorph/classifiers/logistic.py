"""DCV14: logistic regression on catalogue features, fitted through T(α).

Source: Cabrera, Miller & Schneider 2014 (ICPR), as used in Medina-Rosales et al. (arXiv:2308.11007, section 2.3.1),
who maximise the likelihood of regression and T(α) by expectation-maximisation; here a quasi-Newton method is used.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from truemorph.bias.curves.families import family_of
from truemorph.bias.curves.formulas import MatrixTransition
from truemorph.bias.curves.transitions import FlipTransition, Search, Space, as_resolution
from truemorph.bias.files import load_transition
from truemorph.bias.likelihood import argument_of
from truemorph.bias.mixture import Mixture, MixtureFit, fit_mixture
from truemorph.bias.regression.maximum import differences
from truemorph.bias.result import SIGNIFICANT_GAIN
from truemorph.errors import InputError
from truemorph.findings import Finding, Findings, FindingWarning


class DebiasedLogisticRegression(ClassifierMixin, BaseEstimator):
    """Logistic regression for the true class, from labels that are biased with α (DCV14).

    Parameters
    ----------
    family : str or subclass of FlipTransition, default "rayleigh"
        Family of T(α); the parameters in its `free` are fitted together with the regression.
    transition : Transition, fit, path or dict, optional
        A fixed T(α) instead; `family` is then ignored.
    C : float, default 100.0
        Inverse strength of the ridge penalty on the coefficients of the standardised features.
    max_iter : int, default 500
        Maximum number of iterations.

    Attributes
    ----------
    classes_ : array, shape (K,)
    coef_ : array, shape (1, P), or (K, P) for K > 2 classes
    intercept_ : array, shape (1,) or (K,)
        Coefficients of the raw features, as those of scikit-learn's `LogisticRegression`. With more than two classes,
        class 0 is the reference (zero).
    transition_ : Transition
        Fitted T(α).
    stderr_ : dict of str to float
        Standard errors of T's fitted parameters, from the joint observed information of all parameters.
    log_likelihood_ : float
        Σ log p(ỹ | x, α).
    n_iter_ : int
        Number of iterations.
    findings_ : tuple of Finding
        Limitations of this fit; also issued as Python warnings.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, alpha = rng.normal(size=(4000, 1)), rng.lognormal(2.3, 0.5, 4000)
    >>> truth = rng.random(4000) < 1 / (1 + np.exp(-3 * X[:, 0]))
    >>> seen = truth & (rng.random(4000) > np.exp(-(alpha**2) / (2 * 9.0**2)))
    >>> model = DebiasedLogisticRegression().fit(X, seen.astype(int), alpha=alpha)
    >>> bool(abs(model.transition_.theta - 9.0) < 4 * model.stderr_["theta"])
    True
    """

    def __init__(
        self,
        family: str | type[FlipTransition] = "rayleigh",
        transition: Any = None,
        C: float = 100.0,
        max_iter: int = 500,
    ) -> None:
        self.family = family
        self.transition = transition
        self.C = C
        self.max_iter = max_iter

    def fit(
        self,
        X: Any,
        y: Any,
        alpha: Any = None,
        sample_weight: Any = None,
        observables: Any = None,
        evidence: Any = None,
    ) -> DebiasedLogisticRegression:
        """Fit the regression and T(α).

        Parameters
        ----------
        X : array, shape (N, P)
            Features of each galaxy, finite.
        y : array, shape (N,); or None with `evidence`
            Observed labels; integers 0, 1, … if α is given.
        alpha : array, shape (N,), optional
            Resolution. Without it the labels are treated as correct (plain logistic regression), with a finding.
        sample_weight : array, shape (N,), optional
            Sampling weights; they should have mean 1, or the standard errors are wrong.
        observables : array, shape (N,) or (N, J), optional
            Columns on which a fixed `transition` depends in addition to α. They may also be features.
        evidence : array, shape (N, K), optional
            log p(observed | class) of each galaxy, such as that of its votes, instead of labels, α and T(α).

        Raises
        ------
        InputError
            If α has the wrong length, is negative or missing, labels are not 0 and 1, or observables are given
            without a T(α) that uses them.
        """
        self.findings_: Findings = ()
        if evidence is None:
            X, y = validate_data(self, X, y, dtype=float)
            space, labels, alpha = self._observed(y, alpha, observables)
        else:
            X, evidence = validate_data(self, X, dtype=float), np.asarray(evidence, float)
            if evidence.shape[:1] != X.shape[:1] or evidence.ndim != 2:
                raise InputError(f"evidence must have shape ({len(X)}, K); got {evidence.shape}")
            self.classes_ = np.arange(evidence.shape[1])
            space, labels, alpha = _identity(evidence.shape[1]), evidence.argmax(axis=1), np.ones(len(X))
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        mean = np.average(X, axis=0, weights=weights)
        scale = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weights))
        scale = np.where(scale > 1e-12 * np.abs(mean), scale, 1.0)  # a mean of equal values may differ from them
        design = np.column_stack([np.ones(len(X)), (X - mean) / scale])
        mixture = Mixture(space, labels, alpha, weights, design, 1 / self.C, evidence=evidence)
        fitted = fit_mixture(mixture, steps=self.max_iter)
        self.transition_ = fitted.transition
        self.n_iter_, self.log_likelihood_ = fitted.maximum.steps, fitted.log_likelihood
        slopes = np.diag(differences(space.values, fitted.point_of_t)) if space.size else np.empty(0)
        errors = np.abs(slopes) * np.sqrt(np.diag(fitted.covariance)[: space.size])
        self.stderr_ = dict(zip(space.names, errors.tolist(), strict=True))
        self.coef_ = fitted.coefficients[:, 1:] / scale
        self.intercept_ = fitted.coefficients[:, 0] - self.coef_ @ mean
        if self.classes_.size > 2:
            of_classes = self.class_weights()
            self.coef_, self.intercept_ = of_classes["coef"], of_classes["intercept"]
        self.findings_ += tuple(_undetermined(fitted, self.stderr_))
        for finding in self.findings_:
            warnings.warn(FindingWarning(finding), stacklevel=2)
        return self

    def _observed(self, y: np.ndarray, alpha: Any, observables: Any) -> tuple[Space, np.ndarray, np.ndarray]:
        """Return the space of T(α), labels, and the argument of T; `findings_` says if there is no α."""
        check_classification_targets(y)
        self.classes_ = unique_labels(y)
        if self.classes_.size < 2:
            raise InputError(f"needs two classes, got one class only: {self.classes_[0]!r}")
        labels = np.searchsorted(self.classes_, y)
        if observables is not None and (alpha is None or self.transition is None):
            raise InputError("observables need alpha, and a T(alpha) that was fitted with them (`transition`)")
        if alpha is None:
            message = "No resolution was given, so the labels are treated as correct and no bias is removed."
            action = "Give the resolution of each galaxy (`alpha`)."
            self.findings_ = (Finding("labels-treated-as-correct", "caution", message, action),)
            return _identity(self.classes_.size), labels, np.ones(y.size)
        alpha = as_resolution(alpha)
        if alpha.size != y.size or not np.all(np.isfinite(alpha)):
            raise InputError(f"alpha needs one finite value per galaxy; got {alpha.size} for {y.size}")
        if self.transition is not None:
            transition = load_transition(self.transition)
            space, alpha = Space.fixed(transition), argument_of(transition, alpha, observables)
        elif not np.any(alpha > 0):
            raise InputError("alpha is zero for every galaxy, so T(alpha) can't be fitted; check the column")
        else:
            family = family_of(self.family)
            if not getattr(family, "free", None):
                raise InputError(f"{family.family} has no parameters that can be fitted with the regression")
            space = family.space(Search(alpha))
        if not np.array_equal(self.classes_, np.arange(space.n_classes)):
            raise InputError(
                f"with alpha, labels must be the integers 0 to {space.n_classes - 1}; got {self.classes_.tolist()}"
            )
        return space, labels, alpha

    def class_weights(self) -> dict[str, np.ndarray]:
        """Return `coef`, shape (K, P), and `intercept`, shape (K,), with a row for class 0, as in model files."""
        check_is_fitted(self)
        above = (self.classes_.size - len(self.coef_), 0)  # a row of zeros for class 0, if there is none
        return {"coef": np.pad(self.coef_, (above, (0, 0))), "intercept": np.pad(self.intercept_, above)}

    def predict_proba(self, X: Any) -> np.ndarray:
        """p(y | x) of the true class, shape (N, K)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=float)
        weights = self.class_weights()
        return softmax(X @ weights["coef"].T + weights["intercept"], axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Most probable true class, shape (N,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]


def _identity(n_classes: int) -> Space:
    """Return the space of labels that are correct."""
    return Space.fixed(MatrixTransition.identity(n_classes))


def _undetermined(fitted: MixtureFit, errors: dict[str, float]) -> Iterator[Finding]:
    """Return findings about parameters of T that labels hardly determine."""
    space = fitted.mixture.space
    if space.size == 0:
        return
    correct = fit_mixture(replace(fitted.mixture, space=_identity(space.n_classes)))  # the labels treated as correct
    gain = fitted.log_likelihood - correct.log_likelihood
    for name, value in zip(space.names, space.values(fitted.point_of_t).tolist(), strict=True):
        if gain < SIGNIFICANT_GAIN or not errors[name] < 0.5 * value:
            message = (
                f"The labels do not constrain {name} = {value:.3g} ± {errors[name]:.2g}: the log-likelihood is only "
                f"{gain:.1f} above that of labels treated as correct."
            )
            action = "Use more galaxies, or give a bias curve fitted with gold labels (`transition`)."
            yield Finding("transition-undetermined", "caution", message, action)
