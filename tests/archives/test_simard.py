"""Simard et al. (2011) by TAP: published values, halved slices, damaged responses, missing rows."""

import re

import numpy as np
import polars as pl
import pytest

from archives.server import TAP, Answer, page, votable
from truemorph import read_table
from truemorph.archives import simard
from truemorph.errors import TruemorphError

SYNC = f"{TAP}/sync"


@pytest.fixture(autouse=True)
def _short_slices(monkeypatch):
    monkeypatch.setattr(simard, "SLICE", 50)


def published(sky):
    table = pl.read_parquet(sky.archive / "vizier" / "table3.parquet")
    return table.with_columns(pl.col("objID").cast(pl.Int64))


def slices(sky):
    queries = " ".join(one.params["QUERY"] for one in sky.asked(SYNC))
    return [(int(first), int(last)) for first, last in re.findall(r"recno BETWEEN (\d+) AND (\d+)", queries)]


def whole(sky, out):
    table = pl.read_parquet(out / "table3.parquet")
    return table.height == published(sky).height and table["objID"].is_unique().all()


def test_table_3_has_the_published_values(sky, tmp_path):
    got = sky.fetch("simard", tmp_path)
    table = read_table(tmp_path / "table3.parquet")
    theirs = published(sky)
    assert got.counts == {"table3.parquet": theirs.height}
    assert slices(sky) == [(1, 50), (51, 100), (101, theirs.height)]
    assert not (tmp_path / "parts").exists()
    assert (table.units["r_half"], table.units["r_half_arcsec"]) == ("kpc", "arcsec")
    assert set(table.descriptions) == set(table.frame.columns)
    joined = table.frame.join(theirs, on="objID", suffix="_v", validate="1:1")
    assert joined.height == theirs.height
    same = {
        "sersic_n": "ng", "sersic_n_error": "e_ng", "ellipticity": "e", "ellipticity_error": "e_e",
        "z": "z_v", "Scale": "Scale_v", "r_half": "Rchl,r",
    }  # fmt: skip
    assert {*same, "objID", "r_half_arcsec"} == set(table.frame.columns)
    for name, vizier in same.items():
        # Lengths that are not positive are not meaningful, like -99.99.
        length = name in ("Scale", "r_half")
        missing = joined[vizier] <= 0 if length else joined[vizier] == -99.99
        assert (joined[name].is_null() == missing).all(), name
        assert joined.filter(~missing).select((pl.col(name) == pl.col(vizier)).all()).item(), name
        assert joined[name].null_count() > 0, name
    there = joined.filter(pl.col("Scale_v") > 0)
    np.testing.assert_allclose(there["r_half_arcsec"], there["Rchl,r"] / there["Scale_v"], rtol=1e-12)


def test_a_response_at_the_row_limit_and_a_timeout_halve_the_slice(sky, tmp_path):
    for status in ("OVERFLOW", "ERROR"):
        before = len(slices(sky))
        sky.script(SYNC, Answer(), votable(["x"], [], status, "Time out"))
        sky.fetch("simard", tmp_path / status)
        assert slices(sky)[before : before + 3] == [(1, 50), (1, 25), (26, 50)]
        assert whole(sky, tmp_path / status)


def test_a_truncated_response_or_a_web_page_is_queried_again(sky, tmp_path):
    sky.script(SYNC, Answer(cut=300), Answer(), page(), Answer(), Answer(cut=1000))
    sky.fetch("simard", tmp_path)
    assert whole(sky, tmp_path)
    for answers, said in ([page("Until noon.")] * 5, "Until noon"), ([votable(["x"], [], "ERROR", "No table")], "No t"):
        sky.script(SYNC, *answers)
        with pytest.raises(TruemorphError, match=said):
            sky.fetch("simard", tmp_path / "b")


def test_missing_rows_are_detected(sky, tmp_path):
    def lossy(request):
        request.params["QUERY"] = request.params["QUERY"].replace("BETWEEN 51 AND 100", "BETWEEN 52 AND 100")
        return sky.tap(request)

    sky.routes[SYNC] = lossy
    with pytest.raises(TruemorphError, match=f"{published(sky).height - 1} rows"):
        sky.fetch("simard", tmp_path)
    assert not (tmp_path / "table3.parquet").exists()
    sky.routes[SYNC] = sky.tap
    sky.fetch("simard", tmp_path)
    assert whole(sky, tmp_path)
    sky.rows('DELETE FROM "J/ApJS/196/11/table3"')
    with pytest.raises(TruemorphError, match="J/ApJS/196/11/table3"):
        sky.fetch("simard", tmp_path / "empty")
