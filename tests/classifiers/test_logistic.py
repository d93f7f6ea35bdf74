"""DCV14: scikit-learn conventions, recovered truth, and agreement with direct maximisation."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from conftest import flipped_labels
from truemorph import DebiasedLogisticRegression, RayleighTransition, fit_transition
from truemorph.bias.likelihood import label_evidence
from truemorph.findings import FindingWarning

THETA = 10.0


@parametrize_with_checks([DebiasedLogisticRegression()])
@pytest.mark.filterwarnings("ignore::truemorph.findings.FindingWarning")
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


def flipped_catalogue(n, seed):
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.normal(2.5, 1.0, n), rng.uniform(0, 0.7, n)])  # Sérsic index, ellipticity
    alpha = rng.lognormal(2.3, 0.45, n)
    p_disk = 1 / (1 + np.exp(2.0 * (X[:, 0] - 2.5) - 1.5 * (X[:, 1] - 0.35)))
    truth = (rng.random(n) < p_disk).astype(int)
    labels = np.where(rng.random(n) < np.exp(-(alpha**2) / (2 * THETA**2)), 0, truth)
    return X, alpha, truth, labels


def test_recovers_coefficients_and_theta():
    X, alpha, truth, labels = flipped_catalogue(20_000, seed=1)
    model = DebiasedLogisticRegression(C=1e6).fit(X, labels, alpha=alpha)
    assert abs(model.transition_.theta - THETA) < 3.5 * model.stderr_["theta"]
    ideal = LogisticRegression(C=1e6).fit(X, truth)
    # A fit to true labels of 20,000 galaxies has errors of about 0.05; these are larger.
    np.testing.assert_allclose(model.coef_, ideal.coef_, atol=0.25)
    assert model.intercept_.shape == ideal.intercept_.shape
    assert model.findings_ == ()
    naive = LogisticRegression(C=1e6).fit(X, labels)
    assert model.score(X, truth) > naive.score(X, truth) + 0.1


def test_the_fit_agrees_with_direct_maximisation():
    X, alpha, _, labels = flipped_catalogue(3_000, seed=2)
    model = DebiasedLogisticRegression(C=1e8).fit(X, labels, alpha=alpha)

    def negative_log_likelihood(point):
        p_disk = 1 / (1 + np.exp(-(X @ point[:2] + point[2])))
        seen = p_disk * -np.expm1(-(alpha**2) / (2 * np.exp(2 * point[3])))
        return -np.sum(np.where(labels == 1, np.log(seen), np.log1p(-seen)))

    direct = minimize(negative_log_likelihood, [0, 0, 0, np.log(8.0)], method="BFGS", options={"gtol": 1e-4})
    assert model.log_likelihood_ == pytest.approx(-direct.fun, abs=0.01)
    assert model.transition_.theta == pytest.approx(np.exp(direct.x[3]), rel=0.002)
    # BFGS knows the curvature to a few per cent.
    assert model.stderr_["theta"] == pytest.approx(np.exp(direct.x[3]) * np.sqrt(direct.hess_inv[3, 3]), rel=0.1)


def test_a_constant_column_has_no_coefficient_with_weights_either():
    X, alpha, _, labels = flipped_catalogue(3_000, seed=3)
    weights = np.random.default_rng(3).uniform(0.5, 2.0, len(X))
    constant = np.column_stack([X, np.full(len(X), 0.1)])
    with_it, without = (
        DebiasedLogisticRegression().fit(columns, labels, alpha=alpha, sample_weight=weights)
        for columns in (constant, X)
    )
    np.testing.assert_allclose(with_it.coef_, [[*without.coef_[0], 0.0]], atol=1e-6)
    np.testing.assert_allclose(with_it.intercept_, without.intercept_, atol=1e-6)


@pytest.mark.slow
def test_without_features_the_result_is_that_of_fit_transition():
    labels, alpha, _ = flipped_labels(50_000, seed=1)
    model = DebiasedLogisticRegression().fit(np.zeros((labels.size, 1)), labels, alpha=alpha)
    fit = fit_transition(labels, alpha)
    assert model.transition_.theta == pytest.approx(fit.transition.theta, abs=0.05 * fit.stderr["theta"])
    assert model.stderr_["theta"] == pytest.approx(fit.stderr["theta"], rel=0.02)
    assert model.predict_proba([[0.0]])[0, 1] == pytest.approx(fit.class_fractions[1], abs=0.001)


def test_labels_that_do_not_constrain_theta_give_a_finding():
    rng = np.random.default_rng(7)
    with pytest.warns(FindingWarning) as given:
        model = DebiasedLogisticRegression().fit(
            rng.normal(size=(400, 1)), rng.integers(0, 2, 400), alpha=rng.lognormal(3, 0.2, 400)
        )
    assert [finding.code for finding in model.findings_] == ["transition-undetermined"]
    assert [one.message.finding for one in given] == list(model.findings_)


@pytest.mark.filterwarnings("ignore::truemorph.findings.FindingWarning")
def test_without_alpha_it_is_logistic_regression_with_a_finding():
    X, _, truth, _ = flipped_catalogue(2_000, seed=4)
    model = DebiasedLogisticRegression(C=1e6).fit(X, truth)
    assert [finding.code for finding in model.findings_] == ["labels-treated-as-correct"]
    plain = LogisticRegression(C=1e6).fit(X, truth)
    np.testing.assert_allclose(model.predict_proba(X), plain.predict_proba(X), atol=2e-3)


def test_evidence_of_labels_gives_the_same_fit_as_the_labels():
    X, alpha, _, labels = flipped_catalogue(3_000, seed=2)
    transition = RayleighTransition(9.0)
    of_labels = DebiasedLogisticRegression(transition=transition).fit(X, labels, alpha=alpha)
    evidence = label_evidence(transition, labels, alpha)
    of_evidence = DebiasedLogisticRegression().fit(X, None, evidence=evidence)
    np.testing.assert_allclose(of_evidence.predict_proba(X), of_labels.predict_proba(X), atol=1e-6)
    assert of_evidence.log_likelihood_ == pytest.approx(of_labels.log_likelihood_)
