"""Transfers are resumed, checked, repeated and rate-limited; zip files are unpacked only inside of their folder."""

import gzip
import hashlib
import io
import os
import re
import time
import zipfile

import numpy as np
import pytest

from archives.server import Answer, busy, page
from truemorph.archives import http
from truemorph.archives.addresses import addresses
from truemorph.archives.http import ComeBackLaterError, Session, TooMuchError, download, unzip
from truemorph.archives.provenance import read_provenance
from truemorph.errors import TruemorphError

BODY = np.random.default_rng(0).bytes(500_000)
MD5 = f"md5:{hashlib.md5(BODY).hexdigest()}"
SHA256 = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


@pytest.fixture
def session():
    return Session(1e6)


@pytest.fixture
def get(session, tmp_path):
    """Download a file into the test's folder."""

    def got(url, checksum=None, name="t.bin"):
        address = addresses()["gz2.hart16"].model_copy(update={"url": url, "checksum": checksum})
        download(session, address, tmp_path / name)

    return got


@pytest.fixture
def url(server):
    return server.put("/t.bin", BODY)


def ranges(server):
    return [one.headers.get("Range") for one in server.asked("/t.bin")]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("checksum", [None, MD5, SHA256])
def test_a_file_is_downloaded_once(server, get, url, tmp_path, checksum):
    for _ in range(2):
        get(url, checksum)
        assert (tmp_path / "t.bin").read_bytes() == BODY
        assert names(tmp_path) == ["provenance.json", "t.bin"]
        entry = read_provenance(tmp_path)["t.bin"]
        assert (entry["sha256"], entry["bytes"]) == (SHA256[7:], 500_000)
    assert len(server.requests) == 1


def test_a_download_resumes_after_interruptions_and_failed_runs(server, get, url, tmp_path):
    # Tries are not counted while data arrive.
    server.script("/t.bin", *[Answer(cut=40_000)] * 5, busy(503), *[Answer(cut=0)] * 4)
    with pytest.raises(TruemorphError):
        get(url, MD5)
    assert names(tmp_path) == ["t.bin.part", "t.bin.part.json"]
    get(url, MD5)
    assert ranges(server)[:3] == [None, "bytes=40000-", "bytes=80000-"]
    assert ranges(server)[-1] == "bytes=200000-"
    assert (tmp_path / "t.bin").read_bytes() == BODY


@pytest.mark.parametrize("second", [Answer(), Answer(ranges=False)])  # another ETag; neither ETag nor ranges
def test_a_changed_file_is_downloaded_from_the_start(server, get, url, tmp_path, monkeypatch, second):
    server.script("/t.bin", Answer(cut=200_000))
    monkeypatch.setattr(http, "TRIES", 1)
    with pytest.raises(TruemorphError):
        get(url)
    server.put("/t.bin", BODY[::-1])
    server.script("/t.bin", second)
    # A password in the address is sent, and not recorded.
    get(url.replace("http://", "http://me:secret@"))
    assert (tmp_path / "t.bin").read_bytes() == BODY[::-1]
    assert server.requests[-1].headers["Authorization"].startswith("Basic ")
    assert "secret" not in (tmp_path / "provenance.json").read_text()


def test_an_existing_file_is_kept_only_if_it_is_the_correct_one(server, get, url, tmp_path):
    path, elsewhere = tmp_path / "t.bin", server.put("/other.bin", BODY)

    def requests_for(*wanted):
        before = len(server.requests)
        get(*wanted)
        assert path.read_bytes() == BODY
        return len(server.requests) - before

    path.write_bytes(BODY)  # manually
    assert requests_for(url) == 0
    path.write_bytes(BODY[:-1])
    assert requests_for(url) == 1
    assert requests_for(elsewhere) == 1
    assert requests_for(elsewhere, MD5) == 0
    path.write_bytes(BODY[:-1])
    assert requests_for(elsewhere, MD5) == 1


