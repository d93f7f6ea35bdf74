"""Transfers are resumed, checked, repeated and rate-limited; zip files are unpacked only inside of their folder."""

import gzip
import hashlib
import io
import json
import time
import zipfile
from dataclasses import replace

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


def at(url, **changes):
    return replace(addresses()["gz2.hart16"], url=url, **changes)


@pytest.fixture
def address(server):
    return at(server.put("/t.bin", BODY))


def ranges(server, path="/t.bin"):
    return [one.headers.get("Range") for one in server.asked(path)]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("checksum", [None, MD5, SHA256])
def test_a_file_is_downloaded_once(server, session, address, tmp_path, checksum):
    address = replace(address, checksum=checksum)
    download(session, address, tmp_path / "t.bin")
    assert (tmp_path / "t.bin").read_bytes() == BODY
    assert names(tmp_path) == ["provenance.json", "t.bin"]
    entry = read_provenance(tmp_path)["t.bin"]
    assert (entry["sha256"], entry["bytes"]) == (SHA256[7:], 500_000)
    download(session, address, tmp_path / "t.bin")
    assert len(server.requests) == 1
    assert read_provenance(tmp_path)["t.bin"] == entry


def test_a_download_resumes_after_each_interruption(server, session, address, tmp_path):
    server.script("/t.bin", Answer(cut=200_000), Answer(cut=100_000), busy(503))
    download(session, replace(address, checksum=MD5), tmp_path / "t.bin")
    assert ranges(server) == [None, "bytes=200000-", "bytes=300000-", "bytes=300000-"]
    assert (tmp_path / "t.bin").read_bytes() == BODY


def test_after_repeated_failures_the_partial_file_is_kept(server, session, address, tmp_path):
    server.script("/t.bin", Answer(cut=200_000), *[Answer(cut=0)] * 5)
    with pytest.raises(TruemorphError):
        download(session, address, tmp_path / "t.bin")
    assert names(tmp_path) == ["t.bin.part", "t.bin.part.json"]
    download(session, address, tmp_path / "t.bin")
    assert ranges(server)[-1] == "bytes=200000-"
    assert (tmp_path / "t.bin").read_bytes() == BODY


def test_tries_are_not_counted_while_data_arrive(server, session, address, tmp_path):
    server.script("/t.bin", *[Answer(cut=50_000)] * 8)
    download(session, address, tmp_path / "t.bin")
    assert (tmp_path / "t.bin").read_bytes() == BODY


