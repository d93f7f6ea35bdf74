"""The command: each archive by name, options where they belong, licences said, JSON."""

import json
from pathlib import Path

import polars as pl
import pytest

from catalogs.archives.observatory import SQL
from conftest import run
from truemorph.catalogs.archives.fetch import ARCHIVES, fetch
from truemorph.errors import InputError


@pytest.fixture
def addresses(sky, tmp_path):
    return sky.write_addresses(tmp_path / "addresses.toml")


def test_everything_by_command(capsys, sky, addresses, tmp_path):
    """Four commands, as docs/archives.md shows them: each finds what the one before left."""
    fast = ("--addresses", addresses, "--rate", "100000")
    status, out, err = run(capsys, "fetch", "gz2", "--out", tmp_path / "gz2", *fast)
    assert status == 0, err
    assert "licence: CC BY 4.0" in out
    assert "Hart et al. 2016" in out
    status, out, err = run(capsys, "fetch", "sdss", "--out", tmp_path / "sdss", "--json", *fast)
    assert status == 0, err
    assert json.loads(out)["counts"]["ids"] == 120
    assert "ids are not in DR7" in err
    status, out, err = run(capsys, "fetch", "simard", "--out", tmp_path / "simard", "--tables", "3,1", *fast)
    assert status == 0, err
    positions = tmp_path / "positions.csv"
    sky.truth.filter(pl.col("hst") == "image").select("objid", "ra", "dec")[:3].write_csv(positions)
    status, out, err = run(
        capsys, "fetch", "hst", "--positions", positions, "--out", tmp_path / "hst", "--pixels", "32", *fast
    )
    assert status == 0, err
    assert len(list((tmp_path / "hst").glob("*.jpg"))) == 3
    for name in ARCHIVES:
        assert (tmp_path / name / "provenance.json").is_file()


def test_several_archives_in_one_command(capsys, addresses, tmp_path):
    fast = ("--addresses", addresses, "--rate", "100000", "--no-images", "--json")
    status, out, err = run(capsys, "fetch", "gz2", "sdss", "--out", tmp_path / "sky", *fast)
    assert status == 0, err
    assert [one["archive"] for one in json.loads(out)["archives"]] == ["gz2", "sdss"]
    assert (tmp_path / "sky" / "sdss" / "photometry.parquet").is_file()
    status, _, err = run(capsys, "fetch")
    assert (status, err) == (2, "truemorph: name what to fetch: gz2, sdss, simard, hst\n")


def test_json_names_sources_and_how_to_cite_them(capsys, addresses, tmp_path):
    status, out, _ = run(
        capsys, "fetch", "gz2", "--no-images", "--out", tmp_path / "gz2", "--addresses", addresses, "--json"
    )
    assert status == 0
    result = json.loads(out)
    assert result["folder"] == str(tmp_path / "gz2")
    assert {one["name"] for one in result["sources"]} == {"gz2.willett13", "gz2.hart16", "gz2.mapping"}
    assert all(one["licence"] and one["citation"] for one in result["sources"])


def test_options_belong_to_an_archive(capsys, tmp_path):
    status, _, err = run(capsys, "fetch", "gz2", "--ids", tmp_path / "t.csv", "--out", tmp_path / "gz2")
    assert status == 2
    assert "--ids is of fetch sdss; fetch gz2 has no use for it" in err
    status, _, err = run(capsys, "fetch", "simard", "--tables", "three", "--out", tmp_path / "s")
    assert status == 2
    assert "numbers such as 1,3" in err
    status, _, err = run(capsys, "fetch", "hst", "--out", tmp_path / "hst")
    assert status == 2
    assert "--positions TABLE" in err


def test_unknown_archives(capsys, tmp_path):
    status, _, err = run(capsys, "fetch", "gz3")
    assert status == 2
    assert len(err.splitlines()) == 1
    with pytest.raises(InputError, match="nearest: simard"):
        fetch("simards", tmp_path)


def test_help_has_an_example(capsys):
    status, out, _ = run(capsys, "fetch", "--help")
    assert status == 0
    assert "truemorph fetch gz2" in out


def test_offline_says_what_is_missing(capsys, addresses, tmp_path):
    status, _, err = run(capsys, "fetch", "gz2", "--offline", "--out", tmp_path / "gz2", "--addresses", addresses)
    assert status == 1
    assert "offline" in err.splitlines()[-1]
    assert "zoo2MainSpecz" in err.splitlines()[-1]


def test_addresses_from_the_environment(sky, addresses, tmp_path, monkeypatch, web):
    monkeypatch.setenv("TRUEMORPH_ADDRESSES", str(addresses))
    fetch("sdss", tmp_path / "sdss", web=web, ids=sky.truth["objid"][:3])
    assert len(sky.asked(SQL)) == 2


def test_the_default_folder(sky, web, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    got = fetch("gz2", addresses_from=sky.addresses, web=web, images=False)
    assert got.folder == Path("data/gz2")
    assert (tmp_path / "data" / "gz2" / "gz2_hart16.csv.gz").is_file()
    assert fetch("sdss", addresses_from=sky.addresses, web=web).counts["ids"] == 120


def test_a_file_is_no_folder(tmp_path, web):
    (tmp_path / "f").write_text("")
    with pytest.raises(InputError, match="is a file"):
        fetch("gz2", tmp_path / "f", web=web)
