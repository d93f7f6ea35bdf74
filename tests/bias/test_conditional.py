"""Class fractions that depend on α through intrinsic properties: `conditional` is unbiased, `likelihood` is not."""

import numpy as np
import pytest

from conftest import codes, confounded_labels, flipped_labels
from truemorph.bias.estimation import fit_transition
from truemorph.bias.mixture import explained_variance
from truemorph.errors import InputError

THETA = 11.25


@pytest.mark.slow
def test_likelihood_is_biased_by_confounding_and_conditional_is_not():
    conditional, plain = [], []
    for seed in range(20):
        labels, alpha, _, columns = confounded_labels(20_000, seed)
        for pulls, options in ((conditional, {"intrinsic": columns}), (plain, {})):
            fit = fit_transition(labels, alpha, **options)
            pulls.append((fit.values["theta"] - THETA) / fit.stderr["theta"])
    # Twenty pulls: their mean has an error of 0.22, their scatter one of 0.16.
    assert abs(np.mean(conditional)) < 0.7
    assert 0.5 < np.std(conditional, ddof=1) < 1.5
    assert np.mean(plain) > 4


def test_fraction_and_probabilities_agree_with_the_truth():
    labels, alpha, truth, columns = confounded_labels(30_000, 1)
    fit = fit_transition(labels, alpha, intrinsic=columns)
    assert abs(fit.class_fractions[1] - truth.mean()) < 4 * fit.stderr["disk_fraction"]
    for part in np.array_split(np.argsort(fit.probabilities[:, 1]), 5):
        # Predicted fractions of 6,000 galaxies agree with the truth within the error of the fit.
        assert abs(fit.probabilities[part, 1].mean() - truth[part].mean()) < 4 * fit.stderr["disk_fraction"] + 0.02


def test_without_confounding_conditional_agrees_with_likelihood():
    labels, alpha, _ = flipped_labels(20_000, 2, median=12)
    noise = np.random.default_rng(0).normal(size=(20_000, 2))
    plain, conditional = fit_transition(labels, alpha), fit_transition(labels, alpha, intrinsic=noise)
    # Two columns of noise may change theta by a fraction of its error.
    assert conditional.values["theta"] == pytest.approx(plain.values["theta"], abs=0.3 * plain.stderr["theta"])
    assert conditional.stderr["theta"] == pytest.approx(plain.stderr["theta"], rel=0.1)


def test_weights_correct_for_a_balanced_sample():
    labels, alpha, truth, columns = confounded_labels(60_000, 5)
    rng = np.random.default_rng(5)
    kept = rng.random(labels.size) < np.where(labels == 0, 0.3, 0.9)
    weights = np.where(labels == 0, 3.0, 1 / 0.9)[kept]
    fit = fit_transition(labels[kept], alpha[kept], intrinsic=columns[kept], weights=weights)
    assert abs(fit.values["theta"] - THETA) < 4 * fit.stderr["theta"]
    assert abs(fit.class_fractions[1] - truth.mean()) < 4 * fit.stderr["disk_fraction"]


def test_columns_that_determine_alpha_raise_an_error_or_give_a_finding():
    labels, alpha, _, columns = confounded_labels(6_000, 6)
    fit = fit_transition(labels, alpha, intrinsic=columns)
    assert "columns-determine-alpha" in codes(fit)
    at_one_psf = 10 ** columns[:, 1] / columns[:, 2] / 11
    assert explained_variance(at_one_psf, columns) > 0.999
    with pytest.raises(InputError, match="determine alpha"):
        fit_transition(labels, at_one_psf, intrinsic=columns)
    assert explained_variance(alpha, np.random.default_rng(0).normal(size=(6_000, 2))) < 0.05


@pytest.mark.parametrize("at", range(3))
def test_a_constant_column_is_left_out_with_a_finding(at):
    labels, alpha, _, columns = confounded_labels(1_500, at)
    with_constant = np.insert(columns, at, 3.0, axis=1)
    fit = fit_transition(labels, alpha, intrinsic=with_constant)
    assert "column-constant" in codes(fit)
    assert fit.values == fit_transition(labels, alpha, intrinsic=columns).values


@pytest.mark.parametrize(
    ("intrinsic", "says"),
    [
        (np.ones(100), "all intrinsic columns are constant"),
        (np.r_[np.nan, np.arange(99.0)], "missing value .first: row 0"),
        (np.ones((99, 2)), r"shape \(100, P\)"),
    ],
)
def test_invalid_columns_raise_errors(intrinsic, says):
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=says):
        fit_transition(rng.integers(0, 2, 100), rng.lognormal(2, 0.5, 100), intrinsic=intrinsic)
