"""How SkyServer is asked: batches that shrink and grow, answers that were cut, waits that are kept, runs offline."""

import os
import shutil

import polars as pl
import pytest

from catalogs.archives.observatory import SQL, asked_ids
from catalogs.archives.server import Answer, busy
from truemorph.catalogs.archives.failures import ComeBackError, UnansweredError
from truemorph.catalogs.archives.fetch import fetch
from truemorph.catalogs.archives.provenance import read_provenance, verify
from truemorph.catalogs.archives.web import Web
from truemorph.errors import InputError, TruemorphError


@pytest.fixture
def known(sky):
    """Ids that DR7 knows."""
    return sky.truth.filter("in_sdss")["objid"]


def get(sky, web, out, ids, **options):
    options = {"batch": 40, "best_field": False, **options}
    return fetch("sdss", out, addresses_from=sky.addresses, web=web, ids=ids, **options)


def sizes(sky):
    return [len(ids) for ids in asked_ids(sky.asked(SQL))]


def answering(sky, damage):
    """Answers of photometry, changed."""
    whole = sky._sql

    def changed(request):
        answer = whole(request)
        if "LEFT JOIN SpecObj" not in request.params["cmd"]:
            return answer
        return damage(request, answer.body.decode()) or answer

    sky.route(SQL, changed)


def test_an_answer_cut_between_two_rows_is_completed(sky, web, tmp_path, known):
    """Without Content-Length nothing else tells."""
    count = iter(range(100))

    def cut(request, text):
        lines = text.splitlines(keepends=True)
        return Answer("".join(lines[:-3]).encode(), length=False, ranges=False) if next(count) == 1 else None

    answering(sky, cut)
    get(sky, web, tmp_path, known)
    assert pl.read_parquet(tmp_path / "photometry.parquet").height == known.len()
    assert pl.read_csv(tmp_path / "missing.csv").height == 0
    # The three that were lacking, and the last that was there.
    assert sizes(sky)[:3] == [40, 40, 4]


def test_a_table_without_a_last_newline_is_whole_where_its_end_is_vouched_for(sky, web, tmp_path, known):
    for how in ({"length": True}, {"length": False, "chunked": True}):
        answering(sky, lambda request, text, how=how: Answer(text.rstrip("\n").encode(), ranges=False, **how))
        get(sky, web, tmp_path / str(len(how)), known)
        assert pl.read_parquet(tmp_path / str(len(how)) / "photometry.parquet").height == known.len()
    assert sum(sizes(sky)) == 2 * known.len()


def test_a_number_cut_in_its_middle_is_not_believed(sky, web, tmp_path, known):
    """The row has all its columns; only the missing end of the line tells."""
    count = iter(range(100))

    def cut(request, text):
        return Answer(text.rstrip("\n")[:-2].encode(), length=False, ranges=False) if next(count) == 0 else None

    answering(sky, cut)
    get(sky, web, tmp_path, known)
    whole = sky.truth.filter("in_sdss").sort("objid")
    assert sizes(sky)[:2] == [40, 40]
    assert pl.read_parquet(tmp_path / "photometry.parquet").height == whole.height


def test_answers_that_are_always_cut_are_completed_too(sky, web, tmp_path, known):
    def cut(request, text):
        return Answer("".join(text.splitlines(keepends=True)[:9]).encode(), length=False, ranges=False)

    answering(sky, cut)
    get(sky, web, tmp_path, known)
    assert pl.read_parquet(tmp_path / "photometry.parquet").height == known.len()


def test_a_server_that_knows_nothing_is_not_believed_for_good(sky, web, tmp_path, known):
    whole = sky._sql
    answering(sky, lambda request, text: Answer(text.splitlines(keepends=True)[0].encode(), ranges=False))
    with pytest.raises(InputError, match="knows none of the"):
        get(sky, web, tmp_path, known)
    sky.route(SQL, whole)
    assert get(sky, web, tmp_path, known).counts["objects"] == known.len()


