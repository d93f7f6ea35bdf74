"""HST cut-outs: coverage first, empty images told from galaxies, resumed where cut off."""

import io
import json
import re

import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from PIL import Image

from catalogs.archives.observatory import CUTOUTS, MOC
from catalogs.archives.server import Answer, busy, page
from truemorph.catalogs.archives.checksums import file_hash
from truemorph.catalogs.archives.cutouts import Cutout, is_blank
from truemorph.catalogs.archives.failures import ComeBackError, UnansweredError
from truemorph.catalogs.archives.fetch import fetch
from truemorph.catalogs.archives.provenance import read_provenance, verify
from truemorph.catalogs.archives.web import Web
from truemorph.errors import InputError, TruemorphError

SMALL = Cutout(fov=12, pixels=64)


@pytest.fixture
def some(sky):
    """Objects of every kind."""
    seen = sky.truth.filter(pl.col("hst") != "outside")[:14]
    blank = sky.truth.filter(pl.col("hst") == "blank")
    return pl.concat([seen, blank, sky.truth.filter(pl.col("hst") == "outside")[:6]]).unique(
        "objid", maintain_order=True
    )


def get(sky, web, out, positions, cutout=SMALL):
    where = positions.select("objid", "ra", "dec") if "objid" in getattr(positions, "schema", ()) else positions
    return fetch("hst", out, addresses_from=sky.addresses, web=web, positions=where, cutout=cutout)


def covered(sky):
    """Requests for the coverage of a place; another asks which mosaics there are."""
    return [one for one in sky.asked(MOC) if "RA" in one.params]


def listed(out):
    return pl.read_csv(out / "hst.csv", schema_overrides={"object_id": pl.String})


def test_each_object_gets_its_image_or_why_not(sky, web, tmp_path, some):
    got = get(sky, web, tmp_path, some)
    table = listed(tmp_path)
    assert table.columns == ["object_id", "ra", "dec", "file", "hips", "status", "sha256"]
    assert table["object_id"].to_list() == some["objid"].cast(pl.String).to_list()
    expected = {"image": "ok", "blank": "blank", "outside": "outside"}
    assert table["status"].to_list() == [expected[one] for one in some["hst"]]
    ok, blank = ((some["hst"] == kind).sum() for kind in ("image", "blank"))
    assert got.counts == {"ok": ok, "outside": 6, "blank": blank, "failed": 0}
    assert min(ok, blank) > 1
    for row in table.filter(pl.col("status") == "ok").iter_rows(named=True):
        assert row["file"] == f"{row['object_id']}.jpg"
        assert row["sha256"] == file_hash(tmp_path / row["file"])
        with Image.open(tmp_path / row["file"]) as image:
            assert image.size == (64, 64)
            pixels = np.asarray(image.convert("L"), dtype=float)
        # The galaxy is in the middle.
        assert pixels[24:40, 24:40].mean() > pixels.mean() + 5
    assert "TAN" in read_provenance(tmp_path)["hst.csv"]["query"]
    assert verify(tmp_path) == []
    assert any("NASA/ESA Hubble" in line for line in got.credits())


def test_images_are_asked_for_only_where_there_is_coverage(sky, web, tmp_path, some):
    get(sky, web, tmp_path, some)
    assert len(covered(sky)) == some.height == len(sky.asked(MOC)) - 1
    for asked, row in zip(covered(sky), some.iter_rows(named=True), strict=True):
        assert float(asked.params["RA"]) == row["ra"]
        assert float(asked.params["DEC"]) == row["dec"]
        assert float(asked.params["SR"]) == pytest.approx(6 / 3600)  # half a side, degrees
    for asked in sky.asked(CUTOUTS):
        assert float(asked.params["fov"]) == pytest.approx(12 / 3600)
        assert asked.params["width"] == asked.params["height"] == "64"
        assert asked.params["format"] == "jpg"
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
    assert [one.path for one in sky.requests[before:]] == [MOC, MOC, CUTOUTS]
    (tmp_path / gone).write_bytes(b"damaged")
    get(sky, web, tmp_path, some)
    assert verify(tmp_path) == []
    assert (tmp_path / gone).is_file()
    before = len(sky.requests)
    more = pl.concat([some, sky.truth.filter(pl.col("hst") == "outside")[6:9]])
    assert get(sky, web, tmp_path, more).counts["outside"] == 9
    assert len(sky.requests) == before + 4


