"""Results for real galaxies (science.md, section 3): bias of the votes, θ, and corrected fractions."""

import numpy as np
import polars as pl
import pytest

from truemorph import cv14, fit_transition
from truemorph import prepare_catalogue as prepare


@pytest.fixture(scope="module")
def votes(shared_data):
    return prepare(shared_data / "gz2_votes.csv", columns={"radius": "petroR90"})


def quintiles(frame, column):
    order = np.argsort(frame["alpha"].to_numpy(), kind="stable")
    return np.array([frame[column].to_numpy()[part].mean() for part in np.array_split(order, 5)])


def test_rows_are_accounted_for(votes):
    assert dict(votes.funnel) == {
        "rows in": 4710,
        "neither smooth nor disk has votes": -1,
        "smooth and disk tied": -20,
        "rows out": 4689,
    }


def test_smooth_votes_decrease_with_resolution(votes):
    smooth = quintiles(votes.catalogue.frame, "smooth_fraction")
    assert smooth[0] == pytest.approx(0.78, abs=0.01)
    assert smooth[-1] == pytest.approx(0.31, abs=0.01)
    bias = cv14(votes.catalogue.frame["label"], votes.catalogue.frame["alpha"], 20, bootstrap=0)
    assert bias.excess > 8 * bias.floor


def inverted(labels, alpha, transition):
    """Disk fraction in quintiles of α by inversion of T (eq. 15): observed fraction over detection probability."""
    seen = 1 - transition.flip_probability(alpha)
    parts = np.array_split(np.argsort(alpha, kind="stable"), 5)
    return np.array([labels[part].mean() / seen[part].mean() for part in parts])


# In the reference values (0.29, 0.50, 0.58, 0.65, 0.78), a galaxy is a disk if its smooth fraction is below one half.
# truemorph compares smooth with disk votes, so some galaxies with many star-or-artefact votes are smooth here.
@pytest.mark.slow
def test_rows_with_expert_types(votes):
    experts = votes.catalogue.frame.drop_nulls("t_type")
    truth = quintiles(experts.with_columns(disk=(pl.col("t_type") >= -3).cast(pl.Int64)), "disk")
    labelled = quintiles(experts, "label")
    np.testing.assert_allclose(truth, [0.82, 0.74, 0.75, 0.78, 0.81], atol=0.015)
    np.testing.assert_allclose(labelled, [0.265, 0.485, 0.58, 0.64, 0.75], atol=0.01)
    labels, alpha = experts["label"].to_numpy(), experts["alpha"].to_numpy()
    fit = fit_transition(labels, alpha)
    assert fit.transition.theta == pytest.approx(14.3, abs=0.6)
    corrected = inverted(labels, alpha, fit.transition)
    assert np.sqrt(np.mean((labelled - truth) ** 2)) > 0.27
    assert np.sqrt(np.mean((corrected - truth) ** 2)) == pytest.approx(0.054, abs=0.015)
