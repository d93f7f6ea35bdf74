"""HST cut-outs: coverage first, empty images told from galaxies, resumed where cut off."""

import json

import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from PIL import Image

from catalogs.archives.observatory import CUTOUTS, MOC, Observatory, small_archive
from catalogs.archives.server import Answer, busy, page
from truemorph.catalogs.archives.fetch import fetch
from truemorph.catalogs.archives.hst import Cutout
from truemorph.catalogs.archives.provenance import read_provenance
from truemorph.catalogs.archives.web import Web
from truemorph.errors import InputError, TruemorphError

SMALL = Cutout(fov=12, pixels=64)


@pytest.fixture
def sky():
    with Observatory(small_archive()) as running:
        yield running
    assert running.problems == []


@pytest.fixture
def some(sky):
    """Objects of every kind."""
    seen = sky.truth.filter(pl.col("hst") != "outside")[:14]
    blank = sky.truth.filter(pl.col("hst") == "blank")
    return pl.concat([seen, blank, sky.truth.filter(pl.col("hst") == "outside")[:6]]).unique(
        "objid", maintain_order=True
    )


def get(sky, web, out, positions, cutout=SMALL):
    where = positions.select("objid", "ra", "dec") if "objid" in positions.columns else positions
    return fetch("hst", out, addresses_from=sky.addresses, web=web, positions=where, cutout=cutout)


def listed(out):
    return pl.read_csv(out / "hst.csv", schema_overrides={"object_id": pl.String})


def test_each_object_gets_its_image_or_why_not(sky, web, tmp_path, some):
    got = get(sky, web, tmp_path, some)
    table = listed(tmp_path)
    assert table.columns == ["object_id", "ra", "dec", "file", "hips", "status"]
    assert table["object_id"].to_list() == some["objid"].cast(pl.String).to_list()
    expected = {"image": "ok", "blank": "blank", "outside": "outside"}
    assert table["status"].to_list() == [expected[one] for one in some["hst"]]
    ok, blank = ((some["hst"] == kind).sum() for kind in ("image", "blank"))
    assert got.counts == {"ok": ok, "outside": 6, "blank": blank, "failed": 0}
    assert min(ok, blank) > 1
    for row in table.filter(pl.col("status") == "ok").iter_rows(named=True):
        assert row["file"] == f"{row['object_id']}.jpg"
        with Image.open(tmp_path / row["file"]) as image:
            assert image.size == (64, 64)
            pixels = np.asarray(image.convert("L"), dtype=float)
        # The galaxy is in the middle.
        assert pixels[24:40, 24:40].mean() > pixels.mean() + 5
    assert "TAN" in read_provenance(tmp_path)["hst.csv"]["query"]
    assert any("NASA/ESA Hubble" in line for line in got.credits())


def test_images_are_asked_for_only_where_there_is_coverage(sky, web, tmp_path, some):
    get(sky, web, tmp_path, some)
    assert len(sky.asked(MOC)) == some.height
    places = {(float(one.params["ra"]), float(one.params["dec"])) for one in sky.asked(CUTOUTS)}
    assert len(places) == some.height - 6
    colour = [one.params["hips"] for one in sky.asked(CUTOUTS)]
    assert set(colour) == {"CDS/P/HST/color", "CDS/P/HST/I", "CDS/P/HST/V"}


def test_the_preferred_mosaic_is_taken(sky, web, tmp_path, some):
    get(sky, web, tmp_path, some, Cutout(fov=12, pixels=64, hips=("CDS/P/HST/V", "CDS/P/HST/color")))
    table = listed(tmp_path)
    assert set(table.filter(pl.col("status") == "ok")["hips"]) == {"CDS/P/HST/V"}


def test_fits(sky, web, tmp_path, some):
    got = get(sky, web, tmp_path, some, Cutout(fov=12, pixels=32, format="fits"))
    assert got.counts["blank"] == (some["hst"] == "blank").sum()
    assert all("color" not in one.params["hips"] for one in sky.asked(CUTOUTS))
    name = listed(tmp_path).filter(pl.col("status") == "ok")["file"][0]
    assert fits.getdata(tmp_path / name).shape == (32, 32)


def test_run_again_it_asks_for_what_is_missing(sky, web, tmp_path, some):
    get(sky, web, tmp_path, some)
    before = len(sky.requests)
    get(sky, web, tmp_path, some)
    assert len(sky.requests) == before
    gone = listed(tmp_path).filter(pl.col("status") == "ok")["file"][0]
    (tmp_path / gone).unlink()
    get(sky, web, tmp_path, some)
    assert [one.path for one in sky.requests[before:]] == [MOC, CUTOUTS]
    assert (tmp_path / gone).is_file()
    before = len(sky.requests)
    more = pl.concat([some, sky.truth.filter(pl.col("hst") == "outside")[6:9]])
    assert get(sky, web, tmp_path, more).counts["outside"] == 9
    assert len(sky.requests) == before + 3


