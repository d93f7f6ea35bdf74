"""All families are recovered from simulated labels, with errors that equal the scatter."""

import numpy as np
import pytest

from conftest import codes, labels_through, some_known
from truemorph.bias.estimation import fit_transition
from truemorph.bias.transitions import (
    ConstantTransition,
    FiskTransition,
    LogisticTransition,
    MatrixTransition,
    RayleighTransition,
    WeibullTransition,
)
from truemorph.errors import InputError

N, SEEDS = 20_000, 40
TRUE = {
    "rayleigh": RayleighTransition(11.25),
    "weibull": WeibullTransition(15.9, 1.5),
    "fisk": FiskTransition(11.25, 2.2),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["likelihood", "gold"])
@pytest.mark.parametrize("family", ["rayleigh", "weibull", "fisk"])
def test_pulls_over_40_catalogues_of_20_000(family, method):
    """The mean of 40 pulls has an error of 0.16, their scatter 0.11: the limits are three times these."""
    truth = TRUE[family]
    pulls = []
    for seed in range(SEEDS):
        labels, alpha, classes = labels_through(truth, N, seed)
        # With few gold labels, the likelihood of Weibull's shape is skewed: with 400, its mean is half an error high.
        known = 0.1 if family == "weibull" else 0.02
        gold = some_known(classes, known, seed) if method == "gold" else None
        fit = fit_transition(labels, alpha, family, gold=gold)
        assert fit.method == method
        pull = [(fit.values[name] - getattr(truth, name)) / fit.stderr[name] for name in fit.values]
        pulls.append([*pull, (fit.class_fractions[1] - 0.7) / fit.stderr["disk_fraction"]])
    mean, spread = np.mean(pulls, axis=0), np.std(pulls, axis=0, ddof=1)
    assert np.all(np.abs(mean) < 0.48), mean
    assert np.all((spread > 0.67) & (spread < 1.33)), spread


@pytest.mark.slow
def test_matrix_and_constant_need_gold_labels():
    labels, alpha, classes = labels_through(ConstantTransition(0.3, 0.1), 4_000, 0)
    for family in ("matrix", "constant"):
        with pytest.raises(InputError, match="give gold labels"):
            fit_transition(labels, alpha, family)
    pulls = []
    for seed in range(60):
        labels, alpha, classes = labels_through(ConstantTransition(0.3, 0.1), 4_000, seed)
        gold = some_known(classes, 0.2, seed)
        matrix = fit_transition(labels, alpha, "matrix", gold=gold)
        constant = fit_transition(labels, alpha, "constant", gold=gold)
        assert constant.transition.flip == pytest.approx(matrix.transition.values[1][0], abs=1e-4)
        found = matrix.values["p(disk|smooth)"], matrix.values["p(smooth|disk)"]
        error = matrix.stderr["p(disk|smooth)"], matrix.stderr["p(smooth|disk)"]
        pulls.append((np.array(found) - (0.1, 0.3)) / error)
    # 60 pulls: the mean has an error of 0.13, the scatter 0.09.
    assert np.all(np.abs(np.mean(pulls, axis=0)) < 0.4)
    assert np.all(np.abs(np.std(pulls, axis=0, ddof=1) - 1) < 0.3)


def test_the_matrix_of_gold_rows_alone_is_their_confusion_matrix():
    t = MatrixTransition(((0.8, 0.15, 0.05), (0.2, 0.7, 0.1), (0.1, 0.1, 0.8)))
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 5_000)
    labels = (rng.random(5_000)[:, None] > np.cumsum(np.asarray(t.values)[truth], axis=1)).sum(axis=1)
    fit = fit_transition(labels, np.ones(5_000) + rng.random(5_000), "matrix", gold=truth)
    counts = np.zeros((3, 3))
    np.add.at(counts, (truth, labels), 1)
    np.testing.assert_allclose(fit.transition.values, counts / counts.sum(axis=1, keepdims=True), atol=2e-4)


@pytest.mark.slow
def test_the_monotone_family_fits_any_decreasing_curve():
    """With gold labels, every knot agrees with the true flip probability within bootstrap errors."""
    true = FiskTransition(14.0, 3.0)
    labels, alpha, classes = labels_through(true, 8_000, 1)
    fit = fit_transition(labels, alpha, "monotone", gold=some_known(classes, 0.5, 2), bootstrap=20)
    knots = np.array(fit.transition.knots)
    names = [name for name in fit.values if name.startswith("flip")]
    error = np.array([fit.stderr[name] for name in names])
    pulls = (np.array(fit.transition.flip) - true.flip_probability(knots)) / np.maximum(error, 0.004)
    # Linear interpolation of a curve has a small error in addition to the noise.
    assert np.sqrt(np.mean(pulls**2)) < 2
    assert np.all(np.isfinite(error))


def test_the_monotone_family_from_labels_alone_states_its_assumption():
    labels, alpha, _ = labels_through(RayleighTransition(8.0), 20_000, 3, median=16.8)
    fit = fit_transition(labels, alpha, "monotone")
    assert "best-resolved-unbiased-assumed" in codes(fit)
    assert fit.transition.flip[-1] == 0
    assert fit.class_fractions[1] == pytest.approx(0.7, abs=0.02)


