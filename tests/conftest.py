"""Small simulated data, made once a session."""

from pathlib import Path

import numpy as np
import pytest

from truemorph.bias.transitions import RayleighTransition
from truemorph.demo import write_simulated

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real data; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("real data (../shared/data) is not on this machine")
    return SHARED


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """votes.csv and images/ of 400 simulated galaxies, 32 pixels on a side."""
    folder = tmp_path_factory.mktemp("simulated")
    write_simulated(folder, 400, seed=3, size=32)
    return folder


def flipped_labels(n, seed, theta=11.25, smooth=0.25, median=7.5, width=0.45):
    """Labels whose class fractions don't depend on α, flipped by eq. 5: (labels, alpha, truth)."""
    rng = np.random.default_rng(seed)
    alpha = rng.lognormal(np.log(median), width, n)
    truth = (rng.random(n) >= smooth).astype(int)
    flipped = (truth == 1) & (rng.random(n) < RayleighTransition(theta).flip_probability(alpha))
    return np.where(flipped, 0, truth), alpha, truth
