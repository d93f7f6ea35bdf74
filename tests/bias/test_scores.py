"""Scores: values for perfect and constant predictions."""

import numpy as np
import pytest

from truemorph import resolution_drift
from truemorph.bias.metrics.scores import calibration_error, drift, fraction_error, score


def test_scores_of_perfect_and_constant_predictions():
    rng = np.random.default_rng(0)
    n = 6_000
    alpha, truth = rng.lognormal(2.7, 0.4, n), (rng.random(n) < 0.7).astype(int)
    intrinsic = rng.normal(size=(n, 2))
    perfect = score(truth, alpha, truth, truth.astype(float), intrinsic)
    assert perfect["balanced_accuracy"] == perfect["accuracy_low"] == perfect["accuracy_high"] == 1
    assert perfect["fraction_rms_hard"] == perfect["fraction_rms_soft"] == perfect["calibration_error"] == 0
    assert perfect["auc"] == 1
    assert perfect["cv18_excess"] < 0.05
    constant = score(truth, alpha, np.ones(n, int), np.full(n, 0.7), intrinsic)
    assert constant["balanced_accuracy"] == constant["auc"] == 0.5
    assert "cv18_excess" not in constant
    biased = np.where(rng.random(n) < np.exp(-(alpha**2) / 250), 0, truth)
    found = score(truth, alpha, biased, None, intrinsic)
    assert found["accuracy_low"] < found["accuracy_high"]
    assert found["cv18_excess"] > 0.1
    assert "log_loss" not in found
    assert found["fraction_rms_hard"] > 0.2


def test_the_calibration_error_measures_overconfidence():
    rng = np.random.default_rng(1)
    p = rng.uniform(0, 1, 40_000)
    truth = (rng.random(p.size) < p).astype(int)
    assert calibration_error(np.array([0, 1, 0, 1]), np.array([0.4, 0.6, 0.4, 0.6]), bins=2) == pytest.approx(0.4)
    assert calibration_error(truth, np.clip(p + 0.1, 0, 1)) == pytest.approx(0.1, abs=0.02)
    assert fraction_error(truth, np.clip(p + 0.1, 0, 1), rng.random(p.size)) == pytest.approx(0.095, abs=0.01)


def test_drift_does_not_cancel_between_classes():
    truth, p = np.array([0, 0, 1, 1]), np.array([0.2, 0.2, 0.8, 0.8])
    assert drift(p, [np.array([0.4, 0.4, 0.6, 0.6])], truth) == pytest.approx(0.2)


def test_a_classifier_of_peak_brightness_drifts():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 8, (8, 33, 33, 3), dtype=np.uint8)
    pictures[:, 14:19, 14:19] += 120

    def peak(images):
        return images.max(axis=(1, 2, 3)) / 255

    found = resolution_drift(peak, pictures, np.full(8, 30.0), 12.0, factors=(4.0, 8.0))
    assert np.all(found.shift < -5 * found.stderr)
    assert found.shift[1] < found.shift[0] < 0
    assert found.drift == pytest.approx(np.sqrt(np.mean(found.shift**2)))
    np.testing.assert_array_equal(found.factors, [4.0, 8.0])
    answers = iter([0.5, 0.4, np.nan])
    assert np.isnan(resolution_drift(lambda _: np.full(8, next(answers)), pictures, np.full(8, 30.0), 12.0).drift)
