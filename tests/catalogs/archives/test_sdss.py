"""SDSS by SQL: right numbers to the last digit, batches that are kept, halved and resumed, answers that are none."""

import errno
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from catalogs.archives.observatory import SQL, Observatory, asked_ids, small_archive
from catalogs.archives.server import Answer, busy, cut, page
from truemorph.catalogs.archives.fetch import fetch
from truemorph.catalogs.archives.provenance import read_provenance
from truemorph.catalogs.archives.sdss import COLUMNS
from truemorph.catalogs.archives.web import Web
from truemorph.errors import InputError, TruemorphError
from truemorph.tables import read_table


def get(sky, web, out, **options):
    options = {"ids": sky.truth["objid"], "batch": 25, **options}
    return fetch("sdss", out, addresses_from=sky.addresses, web=web, **options)


def photometry(out):
    return pl.read_parquet(out / "photometry.parquet")


def known(sky):
    """Ids that DR7 knows: nothing of them is asked twice."""
    return sky.truth.filter("in_sdss")["objid"]


def asked(sky, table="LEFT JOIN SpecObj"):
    return asked_ids([one for one in sky.asked(SQL) if table in one.params["cmd"]])


def test_numbers_are_those_of_the_sky(sky, web, tmp_path):
    got = get(sky, web, tmp_path)
    table = read_table(tmp_path / "photometry.parquet")
    assert table.frame.columns == list(COLUMNS)
    assert table.units["petroRad_r"] == "arcsec"
    assert "people saw" in table.descriptions["psfWidth_r"]
    joined = table.frame.join(sky.truth, on="objid", suffix="_true")
    assert joined.height == table.frame.height == sky.truth["in_sdss"].sum()
    # SkyServer rounds `real` columns to three decimals: asked as float they keep six.
    for name, true in (("psfWidth_r", "psf_fwhm"), ("psfWidth_r_best", "psf_best")):
        np.testing.assert_allclose(joined[name], joined[true], atol=6e-7)
    measured = joined.filter("measured")
    np.testing.assert_allclose(measured["petroRad_r"], measured["radius"], atol=6e-7)
    np.testing.assert_allclose(measured["petroMag_r"] - measured["extinction_r"], measured["magnitude"], atol=2e-6)
    np.testing.assert_allclose(joined["ra"], joined["ra_true"], atol=6e-7)
    with_redshift = joined.filter("has_redshift")
    np.testing.assert_allclose(with_redshift["redshift"], with_redshift["redshift_true"], atol=6e-7)
    assert joined.filter(~pl.col("has_redshift"))["redshift"].is_null().all()
    unmeasured = joined.filter(~pl.col("measured"))
    assert unmeasured.height > 0
    for name in ("petroRad_r", "petroRadErr_r", "petroR90_r", "petroMag_g"):
        assert unmeasured[name].is_null().all()
    assert (joined["n_fields"] == joined["n_fields_true"]).all()
    assert got.counts["in several fields"] == (joined["n_fields_true"] > 1).sum() > 20


def test_every_column_is_that_of_the_served_table(sky, web, tmp_path):
    get(sky, web, tmp_path)
    served = pl.read_parquet(sky.archive / "skyserver" / "PhotoObjAll.parquet")
    fields = pl.read_parquet(sky.archive / "skyserver" / "Field.parquet").select("fieldID", "psfWidth_r")
    spectra = pl.read_parquet(sky.archive / "skyserver" / "SpecObjAll.parquet").filter(pl.col("sciencePrimary") == 1)
    served = served.join(fields, on="fieldID").join(
        spectra.select(objID="bestObjID", redshift="z", zConf="zConf"), on="objID", how="left"
    )
    joined = photometry(tmp_path).join(served, left_on="objid", right_on="objID", suffix="_served", validate="1:1")
    assert joined.height == sky.truth["in_sdss"].sum()
    of_fields = {"psfWidth_r_best", "n_fields", "field_best"}  # see the tests of those
    for name in [one for one in COLUMNS if one != "objid" and one not in of_fields]:
        there = joined.filter(pl.col(f"{name}_served") > -1000)
        assert (joined[name].is_null() == ~(joined[f"{name}_served"] > -1000).fill_null(False)).all(), name
        assert there.height > 90
        np.testing.assert_allclose(there[name], there[f"{name}_served"], rtol=0, atol=6e-7, err_msg=name)


