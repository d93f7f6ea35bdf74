"""Where files came from, written whole and by many at once."""

import hashlib
import json
import subprocess
import sys

import pytest

from truemorph import __version__
from truemorph.catalogs.archives.addresses import addresses
from truemorph.catalogs.archives.provenance import read_provenance, record, verify
from truemorph.errors import InputError

ADDRESS = addresses()["gz2.hart16"]


def note(folder, name, body=b"a,b\n", **more):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    sha256 = hashlib.sha256(body).hexdigest()
    record(folder, path, address=ADDRESS, url="http://a.org/t", sha256=sha256, bytes=len(body), **more)


def test_an_entry_says_everything(tmp_path):
    note(tmp_path, "t.csv", query="select 1", date="2026-01-02T03:04:05Z", rows=2)
    assert read_provenance(tmp_path) == {
        "t.csv": {
            "address": "gz2.hart16",
            "url": "http://a.org/t",
            "date": "2026-01-02T03:04:05Z",
            "sha256": hashlib.sha256(b"a,b\n").hexdigest(),
            "bytes": 4,
            "query": "select 1",
            "licence": ADDRESS.licence,
            "citation": ADDRESS.citation,
            "truemorph": __version__,
            "rows": 2,
        }
    }


def test_names_are_relative_to_the_folder_however_a_file_is_named(tmp_path, monkeypatch):
    note(tmp_path, "images/1.jpg")
    monkeypatch.chdir(tmp_path)
    for file in ("t.csv", tmp_path / "t.csv", "./t.csv"):
        record(".", file, address=ADDRESS, url="http://a.org/t", sha256="0", bytes=0)
    assert sorted(read_provenance(tmp_path)) == ["images/1.jpg", "t.csv"]


def test_another_time_replaces_the_entry_and_leaves_the_others(tmp_path):
    note(tmp_path, "t.csv")
    note(tmp_path, "u.csv")
    note(tmp_path, "t.csv", b"new\n")
    entries = read_provenance(tmp_path)
    assert list(entries) == ["t.csv", "u.csv"]
    assert entries["t.csv"]["bytes"] == 4
    assert verify(tmp_path) == []


def test_what_was_not_fetched_now_keeps_its_date_and_address(tmp_path):
    note(tmp_path, "t.csv", date="2020-01-01T00:00:00Z")
    had = read_provenance(tmp_path)["t.csv"]
    sha256 = had["sha256"]
    record(tmp_path, "t.csv", address=ADDRESS, url="http://b.org/t", sha256=sha256, bytes=4, fetched=False, rows=1)
    assert read_provenance(tmp_path)["t.csv"] == had | {"rows": 1}
    record(tmp_path, "t.csv", address=ADDRESS, url="http://b.org/t", sha256="0" * 64, bytes=4, fetched=False)
    assert read_provenance(tmp_path)["t.csv"]["url"] == "http://b.org/t"


def test_missing_and_changed_files_are_found(tmp_path):
    for name in ("same.csv", "gone.csv", "longer.csv", "other.csv"):
        note(tmp_path, name)
    (tmp_path / "gone.csv").unlink()
    (tmp_path / "longer.csv").write_bytes(b"a,b\n1,2\n")
    (tmp_path / "other.csv").write_bytes(b"a;b\n")
    found = verify(tmp_path)
    assert [line.split(" since")[0] for line in found] == [
        "gone.csv: missing",
        "longer.csv: changed",
        "other.csv: changed",
    ]


def test_no_provenance_is_none(tmp_path):
    assert read_provenance(tmp_path) == {}
    assert verify(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"t.csv": 3}'])
def test_damaged_provenance_is_said_and_not_overwritten(tmp_path, text):
    (tmp_path / "provenance.json").write_text(text)
    with pytest.raises(InputError, match=r"provenance.json: .*; move it away and fetch again"):
        read_provenance(tmp_path)
    with pytest.raises(InputError):
        note(tmp_path, "t.csv")
    assert (tmp_path / "provenance.json").read_text() == text


CHILD = """
import sys
from truemorph.catalogs.archives.addresses import addresses
from truemorph.catalogs.archives.provenance import record
address = addresses()["gz2.hart16"]
for i in range(40):
    record(sys.argv[1], f"{sys.argv[2]}-{i:02d}.csv", address=address, url="http://a.org/t", sha256="0", bytes=0)
"""


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    children = [subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), name]) for name in "abc"]
    # Whoever reads meanwhile reads whole files.
    while any(child.poll() is None for child in children):
        read_provenance(tmp_path)
    assert [child.returncode for child in children] == [0, 0, 0]
    assert len(read_provenance(tmp_path)) == 120
    assert json.loads((tmp_path / "provenance.json").read_text()).keys() == read_provenance(tmp_path).keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".provenance.json.lock", "provenance.json"]
