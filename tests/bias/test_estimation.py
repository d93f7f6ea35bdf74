"""T(α) from labels: recovered truth, errors that equal the scatter, and findings if the data do not constrain it."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import truemorph as tm
from conftest import codes, confounded_labels, flipped_labels, labels_through, some_known
from truemorph import (
    FiskTransition,
    LogisticTransition,
    MatrixTransition,
    RayleighTransition,
    WeibullTransition,
    fit_transition,
)
from truemorph.bias.estimate import make_estimate
from truemorph.bias.fitting import with_bootstrap_errors
from truemorph.bias.regression.maximum import follow
from truemorph.bias.result import Settings
from truemorph.bias.sample import Sample, explained_variance
from truemorph.errors import InputError
from truemorph.simulate import observed_labels, simulate_galaxies

THETA = 11.25
TRUE = {
    "rayleigh": RayleighTransition(THETA),
    "weibull": WeibullTransition(15.9, 1.5),
    "fisk": FiskTransition(11.25, 2.2),
}


@pytest.mark.parametrize(
    ("method", "family", "n"),
    [
        ("likelihood", "rayleigh", 4_000),
        ("binned", "rayleigh", 4_000),
        pytest.param("likelihood", "weibull", 20_000, marks=pytest.mark.slow),
        pytest.param("likelihood", "fisk", 20_000, marks=pytest.mark.slow),
    ],
)
def test_parameters_and_fractions_are_recovered_with_correct_errors(method, family, n):
    truth, pulls = TRUE[family], []
    for seed in range(40):
        labels, alpha, _ = labels_through(truth, n, seed)
        fit = fit_transition(labels, alpha, family, method, 60, delta=None)
        pull = [(fit.values[name] - getattr(truth, name)) / fit.stderr[name] for name in fit.values]
        pulls.append([*pull, (fit.class_fractions[1] - 0.7) / fit.stderr["disk_fraction"]])
    # The mean of 40 pulls has an error of 0.16, their scatter 0.11; 60 bins bias the binned method by half a sigma.
    assert np.all(np.abs(np.mean(pulls, axis=0)) < (0.48 if method == "likelihood" else 1.1))
    assert np.all(np.abs(np.std(pulls, axis=0, ddof=1) - 1) < 0.33)


def test_the_papers_bins_agree_with_likelihood_and_few_bins_do_not():
    # The paper's number, 97,600 galaxies: 1525 bins of 64.
    labels, alpha, _ = flipped_labels(97_600, seed=11)
    likelihood = fit_transition(labels, alpha, delta=None)
    paper = fit_transition(labels, alpha, method="binned", delta=None)
    few = fit_transition(labels, alpha, method="binned", bins=50, delta=None)
    assert abs(paper.transition.theta - likelihood.transition.theta) < 0.25
    assert abs(likelihood.transition.theta - THETA) < 4 * likelihood.stderr["theta"]
    # The midpoint of the wide last bin biases theta: 10.21 ± 0.09 over many samples.
    assert few.transition.theta == pytest.approx(10.21, abs=4 * 0.11)


def test_the_likelihood_is_at_its_maximum_for_all_rows():
    """The maximisation starts on grouped rows and ends on all rows."""
    labels, alpha, _ = flipped_labels(50_000, seed=7)
    fit = fit_transition(labels, alpha, delta=None)

    def log_likelihood(theta, disk):
        seen = disk * -np.expm1(-(alpha**2) / (2 * theta**2))
        return np.sum(np.where(labels == 1, np.log(seen), np.log1p(-seen)))

    theta, disk, step = fit.values["theta"], fit.class_fractions[1], 1e-4
    assert fit.log_likelihood == pytest.approx(log_likelihood(theta, disk))
    assert fit.aic == pytest.approx(4 - 2 * fit.log_likelihood)
    # Gradient × error² is the distance to the maximum: at most a hundredth of the error.
    of_theta = (log_likelihood(theta + step, disk) - log_likelihood(theta - step, disk)) / (2 * step)
    of_disk = (log_likelihood(theta, disk + step) - log_likelihood(theta, disk - step)) / (2 * step)
    assert abs(of_theta) * fit.stderr["theta"] < 0.01
    assert abs(of_disk) * fit.stderr["disk_fraction"] < 0.01


@pytest.mark.parametrize(("family", "known"), [("rayleigh", 0.0), pytest.param("weibull", 0.2, marks=pytest.mark.slow)])
def test_the_standard_error_equals_the_bootstrap_scatter(family, known):
    labels, alpha, truth = labels_through(TRUE[family], 3_000, seed=5)
    fit = fit_transition(labels, alpha, family, gold=some_known(truth, known, 4) if known else None, delta=None)
    again = with_bootstrap_errors(fit, 60)
    for name in fit.values:
        # The scatter of 60 values has an error of 9 %; three and a half of those.
        assert again.stderr[name] == pytest.approx(fit.stderr[name], rel=0.32)


@pytest.mark.slow
def test_the_range_given_intrinsic_columns_spans_trends_at_fixed_columns():
    """In a population like a survey's, where luminosity and size do not explain all of the trend of class with α."""
    galaxies = simulate_galaxies(4_000, 4)
    truth, alpha = galaxies["truth"].to_numpy(), galaxies["alpha"].to_numpy()
    labels = observed_labels(truth, alpha, RayleighTransition(THETA), 4)
    columns = galaxies.select("radius_kpc", "M_r", "redshift").to_numpy()
    fit = fit_transition(labels, alpha, intrinsic=columns)
    low, high = fit.fraction_range["disk"]
    assert low < truth.mean() < high
    assert "flat-fractions-assumed" in codes(fit)
    # Columns that predict the class leave less to assume than labels alone do.
    alone = fit_transition(labels, alpha).fraction_range["disk"]
    assert high - low < alone[1] - alone[0]


