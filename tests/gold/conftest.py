"""A plan for 60 gold labels of simulated galaxies."""

import shutil

import numpy as np
import polars as pl
import pytest

import truemorph as tm
from truemorph import read_table
from truemorph.gold.answers import record_answer
from truemorph.gold.plan import read_plan
from truemorph.simulate import simulate_survey

WORDS = {0: "smooth", 1: "disk"}
# Classes of the question about bars.
ENDS = np.array(["smooth", "edge-on", "no bar", "bar"])


def survey(n, seed=0):
    """Votes along the tree of Galaxy Zoo 2, and `kind`, the true class of each galaxy."""
    return simulate_survey(n, seed)[1].select(pl.exclude("^truth.*$"), kind="truth_bar")


def prepared(n=2_000, seed=0):
    """Return a catalogue prepared for the question about bars, and the number of each galaxy's true class in ENDS."""
    found = tm.prepare_catalogue(survey(n, seed), question="bar").catalogue
    return found, found.frame["kind"].replace_strict(ENDS, range(4)).to_numpy()


@pytest.fixture(scope="session")
def planned_bars(simulated, tmp_path_factory):
    """A plan for the question about bars of galaxies with images, and the class of each galaxy that it has drawn."""
    names = sorted(one.stem for one in (simulated / "images").glob("*.jpg"))
    folder = tmp_path_factory.mktemp("bars")
    table = survey(400).with_columns(dr7objid=pl.Series(names))
    cat = tm.prepare_catalogue(table, question="bar,edge-on", images=simulated / "images", out=folder / "cat.parquet")
    tm.plan_gold(cat.out, question="bar", budget=60, bins=4, out=folder / "gold")
    return folder / "gold", dict(zip(names, table["kind"], strict=True))


@pytest.fixture
def of_bars(planned_bars, tmp_path):
    """A copy of this plan's folder, without answers, and the classes of its galaxies."""
    folder = shutil.copytree(planned_bars[0], tmp_path / "bars")
    return folder, {one: planned_bars[1][one] for one in read_plan(folder)[1]["object_id"]}


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