@pytest.mark.parametrize("second", [Answer(), Answer(ranges=False)])  # another ETag; neither ETag nor ranges
def test_a_changed_file_is_downloaded_from_the_start(server, session, address, tmp_path, second):
    server.script("/t.bin", Answer(cut=200_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http, "TRIES", 1)
        with pytest.raises(TruemorphError):
            download(session, address, tmp_path / "t.bin")
    server.put("/t.bin", BODY[::-1])
    server.script("/t.bin", second)
    download(session, address, tmp_path / "t.bin")
    assert (tmp_path / "t.bin").read_bytes() == BODY[::-1]


def test_without_etag_a_download_starts_again(server, session, tmp_path):
    address = at(server.put("/t.bin", BODY, ranges=False))
    server.script("/t.bin", Answer(cut=200_000, ranges=False))
    download(session, replace(address, checksum=MD5), tmp_path / "t.bin")
    assert ranges(server) == [None, None]


def test_a_wrong_checksum_raises_an_error_and_the_file_is_removed(session, address, tmp_path):
    with pytest.raises(TruemorphError):
        download(session, replace(address, checksum="md5:" + "0" * 32), tmp_path / "t.bin")
    assert names(tmp_path) == []


def test_an_existing_file_is_kept_only_if_it_is_the_correct_one(server, session, address, tmp_path):
    path, elsewhere = tmp_path / "t.bin", at(server.put("/other.bin", BODY))
    checked = replace(elsewhere, checksum=MD5)

    def requests_for(wanted):
        before = len(server.requests)
        download(session, wanted, path)
        assert path.read_bytes() == BODY
        return len(server.requests) - before

    path.write_bytes(BODY)  # manually
    assert requests_for(address) == 0
    path.write_bytes(BODY[:-1])
    assert requests_for(address) == 1
    assert requests_for(elsewhere) == 1
    assert requests_for(elsewhere) == 0
    assert requests_for(checked) == 0
    path.write_bytes(BODY[:-1])
    assert requests_for(checked) == 1


def zipped():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.bin", BODY)
    return packed.getvalue()


@pytest.mark.parametrize(("name", "whole"), [("t.gz", gzip.compress(BODY)), ("t.zip", zipped())])
def test_a_truncated_gzip_or_zip_file_without_checksum_is_detected(server, session, tmp_path, name, whole):
    """Without length and chunks, the end of the connection looks like the end of the file."""
    address = at(server.put(f"/{name}", whole[:-40], length=False))
    with pytest.raises(TruemorphError):
        download(session, address, tmp_path / name)
    assert names(tmp_path) == []
    server.put(f"/{name}", whole)
    download(session, address, tmp_path / name)
    (tmp_path / name).write_bytes(whole[:-40])
    (tmp_path / "provenance.json").unlink()
    download(session, address, tmp_path / name)
    assert (tmp_path / name).read_bytes() == whole


def test_a_gzip_file_declared_as_compressed_transfer_stays_a_gzip_file(server, session, tmp_path):
    whole = gzip.compress(BODY)
    address = at(server.put("/t.csv.gz", whole, headers={"Content-Encoding": "gzip"}))
    download(session, address, tmp_path / "t.csv.gz")
    assert (tmp_path / "t.csv.gz").read_bytes() == whole


def test_a_web_page_instead_of_data_raises_an_error(server, session, address, tmp_path):
    server.script("/t.bin", Answer(cut=200_000), page(), page())
    download(session, replace(address, checksum=MD5), tmp_path / "t.bin")  # transient, and the partial file is kept
    server.put("/page", page().body)
    for name in ("t.csv", "t.zip"):
        with pytest.raises(TruemorphError, match="We are down for maintenance"):
            download(session, at(server.url("/page")), tmp_path / name)
        assert not (tmp_path / f"{name}.part").exists()
    with pytest.raises(TruemorphError, match="We are down for maintenance"):
        session.read(server.url("/page"), {})


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_transient_statuses_are_repeated(server, session, status):
    url = server.put("/t.csv", b"a\n1\n")
    server.script("/t.csv", *[busy(status)] * 4)
    assert session.read(url, {}) == b"a\n1\n"
    server.script("/t.csv", *[busy(status)] * 5)
    with pytest.raises(TruemorphError, match=str(status)) as caught:
        session.read(url, {})
    assert isinstance(caught.value, TooMuchError) == (status in (408, 504))


def test_other_statuses_raise_errors_at_once(server, session):
    for status in (400, 401, 403, 404, 410, 414):
        server.script("/t.csv", busy(status))
        with pytest.raises(TruemorphError, match="try later") as caught:
            session.read(server.url("/t.csv"), {})
        assert isinstance(caught.value, TooMuchError) == (status in (400, 404, 414))
    assert len(server.requests) == 6


def test_a_truncated_response_is_requested_again(server, session):
    url = server.put("/t.csv", b"a\n1\n")
    server.script("/t.csv", Answer(cut=2), Answer(cut=0))
    assert session.read(url, {"x": "é&b"}) == b"a\n1\n"
    assert [one.params for one in server.requests] == [{"x": "é&b"}] * 3


def test_silence_is_a_timeout(server, session, monkeypatch):
    monkeypatch.setattr(http, "TIMEOUT", (20.0, 0.05))
    monkeypatch.setattr(http, "TRIES", 2)
    server.script("/t.csv", *[Answer(wait=1.0)] * 2)
    with pytest.raises(TooMuchError):
        session.read(server.url("/t.csv"), {})


def test_a_requested_wait_is_respected(server, session, monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    url = server.put("/t.csv", b"a\n1\n")
    server.script("/t.csv", busy(503, "120"), busy(429, "soon"))
    session.read(url, {})
    assert max(waits) == 120


@pytest.mark.parametrize("value", ["3600", "99999999999", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_requested_wait_of_an_hour_ends_the_run(server, session, monkeypatch, value):
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waited"))
    server.script("/t.csv", busy(429, value))
    with pytest.raises(ComeBackLaterError):
        session.read(server.url("/t.csv"), {})
    assert len(server.requests) == 1


def test_the_request_rate_is_limited(server, monkeypatch):
    """Redirects count too."""
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    server.put("/t.csv", b"a\n1\n")
    server.script("/moved", Answer(b"", 302, {"Location": "/t.csv"}))
    Session(0.001).read(server.url("/moved"), {})
    assert waits == [pytest.approx(1000, abs=200)]


def test_offline_there_are_no_requests(server, address, tmp_path):
    offline = Session(offline=True)
    with pytest.raises(TruemorphError, match=address.url):
        download(offline, address, tmp_path / "t.bin")
    with pytest.raises(TruemorphError):
        offline.read(address.url, {})
    (tmp_path / "t.bin").write_bytes(BODY)
    download(offline, address, tmp_path / "t.bin")
    assert server.requests == []


def test_a_missing_server_or_proxy_raises_an_error(session, monkeypatch):
    for url in ("http://127.0.0.1:9/t.csv", "http://no-such-host.invalid/t.csv"):
        with pytest.raises(TruemorphError, match=url):
            session.read(url, {})
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(TruemorphError, match="Proxy"):
        session.read("http://archive.example.org/t.csv", {})


def test_user_name_and_password_are_sent_and_not_recorded(server, session, tmp_path):
    address = at(server.put("/t.bin", BODY).replace("http://", "http://me:secret@"))
    server.script("/t.bin", Answer(cut=200_000))
    download(session, address, tmp_path / "t.bin")
    assert all(one.headers["Authorization"].startswith("Basic ") for one in server.requests)
    assert json.dumps(read_provenance(tmp_path)).count("secret") == 0
    with pytest.raises(TruemorphError) as caught:
        session.read(address.url.replace("t.bin", "absent"), {})
    assert "secret" not in str(caught.value)


IMAGES = {f"images/{number}.jpg": BODY[: 1000 * number] for number in range(1, 6)}


def packed(path, entries, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, body in entries.items():
            archive.writestr(name, body)
    return path


def wanted(name):
    return name if name.startswith("images/") and name.endswith(".jpg") else None


def test_unzip_writes_selected_missing_files(tmp_path):
    path = packed(tmp_path / "t.zip", {**IMAGES, "images/": b"", "__MACOSX/images/._1.jpg": b"x", "README": b"hello"})
    out = tmp_path / "out"
    assert unzip(path, out, wanted) == list(IMAGES)
    assert {f"images/{one.name}": one.read_bytes() for one in (out / "images").iterdir()} == IMAGES
    (out / "images/1.jpg").unlink()
    (out / "images/2.jpg").write_bytes(b"0" * 2000)
    kept = (out / "images/3.jpg").stat().st_mtime_ns
    unzip(path, out, wanted)
    assert {f"images/{one.name}": one.read_bytes() for one in (out / "images").iterdir()} == IMAGES
    assert (out / "images/3.jpg").stat().st_mtime_ns == kept


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../up.jpg", "images/../../up.jpg", "C:/up.jpg", "\\\\host\\up.jpg", "..\\up.jpg"]
)
def test_zip_entries_outside_of_the_folder_raise_an_error_before_writing(tmp_path, name):
    path = packed(tmp_path / "t.zip", IMAGES | {name: b"x"})
    with pytest.raises(TruemorphError):
        unzip(path, tmp_path / "out", wanted)
    assert names(tmp_path) == ["t.zip"]


def test_zip_files_of_absurd_size_raise_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(http, "MOST_UNPACKED", 14_999)
    path = packed(tmp_path / "t.zip", IMAGES)
    with pytest.raises(TruemorphError, match="15,000"):
        unzip(path, tmp_path / "out", wanted)
    assert names(tmp_path) == ["t.zip"]


def test_wrong_sizes_and_damaged_bytes_are_detected(tmp_path):
    path = packed(tmp_path / "t.zip", {"images/1.jpg": BODY[:1000]}, zipfile.ZIP_STORED)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(BODY[500:510], b"0123456789"))
    with pytest.raises(TruemorphError):
        unzip(path, tmp_path / "out", wanted)
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    path.write_bytes(whole[: start + 24] + (999).to_bytes(4, "little") + whole[start + 28 :])
    with pytest.raises(TruemorphError):
        unzip(path, tmp_path / "out", wanted)
    assert not list((tmp_path / "out").rglob("*.jpg"))