def test_what_can_not_be_is_null(sky, web, tmp_path):
    ids = sky.truth.filter("in_sdss", "measured")["objid"][:4]
    sky._rows(f"UPDATE PhotoObjAll SET petroRad_r = 0 WHERE objID = {ids[0]} RETURNING 1")
    sky._rows(f"UPDATE PhotoObjAll SET petroRad_r = -0.5 WHERE objID = {ids[1]} RETURNING 1")
    field = f"(SELECT fieldID FROM PhotoObjAll WHERE objID = {ids[2]})"
    sky._rows(f"UPDATE Field SET psfWidth_r = 0 WHERE fieldID = {field} RETURNING 1")
    get(sky, web, tmp_path, ids=ids, best_field=False)
    rows = {row["objid"]: row for row in photometry(tmp_path).iter_rows(named=True)}
    assert [rows[one]["petroRad_r"] is None for one in ids] == [True, True, False, False]
    assert rows[ids[2]]["psfWidth_r"] is None
    assert rows[ids[2]]["psfWidth_r_best"] is None


def test_of_two_spectra_the_surer_one_counts(sky, web, tmp_path):
    ids = sky.truth.filter("has_redshift")["objid"][:2]
    for object_id, confidence in zip(ids, (0.3, 1.5), strict=True):
        sky._rows(
            "INSERT INTO SpecObjAll (specObjID, bestObjID, z, zErr, zConf, specClass, sciencePrimary) "
            f"VALUES (1, {object_id}, 3.25, 0.001, {confidence}, 2, 1) RETURNING 1"
        )
    get(sky, web, tmp_path, ids=ids)
    second = photometry(tmp_path)["redshift"] == 3.25
    assert second.to_list() == [False, True]


def test_the_best_field_is_the_one_with_the_smallest_psf(sky, web, tmp_path):
    get(sky, web, tmp_path)
    fields = pl.read_parquet(sky.archive / "skyserver" / "Field.parquet").select(
        field_best="fieldID", best="psfWidth_r"
    )
    joined = photometry(tmp_path).join(fields, on="field_best", how="left")
    np.testing.assert_allclose(joined["best"], joined["psfWidth_r_best"], atol=6e-7)
    assert (joined["psfWidth_r_best"] <= joined["psfWidth_r"] + 1e-9).all()
    better = joined["psfWidth_r_best"] < joined["psfWidth_r"] - 0.01
    assert 0 < better.sum() < joined.height / 2


def test_ids_keep_every_digit_and_unknown_ones_are_listed(sky, web, tmp_path):
    got = get(sky, web, tmp_path)
    table = photometry(tmp_path)
    assert table["objid"].dtype == pl.Int64
    known = sky.truth.filter("in_sdss")["objid"]
    assert set(table["objid"]) == set(known)
    missing = pl.read_csv(tmp_path / "missing.csv")["objid"]
    assert set(missing) == set(sky.truth.filter(~pl.col("in_sdss"))["objid"])
    assert any(f"{missing.len()} ids are not in DR7" in note for note in got.notes)
    entry = read_provenance(tmp_path)["photometry.parquet"]
    assert "FROM PhotoObjAll" in entry["query"]
    assert entry["ids"] == 120


def test_batches_are_as_large_as_asked_and_addresses_short_enough(sky, web, tmp_path):
    get(sky, web, tmp_path, batch=50, ids=known(sky))
    assert [len(ids) for ids in asked(sky)] == [50, 50, known(sky).len() - 100]
    from urllib.parse import urlencode

    from truemorph.catalogs.archives.sdss import _DETECTIONS, _PHOTOMETRY, BATCH

    for query in (_PHOTOMETRY, _DETECTIONS):
        ids = [587722981748572353] * BATCH
        assert len(sky.url(SQL)) + len(urlencode({"cmd": query.text(ids), "format": "csv"})) < 6000


def test_cut_off_it_asks_only_for_what_is_missing(sky, web, tmp_path):
    sky.script(SQL, *[Answer()] * 2, *[busy(503)] * 5)
    with pytest.raises(TruemorphError, match="what has arrived is kept"):
        get(sky, web, tmp_path, ids=known(sky))
    assert not (tmp_path / "photometry.parquet").exists()
    first = asked(sky)[:2]
    before = len(asked(sky))
    get(sky, web, tmp_path, ids=known(sky))
    again = asked(sky)[before:]
    assert sorted(chain(*first, *again)) == sorted(known(sky))
    whole = photometry(tmp_path)
    get(sky, web, tmp_path / "at-once", ids=known(sky))
    assert whole.equals(photometry(tmp_path / "at-once"))


