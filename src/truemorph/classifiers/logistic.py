"""DCV14: logistic regression on catalogue features, fitted through T(α).

Source: Cabrera, Miller & Schneider 2014 (ICPR), as used in Medina-Rosales et al. (arXiv:2308.11007, section 2.3.1),
who maximise the likelihood of regression and T(α) by expectation-maximisation; here a quasi-Newton method is used.
"""

from __future__ import annotations

import warnings
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
from truemorph.bias.mixture import Mixture, fit_mixture
from truemorph.bias.regression.maximum import differences
from truemorph.bias.result import SIGNIFICANT_GAIN
from truemorph.errors import InputError
from truemorph.findings import Finding, FindingWarning


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
        self, X: Any, y: Any, alpha: Any = None, sample_weight: Any = None, observables: Any = None
    ) -> DebiasedLogisticRegression:
        """Fit the regression and T(α).

        Parameters
        ----------
        X : array, shape (N, P)
            Features of each galaxy, finite.
        y : array, shape (N,)
            Observed labels; integers 0, 1, … if α is given.
        alpha : array, shape (N,), optional
            Resolution. Without it the labels are treated as correct (plain logistic regression), with a finding.
        sample_weight : array, shape (N,), optional
            Sampling weights; they should have mean 1, or the standard errors are wrong.
        observables : array, shape (N,) or (N, J), optional
            Columns on which a fixed `transition` depends in addition to α. They may also be features.

        Raises
        ------
        InputError
            If α has the wrong length, is negative or missing, labels are not 0 and 1, or observables are given
            without a T(α) that uses them.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_ = unique_labels(y)
        if self.classes_.size < 2:
            raise InputError(f"needs two classes, got one class only: {self.classes_[0]!r}")
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        labels, identity = np.searchsorted(self.classes_, y), MatrixTransition.identity(self.classes_.size)
        findings: list[Finding] = []
        if observables is not None and (alpha is None or self.transition is None):
            raise InputError("observables need alpha, and a T(alpha) that was fitted with them (`transition`)")
        if alpha is None:
            message = "No resolution was given, so the labels are treated as correct and no bias is removed."
            action = "Give the resolution of each galaxy (`alpha`)."
            findings.append(Finding("labels-treated-as-correct", "caution", message, action))
            alpha, space = np.ones(y.size), Space.fixed(identity)
        else:
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

        mean = np.average(X, axis=0, weights=weights)
        scale = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weights))
        scale = np.where(scale > 0, scale, 1.0)
        design = np.column_stack([np.ones(y.size), (X - mean) / scale])
        mixture = Mixture(space, labels, alpha, weights, design, 1 / self.C)
        fitted = fit_mixture(mixture, steps=self.max_iter)
        n = space.size
        self.transition_ = fitted.transition
        self.n_iter_, self.log_likelihood_ = fitted.maximum.steps, fitted.log_likelihood
        slopes = np.diag(differences(space.values, fitted.point_of_t)) if n else np.empty(0)
        errors = np.abs(slopes) * np.sqrt(np.diag(fitted.covariance)[:n])
        self.stderr_ = dict(zip(space.names, errors.tolist(), strict=True))
        if n:
            # Baseline: the labels treated as correct.
            gain = self.log_likelihood_ - fit_mixture(replace(mixture, space=Space.fixed(identity))).log_likelihood
            for name, value in zip(space.names, space.values(fitted.point_of_t).tolist(), strict=True):
                if gain < SIGNIFICANT_GAIN or not self.stderr_[name] < 0.5 * value:
                    message = (
                        f"The labels do not constrain {name} = {value:.3g} ± {self.stderr_[name]:.2g}: the "
                        f"log-likelihood is only {gain:.1f} above that of labels treated as correct."
                    )
                    action = "Use more galaxies, or give a bias curve fitted with gold labels (`transition`)."
                    findings.append(Finding("transition-undetermined", "caution", message, action))
        self.coef_ = fitted.coefficients[:, 1:] / scale
        self.intercept_ = fitted.coefficients[:, 0] - self.coef_ @ mean
        if self.classes_.size > 2:
            weights_of = self.class_weights()
            self.coef_, self.intercept_ = weights_of["coef"], weights_of["intercept"]
        self.findings_ = tuple(findings)
        for finding in findings:
            warnings.warn(FindingWarning(finding), stacklevel=2)
        return self

    def class_weights(self) -> dict[str, np.ndarray]:
        """Return `coef`, shape (K, P), and `intercept`, shape (K,), with a row for class 0, as in model files."""
        check_is_fitted(self)
        above = (self.classes_.size - len(self.coef_), 0)  # a row of zeros for class 0, if there is none
        return {"coef": np.pad(self.coef_, (above, (0, 0))), "intercept": np.pad(self.intercept_, above)}

    def predict_proba(self, X: Any) -> np.ndarray:
        """p(y | x) of the true class, shape (N, K)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        weights = self.class_weights()
        return softmax(X @ weights["coef"].T + weights["intercept"], axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Most probable true class, shape (N,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[np.argmax(probabilities, axis=1)]
