"""What the page asks its server for."""

import re
import sqlite3

import numpy as np
import pytest
from astropy.io import fits

from truemorph.gold.answers import read_answers
from truemorph.gold.server import make_app
from truemorph.gold.session import open_session
from truemorph.images.decode import decode

testclient = pytest.importorskip("starlette.testclient", reason="starlette is not installed")
TOKEN, HERE = "secret", "http://127.0.0.1:8642"


@pytest.fixture
def session(plan, simulated, better):
    return open_session(plan, simulated / "images", better, twins=4)


@pytest.fixture
def ask(session):
    """Ask as the page does: a path below the token, and what to send."""
    client = testclient.TestClient(make_app(session, TOKEN), HERE)

    def request(path, **sent):
        return client.post(f"/{TOKEN}/{path}", params=sent) if sent else client.get(f"/{TOKEN}/{path}")

    request.client = client
    return request


def test_nothing_is_shown_without_the_token(ask):
    for path in ("", "state?name=Ann", "image?name=Ann&item=0"):
        assert ask(path).status_code == 200
        for address in ("/" + path, "/other/" + path):
            reply = ask.client.get(address)
            assert reply.status_code == 404
            assert "truemorph gold label" in reply.text
            assert TOKEN not in str(reply.headers)
    assert ask.client.post("/answer", params={"name": "Ann", "item": 0, "answer": "disk"}).status_code == 404


@pytest.mark.parametrize(
    ("name", "foreign", "own"),
    [
        ("host", ["evil.example", "127.0.0.1.evil.example:8642", ""], ["127.0.0.1:8642", "localhost:9000"]),
        ("origin", ["http://evil.example", "null", "http://127.0.0.1:9000"], [HERE]),
    ],
)
def test_requests_of_other_sites_are_refused_even_with_the_token(ask, plan, name, foreign, own):
    answer = f"/{TOKEN}/answer?name=Ann&item=0&answer=disk"
    assert {ask.client.post(answer, headers={name: one}).status_code for one in foreign} == {404}
    assert read_answers(plan).is_empty()
    assert {ask.client.post(answer, headers={name: one}).status_code for one in own} == {200}


def test_the_page_loads_nothing_from_elsewhere_and_never_learns_what_would_steer_answers(ask, session):
    page = ask("")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert not re.search("unsafe|http", policy)
    assert "://" not in page.text
    said = page.text + ask("state?name=Ann").text + ask("answer", name="Ann", item=0, answer="disk").text
    assert not any(galaxy in said for galaxy in session.images)
    assert set(ask("state?name=Ann").json()) == {
        *("answers", "better", "labelled", "galaxies", "error", "classes", "definition")
    }


@pytest.mark.slow
def test_pictures_are_those_of_the_persons_order(ask, session):
    for item, (galaxy, occasion) in enumerate(session.items("Ann")):
        path = session.twins[galaxy] if occasion == "twin" else session.images[galaxy]
        shown = ask(f"image?name=Ann&item={item}")
        assert shown.content == path.read_bytes()
        assert shown.headers["content-type"] == ("image/png" if occasion == "twin" else "image/jpeg")
        beside = ask(f"image?name=Ann&item={item}&better=1")
        assert beside.status_code == (200 if galaxy in session.better else 400)
        if galaxy in session.better:
            assert beside.content == session.better[galaxy].read_bytes()
    assert ask("state?name=Ann").json()["better"] == [one in session.better for one, _ in session.items("Ann")]


def test_an_answer_is_on_the_disk_when_the_reply_comes_and_can_be_changed_and_undone(ask, session, plan):
    items = session.items("Ann")
    one, other = [k for k, (_, occasion) in enumerate(items) if occasion == "first"][:2]
    sent = {"answer": "unclear", "note": "a ring & arms", "seconds": 2.25}
    state = ask("answer", name="  Ann ", item=one, **sent).json()
    assert state == ask("state?name=Ann").json()
    row = read_answers(plan).row(0, named=True)
    assert (row["annotator"], row["galaxy"], row["occasion"]) == ("Ann", *items[one])
    assert row["better"] == (items[one][0] in session.better)
    assert {key: row[key] for key in sent} == sent
    assert state["answers"] == [["unclear", "a ring & arms"] if k == one else None for k in range(len(items))]
    assert ask("state?name=Bob").json()["answers"] == [None] * len(items)
    ask("answer", name="Ann", item=other, answer="disk")
    answers = ask("answer", name="Ann", item=one, answer="smooth").json()["answers"]
    assert [answers[one], answers[other]] == [["smooth", ""], ["disk", ""]]
    undone = [ask("undo", name="Ann").json() for _ in range(3)]
    assert [state["item"] for state in undone] == [one, other, None]
    assert (undone[0]["labelled"], undone[0]["answers"][one]) == (1, None)


def test_fits_images_are_shown_as_browsers_can(plan, ids, tmp_path):
    path = tmp_path / f"{ids[0]}.fits"
    fits.writeto(path, np.random.default_rng(0).gamma(2, 1, (24, 24)).astype(np.float32))
    app = make_app(open_session(plan, tmp_path), TOKEN)
    reply = testclient.TestClient(app, HERE).get(f"/{TOKEN}/image?name=Ann&item=0")
    assert reply.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(decode(reply.content), decode(path.read_bytes()))


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("state?name=%20", {}),
        ("state?name=A%00", {}),
        ("image?name=Ann&item=10000", {}),
        ("answer", {"name": "A" * 61, "item": 0}),
        ("answer", {"name": "Ann", "item": 0}),
        ("answer", {"name": "Ann", "item": 0, "answer": "spiral"}),
        ("answer", {"name": "Ann", "item": 0, "answer": "disk", "seconds": "nan"}),
    ],
)
def test_what_makes_no_sense_is_refused(ask, plan, path, sent):
    reply = ask(path, **sent)
    assert reply.status_code == 400
    assert "answers.sqlite" not in reply.json()["error"]  # the file of answers is not damaged
    assert read_answers(plan).is_empty()


def test_an_answer_that_could_not_be_saved_is_reported(ask, monkeypatch):
    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("truemorph.gold.server.record_answer", full)
    reply = ask("answer", name="Ann", item=0, answer="disk")
    assert reply.status_code == 500
    assert reply.json()["error"] == "database or disk is full"
