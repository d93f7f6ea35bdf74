"""HST cutouts: coverage, empty images, and resuming."""

import numpy as np
import polars as pl
import pytest
import simplejpeg
from astropy import units as u
from astropy.table import QTable
from PIL import Image

from archives.server import CUTOUTS, MOC, Answer, busy, page, text
from conftest import codes
from truemorph.archives.http import ComeBackLaterError
from truemorph.errors import InputError, TruemorphError
from truemorph.io import file_hash


@pytest.fixture
def some(sky):
    """Objects of all kinds."""
    kinds = [sky.truth.filter(pl.col("hst") == kind)[:n] for kind, n in (("image", 12), ("blank", 2), ("outside", 6))]
    return pl.concat(kinds).select("objid", "ra", "dec", "hst")


def get(sky, out, positions, **options):
    where = positions.drop("hst", strict=False) if isinstance(positions, pl.DataFrame) else positions
    return sky.fetch("hst", out, positions=where, **{"fov": 12, "pixels": 64, **options})


def listed(out):
    return pl.read_csv(out / "hst.csv", schema_overrides={"object_id": pl.String})


def test_each_object_has_an_image_or_a_reason(sky, tmp_path, some):
    widths = np.linspace(10, 20, some.height).round(1)
    got = get(sky, tmp_path, some.with_columns(fov=pl.when(pl.col("hst") == "image").then(pl.Series(widths))))
    table = listed(tmp_path)
    assert table.columns == ["object_id", "ra", "dec", "fov", "file", "hips", "status", "sha256"]
    assert table["object_id"].to_list() == some["objid"].cast(pl.String).to_list()
    assert table["status"].to_list() == [one.replace("image", "ok") for one in some["hst"]]
    assert got.counts == {"ok": 12, "outside": 6, "blank": 2, "failed": 0}
    # Objects can have their own width.
    assert table["fov"].to_list() == [*widths[:12], *[12] * 8]
    asked = {float(one.params["ra"]): float(one.params["fov"]) for one in sky.asked(CUTOUTS)}
    for row in table.filter(pl.col("status") == "ok").iter_rows(named=True):
        assert asked[row["ra"]] == pytest.approx(row["fov"] / 3600)
        assert row["file"] == f"{row['object_id']}.jpg"
        assert row["sha256"] == file_hash(tmp_path / row["file"])
        with Image.open(tmp_path / row["file"]) as image:
            assert image.size == (64, 64)
            pixels = np.asarray(image.convert("L"), dtype=float)
        # The galaxy is at the centre.
        assert pixels[24:40, 24:40].mean() > pixels.mean() + 5
    # Images are requested only in the coverage, which is that of a circle: half the width in degrees.
    for request, row in zip(sky.asked(MOC), table.iter_rows(named=True), strict=True):
        assert (float(request.params["RA"]), float(request.params["DEC"])) == (row["ra"], row["dec"])
        assert float(request.params["SR"]) == pytest.approx(row["fov"] / 7200)
    assert len(asked) == 14
    # The preferred mosaic is first.
    get(sky, tmp_path / "b", some, hips=("CDS/P/HST/V", "CDS/P/HST/color"))
    assert set(listed(tmp_path / "b").filter(pl.col("status") == "ok")["hips"]) == {"CDS/P/HST/V"}


