"""The fetch command for all archives: offline runs, provenance, full disks, extras."""

import errno
import json
import subprocess
import sys

import polars as pl
import pytest

from archives.server import SQL
from conftest import run
from truemorph.archives.addresses import addresses
from truemorph.archives.fetch import ARCHIVES, fetch
from truemorph.archives.provenance import origin, read_provenance, record
from truemorph.commands.fetch import fetch_archive
from truemorph.errors import InputError, TruemorphError


@pytest.fixture
def arguments(sky, tmp_path):
    return ("--addresses", sky.write_addresses(tmp_path / "addresses.toml"), "--rate", "100000")


def options(sky, name):
    positions = sky.truth.filter(pl.col("hst") == "image").select("objid", "ra", "dec")[:2]
    return {"sdss": {"ids": sky.truth["objid"]}, "hst": {"positions": positions}}.get(name, {})


def test_every_archive_is_fetched_by_command(capsys, sky, arguments, tmp_path):
    status, out, err = run(capsys, "fetch", "gz2", "sdss", "simard", "--out", tmp_path, *arguments)
    assert status == 0, err
    assert "CC BY 4.0" in out
    assert "Hart et al. 2016" in out
    positions = tmp_path / "positions.csv"
    options(sky, "hst")["positions"].write_csv(positions)
    more = ("--positions", positions, "--pixels", 32, "--out", tmp_path / "hst", "--json")
    status, out, err = run(capsys, "fetch", "hst", *more, *arguments)
    assert status == 0, err
    result = json.loads(out)
    assert (result["archive"], result["folder"], result["counts"]["ok"]) == ("hst", str(tmp_path / "hst"), 2)
    assert {one["name"] for one in result["sources"]} == {"hst.hips2fits", "hst.moc"}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "gz2, sdss, simard, hst"),
        (("gz3",), "gz3"),
        (("gz2", "--ids", "t.csv"), "fetch sdss"),
        (("gz2", "--rate", "nan"), "--rate"),
        (("hst",), "--positions"),
        (("hst", "--positions", "absent.csv"), "absent.csv"),
    ],
)
def test_wrong_options_raise_one_line_errors(capsys, sky, arguments, tmp_path, words, named):
    status, _, err = run(capsys, "fetch", *words, "--out", tmp_path / "out", *(() if "--rate" in words else arguments))
    assert (status, len(err.splitlines())) == (2, 1)
    assert named in err
    assert sky.requests == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ARCHIVES)
def test_offline_there_are_no_requests_and_no_writes(sky, tmp_path, name):
    """A read-only folder is sufficient."""
    with pytest.raises(TruemorphError):
        fetch(name, tmp_path / name, offline=True, **options(sky, name))
    assert not (tmp_path / name).exists()
    got = fetch(name, tmp_path / name, addresses_from=sky.addresses, per_second=1e6, **options(sky, name))
    before, asked = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}, len(sky.requests)
    # Independent of the address of the files.
    for more in ({"offline": True}, {"addresses_from": sky.addresses}):
        assert fetch(name, tmp_path / name, **more, **options(sky, name)).counts == got.counts
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert len(sky.requests) == asked


def test_the_default_folder_and_addresses_from_the_environment(sky, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRUEMORPH_ADDRESSES", str(sky.write_addresses(tmp_path / "addresses.toml")))
    found = fetch_archive("gz2", no_images=True, rate=1e6).to_dict()
    assert found["folder"] == "data/gz2"
    assert [one["name"] for one in found["sources"]] == ["gz2.willett13", "gz2.hart16", "gz2.sample", "gz2.mapping"]
    assert not (tmp_path / "data/gz2/images.parquet").exists()
    assert fetch("sdss", per_second=1e6).counts["ids"] == 120
    assert len(sky.asked(SQL)) == 3  # photometry, a repeat for the two ids that are not in DR7, detections


def test_unwritable_folders_raise_errors(sky, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for name in ARCHIVES:
        with pytest.raises(TruemorphError, match="Not a directory"):
            fetch(name, tmp_path / "file" / "x", addresses_from=sky.addresses, per_second=1e6, **options(sky, name))

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(TruemorphError, match="No space left on device"):
        fetch("sdss", tmp_path / "sdss", addresses_from=sky.addresses, per_second=1e6, **options(sky, "sdss"))
    assert not list(tmp_path.glob("sdss/parts/*"))


def test_provenance_has_the_origin_of_a_file(tmp_path):
    path, address = tmp_path / "t.csv", addresses({"gz2.hart16": "http://me:secret@a.org/t"})["gz2.hart16"]
    path.write_text("a,b\n")
    record(path, address, "select 1", rows=2)
    entry = read_provenance(tmp_path)["t.csv"]
    assert (entry["address"], entry["url"], entry["query"]) == ("gz2.hart16", "http://a.org/t", "select 1")
    assert (entry["licence"], entry["citation"], entry["rows"]) == (address.licence, address.citation, 2)
    assert origin(path) == entry
    path.write_text("a;b\n")
    assert origin(path)["changed"]
    (tmp_path / "provenance.json").write_text("{")
    with pytest.raises(InputError, match=r"provenance.json"):
        origin(path)


def test_only_fetching_needs_the_extra():
    code = (
        "import sys; sys.modules |= dict.fromkeys(('requests', 'urllib3', 'pyvo'));"
        "import truemorph, truemorph.catalogs.prepare, truemorph.archives.provenance, truemorph.archives.fetch as f;"
        "f.fetch('gz2')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'truemorph[archives]'" in done.stderr.splitlines()[-1]