def test_run_again_it_asks_nobody_and_more_ids_ask_for_these(sky, web, tmp_path):
    some = known(sky)[:40]
    get(sky, web, tmp_path, ids=some)
    before = len(sky.requests)
    get(sky, Web(offline=True), tmp_path, ids=some)
    assert len(sky.requests) == before
    with pytest.raises(TruemorphError, match="offline"):
        get(sky, Web(offline=True), tmp_path)
    get(sky, web, tmp_path)
    assert not set(chain(*asked(sky)[2:])) & set(some)
    assert photometry(tmp_path).height == sky.truth["in_sdss"].sum()


def test_time_outs_halve_the_batch(sky, web, tmp_path, capsys):
    sky.most_ids = 10
    get(sky, web, tmp_path, batch=40)
    assert "Timeout expired" in capsys.readouterr().err
    # 40, 20 and 10 were tried once; then ten at a time, and twenty again only after a while.
    assert [len(ids) for ids in asked(sky)[:4]] == [40, 20, 10, 10]
    assert all(len(ids) <= 20 for ids in asked(sky)[4:])
    assert sum(len(ids) > 10 for ids in asked(sky)) == 3
    assert photometry(tmp_path).height == sky.truth["in_sdss"].sum()
    # What was too much once isn't asked again.
    before = len(sky.requests)
    get(sky, web, tmp_path, batch=40)
    assert len(sky.requests) == before


def test_silence_halves_the_batch_too(sky, impatient, tmp_path, capsys):
    sky.script(SQL, *[Answer(wait=0.6)] * 5)
    get(sky, impatient, tmp_path, batch=120, best_field=False)
    assert "asking for half" in capsys.readouterr().err
    assert photometry(tmp_path).height == sky.truth["in_sdss"].sum()


def test_too_much_even_for_one(sky, web, tmp_path):
    sky.most_ids = 0
    with pytest.raises(TruemorphError, match="even for one object"):
        get(sky, web, tmp_path, ids=sky.truth["objid"][:4])


def test_too_many_queries_a_minute_are_waited_for(sky, web, waits, tmp_path):
    said = b'"ERROR: Maximum 60 queries allowed per minute. Rejected query: SELECT"\n'
    sky.script(SQL, Answer(said, type="text/plain", ranges=False))
    get(sky, web, tmp_path)
    assert max(waits) >= 65
    assert photometry(tmp_path).height == sky.truth["in_sdss"].sum()


def test_what_sql_server_says_is_told(sky, web, tmp_path):
    sky.refuse = "Invalid column name 'petroRad_r'."
    with pytest.raises(TruemorphError, match=r"SkyServer refuses .*Invalid column name 'petroRad_r'") as caught:
        get(sky, web, tmp_path)
    assert "SELECT" not in str(caught.value)
    assert not list((tmp_path / "parts").iterdir())


def test_a_page_in_place_of_an_answer(sky, web, tmp_path):
    """One among many queries is nothing; three in a row are."""
    sky.script(SQL, Answer(), page(), page())
    get(sky, web, tmp_path, ids=known(sky))
    assert photometry(tmp_path).height == known(sky).len()
    sky.script(SQL, *[page("The servers are being moved.")] * 3)
    with pytest.raises(TruemorphError, match="being moved"):
        get(sky, web, tmp_path / "b")


def test_a_renamed_column_is_named_with_the_nearest(sky, web, tmp_path):
    sky.renamed = {"petroRad_r": "petroR_r"}
    with pytest.raises(TruemorphError, match="no column petroRad_r; nearest: petroR_r"):
        get(sky, web, tmp_path)


def test_a_cut_connection_is_asked_again(sky, web, tmp_path):
    sky.script(SQL, cut(200), cut(0))
    get(sky, web, tmp_path)
    assert photometry(tmp_path).height == sky.truth["in_sdss"].sum()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[: len(text) // 2].rstrip(",.") + "\n", "cut in row"),
        (lambda text: text.replace("587", "5.87e17", 1), "something else than numbers"),
        (lambda text: "", "empty"),
        (lambda text: text + "\nERROR\n\nSQL returned the following error message:\nlost contact\n", "lost contact"),
    ],
)
def test_damaged_answers_are_not_taken_for_whole(sky, web, tmp_path, damage, said):
    whole = sky._sql

    def damaged(request):
        return Answer(damage(whole(request).body.decode()).encode(), type="text/plain", ranges=False)

    sky.route(SQL, damaged)
    with pytest.raises(TruemorphError, match=said):
        get(sky, web, tmp_path)
    assert not list((tmp_path / "parts").iterdir())


