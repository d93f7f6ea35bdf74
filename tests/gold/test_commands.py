"""truemorph gold plan and truemorph gold label, as a user meets them."""

import json
import socket

import pytest

import truemorph as tm
from conftest import codes, run
from truemorph.gold.answers import record_answer
from truemorph.gold.plan import GoldPlan, read_plan


def test_a_plan_is_written_and_names_the_next_command(capsys, catalogue, tmp_path):
    out = tmp_path / "gold"
    status, said, _ = run(capsys, "gold", "plan", catalogue, "--budget", 60, "--out", out)
    assert status == 0
    assert f"Next: truemorph gold label {out}" in said
    assert {one.name for one in out.iterdir()} == {"plan.json", "plan.parquet", "plan.png"}
    status, said, _ = run(capsys, "gold", "plan", catalogue, "--budget", 60, "--json")
    assert json.loads(said)["labels"] == read_plan(out)[1].height
    status, _, err = run(capsys, "gold", "plan", catalogue, "--budget", 60, "--out", out)
    assert status == 2
    assert "--out" in err


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
    status, out, _ = run(capsys, "gold", "label", plan, "--images", better)
    assert status == 0
    assert f"Next: truemorph gold import {plan}" in out
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
            status, _, err = run(capsys, "gold", "label", *arguments)
            assert status == 2, arguments
            assert says in err, err
            assert err.count("\n") == 1, err
    monkeypatch.setattr("truemorph.errors.find_spec", lambda name: None)
    status, _, err = run(capsys, "gold", "label", plan)
    assert (status, err.count("\n")) == (2, 1)
    assert "truemorph[gold]" in err