def test_other_objects_join_those_that_are_there(sky, web, tmp_path, some):
    get(sky, web, tmp_path, some[:8])
    got = get(sky, web, tmp_path, some[5:12])
    assert sum(got.counts.values()) == 7
    assert set(listed(tmp_path)["object_id"]) == set(some["objid"].cast(pl.String)[:12])
    assert len(covered(sky)) == 12


def test_an_object_that_moved_gets_another_image_or_none(sky, web, tmp_path, some):
    one = some.filter(pl.col("hst") == "image")[:1]
    get(sky, web, tmp_path, some)
    first = listed(tmp_path).filter(object_id=str(one["objid"][0])).row(0, named=True)
    get(sky, web, tmp_path, one.with_columns(dec=pl.col("dec") + 2 / 3600))
    second = listed(tmp_path).filter(object_id=str(one["objid"][0])).row(0, named=True)
    assert listed(tmp_path).height == some.height
    assert (second["file"], second["status"]) == (first["file"], "ok")
    assert float(sky.asked(CUTOUTS)[-1].params["dec"]) == second["dec"] == first["dec"] + 2 / 3600
    get(sky, web, tmp_path, one.with_columns(ra=(pl.col("ra") + 90) % 360))
    assert listed(tmp_path)["status"][0] == "outside"
    assert not (tmp_path / first["file"]).exists()


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
    sky.script(MOC, Answer(), Answer(records, type="application/json", ranges=False))
    get(sky, web, tmp_path, one)
    assert listed(tmp_path)["hips"][0] == "CDS/P/HST/I"
    sky.script(MOC, Answer(), Answer(b"[17, {}]", type="application/json", ranges=False))
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
    with pytest.raises(TruemorphError, match=rf"offline.*images are at {sky.url(CUTOUTS)}"):
        get(sky, Web(offline=True), tmp_path / "b", some)
    assert len(sky.requests) == before


def test_ids_may_be_names(sky, web, tmp_path, some):
    """Each has a file of its own, on any file system, whatever else is in the folder."""
    row = some.filter(pl.col("hst") == "image").row(0, named=True)
    names = ["NGC 1/2", "NGC_1_2", "NGC 1:2", "Abc", "abc", "..", "../../x", "x" * 300, "é", "ê", "7", "x-0123456789"]
    named = pl.DataFrame({"object_id": names}).with_columns(RA=pl.lit(row["ra"]), DEC=pl.lit(row["dec"]))
    get(sky, web, tmp_path, named)
    table = listed(tmp_path)
    assert table["object_id"].to_list() == names
    assert table["file"].str.to_lowercase().n_unique() == len(names)
    assert {path.name for path in tmp_path.glob("*.jpg")} == set(table["file"])
    assert table["file"][10] == "7.jpg"
    assert re.fullmatch(r"NGC_1_2-[0-9a-f]{10}\.jpg", table["file"][0])
    assert max(table["file"].str.len_chars()) < 130
    # One that comes later doesn't take the file of another.
    get(sky, web, tmp_path, named[1:2].with_columns(object_id=pl.lit("ngc_1_2")))
    assert listed(tmp_path)["file"].str.to_lowercase().n_unique() == len(names) + 1
    assert verify(tmp_path) == []
    # By the id alone, not by what else is asked for.
    get(sky, web, tmp_path / "b", named[:1])
    assert listed(tmp_path / "b")["file"][0] == table["file"][0]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"name": [1], "ra": [1.0], "dec": [1.0]}, "no column object_id"),
        ({"objid": [1], "ra": [1.0], "decl": [1.0]}, r"no column dec \(degrees\); nearest: decl"),
        ({"objid": [1], "ra": ["1h"], "dec": [1.0]}, "holds no numbers"),
        ({"objid": [1.5e17], "ra": [1.0], "dec": [1.0]}, "lost digits"),
        ({"objid": [1], "ra": [1.0], "dec": [100.0]}, "no object at a position"),
        ({"object_id": [""], "ra": [1.0], "dec": [1.0]}, "no object at a position"),
        ({"objid": [1, 1], "ra": [1.0, 2.0], "dec": [1.0, 2.0]}, "more than once"),
    ],
)
def test_positions_that_are_none(sky, web, tmp_path, table, said):
    with pytest.raises(InputError, match=said):
        get(sky, web, tmp_path, pl.DataFrame(table).rename({"objid": "object_id"}, strict=False))