@pytest.mark.parametrize("keep", [lambda text: text[: len(text) // 2].rstrip(",.\n"), lambda text: text[:-3]])
def test_answers_whose_connection_always_breaks_are_not_taken_for_whole(sky, web, tmp_path, keep):
    """No length was said, and the last line has no end."""
    whole = sky._sql

    def cut_short(request):
        return Answer(keep(whole(request).body.decode()).encode(), type="text/plain", length=False, ranges=False)

    sky.route(SQL, cut_short)
    with pytest.raises(TruemorphError, match="ends in the middle"):
        get(sky, web, tmp_path)
    assert not list((tmp_path / "parts").iterdir())


def test_a_damaged_part_is_asked_for_again(sky, web, tmp_path, capsys):
    get(sky, web, tmp_path, ids=known(sky))
    whole = photometry(tmp_path)
    part = sorted((tmp_path / "parts").glob("photometry-*"))[1]
    good = part.read_bytes()

    def without_a_column():
        pl.read_parquet(part).drop("ra").write_parquet(part)

    def flipped():
        at = len(good) // 3
        part.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])

    for damage in (lambda: part.write_bytes(good[:100]), without_a_column, flipped):
        damage()
        (tmp_path / "photometry.parquet").unlink()
        before = len(asked(sky))
        get(sky, web, tmp_path, ids=known(sky))
        assert "asked for again" in capsys.readouterr().err
        assert [len(ids) for ids in asked(sky)[before:]] == [25]
        assert photometry(tmp_path).equals(whole)


def test_answers_of_another_server_are_not_mixed_in(sky, web, tmp_path):
    get(sky, web, tmp_path, best_field=False, ids=known(sky))
    with Observatory(small_archive()) as other:
        get(other, web, tmp_path, best_field=False, ids=known(sky))
        assert sum(len(ids) for ids in asked(other)) == known(sky).len()


def test_own_field_only_asks_half_as_often(sky, web, tmp_path):
    get(sky, web, tmp_path, best_field=False, ids=known(sky))
    assert len(sky.asked(SQL)) == 5
    table = photometry(tmp_path)
    assert (table["n_fields"] == 1).all()
    assert (table["psfWidth_r_best"] == table["psfWidth_r"]).all()


def test_a_full_disk_is_told_and_nothing_half_written_stays(sky, web, tmp_path, monkeypatch):
    def full(path, content):
        with open(path, "wb") as file:
            file.write(content[:7])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(TruemorphError, match=r"No space left on device.*make room"):
            get(sky, web, tmp_path)
    assert not list((tmp_path / "parts").iterdir())
    get(sky, web, tmp_path)


def test_ids_come_from_galaxy_zoo_beside_by_default(sky, web, tmp_path):
    fetch("gz2", tmp_path / "gz2", addresses_from=sky.addresses, web=web, images=False)
    got = get(sky, web, tmp_path / "sdss", ids=None)
    assert got.counts["ids"] == 120
    with pytest.raises(InputError, match="fetch gz2 first, or give --ids"):
        get(sky, web, tmp_path / "elsewhere" / "sdss", ids=None)


def test_ids_from_tables(sky, web, tmp_path):
    some = sky.truth.select(OBJID="objid", note=pl.lit("x"))[:7]
    for name in ("t.csv", "t.csv.gz", "t.parquet"):
        path = tmp_path / name
        if name == "t.csv.gz":
            import gzip

            path.write_bytes(gzip.compress(some.write_csv().encode()))
        else:
            (some.write_parquet if name.endswith("parquet") else some.write_csv)(path)
        assert get(sky, web, tmp_path / "out", ids=path).counts["ids"] == 7
    with pytest.raises(InputError, match="no column id; nearest: OBJID"):
        get(sky, web, tmp_path / "out", ids=path, id_column="id")
    with pytest.raises(InputError, match="whole numbers"):
        get(sky, web, tmp_path / "out", ids=tmp_path / "t.csv", id_column="note")
    floats = tmp_path / "floats.parquet"
    some.cast({"OBJID": pl.Float64}).write_parquet(floats)
    with pytest.raises(InputError, match="lost digits"):
        get(sky, web, tmp_path / "out", ids=floats)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([1237648720693755918], "DR8 or later; take the column dr7objid"),
        ([8647474690341470208], "Stripe 82's coadd"),
        ([42, 587722981748572353], "no SDSS object"),
        ([], "no ids"),
        ([587722981748572353], "knows none of the 1 ids"),
    ],
)
def test_ids_that_are_not_of_dr7(sky, web, tmp_path, ids, said):
    with pytest.raises(InputError, match=said):
        get(sky, web, tmp_path, ids=ids)


def test_a_batch_fits_an_address(sky, web, tmp_path):
    with pytest.raises(InputError, match="1 to 300"):
        get(sky, web, tmp_path, batch=1000)
