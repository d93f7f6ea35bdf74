"""The leaderboard runs, resumes after an interruption, and writes its files."""

import json

import numpy as np
import polars as pl
import pytest

from conftest import done, refused
from truemorph.benchmark.leaderboard import Plan, run_plan, summarise
from truemorph.benchmark.methods import METHODS, NETWORKS, TABLES
from truemorph.benchmark.worlds import FILES, WITH_PICTURES, WITHOUT_PICTURES, Sizes, make_world

pytestmark = pytest.mark.slow

TINY = Sizes(train=360, validation=60, test=120, twins=30, pixels=32)
PLAN = Plan(("plain", "image annotator"), tuple(METHODS[NETWORKS]), (0,), TINY, 1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("leaderboard")


@pytest.fixture(scope="module")
def rows(cache, short_tuning):
    return run_plan(PLAN, cache)


def test_every_method_runs_and_is_scored(rows):
    ran = {(row["world"], row["method"]) for row in rows}
    assert {method for world, method in ran if world == "plain"} == set(METHODS[NETWORKS])
    # The image annotator has no T(alpha).
    assert ("image annotator", "ddb-right") not in ran
    for row in rows:
        scores = row["scores"]
        assert 0 <= scores["balanced_accuracy"] <= 1
        if row["method"] != "labels":
            assert scores["log_loss"] > 0
            assert scores["drift"] is not None


def test_an_interrupted_run_resumes_with_the_same_numbers(rows, cache):
    def numbers(found):
        return [(row["world"], row["method"], {**row["scores"], "seconds": 0}) for row in found]

    next(one for one in cache.iterdir() if '"method": "ddb-twins"' in one.read_text()).unlink()
    again = run_plan(PLAN, cache)
    assert numbers(again) == numbers(rows)
    assert sum(one != other for one, other in zip(again, rows, strict=True)) <= 1  # others are cached, with their times


def test_worlds_differ_as_documented():
    plain, confounded, heavy, looked = (make_world(name, 0, TINY) for name in WITH_PICTURES[:4])
    np.testing.assert_array_equal(plain.truth, heavy.truth)
    np.testing.assert_array_equal(plain.images, looked.images)
    assert (plain.labels != heavy.labels).any()
    assert looked.transition is None
    assert (plain.truth != confounded.truth).any()
    assert set(np.unique(plain.labels - plain.truth)) <= {-1, 0}  # eq. 6: no false disks
    assert np.any(looked.labels > looked.truth)


def test_summaries_are_means_over_seeds_sorted_by_accuracy():
    def row(method, seed, value):
        return {"world": "plain", "definition": "d", "seed": seed, "method": method, "scores": {
            "balanced_accuracy": value, "log_loss": None}}  # fmt: skip

    found = summarise([row("a", 0, 0.6), row("a", 1, 0.8), row("b", 0, 0.9), row("b", 1, 0.9)])
    assert [one["method"] for one in found] == ["b", "a"]
    assert found[1]["means"] == {"balanced_accuracy": pytest.approx(0.7), "log_loss": None}
    assert found[1]["stds"]["balanced_accuracy"] == pytest.approx(np.std([0.6, 0.8], ddof=1))


def test_scores_of_methods_on_real_catalogues(shared_data, tmp_path):
    worlds = [without_picture for without_picture in WITHOUT_PICTURES if without_picture in FILES]
    plan = Plan(tuple(worlds), tuple(METHODS[TABLES]), (0,), None, data=shared_data)
    by = {(row["world"], row["method"]): row["scores"] for row in run_plan(plan, tmp_path)}
    paper = "GZ2 votes, T >= -3"
    hart = by[paper, "Hart et al. 2016"]
    assert ("GZ1 flags, T >= 1", "Hart et al. 2016") not in by
    for method in ("conditional", "gold", "gold-votes", "dcv14-posterior"):
        assert by[paper, method]["fraction_rms_soft"] < 0.5 * hart["fraction_rms_soft"]
    # Under the narrower definition, labels alone over-correct.
    assert by["GZ2 votes, T >= 1", "likelihood"]["fraction_rms_soft"] > 0.2
    assert by["GZ2 votes, T >= 1", "gold-votes"]["fraction_rms_soft"] < 0.06


def test_the_command_writes_the_leaderboard(tmp_path, capsys):
    out = tmp_path / "board"
    arguments = ["--worlds", "plain", "--methods", "labels,dcv14", "--seeds", 2, "--catalogue-only", "--jobs", 2]
    printed = json.loads(done(capsys, "benchmark", *arguments, "--out", out, "--json"))
    content = json.loads((out / "leaderboard.json").read_text())
    assert content["rows"] == printed["rows"]
    assert {(row["method"], row["seeds"]) for row in content["rows"]} == {("labels", 2), ("dcv14", 2)}
    assert f"{content['rows'][0]['means']['balanced_accuracy']:.3f} / " in (out / "leaderboard.html").read_text()
    assert (out / "leaderboard.md").is_file()
    assert (out / "leaderboard.png").stat().st_size > 5_000
    assert pl.read_csv(out / "leaderboard.csv")["method"].to_list() == [row["method"] for row in content["rows"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--worlds", "flat"], "'flat'"),
        (["--worlds", "real", "--data", "."], "efigi_images.csv"),
        (["--worlds", "image annotator", "--methods", "ddb-right"], "nothing to run"),
        (["--catalogue-only", "--epochs", "3"], "--quick"),
        (["--catalogue-only", "--methods", "naive"], "'naive'"),
    ],
)
def test_invalid_options_give_one_line(tmp_path, capsys, arguments, message):
    assert message in refused(capsys, "benchmark", "--out", tmp_path / "board", *arguments)
