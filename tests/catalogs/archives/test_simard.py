"""Simard et al. (2011) by TAP: names found whatever the service calls them, slices kept, missing values null."""

import re

import numpy as np
import polars as pl
import pytest

from catalogs.archives.observatory import TAP, Observatory, small_archive
from catalogs.archives.server import Answer, busy, cut, page
from truemorph.catalogs.archives.addresses import addresses
from truemorph.catalogs.archives.checksums import file_hash
from truemorph.catalogs.archives.failures import ComeBackError, UnansweredError
from truemorph.catalogs.archives.fetch import fetch
from truemorph.catalogs.archives.provenance import read_provenance, record, verify
from truemorph.catalogs.archives.web import Web
from truemorph.errors import InputError, TruemorphError
from truemorph.tables import read_table

SYNC = f"{TAP}/sync"


def get(sky, web, out, **options):
    return fetch("simard", out, addresses_from=sky.addresses, web=web, **{"slice_rows": 50, **options})


def published(sky, number=3):
    table = pl.read_parquet(sky.archive / "vizier" / f"table{number}.parquet")
    return table.with_columns(pl.col("objID").cast(pl.Int64))


def slices(sky):
    queries = [one.params["QUERY"] for one in sky.asked(SYNC)]
    found = [re.search(r"recno BETWEEN (\d+) AND (\d+)", one) for one in queries]
    return [(int(one[1]), int(one[2])) for one in found if one]


def refusal(said):
    error = f'<INFO name="QUERY_STATUS" value="ERROR">{said}</INFO>'
    body = f'<?xml version="1.0"?><VOTABLE><RESOURCE type="results">{error}</RESOURCE></VOTABLE>'
    return Answer(body.encode(), type="text/xml", ranges=False)


def test_table_3_has_what_was_published(sky, web, tmp_path):
    got = get(sky, web, tmp_path)
    table = read_table(tmp_path / "table3.parquet")
    theirs = published(sky)
    assert got.counts == {"table3.parquet": theirs.height}
    assert table.frame["objID"].dtype == pl.Int64
    assert table.units["r_half"] == "kpc"
    assert table.units["r_half_arcsec"] == "arcsec"
    joined = table.frame.join(theirs, on="objID", suffix="_v", validate="1:1")
    assert joined.height == theirs.height
    same = {
        **{"sersic_n": "ng", "sersic_n_error": "e_ng", "ellipticity": "e", "ellipticity_error": "e_e"},
        **{name: f"{name}_v" for name in ("z", "Sp", "Scale", "Rhlg", "Rhlr", "rg2d")},
        **{"Rchl_g": "Rchl,g", "r_half": "Rchl,r"},
    }
    assert {*same, "objID", "r_half_arcsec"} == set(table.frame.columns)
    for name, vizier in same.items():
        # Lengths that are not positive mean nothing, as what is -99.99.
        length = name in ("Scale", "Rhlg", "Rhlr", "Rchl_g", "r_half")
        missing = joined[vizier] <= 0 if length else joined[vizier] == -99.99
        assert (joined[name].is_null() == missing).all(), name
        assert joined.filter(~missing).select((pl.col(name) == pl.col(vizier)).all()).item(), name
        assert (joined[name].null_count() > 0) == (name != "Sp"), name


def test_radii_without_a_scale_mean_nothing(sky, web, tmp_path):
    get(sky, web, tmp_path)
    joined = pl.read_parquet(tmp_path / "table3.parquet").join(published(sky), on="objID", suffix="_v")
    nowhere = joined["Scale_v"] == -99.99
    assert nowhere.any()
    for name in ("Scale", "z", "r_half", "r_half_arcsec", "Rhlr", "Rchl_g"):
        assert (joined[name].is_null() == nowhere).all()
    assert joined["sersic_n"].filter(nowhere).null_count() < nowhere.sum()
    there = joined.filter(~nowhere)
    np.testing.assert_allclose(there["r_half_arcsec"], there["Rchl,r"] / there["Scale_v"], rtol=1e-12)
    truth = there.join(sky.truth, left_on="objID", right_on="objid")
    # Half-light radii of the simulation, with its 5 % error and two decimals.
    ratio = truth["r_half_arcsec"] / truth["r50"]
    assert abs(float(np.log(ratio).mean())) < 4 * 0.06 / np.sqrt(truth.height)


