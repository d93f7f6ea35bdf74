"""A plan for 60 gold labels of simulated galaxies."""

import shutil

import numpy as np
import polars as pl
import pytest

import truemorph as tm
from truemorph import read_table
from truemorph.gold.answers import record_answer
from truemorph.gold.plan import read_plan

WORDS = {0: "smooth", 1: "disk"}
# Classes of the question about bars.
ENDS = np.array(["smooth", "edge-on", "no bar", "bar"])


def survey(n=2_000, seed=0):
    """Votes along the tree of Galaxy Zoo 2, and the true class; volunteers miss disks, and bars even more."""
    rng = np.random.default_rng(seed)
    radius = rng.lognormal(2.0, 0.4, n)
    truth = rng.choice(4, n, p=[0.4, 0.1, 0.3, 0.2])
    disk = rng.binomial(40, np.where(truth > 0, 0.2 + 0.6 * (radius > 6), 0.15))
    edge = rng.binomial(disk, np.where(truth == 1, 0.8, 0.1))
    bar = rng.binomial(disk - edge, np.where(truth == 3, 0.6 * (radius > 7) + 0.15, 0.08))
    table = pl.DataFrame({
        "objid": np.arange(n),
        "t01_smooth_or_features_a01_smooth_count": 40 - disk,
        "t01_smooth_or_features_a02_features_or_disk_count": disk,
        "t01_smooth_or_features_a03_star_or_artifact_count": np.zeros(n, dtype=int),
        "t01_smooth_or_features_a01_smooth_weighted_fraction": (40 - disk) / 40,
        "t01_smooth_or_features_a02_features_or_disk_weighted_fraction": disk / 40,
        "t02_edgeon_a04_yes_count": edge,
        "t02_edgeon_a05_no_count": disk - edge,
        "t03_bar_a06_bar_count": bar,
        "t03_bar_a07_no_bar_count": disk - edge - bar,
        "petroRad_r": radius,
        "psfWidth_r": rng.uniform(1.0, 1.5, n),
    })  # fmt: skip
    return table, truth


def prepared(n=2_000, seed=0, question="bar"):
    """Return a catalogue prepared for a question, and the true class of each of its galaxies."""
    table, truth = survey(n, seed)
    found = tm.prepare_catalogue(table, question=question).catalogue
    return found, truth[found.frame["object_id"].cast(pl.Int64).to_numpy()]


@pytest.fixture(scope="session")
def planned_bars(simulated, tmp_path_factory):
    """A plan for the question about bars of galaxies with images, and the class of each galaxy that it has drawn."""
    table, truth = survey(400)
    names = sorted(one.stem for one in (simulated / "images").glob("*.jpg"))
    folder = tmp_path_factory.mktemp("bars")
    table = table.with_columns(objid=pl.Series(names))
    cat = tm.prepare_catalogue(table, question="bar,edge-on", images=simulated / "images", out=folder / "cat.parquet")
    tm.plan_gold(cat.out, question="bar", budget=60, bins=4, out=folder / "gold")
    return folder / "gold", dict(zip(names, ENDS[truth].tolist(), strict=True))


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
