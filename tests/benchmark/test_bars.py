"""Worlds with bars, the votes of their volunteers, and methods that answer the question."""

import json

import numpy as np
import polars as pl
import pytest

from conftest import done, refused
from truemorph.benchmark.bars import ASKED, BAR, answer_scores, draw_votes, known_transition, make_bar_world
from truemorph.benchmark.leaderboard import BOARDS, Plan, run_plan
from truemorph.benchmark.methods import METHODS, matched_votes, path_votes
from truemorph.benchmark.worlds import Sizes

pytestmark = pytest.mark.slow

TINY = Sizes(train=400, validation=80, test=160, twins=0, pixels=32)


@pytest.fixture(scope="module")
def world():
    return make_bar_world("plain", 0, TINY)


def test_votes_follow_the_known_transition():
    transition = known_transition()
    classes, alpha = np.random.default_rng(0).integers(0, 4, 20_000), np.full(20_000, 11.0)
    votes = draw_votes(transition, classes, alpha, 0)
    for question, log_mean in zip(ASKED.questions, transition.log_answers(alpha[:1], votes=True), strict=True):
        for k in range(4):
            counts = votes.counts[question.name][classes == k].sum(axis=0)
            np.testing.assert_allclose(counts / counts.sum(), np.exp(log_mean[0, k]), atol=0.02)
    # Only those who were asked answer; fractions scatter between galaxies as those of a Dirichlet-multinomial.
    np.testing.assert_array_equal(votes.counts[BAR].sum(axis=1), votes.counts["edge-on"][:, 1])
    disk = votes.counts["smooth"][classes == 3, 1] / 40
    rho = (disk.var() / (disk.mean() * (1 - disk.mean())) * 40 - 1) / 39
    assert rho == pytest.approx(transition.overdispersion[0][3], abs=0.02)


def test_each_volunteer_ends_on_one_path(world):
    p = path_votes(world.votes)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_allclose(p[:, 3], world.votes.counts[BAR][:, 1] / 40)
    np.testing.assert_array_equal(world.gold[world.gold >= 0], world.truth[world.gold >= 0])


def test_matched_votes_of_the_best_resolved_bin_stay(world):
    found = matched_votes(world.votes, world.alpha, world.intrinsic, world.seed)
    for name, before in world.votes.counts.items():
        np.testing.assert_allclose(found.counts[name].sum(axis=1), before.sum(axis=1))
    sharp = np.argsort(world.alpha)[-20:]
    np.testing.assert_allclose(found.counts["smooth"][sharp], world.votes.counts["smooth"][sharp])


def test_perfect_answers_have_perfect_scores_and_shifted_ones_their_shift(world):
    truth = world.truth[world.scored]
    perfect = answer_scores(world, np.eye(4)[truth], truth)
    assert perfect["balanced_accuracy"] == perfect["auc"] == 1
    assert perfect["fraction_rms_soft"] == perfect["fraction_rms_hard"] == perfect["calibration_error"] == 0
    p = np.eye(4)[truth]
    p[truth == 3] = [0, 0, 0.4, 0.6]  # 0.4 of the bars are missed, everywhere
    p[truth < 2, :] = np.eye(4)[0]  # whether the question applies does not matter
    found = answer_scores(world, p, p.argmax(axis=1))
    bins = np.array_split(np.argsort(world.alpha[world.scored], kind="stable"), 5)
    off = [0.4 * np.sum(truth[one] == 3) / np.sum(truth[one] >= 2) for one in bins]
    assert found["fraction_rms_soft"] == pytest.approx(np.sqrt(np.mean(np.square(off))))
    assert found["balanced_accuracy"] == 1
    assert answer_scores(world, None, truth)["fraction_rms_hard"] == 0


def test_every_method_answers_and_an_interrupted_run_resumes(short_tuning, tmp_path):
    plan = Plan(("gate by bar",), tuple(METHODS[BAR]), (0,), TINY, 1, question=BAR)
    rows = run_plan(plan, tmp_path)
    assert {row["method"] for row in rows} == {*METHODS[BAR]} - {"ddb-right"}
    for row in rows:
        assert 0 <= row["scores"]["balanced_accuracy"] <= 1
        assert np.isfinite(row["scores"].get("fraction_rms_soft", row["scores"]["fraction_rms_hard"]))
    assert run_plan(plan, tmp_path) == rows


def test_real_bars_are_those_of_the_experts(shared_data):
    world = make_bar_world("real bars", 0, Sizes(pixels=32), shared_data)
    assert np.bincount(world.truth).tolist() == [211, 936, 979, 976]
    bars = path_votes(world.votes)[:, 3]
    assert bars[world.truth == 3].mean() > 3 * bars[world.truth == 2].mean()


def test_the_command_writes_a_board_of_bars(tmp_path, capsys):
    out = tmp_path / "board"
    plan = [
        "--question",
        "bar",
        "--worlds",
        "plain",
        "--methods",
        "labels",
        "--seeds",
        1,
        "--train",
        300,
        "--test",
        150,
    ]
    content = json.loads(done(capsys, "benchmark", *plan, "--out", out, "--json"))
    assert content["plan"]["question"] == "bar"
    assert content["rows"][0]["definition"] == "bar = as simulated"
    assert pl.read_csv(out / "leaderboard.csv")["title"].to_list() == ["majority paths"]
    assert "error of the bar fraction" in (out / "leaderboard.html").read_text()


def test_boards_of_bars_have_images(tmp_path, capsys):
    assert BAR in BOARDS
    assert "--question" in refused(capsys, "benchmark", "--question", "bar", "--catalogue-only", "--out", tmp_path)
