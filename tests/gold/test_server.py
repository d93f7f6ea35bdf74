"""What the page asks its server for."""

import json
import re
import shutil
import sqlite3

import numpy as np
import pytest
from astropy.io import fits

from truemorph.gold.answers import read_answers
from truemorph.gold.plan import read_plan
from truemorph.gold.server import make_app
from truemorph.gold.session import open_session
from truemorph.images.decode import decode

testclient = pytest.importorskip("starlette.testclient", reason="starlette is not installed")
TOKEN = "secret"


@pytest.fixture
def session(plan, simulated, tmp_path):
    better = tmp_path / "better"
    better.mkdir()
    for galaxy, name in read_plan(plan)[1].select("object_id", "image").head(30).iter_rows():
        shutil.copy(simulated / "images" / name, better / f"{galaxy}.jpg")
    return open_session(plan, simulated / "images", better, twins=4)


@pytest.fixture
def ask(session):
    """Ask as the page does: a path below the token, and what to send."""
    client = testclient.TestClient(make_app(session, TOKEN))

    def request(path, **sent):
        return client.post(f"/{TOKEN}/{path}", params=sent) if sent else client.get(f"/{TOKEN}/{path}")

    request.client = client
    return request


@pytest.mark.parametrize("path", ["", "state?name=Ann", "image?name=Ann&item=0"])
def test_nothing_is_shown_without_the_token(ask, path):
    assert ask(path).status_code == 200
    for address in ("/" + path, "/other/" + path):
        reply = ask.client.get(address)
        assert reply.status_code == 404
        assert "truemorph gold label" in reply.text
    assert ask.client.post("/answer", params={"name": "Ann", "item": 0, "answer": "disk"}).status_code == 404


def test_the_page_loads_nothing_from_elsewhere(ask):
    reply = ask("")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.findall(r"https?://", reply.text)
    assert reply.headers["referrer-policy"] == "no-referrer"


def test_the_page_never_learns_what_would_steer_answers(ask, session):
    said = ask("").text + ask("state?name=Ann").text + ask("answer", name="Ann", item=0, answer="disk").text
    assert not any(galaxy in said for galaxy in session.images)
    assert set(ask("state?name=Ann").json()) == {"answers", "better", "errors", "done", "labelled"}
    kinds = {ask(f"image?name=Ann&item={k}").headers["content-type"] for k in range(len(session.items("Ann")))}
    assert kinds <= {"image/jpeg", "image/png"}


def test_pictures_are_those_of_the_persons_order(ask, session):
    for item, (galaxy, occasion) in enumerate(session.items("Ann")):
        path = session.twins[galaxy] if occasion == "twin" else session.images[galaxy]
        assert ask(f"image?name=Ann&item={item}").content == path.read_bytes()
        beside = ask(f"image?name=Ann&item={item}&better=1")
        assert beside.status_code == (200 if galaxy in session.better else 400)
        if galaxy in session.better:
            assert beside.content == session.better[galaxy].read_bytes()
    assert ask("state?name=Ann").json()["better"] == [one in session.better for one, _ in session.items("Ann")]


def test_an_answer_is_on_the_disk_when_the_reply_comes(ask, session, plan):
    items = session.items("Ann")
    reply = ask("answer", name="  Ann ", item=3, answer="unclear", note="a ring & arms", seconds=2.25)
    assert reply.json() == {"done": 1, "labelled": 1}
    row = read_answers(plan).row(0, named=True)
    assert (row["annotator"], row["galaxy"], row["occasion"]) == ("Ann", *items[3])
    assert row["better"] == (items[3][0] in session.better)
    assert (row["answer"], row["note"], row["seconds"], row["undone"]) == ("unclear", "a ring & arms", 2.25, False)
    state = ask("state?name=Ann").json()
    assert state["answers"][3] == ["unclear", "a ring & arms"]
    assert state["answers"].count(None) == len(items) - 1
    assert ask("state?name=Bob").json()["answers"] == [None] * len(items)


def test_answers_are_changed_noted_and_undone(ask, session):
    one, other = [k for k, (_, occasion) in enumerate(session.items("Ann")) if occasion == "first"][:2]
    ask("answer", name="Ann", item=one, answer="disk")
    ask("answer", name="Ann", item=other, answer="disk")
    ask("answer", name="Ann", item=one, answer="smooth")
    assert ask("note", name="Ann", item=one, note="edge-on?").status_code == 200
    answers = ask("state?name=Ann").json()["answers"]
    assert [answers[one], answers[other]] == [["smooth", "edge-on?"], ["disk", ""]]
    assert ask("undo", name="Ann").json() == {"item": one, "done": 1, "labelled": 1}
    assert ask("undo", name="Ann").json()["item"] == other
    assert ask("undo", name="Ann").json() == {"item": None, "done": 0, "labelled": 0}


def test_galaxies_of_several_people_count_once_and_repeats_and_twins_not(ask, session):
    for name in ("Ann", "Bob"):
        for item in range(len(session.items(name))):
            counts = ask("answer", name=name, item=item, answer="disk").json()
    assert counts == {"done": len(session.items("Bob")), "labelled": len(session.images)}


def test_fits_images_are_shown_as_browsers_can(plan, tmp_path):
    folder = tmp_path / "fits"
    folder.mkdir()
    galaxy = read_plan(plan)[1]["object_id"][0]
    light = np.random.default_rng(0).gamma(2, 1, (24, 24)).astype(np.float32)
    fits.writeto(folder / f"{galaxy}.fits", light)
    session = open_session(plan, folder)
    reply = testclient.TestClient(make_app(session, TOKEN)).get(f"/{TOKEN}/image?name=Ann&item=0")
    assert reply.headers["content-type"] == "image/png"
    shown = decode(reply.content)
    np.testing.assert_array_equal(shown, decode((folder / f"{galaxy}.fits").read_bytes()))


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("state", {}),
        ("state?name=%20", {}),
        ("image?name=Ann&item=10000", {}),
        ("image?name=Ann&item=-1", {}),
        ("answer", {"name": "Ann", "item": 0, "answer": "disk", "seconds": "long"}),
        ("answer", {"name": "A" * 61, "item": 0, "answer": "disk"}),
        ("undo", {"name": " "}),
    ],
)
def test_what_makes_no_sense_is_refused(ask, plan, path, sent):
    reply = ask(path, **sent)
    assert reply.status_code == 400
    assert reply.json()["error"]
    assert read_answers(plan).is_empty()


def test_an_answer_that_could_not_be_saved_is_reported(ask, monkeypatch):
    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("truemorph.gold.server.record_answer", full)
    reply = ask("answer", name="Ann", item=0, answer="disk")
    assert reply.status_code == 500
    assert json.loads(reply.text)["error"] == "database or disk is full"