def test_positions_in_the_unit_that_the_table_states(sky, web, tmp_path, some):
    from astropy import units as u
    from astropy.table import QTable

    row = some.filter(pl.col("hst") == "image").row(0, named=True)
    table = QTable({"object_id": ["a"], "ra": [row["ra"] / 15] * u.hourangle, "dec": [row["dec"] * 60] * u.arcmin})
    get(sky, web, tmp_path, table)
    assert listed(tmp_path)["ra"][0] == pytest.approx(row["ra"])
    assert listed(tmp_path)["dec"][0] == pytest.approx(row["dec"])
    table["ra"] = [1.0] * u.kpc
    with pytest.raises(InputError, match="column ra is in kpc, which is no angle"):
        get(sky, web, tmp_path, table)


def test_a_mosaic_that_there_is_not_is_said_with_the_nearest(sky, web, tmp_path, some):
    with pytest.raises(InputError, match=r"no HST mosaic CDS/P/HST/Color; nearest: CDS/P/HST/color.*\(--hips\)"):
        get(sky, web, tmp_path, some, Cutout(fov=12, pixels=64, hips=("CDS/P/HST/Color",)))
    assert len(sky.requests) == 1
    sky.script(MOC, Answer(b"[]", type="application/json", ranges=False))
    with pytest.raises(TruemorphError, match="knows no HST mosaic"):
        get(sky, web, tmp_path, some)


def test_other_mosaics_ask_again_for_what_was_outside(sky, web, tmp_path, some):
    """One that there is an image of stays as long as its mosaic is named."""
    only = Cutout(fov=12, pixels=64, hips=("CDS/P/HST/color",))
    first = get(sky, web, tmp_path, some, only).counts
    before = len(covered(sky))
    second = get(sky, web, tmp_path, some).counts
    assert second["ok"] > first["ok"]
    assert len(covered(sky)) - before == some.height - first["ok"]


def test_what_fails_for_ever_does_not_stop_the_others(sky, web, tmp_path, some):
    objects = some.filter(pl.col("hst") == "image")
    assert objects.height > 10
    whole, bad = sky._coverage, set(objects["ra"][:9])

    def refusing(request):
        if float(request.params.get("RA", 0)) in bad:
            return Answer(b"bad position", 400, "text/plain", ranges=False)
        return whole(request)

    sky.route(MOC, refusing)
    counts = get(sky, web, tmp_path, objects).counts
    assert (counts["failed"], counts["ok"]) == (9, objects.height - 9)


def test_what_failed_before_comes_last(sky, web, tmp_path, some):
    objects = some.filter(pl.col("hst") == "image")
    sky.script(CUTOUTS, *[page()] * 60)
    with pytest.raises(TruemorphError, match="8 images in a row"):
        get(sky, web, tmp_path, objects)
    before = len(covered(sky))
    with pytest.raises(TruemorphError, match="8 images in a row"):
        get(sky, web, tmp_path, objects)
    again = [float(one.params["RA"]) for one in covered(sky)[before:]]
    assert again == [*objects["ra"][8:], *objects["ra"][: 16 - objects.height]]


def test_a_wait_that_is_asked_for_ends_the_run(sky, web, tmp_path, some):
    sky.script(MOC, Answer(), Answer(), busy(429, "3600"))
    with pytest.raises(ComeBackError, match="asks to wait 3,600 s"):
        get(sky, web, tmp_path, some)
    assert len(sky.asked(MOC)) == 3
    assert listed(tmp_path).height == 1
    assert verify(tmp_path) == []


def picture(side, kind, mode="RGB"):
    packed = io.BytesIO()
    Image.effect_noise((side, side), 80).convert(mode).save(packed, kind)
    return packed.getvalue()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (picture(500, "PNG"), "500 x 500 pixels in place of 64 x 64"),
        (picture(64, "JPEG"), "is JPEG in place of PNG"),
        (picture(64, "PNG").replace(b"IDAT", b"IDOT"), "can't be read"),
    ],
)
def test_images_that_are_not_those_asked_for(body, said):
    with pytest.raises(UnansweredError, match=said):
        is_blank(body, Cutout(pixels=64, format="png"))


def test_a_bomb_is_not_unpacked():
    packed = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(packed, "PNG")
    with pytest.raises(UnansweredError, match="can't be read"):
        is_blank(packed.getvalue(), Cutout(pixels=64, format="png"))


def test_cutouts_have_limits():
    with pytest.raises(InputError, match="16 to 4096 pixels"):
        Cutout(pixels=5)
    with pytest.raises(InputError, match="jpg, png or fits"):
        Cutout(format="gif")
    with pytest.raises(InputError, match="at least one mosaic"):
        Cutout(format="fits", hips=("CDS/P/HST/color",))
