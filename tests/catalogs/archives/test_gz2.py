"""Galaxy Zoo 2: tables as they come, images unpacked, and which image is whose."""

import gzip
import json

import polars as pl
import pytest

from catalogs.archives.observatory import Observatory, small_archive
from catalogs.archives.server import busy, cut, page
from truemorph.catalogs.archives.fetch import fetch
from truemorph.catalogs.archives.provenance import read_provenance, verify
from truemorph.catalogs.archives.web import Web
from truemorph.catalogs.tables import read_table
from truemorph.errors import TruemorphError

HART, ZIP, MAPPING = "/files/gz2_hart16.csv.gz", "/files/images_gz2.zip", "/files/gz2_filename_mapping.csv"
RECORD = "/files/zenodo_record.json"


@pytest.fixture
def sky():
    with Observatory(small_archive()) as running:
        yield running
    assert running.problems == []


def get(sky, web, out, **options):
    return fetch("gz2", out, addresses_from=sky.addresses, web=web, **options)


def test_everything_arrives_and_is_accounted_for(sky, web, tmp_path):
    out = tmp_path / "gz2"
    got = get(sky, web, out)
    for name in ("zoo2MainSpecz.csv.gz", "gz2_hart16.csv.gz", "gz2_filename_mapping.csv", "images_gz2.zip"):
        assert (out / name).read_bytes() == (sky.archive / "files" / name).read_bytes()
    images = read_table(out / "images.parquet")
    assert images.frame.columns == ["objid", "image", "sample"]
    assert images.frame["objid"].dtype == pl.Int64
    assert "as people saw it" in images.descriptions["image"]
    assert images.frame["objid"].is_unique().all()
    assert all((out / name).is_file() for name in images.frame["image"])
    assert got.counts["objects with an image"] == images.frame.height
    assert not list(out.rglob("._*"))
    assert not (out / "__MACOSX").exists()
    entries = read_provenance(out)
    assert set(entries) == {*(name for name in entries if name.endswith((".gz", ".csv", ".zip"))), "images.parquet"}
    assert len(entries) == 5
    assert entries["images_gz2.zip"]["checksum"].startswith("md5:")
    assert entries["images_gz2.zip"]["licence_stated"] == "cc-by-4.0"
    assert verify(out) == []
    assert any("Hart et al. 2016" in line for line in got.credits())


def test_every_object_gets_the_image_of_its_first_sample(sky, web, tmp_path):
    got = get(sky, web, tmp_path)
    mapping = pl.read_csv(sky.archive / "files" / "gz2_filename_mapping.csv")
    images = pl.read_parquet(tmp_path / "images.parquet")
    main = mapping.filter(pl.col("sample") != "stripe82_coadd_1")
    joined = images.join(main, on="objid", how="left", suffix="_main")
    single = joined.filter(pl.col("sample") != "stripe82_coadd_1")
    assert single.height > 100
    assert (single["image"] == single.select(pl.format("images/{}.jpg", "asset_id")).to_series()).all()
    # The zip lacks some galaxies' first image; one that is in two samples then has its second.
    assert any("two samples" in note for note in got.notes)
    assert any("no image in the zip" in note for note in got.notes)


def test_run_again_it_fetches_nothing(sky, web, tmp_path):
    get(sky, web, tmp_path)
    before = len(sky.requests)
    (tmp_path / "images.parquet").unlink()
    get(sky, web, tmp_path)
    assert [one.path for one in sky.requests[before:]] == [RECORD]
    assert (tmp_path / "images.parquet").is_file()


def test_works_offline_when_all_is_there(sky, web, tmp_path):
    get(sky, web, tmp_path)
    before = len(sky.requests)
    got = get(sky, Web(offline=True), tmp_path)
    assert got.counts["images"] > 100
    assert len(sky.requests) == before
    with pytest.raises(TruemorphError, match="offline"):
        get(sky, Web(offline=True), tmp_path / "elsewhere")


def test_without_images_the_zip_stays_where_it_is(sky, web, tmp_path):
    get(sky, web, tmp_path, images=False)
    assert sky.asked(ZIP) == []
    assert not (tmp_path / "images.parquet").exists()
    assert (tmp_path / "gz2_hart16.csv.gz").is_file()


def test_a_cut_zip_goes_on_where_it_was(sky, web, tmp_path):
    sky.script(ZIP, cut(20_000), cut(30_000))
    get(sky, web, tmp_path)
    ranges = [one.headers.get("Range") for one in sky.asked(ZIP)]
    assert ranges == [None, "bytes=20000-", "bytes=50000-"]


def test_another_checksum_than_zenodo_states_is_not_unpacked(sky, web, tmp_path):
    record = json.loads((sky.archive / "files" / "zenodo_record.json").read_text())
    record["files"][0]["checksum"] = "md5:" + "0" * 32
    sky.put(RECORD, json.dumps(record).encode())
    with pytest.raises(TruemorphError, match=r"images_gz2\.zip"):
        get(sky, web, tmp_path)
    assert not (tmp_path / "images_gz2.zip").exists()
    assert not (tmp_path / "images").exists()


def test_without_zenodos_record_it_goes_on_and_says_so(sky, web, tmp_path):
    sky.script(RECORD, *[busy(503)] * 5)
    got = get(sky, web, tmp_path)
    assert any("record can't be used" in note for note in got.notes)
    assert got.counts["images"] > 100


def test_a_truncated_zip_is_not_taken_for_whole(sky, web, tmp_path):
    whole = (sky.archive / "files" / "images_gz2.zip").read_bytes()
    sky.put(ZIP, whole[: len(whole) // 2])
    sky.script(RECORD, page())
    with pytest.raises(TruemorphError, match=r"images_gz2\.zip"):
        get(sky, web, tmp_path)
    assert not (tmp_path / "images").exists()


def test_a_page_in_place_of_a_table(sky, web, tmp_path):
    sky.script(HART, page("We are down for maintenance."))
    with pytest.raises(TruemorphError, match="maintenance"):
        get(sky, web, tmp_path)
    assert not (tmp_path / "gz2_hart16.csv.gz").exists()


def test_a_renamed_column_is_named_with_the_nearest(sky, web, tmp_path):
    text = gzip.decompress((sky.archive / "files" / "gz2_hart16.csv.gz").read_bytes())
    sky.put(HART, gzip.compress(text.replace(b"dr7objid", b"dr7_objid", 1)))
    with pytest.raises(TruemorphError, match=r"gz2_hart16\.csv\.gz: no column dr7objid; nearest: dr7_objid"):
        get(sky, web, tmp_path, images=False)


def test_a_mapping_without_the_column_of_images(sky, web, tmp_path):
    sky.script(RECORD, page())
    sky.put(MAPPING, b"objid,sample,asset\n587722981741363294,original,7\n")
    with pytest.raises(TruemorphError, match="no column asset_id; nearest: asset"):
        get(sky, web, tmp_path)


def test_a_mapping_that_is_not_of_these_images(sky, web, tmp_path):
    sky.script(RECORD, page())
    sky.put(MAPPING, b"objid,sample,asset_id\n587722981741363294,original,999999\n")
    with pytest.raises(TruemorphError, match="none of its images is in the mapping"):
        get(sky, web, tmp_path)


def test_a_mapping_with_words_for_numbers(sky, web, tmp_path):
    sky.script(RECORD, page())
    sky.put(MAPPING, b"objid,sample,asset_id\n5.877e17,original,7\n")
    with pytest.raises(TruemorphError, match="can't be read"):
        get(sky, web, tmp_path)
