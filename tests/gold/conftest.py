"""A plan for 60 gold labels of simulated galaxies."""

import shutil

import polars as pl
import pytest

import truemorph as tm
from truemorph.gold.answers import record_answer
from truemorph.gold.plan import read_plan
from truemorph.tables import read_table

WORDS = {0: "smooth", 1: "disk"}


@pytest.fixture(scope="session")
def planned(catalogue, tmp_path_factory):
    out = tmp_path_factory.mktemp("planned") / "gold"
    tm.plan_gold(catalogue, budget=60, out=out)
    return out


@pytest.fixture
def plan(planned, tmp_path):
    """A copy of the plan's folder, without answers."""
    return shutil.copytree(planned, tmp_path / "gold")


@pytest.fixture(scope="session")
def better(planned, simulated, tmp_path_factory):
    """A folder of better images of 30 of its galaxies."""
    out = tmp_path_factory.mktemp("better")
    for galaxy, name in read_plan(planned)[1].select("object_id", "image").head(30).iter_rows():
        shutil.copy(simulated / "images" / name, out / f"{galaxy}.jpg")
    return out


@pytest.fixture(scope="session")
def ids(planned):
    """The galaxies of the plan."""
    return read_plan(planned)[1]["object_id"].to_list()


@pytest.fixture(scope="session")
def truth(catalogue):
    """The true class of every galaxy."""
    frame = read_table(catalogue).frame
    return dict(zip(frame["object_id"].cast(pl.String), frame["gold"], strict=True))


def give(plan, annotator, answers, occasion="first", better=False):
    for one, answer in answers.items():
        record_answer(plan, annotator, one, occasion, answer, better=better)
