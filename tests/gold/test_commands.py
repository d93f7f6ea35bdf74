"""truemorph gold plan and truemorph gold label, as a user meets them."""

import json
import socket

import pytest

import truemorph as tm
from conftest import codes, done, refused
from truemorph.gold.answers import record_answer
from truemorph.gold.plan import GoldPlan, read_plan


def test_a_plan_is_written_and_names_the_next_command(capsys, catalogue, tmp_path):
    out = tmp_path / "gold"
    plan = ("gold", "plan", catalogue, "--budget", 60)
    assert f"Next: truemorph gold label {out}" in done(capsys, *plan, "--out", out)
    assert {one.name for one in out.iterdir()} == {"plan.json", "plan.parquet", "plan.png"}
    assert json.loads(done(capsys, *plan, "--json"))["labels"] == read_plan(out)[1].height
    assert "--out" in refused(capsys, *plan, "--out", out)


def test_a_plan_that_was_interrupted_is_made_again(catalogue, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(GoldPlan, "plot", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tm.plan_gold(catalogue, budget=60, out=tmp_path)
    assert tm.plan_gold(catalogue, budget=60, out=tmp_path).out == tmp_path


@pytest.fixture
def served(monkeypatch):
    """Instead of waiting for a browser: one answer of Ann's, then Ctrl-C."""
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")

    def serve(session, port):
        galaxy, occasion = session.items("Ann")[0]
        record_answer(session.folder, "Ann", galaxy, occasion, "unclear", seconds=3.0)

    monkeypatch.setattr("truemorph.gold.server.serve", serve)


def test_labelling_ends_with_a_summary(capsys, plan, served, better):
    assert f"Next: truemorph gold import {plan}" in done(capsys, "gold", "label", plan, "--images", better)
    found = tm.collect_gold(plan)
    assert found.to_dict()["annotators"][0] == {
        "annotator": "Ann", "smooth": 0, "disk": 0, "unclear": 1, "artefact": 0, "repeats and twins": 0, "seconds": 3.0,
    }  # fmt: skip
    assert codes(found) == ["galaxies-left-out"]


def test_mistakes_are_one_line(capsys, plan, tmp_path, monkeypatch):
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    (tmp_path / "empty").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for says, arguments in [
            ("--port", [plan, "--port", port]),
            ("not a folder of images", [plan, "--images", tmp_path / "absent"]),
            ("no image", [plan, "--images", tmp_path / "empty"]),
            ("truemorph gold plan", [tmp_path]),
            ("--twins", [plan, "--twins", 500]),
            ("--gold-source", [plan, "--gold-source", "guesses"]),
        ]:
            err = refused(capsys, "gold", "label", *arguments)
            assert says in err, err
    monkeypatch.setattr("truemorph.errors.find_spec", lambda name: None)
    assert "truemorph[gold]" in refused(capsys, "gold", "label", plan)