def test_other_objects_join_those_that_are_there(sky, web, tmp_path, some):
    get(sky, web, tmp_path, some[:8])
    got = get(sky, web, tmp_path, some[5:12])
    assert sum(got.counts.values()) == 7
    assert set(listed(tmp_path)["object_id"]) == set(some["objid"].cast(pl.String)[:12])
    assert len(sky.asked(MOC)) == 12
    moved = some[:1].with_columns(dec=pl.col("dec") + 2 / 3600)
    get(sky, web, tmp_path, moved)
    assert len(sky.asked(MOC)) == 13
    assert listed(tmp_path).height == 12


def test_one_failure_is_told_and_tried_again_next_time(sky, web, tmp_path, some):
    sky.script(CUTOUTS, *[busy(503)] * 5)
    got = get(sky, web, tmp_path, some)
    assert got.counts["failed"] == 1
    assert any("run the same again" in note for note in got.notes)
    assert "503" in listed(tmp_path).filter(pl.col("status").str.starts_with("failed"))["status"][0]
    assert get(sky, web, tmp_path, some).counts["failed"] == 0


def test_a_page_in_place_of_an_image_is_no_image(sky, web, tmp_path, some):
    sky.script(CUTOUTS, page("Too many users."))
    get(sky, web, tmp_path, some)
    failed = listed(tmp_path).filter(pl.col("status").str.starts_with("failed"))
    assert failed.height == 1
    assert "Too many users" in failed["status"][0]
    assert failed["file"][0] is None


def test_when_nothing_works_it_stops_and_keeps_what_it_has(sky, web, tmp_path, some):
    sky.script(CUTOUTS, Answer(), *[page()] * 60)
    covered = some.filter(pl.col("hst") == "image")
    with pytest.raises(TruemorphError, match="8 images in a row failed"):
        get(sky, web, tmp_path, covered)
    assert listed(tmp_path)["status"][0] == "ok"
    assert listed(tmp_path).height == 9


def test_coverage_as_records_and_as_nonsense(sky, web, tmp_path, some):
    one = some.filter(pl.col("hst") == "image")[:1]
    records = json.dumps([{"ID": "CDS/P/HST/I"}]).encode()
    sky.script(MOC, Answer(records, type="application/json", ranges=False))
    get(sky, web, tmp_path, one)
    assert listed(tmp_path)["hips"][0] == "CDS/P/HST/I"
    sky.script(MOC, Answer(b"[17, {}]", type="application/json", ranges=False))
    got = get(sky, web, tmp_path / "b", one)
    assert got.counts["failed"] == 1


def test_a_folder_has_images_of_one_kind(sky, web, tmp_path, some):
    get(sky, web, tmp_path, some[:1])
    with pytest.raises(InputError, match=r"cut out differently \(pixels 64\)"):
        get(sky, web, tmp_path, some[:1], Cutout(fov=12, pixels=128))


def test_offline(sky, web, tmp_path, some):
    get(sky, web, tmp_path, some)
    before = len(sky.requests)
    get(sky, Web(offline=True), tmp_path, some)
    with pytest.raises(TruemorphError, match="offline"):
        get(sky, Web(offline=True), tmp_path / "b", some)
    assert len(sky.requests) == before


def test_ids_may_be_names(sky, web, tmp_path, some):
    row = some.filter(pl.col("hst") == "image").row(0, named=True)
    named = pl.DataFrame({"object_id": ["NGC 1/2"], "RA": [row["ra"]], "DEC": [row["dec"]]})
    get(sky, web, tmp_path, named)
    assert (tmp_path / "NGC_1_2.jpg").is_file()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"name": [1], "ra": [1.0], "dec": [1.0]}, "no column object_id"),
        ({"objid": [1], "ra": [1.0], "decl": [1.0]}, r"no column dec \(degrees\); nearest: decl"),
        ({"objid": [1], "ra": ["1h"], "dec": [1.0]}, "holds no numbers"),
        ({"objid": [1.5e17], "ra": [1.0], "dec": [1.0]}, "lost digits"),
        ({"objid": [1], "ra": [1.0], "dec": [100.0]}, "no object at a position"),
        ({"objid": [1, 1], "ra": [1.0, 2.0], "dec": [1.0, 2.0]}, "more than once"),
    ],
)
def test_positions_that_are_none(sky, web, tmp_path, table, said):
    with pytest.raises(InputError, match=said):
        get(sky, web, tmp_path, pl.DataFrame(table).rename({"objid": "object_id"}, strict=False))


def test_cutouts_have_limits():
    with pytest.raises(InputError, match="16 to 4096 pixels"):
        Cutout(pixels=5)
    with pytest.raises(InputError, match="jpg, png or fits"):
        Cutout(format="gif")
    with pytest.raises(InputError, match="at least one mosaic"):
        Cutout(format="fits", hips=("CDS/P/HST/color",))