def test_a_second_run_requests_missing_images(sky, tmp_path, some):
    get(sky, tmp_path, some[:16])
    before = len(sky.requests)
    get(sky, tmp_path, some[:16])
    assert len(sky.requests) == before
    (tmp_path / f"{some['objid'][0]}.jpg").unlink()
    (tmp_path / f"{some['objid'][1]}.jpg").write_bytes(b"damaged")
    assert get(sky, tmp_path, some[:16]).counts["ok"] == 12
    assert [request.path for request in sky.requests[before:]] == [MOC, CUTOUTS, MOC, CUTOUTS]
    # An object with a new position gets a new image.
    before = len(sky.asked(MOC))
    get(sky, tmp_path, some[:2].with_columns(dec=pl.col("dec") + pl.Series([1e-4, 0])))
    assert len(sky.asked(MOC)) == before + 1
    assert listed(tmp_path).height == 16
    with pytest.raises(InputError, match="64 pixels"):
        get(sky, tmp_path, some, pixels=128)
    for _ in range(2):  # names stay as they are, also those that look like numbers
        get(sky, tmp_path / "named", some[:1].select("ra", "dec", object_id=pl.lit("12.10")))
    assert listed(tmp_path / "named")["object_id"].to_list() == ["12.10"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "answers"),
    [
        (CUTOUTS, [busy(503)] * 5),
        (MOC, [text("[17, {}]")]),
        (CUTOUTS, [Answer(simplejpeg.encode_jpeg(np.zeros((63, 63, 3), np.uint8)))]),
        (CUTOUTS, [Answer(simplejpeg.encode_jpeg(np.zeros((64, 64, 3), np.uint8))[:300])]),
    ],
)
def test_a_failure_is_recorded_and_repeated_in_the_next_run(sky, tmp_path, some, path, answers):
    sky.script(path, *answers)
    got = get(sky, tmp_path, some)
    assert got.counts["failed"] == 1
    assert codes(got) == ["images-failed"]
    assert listed(tmp_path)["file"][0] is None
    assert get(sky, tmp_path, some).counts["failed"] == 0


def test_the_run_stops_after_failures_in_a_row_and_keeps_its_images(sky, tmp_path, some):
    sky.script(CUTOUTS, Answer(), *[page()] * 80)
    with pytest.raises(TruemorphError, match="8 images in a row"):
        get(sky, tmp_path, some[:12])
    assert listed(tmp_path)["status"].str.slice(0, 6).to_list() == ["ok", *["failed"] * 8]
    # Earlier failures are last.
    before = len(sky.asked(MOC))
    with pytest.raises(TruemorphError, match="8 images in a row"):
        get(sky, tmp_path, some[:12])
    again = [float(one.params["RA"]) for one in sky.asked(MOC)[before:]]
    assert again == [*some["ra"][9:12], *some["ra"][1:6]]
    # A request to wait for an hour ends the run.
    sky.script(MOC, busy(429, "3600"))
    with pytest.raises(ComeBackLaterError):
        get(sky, tmp_path, some)


ONE = {"object_id": [1], "ra": [1.0], "dec": [1.0]}


@pytest.mark.parametrize(
    ("table", "wrong", "named"),
    [
        ({"name": [1], "ra": [1.0], "dec": [1.0]}, {}, "object_id"),
        ({**ONE, "object_id": [1.5e17]}, {}, "lost digits"),
        ({**ONE, "dec": [100.0]}, {}, "100.0"),
        ({**ONE, "fov": [0.5]}, {}, "0.5"),
        ({"object_id": ["NGC 1", "../x", ""], "ra": [1.0] * 3, "dec": [1.0] * 3}, {}, "2 rows do not"),
        (QTable({"object_id": ["a"], "ra": [1.0] * u.kpc, "dec": [1.0] * u.deg}), {}, "kpc"),
        (ONE, {"pixels": 5}, "5"),
        (ONE, {"fov": 0}, "0"),
        (ONE, {"hips": ("CDS/P/HST/Color",)}, "CDS/P/HST/color"),
    ],
)
def test_invalid_positions_and_options_raise_errors(sky, tmp_path, table, wrong, named):
    with pytest.raises(InputError, match=named):
        get(sky, tmp_path, pl.DataFrame(table) if isinstance(table, dict) else table, **wrong)
    assert sky.requests == []


def test_positions_have_the_unit_of_the_table(sky, tmp_path, some):
    ra, dec = some["ra"][0], some["dec"][0]
    get(sky, tmp_path, QTable({"object_id": ["a"], "ra": [ra / 15] * u.hourangle, "dec": [dec * 60] * u.arcmin}))
    assert listed(tmp_path).row(0)[1:3] == pytest.approx((ra, dec))