@pytest.mark.slow
def test_bootstrap_agrees_with_the_curvature_of_the_joint_fit():
    labels, alpha, classes = labels_through(WeibullTransition(15.9, 1.5), 6_000, 4)
    fit = fit_transition(labels, alpha, "weibull", gold=some_known(classes, 0.2, 4))
    again = fit.bootstrap(60)
    for name in ("scale", "shape"):
        # The scatter of 60 values has an error of 9 %; three of those.
        assert np.std([one.values[name] for one in again], ddof=1) == pytest.approx(fit.stderr[name], rel=0.28)


def test_false_disks_are_fitted_if_gold_labels_have_them():
    true = RayleighTransition(11.25, false_disk=0.06)
    labels, alpha, classes = labels_through(true, 30_000, 5)
    fit = fit_transition(labels, alpha, gold=some_known(classes, 0.2, 5))
    assert abs(fit.values["false_disk"] - 0.06) < 4 * fit.stderr["false_disk"]
    assert abs(fit.values["theta"] - 11.25) < 4 * fit.stderr["theta"]
    from_labels = fit_transition(labels, alpha, false_disk="fit")
    assert abs(from_labels.values["false_disk"] - 0.06) < 4 * from_labels.stderr["false_disk"]
    assert fit_transition(labels, alpha, false_disk=0.06).transition.false_disk == 0.06


def test_k_classes_and_two_observables_in_one_logistic_transition():
    nan = [float("nan")] * 3
    true = LogisticTransition(
        [[[0, 0, 0], nan, nan], [[0.2, -1.0, 0.5], [0, 0, 0], nan], [[-1.0, -0.8, 0.2], [-1.5, 0.0, 0.3], [0, 0, 0]]],
        center=(2.5, 22.0), scale=(0.5, 1.0), log=(True, False),
    )  # fmt: skip
    rng = np.random.default_rng(6)
    n = 6_000
    observables = np.column_stack([rng.lognormal(2.5, 0.5, n), rng.normal(22, 1, n)])
    truth = rng.choice(3, n, p=[0.3, 0.5, 0.2])
    given = true.matrix(observables)[np.arange(n), truth]
    labels = (rng.random(n)[:, None] > np.cumsum(given, axis=1)).sum(axis=1)
    fit = fit_transition(labels, observables[:, 0], gold=some_known(truth, 0.5, 6), observables=observables[:, 1])
    assert list(fit.values) == [
        f"{s}|{y} {term}" for y, s in ((1, 0), (2, 0), (2, 1)) for term in ("intercept", "slope 0", "slope 1")
    ]  # flips without a gold row are assumed to be impossible
    # Coefficients of the fit are for columns standardised with its sample; convert the true ones.
    center, scale = np.array(fit.transition.center), np.array(fit.transition.scale)
    pulls = []
    for y, s in ((1, 0), (2, 0), (2, 1)):
        first, *slopes = true.coefficients[y][s]
        moved = np.array(slopes) / true.scale
        expected = [first + moved @ (center - true.center), *(moved * scale)]
        names = [f"{s}|{y} {term}" for term in ("intercept", "slope 0", "slope 1")]
        pulls += [(fit.values[name] - value) / fit.stderr[name] for name, value in zip(names, expected, strict=True)]
    assert np.max(np.abs(pulls)) < 4
    assert 0.4 < np.sqrt(np.mean(np.square(pulls))) < 1.7  # nine pulls: 1 ± 0.24
    np.testing.assert_allclose(fit.class_fractions, [0.3, 0.5, 0.2], atol=4 * fit.stderr["disk_fraction"])
    assert list(fit.to_dict()["class_fractions"]) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("gold", "says"),
    [
        (np.full(100, -1), "only 0 gold labels"),
        (np.ones(100), "no gold label of class 0"),
        (np.full(100, 0.5), "0 to 1, -1 if unknown"),
        (np.zeros(99), "one value per galaxy"),
        (np.array(["disk"] * 100), "must be integers"),
    ],
)
def test_invalid_gold_labels_raise_errors(gold, says):
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=says):
        fit_transition(rng.integers(0, 2, 100), rng.lognormal(2, 0.5, 100), gold=gold)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "gold"}, "pass gold="),
        ({"method": "conditional"}, "pass intrinsic="),
        ({"false_disk": 1.5}, "false_disk must be a probability"),
        ({"family": "rayleigh", "n_classes": 3}, "for two classes"),
        ({"family": "rayleigh", "observables": np.arange(100.0)}, 'several observables need family="logistic"'),
    ],
)
def test_incompatible_arguments_raise_errors(options, says):
    rng = np.random.default_rng(0)
    given = {"labels": rng.integers(0, 2, 100), "alpha": rng.lognormal(2, 0.5, 100), **options}
    with pytest.raises(InputError, match=says):
        fit_transition(**given)


def test_grouping_neighbours_does_not_change_the_estimate():
    """The maximisation starts on grouped rows and ends on all rows, with the result for all rows."""
    labels, alpha, _ = labels_through(RayleighTransition(11.25), 50_000, 10, median=7.5)
    fit = fit_transition(labels, alpha)

    def log_likelihood(theta, disk):
        seen = disk * -np.expm1(-(alpha**2) / (2 * theta**2))
        return np.sum(np.where(labels == 1, np.log(seen), np.log1p(-seen)))

    theta, disk, step = fit.values["theta"], fit.class_fractions[1], 1e-4
    slope = (log_likelihood(theta + step, disk) - log_likelihood(theta - step, disk)) / (2 * step)
    # Gradient × variance is the distance to the maximum: at most a hundredth of the error.
    assert abs(slope) * fit.stderr["theta"] < 0.01
