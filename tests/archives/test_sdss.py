"""SDSS by SQL: exact numbers, halved batches, truncated responses, ids."""

from urllib.parse import urlencode

import numpy as np
import polars as pl
import pytest

from archives.server import SQL, refusal, text
from conftest import codes
from truemorph import read_table
from truemorph.archives import sdss
from truemorph.archives.sdss import BATCH, COLUMNS, DETECTIONS, PER_SECOND, PHOTOMETRY
from truemorph.errors import InputError, TruemorphError


@pytest.fixture
def known(sky):
    """Ids that are in DR7; they are queried only once."""
    return sky.truth.filter("in_sdss")["objid"]


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(sdss, "BATCH", 25)


def get(sky, out, **options):
    return sky.fetch("sdss", out, **{"ids": sky.truth["objid"], **options})


def photometry(out):
    return pl.read_parquet(out / "photometry.parquet")


def test_every_column_equals_that_of_the_archive(sky, known, tmp_path):
    got = get(sky, tmp_path)
    table = read_table(tmp_path / "photometry.parquet")
    assert table.frame.columns == list(COLUMNS)
    assert table.frame["objid"].dtype == pl.Int64
    assert (table.units["petroRad_r"], table.units["psfWidth_r"], table.units["ra"]) == ("arcsec", "arcsec", "deg")
    served, fields, spectra = (
        pl.read_parquet(sky.archive / "skyserver" / f"{name}.parquet") for name in ("PhotoObjAll", "Field", "SpecObj")
    )
    spectra = spectra.select("zConf", objID="bestObjID", redshift="z")
    served = served.join(fields, on="fieldID").join(spectra, on="objID", how="left")
    joined = table.frame.join(served, left_on="objid", right_on="objID", suffix="_served", validate="1:1")
    for name in set(COLUMNS) - {"objid", "psfWidth_r_best"}:
        there = joined.filter(pl.col(f"{name}_served") > -1000)
        assert (joined[name].is_null() == ~(joined[f"{name}_served"] > -1000).fill_null(False)).all(), name
        # SkyServer rounds `real` columns to three decimals; as float they have six.
        np.testing.assert_allclose(there[name], there[f"{name}_served"], rtol=0, atol=6e-7, err_msg=name)
    assert joined["petroRad_r"].null_count() > 0
    assert joined["redshift"].null_count() > 0
    truth = joined.join(sky.truth, on="objid", suffix="_true")
    np.testing.assert_allclose(truth["psfWidth_r_best"], truth["psf_best"], atol=6e-7)
    assert (truth["psfWidth_r_best"] < truth["psfWidth_r"]).sum() > 10
    # Every id is exact and accounted for.
    assert set(table.frame["objid"]) == set(joined["objid"]) == set(known)
    missing = pl.read_csv(tmp_path / "missing.csv")["objid"]
    assert set(missing) == set(sky.truth.filter(~pl.col("in_sdss"))["objid"])
    assert codes(got) == ["ids-not-in-dr7"]


def test_impossible_values_are_null_and_the_better_spectrum_is_used(sky, tmp_path):
    ids = sky.truth.filter("has_redshift", "measured")["objid"][:3]
    sky.rows(f"UPDATE PhotoObjAll SET petroRad_r = 0 WHERE objID = {ids[0]}")
    field = f"(SELECT fieldID FROM PhotoObjAll WHERE objID = {ids[2]})"
    sky.rows(f"UPDATE Field SET psfWidth_r = 0 WHERE fieldID = {field}")
    for one, confidence in zip(ids, (0.3, 1.5), strict=False):
        sky.rows(f"INSERT INTO SpecObj (bestObjID, z, zConf) VALUES ({one}, 3.25, {confidence})")
    get(sky, tmp_path, ids=ids)
    rows = {row["objid"]: row for row in photometry(tmp_path).iter_rows(named=True)}
    assert [rows[one]["petroRad_r"] is None for one in ids] == [True, False, False]
    assert [rows[one]["redshift"] == 3.25 for one in ids] == [False, True, False]
    assert rows[ids[2]]["psfWidth_r"] is None


def test_queries_fit_into_a_url_and_the_rate_is_below_sixty_per_minute():
    for query in (PHOTOMETRY, DETECTIONS):
        sql = query.sql.format(ids=",".join(["587722981748572353"] * BATCH))
        assert len(urlencode({"cmd": sql, "format": "csv"})) < 6000
    assert 60 * PER_SECOND < 60


def test_timeouts_halve_the_batch_and_too_many_queries_cause_a_wait(sky, known, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    slow = refusal("[Microsoft][ODBC SQL Server Driver]Timeout expired")
    sky.script(SQL, text('"ERROR: Maximum 60 queries allowed per minute. Rejected query: SELECT"\n'), slow, slow)
    get(sky, tmp_path, ids=known)
    assert [one.params["cmd"].count("5877") for one in sky.asked(SQL)[:5]] == [25, 25, 12, 6, 6]
    assert max(waits) >= 65
    assert photometry(tmp_path).height == known.len()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda body: text(body[: len(body) // 2].rstrip(",.") + "\n"), "truncated"),
        (lambda body: text(body[:-1], length=False), "truncated"),
        (lambda body: text(body.replace("587", "5.87e17", 1)), "5.87e17"),
        (lambda body: text(body.replace("petroRad_r", "petroR_r", 1)), "petroRad_r"),
        (lambda body: text(""), "empty"),
        (lambda body: refusal("Invalid column name 'petroRad_r'."), "Invalid column name 'petroRad_r'"),
        (lambda body: text(body + "\nERROR\n\nlost contact\n"), "lost contact"),
    ],
)
def test_incomplete_responses_raise_errors(sky, tmp_path, change, named):
    whole = sky.sql
    sky.routes[SQL] = lambda request: change(whole(request).body.decode())
    with pytest.raises(TruemorphError, match=named):
        get(sky, tmp_path)
    assert not list(tmp_path.glob("parts/*"))
    assert not (tmp_path / "photometry.parquet").exists()


def test_ids_from_tables_and_from_python(sky, known, tmp_path):
    some, table = known[:7], tmp_path / "t.csv"
    pl.DataFrame({"OBJID": some, "note": "x"}).write_csv(table)
    for ids in (table, pl.read_csv(table), some.to_numpy(), [None, *map(str, some)]):
        get(sky, tmp_path / "out", ids=ids)
        assert photometry(tmp_path / "out")["objid"].to_list() == sorted(some)
    for column, named in (("id", "nearest: OBJID"), ("note", "not integers")):
        with pytest.raises(InputError, match=named):
            get(sky, tmp_path / "out", ids=table, id=column)


@pytest.mark.parametrize(
    ("ids", "named"),
    [
        ([42, 587722981748572353, 1237648720693755918], "1237648720693755918"),
        (None, "fetch gz2"),
        ([587722981748572353.0], "lose digits"),
        ([587722981748572353], "none of 1 ids"),
    ],
)
def test_ids_that_are_not_from_dr7_raise_errors(sky, tmp_path, ids, named):
    with pytest.raises(InputError, match=named):
        get(sky, tmp_path / "sdss", ids=ids)