def test_a_scale_of_nothing_gives_no_radius(sky, web, tmp_path):
    sky._rows('UPDATE "J/ApJS/196/11/table3" SET "Scale" = 0 WHERE recno = 5 RETURNING 1')
    get(sky, web, tmp_path)
    row = pl.read_parquet(tmp_path / "table3.parquet").row(4, named=True)
    assert (row["Scale"], row["r_half_arcsec"]) == (None, None)
    assert row["r_half"] > 0


def test_slices_are_as_asked_and_parts_go_when_the_table_is_whole(sky, web, tmp_path):
    get(sky, web, tmp_path)
    n = published(sky).height
    assert slices(sky) == [(1, 50), (51, 100), (101, n)]
    assert list((tmp_path / "parts").iterdir()) == []
    assert verify(tmp_path) == []
    assert (
        sky.asked(SYNC)[0]
        .params["QUERY"]
        .endswith("WHERE table_name = 'J/ApJS/196/11/table3' OR table_name = '\"J/ApJS/196/11/table3\"'")
    )
    entry = read_provenance(tmp_path)["table3.parquet"]
    assert entry["rows"] == n
    assert '"Rchl,r"' in entry["query"]


def test_run_again_it_asks_nobody(sky, web, tmp_path):
    get(sky, web, tmp_path)
    before = len(sky.requests)
    # Killed just before they were removed.
    (tmp_path / "parts" / "table3-0123456789-1-50.parquet").touch()
    got = get(sky, web, tmp_path)
    assert list((tmp_path / "parts").iterdir()) == []
    assert got == get(sky, Web(offline=True), tmp_path)
    assert len(sky.requests) == before
    assert got.notes == ("table3.parquet was here already",)
    (tmp_path / "table3.parquet").write_bytes(b"changed")
    get(sky, web, tmp_path)
    assert pl.read_parquet(tmp_path / "table3.parquet").height == published(sky).height
    with pytest.raises(TruemorphError, match=rf"table3.*offline.*it is at {sky.url(TAP)}"):
        get(sky, Web(offline=True), tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_a_table_of_another_query_is_not_the_one_that_is_wanted(sky, web, tmp_path):
    get(sky, web, tmp_path)
    path, whole = tmp_path / "table3.parquet", pl.read_parquet(tmp_path / "table3.parquet")
    known = addresses(sky.addresses)["simard.tap"]
    query = read_provenance(tmp_path)[path.name]["query"]

    def put(frame, asked):
        frame.write_parquet(path)
        record(
            tmp_path, path, address=known, url=known.url, sha256=file_hash(path), bytes=path.stat().st_size, query=asked
        )

    for frame, asked in (
        (whole.drop("ellipticity"), query),
        (whole, query.replace('"e" AS', '"phi" AS')),
        (whole, query.replace("/table3", "/table1")),
    ):
        put(frame, asked)
        before = len(sky.requests)
        assert get(sky, web, tmp_path).notes == ()
        assert len(sky.requests) > before
        assert pl.read_parquet(path).equals(whole)
    # By whom it was asked doesn't matter, nor that nobody counted its rows.
    put(whole, query.replace('"Rchl,r"', '"Rchl_r"'))
    assert get(sky, web, tmp_path).counts == {"table3.parquet": whole.height}
    with Observatory(small_archive()) as other:
        get(other, web, tmp_path)
        assert slices(other) != []
    # Offline another address is no reason to be without.
    assert fetch("simard", tmp_path, web=Web(offline=True)).counts == {"table3.parquet": whole.height}


def test_cut_off_it_asks_only_for_what_is_missing(sky, web, tmp_path):
    # Names, their number, one slice; then the server goes away.
    sky.script(SYNC, *[Answer()] * 3, *[busy(503)] * 5)
    with pytest.raises(TruemorphError, match="503"):
        get(sky, web, tmp_path)
    assert not (tmp_path / "table3.parquet").exists()
    done = len(slices(sky))
    get(sky, web, tmp_path)
    assert slices(sky)[done:] == [(51, 100), (101, published(sky).height)]
    get(sky, web, tmp_path / "at-once")
    frames = [pl.read_parquet(folder / "table3.parquet") for folder in (tmp_path, tmp_path / "at-once")]
    assert frames[0].equals(frames[1])


def test_a_damaged_part_is_asked_for_again(sky, web, tmp_path, capsys):
    sky.script(SYNC, *[Answer()] * 3, *[busy(503)] * 5)
    with pytest.raises(TruemorphError):
        get(sky, web, tmp_path)
    (part,) = (tmp_path / "parts").iterdir()
    part.write_bytes(part.read_bytes()[:200])
    get(sky, web, tmp_path)
    assert "asked for again" in capsys.readouterr().err
    assert pl.read_parquet(tmp_path / "table3.parquet").height == published(sky).height


def test_an_answer_at_the_services_limit_is_asked_for_in_halves(sky, web, tmp_path, capsys):
    sky.most_rows = 60
    get(sky, web, tmp_path, slice_rows=200)
    assert "cut at the service's limit" in capsys.readouterr().err
    assert pl.read_parquet(tmp_path / "table3.parquet").height == published(sky).height
    assert pl.read_parquet(tmp_path / "table3.parquet")["objID"].is_unique().all()


def test_time_outs_halve_the_slice(sky, web, tmp_path, capsys):
    sky.script(SYNC, *[Answer()] * 2, refusal("Time out"))
    get(sky, web, tmp_path, slice_rows=200)
    assert "asking for half" in capsys.readouterr().err
    assert pl.read_parquet(tmp_path / "table3.parquet").height == published(sky).height


def test_other_names_for_the_same_columns_are_found(sky, web, tmp_path):
    sky.renamed = {"Rchl,r": "Rchl_r", "Rchl,g": "rchl_g", "e_ng": "e_ng"}
    get(sky, web, tmp_path)
    table = pl.read_parquet(tmp_path / "table3.parquet")
    joined = table.join(published(sky), on="objID").filter(pl.col("Rchl,r") > 0)
    assert (joined["r_half"] == joined["Rchl,r"]).all()


def test_a_renamed_column_is_named_with_the_nearest(sky, web, tmp_path):
    sky.renamed = {"ng": "nsersic"}
    with pytest.raises(TruemorphError, match="J/ApJS/196/11/table3: no column ng"):
        get(sky, web, tmp_path)
    sky.renamed = {"Rchl,r": "Rchl_R_kpc"}
    with pytest.raises(TruemorphError, match=r"no column Rchl,r; nearest: .*Rchl_R_kpc"):
        get(sky, web, tmp_path)


def test_a_service_without_the_table(sky, web, tmp_path):
    sky._rows("DELETE FROM TAP_SCHEMA.columns RETURNING 1")
    with pytest.raises(TruemorphError, match="has no table J/ApJS/196/11/table3"):
        get(sky, web, tmp_path)


def test_a_page_in_place_of_a_votable(sky, web, tmp_path):
    """One among many answers is nothing; three in a row are."""
    sky.script(SYNC, Answer(), page(), page())
    get(sky, web, tmp_path)
    sky.script(SYNC, *[page("Maintenance until noon.")] * 3)
    with pytest.raises(TruemorphError, match="something else than a VOTable"):
        get(sky, web, tmp_path / "b")


def test_what_the_service_says_is_told(sky, web, tmp_path):
    sky.script(SYNC, refusal("Unknown table"))
    with pytest.raises(TruemorphError, match=r'refuses the query: ".*Unknown table'):
        get(sky, web, tmp_path)


def test_a_cut_answer_is_asked_for_again(sky, web, tmp_path):
    sky.script(SYNC, cut(300), *[Answer()] * 2, cut(1000), cut(2000))
    get(sky, web, tmp_path)
    assert pl.read_parquet(tmp_path / "table3.parquet").height == published(sky).height


def test_fewer_rows_than_there_are(sky, web, tmp_path):
    sky.script(SYNC, *[Answer()] * 2)
    whole = sky._tap
    missing = {"row": True}

    def lossy(request):
        if missing["row"] and "BETWEEN 51" in request.params["QUERY"]:
            request.params["QUERY"] += " AND recno <> 60"
        return whole(request)

    sky.route(SYNC, lossy)
    with pytest.raises(TruemorphError, match="1 slices were removed"):
        get(sky, web, tmp_path)
    missing["row"] = False
    before = len(slices(sky))
    get(sky, web, tmp_path)
    assert slices(sky)[before:] == [(51, 100)]


def stopped(sky, web, out, after):
    """A run that ends after so many answers: names, their number, slices."""
    sky.script(SYNC, *[Answer()] * after, busy(503, "7200"))
    with pytest.raises(ComeBackError):
        get(sky, web, out)


def test_a_table_that_changed_meanwhile_starts_anew(sky, web, tmp_path):
    stopped(sky, web, tmp_path, 4)
    sky._rows('DELETE FROM "J/ApJS/196/11/table3" WHERE recno > 80 RETURNING 1')
    before = len(slices(sky))
    assert get(sky, web, tmp_path).counts == {"table3.parquet": 80}
    assert slices(sky)[before:] == [(1, 50), (51, 80)]
    assert list((tmp_path / "parts").iterdir()) == []


def test_slices_that_overlap_are_dropped(sky, web, tmp_path):
    stopped(sky, web, tmp_path, 3)
    (part,) = (tmp_path / "parts").iterdir()
    pl.read_parquet(part)[24:].write_parquet(part.with_name(part.name.replace("-1-50", "-25-50")))
    with pytest.raises(TruemorphError, match="run the same again"):
        get(sky, web, tmp_path)
    assert get(sky, web, tmp_path).counts == {"table3.parquet": published(sky).height}


def test_rows_that_came_twice_are_refused(sky, web, tmp_path):
    stopped(sky, web, tmp_path, 3)
    last = published(sky).height
    sky._rows(f'UPDATE "J/ApJS/196/11/table3" SET recno = {last + 1} - recno RETURNING 1')
    with pytest.raises(TruemorphError, match=r"objID \d{18} came more than once"):
        get(sky, web, tmp_path)
    assert not (tmp_path / "table3.parquet").exists()
    get(sky, web, tmp_path)
    assert pl.read_parquet(tmp_path / "table3.parquet")["objID"].is_unique().all()


def test_a_table_without_rows(sky, web, tmp_path):
    sky._rows('DELETE FROM "J/ApJS/196/11/table3" RETURNING 1')
    with pytest.raises(TruemorphError, match="has no rows"):
        get(sky, web, tmp_path)


def test_what_the_session_says_comes_through(sky, web, tmp_path):
    """Pyvo wraps it; its own words say nothing of when to come back."""
    sky.script(SYNC, busy(503, "7200"))
    with pytest.raises(ComeBackError, match=r"asks to wait 7,200 s: run the same again after"):
        get(sky, web, tmp_path)
    sky.script(SYNC, *[Answer()] * 2, *[busy(503)] * 5)
    with pytest.raises(UnansweredError, match=r"503.*\(5 tries\).*what has arrived is kept"):
        get(sky, web, tmp_path)


def test_a_gateway_that_times_out_halves_the_slice(sky, web, tmp_path, capsys):
    sky.script(SYNC, *[Answer()] * 2, *[busy(504)] * 5)
    get(sky, web, tmp_path, slice_rows=200)
    assert "asking for half" in capsys.readouterr().err
    before = len(sky.requests)
    sky.script(SYNC, *[Answer()] * 2, busy(504, "7200"))
    with pytest.raises(ComeBackError):
        get(sky, web, tmp_path / "b", slice_rows=200)
    assert len(sky.requests) == before + 3


def test_bulge_and_disk(sky, web, tmp_path):
    get(sky, web, tmp_path, tables=(1, 2))
    for number in (1, 2):
        joined = pl.read_parquet(tmp_path / f"table{number}.parquet").join(
            published(sky, number), on="objID", suffix="_v"
        )
        there = joined.filter(pl.col("(B/T)r") != -99.99)
        assert (there["bulge_fraction_r"] == there["(B/T)r"]).all()
        assert joined["bulge_fraction_r"].null_count() == joined.height - there.height
    assert not (tmp_path / "table3.parquet").exists()


def test_there_are_three_tables(sky, web, tmp_path):
    with pytest.raises(InputError, match="1, 2 and 3; got 4"):
        get(sky, web, tmp_path, tables=(3, 4))
    with pytest.raises(InputError, match="got none"):
        get(sky, web, tmp_path, tables=())
