"""θ from labels: recovered truth, correct errors, and findings if the data do not constrain it."""

import numpy as np
import pytest

from conftest import codes, flipped_labels
from truemorph.bias.estimation import fit_transition
from truemorph.catalogs.sampling import draw_sample, sampling_weights
from truemorph.errors import InputError

THETA = 11.25


@pytest.mark.parametrize("method", ["likelihood", "binned"])
def test_theta_and_fractions_are_recovered_with_correct_errors(method):
    fits = [
        fit_transition(*flipped_labels(4_000, seed, median=12)[:2], method=method, bins=60, delta=None)
        for seed in range(40)
    ]
    for name, estimates, true in (
        ("theta", [fit.transition.theta for fit in fits], THETA),
        ("disk_fraction", [fit.class_fractions[1] for fit in fits], 0.75),
    ):
        pulls = (np.array(estimates) - true) / [fit.stderr[name] for fit in fits]
        # The mean of 40 pulls has an error of 0.16, their scatter 0.11; 60 bins bias the binned method by half a sigma.
        assert abs(pulls.mean()) < (0.55 if method == "likelihood" else 1.1)
        assert 0.65 < pulls.std(ddof=1) < 1.35


def test_the_papers_bins_agree_with_likelihood_and_few_bins_do_not():
    # The paper's number, 97,600 galaxies: 1525 bins of 64.
    labels, alpha, _ = flipped_labels(97_600, seed=11)
    likelihood = fit_transition(labels, alpha)
    paper = fit_transition(labels, alpha, method="binned")
    few = fit_transition(labels, alpha, method="binned", bins=50)
    assert abs(paper.transition.theta - likelihood.transition.theta) < 0.25
    assert abs(likelihood.transition.theta - THETA) < 4 * likelihood.stderr["theta"]
    # The midpoint of the wide last bin biases theta: 10.21 ± 0.09 over many samples.
    assert few.transition.theta == pytest.approx(10.21, abs=4 * 0.11)


def test_the_standard_error_equals_the_bootstrap_scatter():
    labels, alpha, _ = flipped_labels(3_000, seed=5, median=12)
    fit = fit_transition(labels, alpha)
    rng = np.random.default_rng(0)
    again = []
    for _ in range(60):
        rows = rng.integers(0, labels.size, labels.size)
        again.append(fit_transition(labels[rows], alpha[rows], delta=None).transition.theta)
    # The scatter of 60 values has an error of 9 %; three and a half of those.
    assert np.std(again, ddof=1) == pytest.approx(fit.stderr["theta"], rel=0.32)


def test_weights_correct_for_a_sample_balanced_by_label():
    labels, alpha, _ = flipped_labels(40_000, seed=6, median=12, smooth=0.6)
    chosen, _ = draw_sample(labels, range(labels.size), "balanced", seed=1)
    weights = sampling_weights(labels, chosen)[chosen]
    weighted = fit_transition(labels[chosen], alpha[chosen], weights=weights)
    plain = fit_transition(labels[chosen], alpha[chosen])
    assert abs(weighted.transition.theta - THETA) < 3.5 * weighted.stderr["theta"]
    assert abs(weighted.class_fractions[1] - 0.4) < 3.5 * weighted.stderr["disk_fraction"]
    assert abs(plain.class_fractions[1] - 0.4) > 10 * plain.stderr["disk_fraction"]


def test_the_likelihood_is_at_its_maximum():
    labels, alpha, _ = flipped_labels(5_000, seed=7)
    fit = fit_transition(labels, alpha)

    def log_likelihood(theta, disk):
        seen = disk * -np.expm1(-(alpha**2) / (2 * theta**2))
        return np.sum(np.where(labels == 1, np.log(seen), np.log1p(-seen)))

    theta, disk = fit.transition.theta, fit.class_fractions[1]
    assert fit.log_likelihood == pytest.approx(log_likelihood(theta, disk))
    assert fit.aic == pytest.approx(4 - 2 * fit.log_likelihood)
    for change in (0.97, 1.03):
        assert log_likelihood(theta * change, disk) < fit.log_likelihood
        assert log_likelihood(theta, min(disk * change, 0.999)) < fit.log_likelihood


def test_labels_without_drift_give_a_finding():
    rng = np.random.default_rng(8)
    fit = fit_transition((rng.random(2_000) < 0.5).astype(int), rng.lognormal(3, 0.2, 2_000))
    assert "no-drift" in codes(fit)


def test_a_disk_fraction_of_one_at_high_alpha_gives_a_finding():
    labels, alpha, _ = flipped_labels(3_000, seed=9, smooth=0.0, median=6)
    fit = fit_transition(labels, alpha)
    assert "fraction-at-bound" in codes(fit)
    assert np.isfinite(fit.stderr["theta"])
    assert abs(fit.transition.theta - THETA) < 4 * fit.stderr["theta"]


def test_a_constant_alpha_gives_a_finding():
    labels, _, _ = flipped_labels(500, seed=10)
    fit = fit_transition(labels, np.full(500, 9.0))
    assert "alpha-constant" in codes(fit)


def test_the_plot_has_data_and_curve():
    labels, alpha, _ = flipped_labels(500, seed=12)
    axes = fit_transition(labels, alpha).plot()
    assert len(axes.lines) >= 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": np.zeros(10, int)}, "only smooth labels"),
        ({"alpha": np.ones(9)}, "one value per galaxy"),
        ({"alpha": np.r_[np.ones(9), np.nan]}, "row 9"),
        ({"alpha": np.r_[np.ones(9), np.inf]}, "finite"),
        ({"labels": np.r_[np.ones(9), 2]}, "row 9"),
        ({"family": "gauss"}, "families to fit"),
        ({"method": "guess"}, "method must be"),
        ({"weights": np.zeros(10)}, "weights must be positive"),
    ],
)
def test_invalid_input_raises_errors(change, says):
    good = {"labels": np.arange(10) % 2, "alpha": np.linspace(1, 20, 10)}
    with pytest.raises(InputError, match=says):
        fit_transition(**{**good, **change})


def test_the_scale_of_weights_has_no_effect():
    labels, alpha, _ = flipped_labels(3_000, seed=13, median=12)
    weights = np.random.default_rng(0).uniform(0.5, 2, 3_000)
    fits = [fit_transition(labels, alpha, weights=weights * scale) for scale in (1.0, 1e-4, 1e4)]
    for fit in fits[1:]:
        assert fit.transition.theta == pytest.approx(fits[0].transition.theta, rel=1e-4)
        assert fit.stderr["theta"] == pytest.approx(fits[0].stderr["theta"], rel=1e-3)
        assert codes(fit) == codes(fits[0]) == ["flat-fractions-assumed"]


def test_disk_labels_at_alpha_zero_give_a_finding():
    labels, alpha, _ = flipped_labels(2_000, seed=14, median=12)
    alpha[np.flatnonzero(labels == 1)[:3]] = 0.0
    assert codes(fit_transition(labels, alpha)) == ["flat-fractions-assumed", "disks-at-alpha-zero"]


def test_masked_alpha_raises_an_error():
    labels, alpha, _ = flipped_labels(100, seed=15)
    with pytest.raises(InputError, match="row 4"):
        fit_transition(labels, np.ma.array(alpha, mask=np.arange(100) == 4))
