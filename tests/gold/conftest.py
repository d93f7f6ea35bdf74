"""A plan for 60 gold labels of simulated galaxies."""

import shutil

import pytest

import truemorph as tm


@pytest.fixture(scope="session")
def planned(catalogue, tmp_path_factory):
    out = tmp_path_factory.mktemp("planned") / "gold"
    tm.plan_gold(catalogue, budget=60, out=out)
    return out


@pytest.fixture
def plan(planned, tmp_path):
    """A copy of the plan's folder, without answers."""
    return shutil.copytree(planned, tmp_path / "gold")