def zipped(path, entries, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, body in entries.items():
            archive.writestr(name, body)
    return path


@pytest.mark.parametrize(
    ("name", "whole", "checksum"),
    [
        ("t.gz", gzip.compress(BODY), None),
        ("t.zip", zipped(io.BytesIO(), {"a.bin": BODY}).getvalue(), None),
        ("t.bin", BODY, MD5),
    ],
    ids=["gz", "zip", "bin"],  # names of tests must not contain the time that is in the bytes
)
def test_a_truncated_file_is_detected_by_its_checksum_or_its_end(server, get, tmp_path, name, whole, checksum):
    """Without length and chunks, the end of the connection looks like the end of the file."""
    url = server.put(f"/{name}", whole[:-40], length=False)
    with pytest.raises(TruemorphError):
        get(url, checksum, name)
    assert names(tmp_path) == []
    # Some servers declare a .gz file as a compressed transfer.
    server.put(f"/{name}", whole, headers={"Content-Encoding": "gzip"})
    get(url, checksum, name)
    assert (tmp_path / name).read_bytes() == whole


def test_a_web_page_instead_of_data_raises_an_error(server, get, url, tmp_path):
    server.script("/t.bin", Answer(cut=200_000), page(), page())
    get(url, MD5)  # transient, and the partial file is kept
    url = server.put("/page", page().body)
    with pytest.raises(TruemorphError, match="We are down for maintenance"):
        get(url, name="t.csv")
    assert not (tmp_path / "t.csv.part").exists()


@pytest.mark.parametrize("status", [400, 401, 404, 408, 414, 429, 500, 503, 504])
def test_transient_statuses_are_repeated(server, session, status):
    url = server.put("/t.csv", b"a\n1\n")
    server.script("/t.csv", *[busy(status)] * 5)
    with pytest.raises(TruemorphError, match=str(status)) as caught:
        session.read(url, {})
    assert isinstance(caught.value, TooMuchError) == (status in (400, 404, 408, 414, 504))
    assert len(server.requests) == (5 if status in (408, 429, 500, 503, 504) else 1)


def test_a_requested_wait_is_respected_up_to_five_minutes(server, session, monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    url = server.put("/t.csv", b"a\n1\n")
    server.script("/t.csv", busy(503, "120"), busy(429, "soon"))
    assert session.read(url, {"x": "é&b"}) == b"a\n1\n"
    assert [request.params for request in server.requests] == [{"x": "é&b"}] * 3
    assert max(waits) == 120
    for value in ("3600", "99999999999", "Fri, 31 Dec 2100 23:59:59 GMT"):
        server.script("/t.csv", busy(429, value))
        with pytest.raises(ComeBackLaterError):
            session.read(url, {})
    assert max(waits) == 120


def test_the_request_rate_is_limited(server, monkeypatch):
    """Redirects count too."""
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    server.put("/t.csv", b"a\n1\n")
    server.script("/moved", Answer(b"", 302, {"Location": "/t.csv"}))
    Session(0.001).read(server.url("/moved"), {})
    assert waits == [pytest.approx(1000, abs=200)]


def test_a_missing_server_or_proxy_and_an_invalid_redirect_raise_errors(server, session, monkeypatch):
    with pytest.raises(TruemorphError, match=r"127.0.0.1:9/t.csv"):
        session.read("http://127.0.0.1:9/t.csv", {})
    for location in ("http://[bad", "http://\x80", "http://a:b:c/"):
        server.script("/moved", *[Answer(b"", 302, {"Location": location}, ranges=False)] * http.TRIES)
        with pytest.raises(TruemorphError):
            session.read(server.url("/moved"), {})
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(TruemorphError, match="Proxy"):
        session.read("http://archive.example.org/t.csv", {})


IMAGES = {f"images/{number}.jpg": BODY[: 1000 * number] for number in range(1, 6)}
WANTED = re.compile(r"(images/\d+\.jpg)")


def test_unzip_writes_selected_missing_files(tmp_path):
    path = zipped(tmp_path / "t.zip", {**IMAGES, "images/": b"", "__MACOSX/images/._1.jpg": b"x", "README": b"hello"})
    out = tmp_path / "out"
    assert unzip(path, out, WANTED) == list(IMAGES)
    (out / "images/1.jpg").unlink()
    (out / "images/2.jpg").write_bytes(b"0" * 2000)
    kept = (out / "images/3.jpg").stat().st_mtime_ns
    unzip(path, out, WANTED)
    assert {f"images/{one.name}": one.read_bytes() for one in (out / "images").iterdir()} == IMAGES
    assert (out / "images/3.jpg").stat().st_mtime_ns == kept


def test_unzip_does_not_search_the_folder_for_each_file(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for number in range(50):
            file.writestr(f"images/{number}.jpg", bytes(number))
    searched, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda *where: searched.append(where) or scandir(*where))
    assert len(unzip(tmp_path / "a.zip", tmp_path / "out", re.compile(r"images/(.*)"))) == 50
    assert len(searched) < 5


@pytest.mark.parametrize("name", ["/etc/passwd", "images/../../up.jpg", "C:/up.jpg", "\\\\host\\up.jpg", "..\\up.jpg"])
def test_zip_entries_outside_of_the_folder_raise_an_error_before_writing(tmp_path, name):
    with pytest.raises(TruemorphError):
        unzip(zipped(tmp_path / "t.zip", IMAGES | {name: b"x"}), tmp_path / "out", WANTED)
    assert names(tmp_path) == ["t.zip"]


def test_zip_files_of_absurd_size_or_with_damaged_bytes_raise_errors(tmp_path, monkeypatch):
    path = zipped(tmp_path / "t.zip", IMAGES, zipfile.ZIP_STORED)
    monkeypatch.setattr(http, "MOST_UNPACKED", 14_999)
    with pytest.raises(TruemorphError, match="15,000"):
        unzip(path, tmp_path / "out", WANTED)
    monkeypatch.undo()
    path.write_bytes(path.read_bytes().replace(BODY[500:510], b"0123456789"))
    with pytest.raises(TruemorphError):
        unzip(path, tmp_path / "out", WANTED)
    assert not list((tmp_path / "out").rglob("*.jpg"))