@pytest.mark.slow
def test_a_disk_fraction_of_one_at_high_alpha_is_in_the_range_with_smaller_ones():
    labels, alpha, _ = flipped_labels(3_000, seed=9, smooth=0.0, median=6)
    fit = fit_transition(labels, alpha)
    assert abs(fit.transition.theta - THETA) < 4 * fit.stderr["theta"]
    # The error comes from the likelihood; alternatives at the bound stay in the range.
    assert 0 < fit.stderr["disk_fraction"] < 0.2
    low, high = fit.fraction_range["disk"]
    assert low < 1 - 1.9 * fit.stderr["disk_fraction"]
    assert high == 1
    assert len(fit.drift.alternatives) >= 21


def test_the_error_at_a_bound_is_that_of_the_likelihood():
    """1.96 errors below a disk fraction of 1, the log-likelihood, maximised over θ, is lower by 1.92."""
    labels, alpha, _ = flipped_labels(400, seed=2, smooth=0.0, median=6)
    fit = fit_transition(labels, alpha, delta=None)

    def loss(fraction):
        def minus(log_theta):
            p = fraction * (1 - np.exp(-((alpha / np.exp(log_theta)) ** 2) / 2))
            return -np.sum(np.log(np.where(labels == 1, p, 1 - p)))

        return minimize_scalar(minus, bounds=(0, 5), method="bounded", options={"xatol": 1e-8}).fun

    limit = 1 - 1.96 * fit.stderr["disk_fraction"]
    assert loss(limit) - loss(1 - 1e-4) == pytest.approx(1.92, abs=0.15)


@pytest.mark.parametrize(("drift", "gold", "code"), [(-0.4, 300, "assumed"), (0.0, 2_000, "tested")])
def test_gold_labels_that_are_only_shown_settle_flat_fractions_if_they_exclude_a_change(drift, gold, code):
    """In the first they show a change of 0.117 ± 0.048, which is not significant, but not excluded either."""
    catalogue = tm.simulate_catalogue(10_000, drift=drift, gold=gold, seed=11)
    found = codes(tm.estimate_transition(catalogue, compare=False))
    assert {one for one in found if one.startswith("flat-fractions")} == {f"flat-fractions-{code}"}


@pytest.mark.slow
def test_the_monotone_family_prints_one_range():
    labels, alpha, _ = flipped_labels(2_000, seed=4, median=12)
    study = make_estimate(Sample.of(labels, alpha), Settings(family="monotone"), compare=False, bootstrap=5)
    message = next(finding.message for finding in study.findings if finding.code == "flat-fractions-assumed")
    for limit in study.fraction_range["disk"]:
        assert f"{limit:.2f}" in message


@pytest.mark.slow
def test_fractions_and_probabilities_given_intrinsic_columns_agree_with_the_truth():
    labels, alpha, truth, columns = confounded_labels(20_000, 5)
    rng = np.random.default_rng(5)
    kept = rng.random(labels.size) < np.where(labels == 0, 0.3, 0.9)
    weights = np.where(labels == 0, 3.0, 1 / 0.9)[kept]
    fit = fit_transition(labels[kept], alpha[kept], intrinsic=columns[kept], weights=weights)
    without = fit_transition(labels, alpha, delta=None)
    assert without.values["theta"] - THETA > 4 * without.stderr["theta"]
    assert abs(fit.values["theta"] - THETA) < 4 * fit.stderr["theta"]
    assert abs(fit.class_fractions[1] - truth.mean()) < 4 * fit.stderr["disk_fraction"]
    p = fit.probabilities[:, 1]
    for part in np.array_split(np.argsort(p), 4):
        both = np.average(p[part], weights=weights[part]), np.average(truth[kept][part], weights=weights[part])
        assert abs(both[0] - both[1]) < 4 * fit.stderr["disk_fraction"] + 0.02


