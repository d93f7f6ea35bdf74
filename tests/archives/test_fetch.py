"""The fetch command for all archives: repeated runs, provenance, full disks, extras."""

import errno
import json

import polars as pl
import pytest

from archives.server import SQL
from conftest import done, refused
from truemorph.archives.addresses import addresses
from truemorph.archives.fetch import ARCHIVES
from truemorph.archives.provenance import origin, read_provenance, record
from truemorph.errors import InputError

pytestmark = pytest.mark.slow


def options(sky, name):
    positions = sky.truth.filter(pl.col("hst") == "image").select("objid", "ra", "dec")[:2]
    return {"sdss": {"ids": sky.truth["objid"]}, "hst": {"positions": positions}}.get(name, {})


def test_every_archive_is_fetched_by_command(capsys, sky, tmp_path, monkeypatch):
    """Beside each other in the default folder, with addresses from the environment; or with options."""
    file = sky.write_addresses(tmp_path / "addresses.toml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRUEMORPH_ADDRESSES", str(file))
    fast = ("--rate", 100000, "--json")
    out = done(capsys, "fetch", "gz2", "sdss", "simard", "--no-images", *fast)
    results = json.loads(out)["archives"]
    assert [result["folder"] for result in results] == ["data/gz2", "data/sdss", "data/simard"]
    assert "Simard et al. 2011" in out
    assert {one.name for one in (tmp_path / "data/gz2").iterdir()}.isdisjoint({"images", "images.parquet"})
    assert len(sky.asked(SQL)) == 2  # the ids are those of the vote tables
    monkeypatch.delenv("TRUEMORPH_ADDRESSES")
    options(sky, "hst")["positions"].write_csv("positions.csv")
    more = ("--positions", "positions.csv", "--pixels", 32, "--addresses", file)
    result = json.loads(done(capsys, "fetch", "hst", "--out", "hst", *more, *fast))
    assert (result["archive"], result["folder"], result["counts"]["ok"]) == ("hst", "hst", 2)
    assert {one["name"] for one in result["sources"]} == {"hst.hips2fits", "hst.moc"}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "gz2, sdss, simard, hst"),
        (("gz3",), "gz3"),
        (("gz2", "--ids", "t.csv"), "fetch sdss"),
        (("gz2", "--rate", "nan"), "--rate"),
        (("hst",), "--positions"),
    ],
)
def test_wrong_options_raise_one_line_errors(capsys, tmp_path, words, named):
    assert named in refused(capsys, "fetch", *words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ARCHIVES)
def test_for_a_complete_folder_there_are_no_requests_and_no_writes(sky, tmp_path, name):
    """A read-only folder is sufficient."""
    got = sky.fetch(name, tmp_path / name, **options(sky, name))
    before, asked = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}, len(sky.requests)
    again = sky.fetch(name, tmp_path / name, **options(sky, name))
    assert again.counts == got.counts
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert len(sky.requests) == asked


def test_a_full_disk_raises_an_error(sky, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(OSError, match="No space left on device"):
        sky.fetch("sdss", tmp_path / "sdss", ids=sky.truth["objid"])
    assert not list(tmp_path.glob("sdss/parts/*"))


def test_provenance_has_the_origin_of_a_file(tmp_path):
    path, address = tmp_path / "t.csv", addresses()["gz2.hart16"].model_copy(update={"url": "http://me:secret@a.org/t"})
    path.write_text("a,b\n")
    record(path, address, "select 1")
    entry = read_provenance(tmp_path)["t.csv"]
    assert (entry["address"], entry["url"], entry["query"]) == ("gz2.hart16", "http://a.org/t", "select 1")
    assert (entry["licence"], entry["citation"]) == (address.licence, address.citation)
    assert origin(path) == entry
    path.write_text("a;b\n")
    assert origin(path)["changed"]
    (tmp_path / "provenance.json").write_text("{")
    with pytest.raises(InputError, match=r"provenance.json"):
        origin(path)
