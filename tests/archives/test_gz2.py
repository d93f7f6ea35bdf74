"""Galaxy Zoo 2: published tables, unpacked images, and the mapping of images to galaxies."""

import numpy as np
import polars as pl
import pytest

from conftest import codes
from truemorph import read_table
from truemorph.archives.provenance import read_provenance
from truemorph.errors import TruemorphError

MAPPING = "/files/gz2_filename_mapping.csv"
FILES = {"zoo2MainSpecz.csv.gz", "gz2_hart16.csv.gz", "gz2sample.csv.gz", "gz2_filename_mapping.csv", "images_gz2.zip"}


def test_all_files_are_fetched_and_counted(sky, tmp_path):
    got = sky.fetch("gz2", tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (sky.archive / "files" / name).read_bytes()
    assert set(read_provenance(tmp_path)) == FILES | {"images.parquet"}
    table = read_table(tmp_path / "images.parquet")
    images = table.frame
    assert images.schema == {"objid": pl.Int64, "image": pl.String, "sample": pl.String}
    assert set(table.descriptions) == {"objid", "image", "sample"}
    assert images["objid"].is_unique().all()
    assert all((tmp_path / name).is_file() for name in images["image"])
    mapping = pl.read_csv(sky.archive / "files" / "gz2_filename_mapping.csv")
    joined = images.join(mapping, on=["objid", "sample"], how="left")
    assert (joined["image"] == joined.select(pl.format("images/{}.jpg", "asset_id")).to_series()).all()
    # Images that are not in the mapping, objects without an image, rows of the Stripe 82 coadd.
    assert got.counts["objects with an image"] == images.height == got.counts["images"] - 1 > 90
    bare = mapping["objid"].n_unique() - images.height
    assert mapping.filter(pl.col("objid") > 8 * 10**18).height > 2
    assert codes(got) == ["objects-without-image"]
    assert got.findings[0].message.startswith(f"{bare} ")
    assert not list(tmp_path.rglob("._*"))


def test_an_object_in_two_samples_has_the_image_of_the_first(sky, tmp_path):
    sky.fetch("gz2", tmp_path)
    assets = [int(path.stem) for path in (tmp_path / "images").iterdir()]
    samples = ["stripe82_coadd_2", "stripe82_coadd_1", "stripe82", "extra", "original"]
    # Object 0 is in all samples, object 1 in all but the last one, and so on.
    own = [(objid, sample) for objid in range(5) for sample in samples[: 5 - objid]]
    mapping = pl.DataFrame(own, ["objid", "sample"], orient="row").with_columns(asset_id=pl.Series(assets[:15]))
    sky.put(MAPPING, mapping.write_csv().encode())
    sky.fetch("gz2", tmp_path / "b")
    images = pl.read_parquet(tmp_path / "b" / "images.parquet")
    assert images["sample"].to_list() == samples[::-1]
    last = np.cumsum([5, 4, 3, 2, 1]) - 1
    assert images["image"].to_list() == [f"images/{assets[one]}.jpg" for one in last]


@pytest.mark.parametrize(
    ("mapping", "named"),
    [
        (b"objid,sample,asset\n587722981741363294,original,7\n", "asset_id"),
        (b"objid,sample,asset_id\n587722981741363294,original,999999\n", "images_gz2.zip"),
    ],
)
def test_a_changed_mapping_raises_an_error(sky, tmp_path, mapping, named):
    sky.put(MAPPING, mapping)
    with pytest.raises(TruemorphError, match=named):
        sky.fetch("gz2", tmp_path)
    assert not (tmp_path / "images.parquet").exists()