def test_columns_that_determine_alpha_raise_an_error():
    labels, alpha, _, columns = confounded_labels(6_000, 6)
    at_one_psf = 10 ** columns[:, 1] / columns[:, 2] / 11
    assert explained_variance(np.log(at_one_psf), columns) > 0.999
    for fitted in (fit_transition, tm.compare_families, tm.confounding_check):
        with pytest.raises(InputError, match="alpha"):
            fitted(labels, at_one_psf, intrinsic=columns)
    assert explained_variance(np.log(alpha), np.random.default_rng(0).normal(size=(6_000, 2))) < 0.05


def test_the_matrix_of_gold_rows_alone_is_their_confusion_matrix():
    t = MatrixTransition(((0.8, 0.15, 0.05), (0.2, 0.7, 0.1), (0.1, 0.1, 0.8)))
    truth, alpha = np.random.default_rng(0).integers(0, 3, 5_000), np.ones(5_000)
    labels = observed_labels(truth, alpha, t)
    fit = fit_transition(labels, alpha, "matrix", gold=truth)
    counts = np.zeros((3, 3))
    np.add.at(counts, (truth, labels), 1)
    np.testing.assert_allclose(fit.transition.values, counts / counts.sum(axis=1, keepdims=True), atol=2e-4)


def test_the_monotone_family_from_labels_alone_has_no_flips_at_the_best_resolution():
    labels, alpha, _ = labels_through(RayleighTransition(8.0), 20_000, 3, median=16.8)
    fit = fit_transition(labels, alpha, "monotone", delta=None)
    assert fit.transition.flip[-1] == 0
    assert fit.class_fractions[1] == pytest.approx(0.7, abs=0.02)


def test_false_disks_are_fitted_if_gold_labels_have_them():
    labels, alpha, classes = labels_through(RayleighTransition(THETA, false_disk=0.06), 30_000, 5)
    fit = fit_transition(labels, alpha, "rayleigh", gold=some_known(classes, 0.2, 5))
    assert abs(fit.values["false_disk"] - 0.06) < 4 * fit.stderr["false_disk"]
    assert abs(fit.values["theta"] - THETA) < 4 * fit.stderr["theta"]
    from_labels = fit_transition(labels, alpha, false_disk="fit", delta=None)
    assert abs(from_labels.values["false_disk"] - 0.06) < 4 * from_labels.stderr["false_disk"]


@pytest.mark.slow
def test_k_classes_and_two_observables_in_one_logistic_transition():
    nan = [float("nan")] * 3
    true = LogisticTransition(
        [[[0, 0, 0], nan, nan], [[0.2, -1.0, 0.5], [0, 0, 0], nan], [[-1.0, -0.8, 0.2], [-1.5, 0.0, 0.3], [0, 0, 0]]],
        center=(2.5, 22.0), scale=(0.5, 1.0),
    )  # fmt: skip
    rng = np.random.default_rng(6)
    n = 6_000
    observables = np.column_stack([rng.lognormal(2.5, 0.5, n), rng.normal(22, 1, n)])
    truth = rng.choice(3, n, p=[0.3, 0.5, 0.2])
    labels = observed_labels(truth, observables, true)
    fit = fit_transition(labels, observables[:, 0], gold=some_known(truth, 0.5, 6), observables=observables[:, 1])
    assert len(fit.values) == 9
    # Draws of the fit scatter around it as it scatters around the truth; labels that never occur are exact.
    drawn = np.array([draw.matrix(observables) for draw in fit.draws(30)])
    off = (fit.transition.matrix(observables) - true.matrix(observables)) / np.maximum(drawn.std(axis=0), 1e-9)
    assert 0.3 < np.sqrt(np.mean(off[:, 1:, 0] ** 2)) < 2.5
    assert np.all(off[:, 0] == 0)
    np.testing.assert_allclose(fit.class_fractions, [0.3, 0.5, 0.2], atol=4 * fit.stderr["fraction_1"])
    assert list(fit.to_dict()["class_fractions"]) == ["0", "1", "2"]


@pytest.mark.parametrize("curvature", [1.0, 1e-4])
def test_a_maximum_nearby_is_found_whether_the_given_curvature_leads_there_or_beyond_it(curvature):
    """The second leads so far beyond it that Newton's method ends where it began."""
    top = np.array([1.0, -2.0])

    def objective(point):
        height = np.sqrt(1 + (point - top) ** 2)
        return -height.sum(), (top - point) / height

    far = np.full(2, 20.0)
    found = follow(objective, top + np.array([0.3, -0.2]), curvature * np.eye(2), (-far, far), 1.0)
    np.testing.assert_allclose(found, top, atol=2e-4)