def test_detections_cut_between_two_rows_are_completed(sky, web, tmp_path, known):
    whole = sky._sql
    get(sky, web, tmp_path / "whole", known, best_field=True)
    cuts = iter([1, 0, 0, 0, 0, 0, 0, 0])

    def cut(request):
        answer = whole(request)
        if "Neighbors" in request.params["cmd"] and next(cuts):
            lines = answer.body.decode().splitlines(keepends=True)
            return Answer("".join(lines[: len(lines) // 2]).encode(), length=False, ranges=False)
        return answer

    sky.route(SQL, cut)
    get(sky, web, tmp_path / "cut", known, best_field=True)
    frames = [pl.read_parquet(tmp_path / name / "photometry.parquet") for name in ("whole", "cut")]
    assert frames[0].equals(frames[1])


@pytest.mark.parametrize("status", [500, 504])
def test_a_wait_that_is_asked_for_ends_the_run(sky, web, tmp_path, known, status):
    sky.script(SQL, busy(status, "3600"), busy(status, "3600"))
    with pytest.raises(ComeBackError, match=r"asks to wait 3,600 s: run the same again after"):
        get(sky, web, tmp_path, known)
    assert len(sky.requests) == 1


@pytest.mark.parametrize("status", [400, 404, 413, 414, 431])
def test_statuses_that_say_too_long_halve_the_batch(sky, web, tmp_path, known, status, capsys):
    def long(request, text):
        many = request.params["cmd"].split("IN (")[1].count(",") >= 30
        return Answer(b"Request Too Long", status, "text/plain", ranges=False) if many else None

    answering(sky, long)
    get(sky, web, tmp_path, known)
    assert sizes(sky)[:3] == [40, 20, 20]
    assert "asking for half" in capsys.readouterr().err


def test_a_wrong_address_is_said_as_such(sky, web, tmp_path, known):
    sky.route(SQL, lambda request: Answer(b"nothing here", 404, "text/plain", ranges=False))
    with pytest.raises(UnansweredError, match=r"HTTP 404.*it may have moved"):
        get(sky, web, tmp_path, known)


def test_a_server_that_is_down_is_not_asked_for_less(sky, web, tmp_path, known):
    sky.script(SQL, *[busy(500)] * 5)
    with pytest.raises(UnansweredError, match=r"HTTP 500.*\(5 tries\)"):
        get(sky, web, tmp_path, known)
    assert sizes(sky) == [40] * 5


def test_a_gateway_that_times_out_halves_the_batch_which_grows_again(sky, web, tmp_path, known):
    sky.script(SQL, *[busy(504)] * 5)
    get(sky, web, tmp_path, known, batch=8)
    assert sizes(sky)[:7] == [8] * 5 + [4, 4]
    after = sizes(sky)[7:]
    grown = after.index(8)
    # Twice as long as it would take the first time.
    assert after[:grown] == [4] * 16
    assert set(after[grown:-1]) == {8}


def test_offline_a_table_that_is_there_will_do(sky, web, tmp_path):
    ids = sky.truth["objid"]
    got = get(sky, web, tmp_path, ids)
    shutil.rmtree(tmp_path / "parts")
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = get(sky, Web(offline=True), tmp_path, ids)
    assert again == got
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    with pytest.raises(TruemorphError, match=f"offline.*it is at {sky.url(SQL)}"):
        get(sky, Web(offline=True), tmp_path, ids, best_field=True)


def test_what_was_not_asked_again_keeps_its_date_and_address(sky, web, tmp_path, monkeypatch):
    ids = sky.truth["objid"]
    get(sky, web, tmp_path, ids)
    entries = read_provenance(tmp_path)
    assert set(entries) == {"photometry.parquet", "missing.csv"}
    assert verify(tmp_path) == []
    monkeypatch.setattr("truemorph.catalogs.archives.provenance.now", lambda: "later")
    get(sky, web, tmp_path, ids)
    (tmp_path / "photometry.parquet").unlink()  # put together again, of the same answers
    get(sky, web, tmp_path, ids)
    assert read_provenance(tmp_path) == entries
    get(sky, web, tmp_path, ids[:20])
    assert read_provenance(tmp_path)["photometry.parquet"]["date"] == "later"


def test_a_kill_between_table_and_provenance_is_seen_and_mended(sky, web, tmp_path, known, monkeypatch):
    get(sky, web, tmp_path, known[:20])

    replace = os.replace

    def killed(source, target):
        if target.name == "photometry.parquet":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            get(sky, Web(offline=True), tmp_path, known[:10])
    assert any("changed since" in line for line in verify(tmp_path))
    get(sky, web, tmp_path, known[:10])
    assert verify(tmp_path) == []
    assert pl.read_parquet(tmp_path / "photometry.parquet").height == 10


def test_nothing_is_left_of_a_folder_for_which_there_is_nothing(sky, web, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="1 to 300"):
        get(sky, web, tmp_path / "new" / "sdss", [587722981748572353], batch=400)
    with pytest.raises(InputError, match="no vote tables"):
        get(sky, web, tmp_path / "new" / "sdss", None)
    assert not (tmp_path / "new").exists()
