"""Galaxy Zoo 2: tables as they come, images unpacked, and which image is whose."""

import gzip
import json

import polars as pl
import pytest

from catalogs.archives.server import busy, cut, page
from truemorph.catalogs.archives.fetch import fetch
from truemorph.catalogs.archives.provenance import read_provenance, verify
from truemorph.catalogs.archives.web import Web
from truemorph.errors import TruemorphError
from truemorph.tables import read_table

HART, ZIP, MAPPING = "/files/gz2_hart16.csv.gz", "/files/images_gz2.zip", "/files/gz2_filename_mapping.csv"
RECORD = "/files/zenodo_record.json"


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


def test_every_object_gets_its_image(sky, web, tmp_path):
    got = get(sky, web, tmp_path)
    mapping = pl.read_csv(sky.archive / "files" / "gz2_filename_mapping.csv")
    images = pl.read_parquet(tmp_path / "images.parquet")
    joined = images.join(mapping, on=["objid", "sample"], how="left")
    assert joined.height > 90
    assert (joined["image"] == joined.select(pl.format("images/{}.jpg", "asset_id")).to_series()).all()
    assert any("no image in the zip" in note for note in got.notes)


def test_an_object_of_two_samples_gets_the_image_of_the_first(sky, web, tmp_path):
    sky.script(RECORD, page())
    there = pl.read_csv(sky.archive / "files" / "gz2_filename_mapping.csv").filter(pl.col("sample") == "original")
    assets = there["asset_id"].to_list()
    get(sky, web, tmp_path)
    assets = [one for one in assets if (tmp_path / f"images/{one}.jpg").is_file()]
    samples = ["stripe82_coadd_2", "stripe82_coadd_1", "stripe82", "extra", "original"]
    # In turn without the first of the order that is left.
    lines = [
        f"{objid},{sample},{assets[5 * objid + number]}"
        for objid in range(5)
        for number, sample in enumerate(samples[: 5 - objid])
    ]
    sky.put(MAPPING, "\n".join(["objid,sample,asset_id", *lines, ""]).encode())
    sky.script(RECORD, page())
    got = get(sky, web, tmp_path / "b")
    images = pl.read_parquet(tmp_path / "b" / "images.parquet")
    assert images["sample"].to_list() == samples[::-1]
    assert images["image"].to_list() == [f"images/{assets[5 * one + 4 - one]}.jpg" for one in range(5)]
    assert any("10 objects are in two samples" in note for note in got.notes)


def test_run_again_it_fetches_nothing(sky, web, tmp_path):
    get(sky, web, tmp_path)
    before = len(sky.requests)
    entries = read_provenance(tmp_path)
    (tmp_path / "images.parquet").unlink()
    get(sky, web, tmp_path)
    assert len(sky.requests) == before
    assert (tmp_path / "images.parquet").is_file()
    # Where a mirror has the same file it doesn't come anew either, nor is its entry changed.
    mirror = {"url": "http://mirror.example.org/mapping", "checksum": entries["gz2_filename_mapping.csv"]["checksum"]}
    fetch("gz2", tmp_path, addresses_from={**sky.addresses, "gz2.mapping": mirror}, web=web)
    assert read_provenance(tmp_path) == entries
    # Nor does offline anybody care.
    elsewhere = {"gz2.hart16": "http://mirror.example.org/hart"}
    fetch("gz2", tmp_path, addresses_from={**sky.addresses, **elsewhere}, web=Web(offline=True))
    (tmp_path / "gz2_filename_mapping.csv").unlink()
    before = len(sky.requests)
    get(sky, web, tmp_path)
    assert [one.path for one in sky.requests[before:]] == [RECORD, MAPPING]


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


@pytest.mark.parametrize(
    ("change", "noted"),
    [
        (lambda record: record["files"][0].update(size=str(record["files"][0]["size"])), False),
        (lambda record: record["files"][0].update(size="big"), False),
        (lambda record: record["files"][0].update(checksum="sha1024:00"), True),
        (lambda record: record["files"].pop(0), True),
    ],
)
def test_oddities_of_zenodos_record(sky, web, tmp_path, change, noted):
    record = json.loads((sky.archive / "files" / "zenodo_record.json").read_text())
    change(record)
    sky.put(RECORD, json.dumps(record).encode())
    got = get(sky, web, tmp_path)
    assert any("doesn't list images_gz2.zip" in note for note in got.notes) == noted


def test_a_table_that_is_none(sky, web, tmp_path):
    sky.put(HART, gzip.compress(bytes(range(256)) * 20))
    with pytest.raises(TruemorphError, match=r"gz2_hart16\.csv\.gz: is no CSV table; delete it"):
        get(sky, web, tmp_path, images=False)


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
