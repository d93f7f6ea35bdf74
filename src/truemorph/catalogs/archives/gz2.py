"""Galaxy Zoo 2: vote tables of Willett et al. (2013) and Hart et al. (2016), the images people saw, and which is whose.

Facts and where they are from. Tables: 243,500 and 239,695 rows, columns as in the data tables of data.galaxyzoo.org
and in SDSS's schema of zoo2MainSpecz (GalaxyZoo2Tables.sql). Images, by the README of Zenodo's record 3565489: one zip
of 243,434 JPEGs of the original sample, named by asset_id; gz2_filename_mapping.csv has 355,990 rows of objid, sample
and asset_id, of which not all have an image, nor has every row of the tables. objid is DR7's, but in the samples of
Stripe 82's coadd, whose ids (8647...) DR7 doesn't know. The zip holds images/<asset_id>.jpg and what a Mac adds (seen
in the scripts of those who unpack it).
"""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl

from truemorph.catalogs.archives.addresses import Address
from truemorph.catalogs.archives.checksums import split_checksum
from truemorph.catalogs.archives.download import download
from truemorph.catalogs.archives.failures import ComeBackError
from truemorph.catalogs.archives.fetched import Column, Fetched, require_columns, write_described
from truemorph.catalogs.archives.provenance import is_whole, read_provenance, record
from truemorph.catalogs.archives.unpack import unzip
from truemorph.catalogs.archives.web import Web
from truemorph.errors import InputError, TruemorphError

# An object that is in two samples was shown first in the earlier of these.
SAMPLES = ("original", "extra", "stripe82", "stripe82_coadd_1", "stripe82_coadd_2")
_ANSWERS = ("a01_smooth", "a02_features_or_disk", "a03_star_or_artifact")
_VOTES = tuple(
    f"t01_smooth_or_features_{answer}_{kind}"
    for answer in _ANSWERS
    for kind in ("count", "fraction", "weighted_fraction", "debiased")
)
_TABLES = {
    "gz2.willett13": ("zoo2MainSpecz.csv.gz", ("dr7objid", "ra", "dec", *_VOTES)),
    "gz2.hart16": ("gz2_hart16.csv.gz", ("dr7objid", "ra", "dec", *_VOTES)),
    "gz2.mapping": ("gz2_filename_mapping.csv", ("objid", "sample", "asset_id")),
}
_LONGEST_HEADER = 1 << 20  # characters
VOTE_TABLES = ("gz2_hart16.csv.gz", "zoo2MainSpecz.csv.gz")
_IMAGE = re.compile(r"(?:.*/)?images/(\d+)\.jpg")
_IMAGE_COLUMNS = {
    "objid": Column("", "SDSS objID of the galaxy: DR7's, or Stripe 82's coadd's in samples of that"),
    "image": Column("", "JPEG as people saw it, relative to this folder"),
    "sample": Column("", "Galaxy Zoo 2 sample that the image was shown in"),
}


def check_gz2(out: Path, *, images: bool = True) -> None:
    """Nothing that `fetch_gz2` takes can be wrong."""


def fetch_gz2(web: Web, known: dict[str, Address], out: Path, *, images: bool = True) -> Fetched:
    """Fetch Galaxy Zoo 2's tables, and its images.

    Parameters
    ----------
    web : Web
    known : dict of Address
    out : Path
        Gets zoo2MainSpecz.csv.gz, gz2_hart16.csv.gz and gz2_filename_mapping.csv as they come; images_gz2.zip, unpacked
        to images/<asset_id>.jpg; and images.parquet: objid (int64), image, sample, a row an object.
    images : bool
        False leaves the zip where it is.

    Returns
    -------
    Fetched

    Raises
    ------
    TruemorphError
        If something can't be fetched, a file is damaged, or a table lacks a column that it should have.
    """
    notes: list[str] = []
    published = _published(web, known, out, images, notes)
    counts: dict[str, int] = {}
    for name, (file, columns) in _TABLES.items():
        path = _one(web, known[name], out, file, "gzip" if file.endswith(".gz") else "csv", published)
        require_columns(columns, _header(path), str(path))
        counts[f"{file}, bytes"] = path.stat().st_size
    sources = [known[name] for name in _TABLES]
    if images:
        archive = _one(web, known["gz2.images"], out, "images_gz2.zip", "zip", published)
        unpacked = unzip(archive, out, keep=_image_name)
        listed, spare, bare = _list_images(out, unpacked.names, known["gz2.images"])
        if listed == 0:
            raise TruemorphError(f"{archive}: none of its images is in the mapping; delete both and run the same again")
        counts |= {"images": len(unpacked.names), "objects with an image": listed}
        notes += [f"{bare:,d} objects of the mapping have no image in the zip"] if bare else []
        notes += [f"{spare:,d} objects are in two samples; images.parquet has the first's image"] if spare else []
        sources.append(known["gz2.images"])
    return Fetched("gz2", out, counts, tuple(sources), tuple(notes))


def _image_name(name: str) -> str | None:
    """Where an entry of the zip goes; None for what is no image."""
    match = _IMAGE.fullmatch(name)
    return f"images/{match[1]}.jpg" if match else None


@dataclass(frozen=True)
class _Published:
    """What Zenodo states of a file."""

    checksum: str | None
    size: int | None
    licence: str | None


def _published(web: Web, known: dict[str, Address], out: Path, images: bool, notes: list[str]) -> dict[str, _Published]:
    """What Zenodo states of its files, by their names; empty where it can't be asked.

    It says nothing of files elsewhere, so that it is asked only where they come from the same host; nor is it asked
    again of files that are there.
    """
    files = {"gz2_filename_mapping.csv": known["gz2.mapping"]}
    if images:
        files["images_gz2.zip"] = known["gz2.images"]
    entries = read_provenance(out)
    settled = {
        file: _Published(entry["checksum"], entry["bytes"], entry.get("licence_stated"))
        for file, address in files.items()
        if (entry := entries.get(file, {})).get("checksum")
        and entry.get("url") == address.url
        and (out / file).is_file()
        and (out / file).stat().st_size == entry.get("bytes")
    }
    address = known["gz2.images_record"]
    if web.offline or len(settled) == len(files):
        return settled
    if urlsplit(known["gz2.mapping"].url).netloc != urlsplit(address.url).netloc:
        return {}
    try:
        stated = _read_record(web.get(address.url, expect="json", what="Zenodo's record of the images"))
    except ComeBackError:
        raise
    except (TruemorphError, ValueError, KeyError, TypeError, AttributeError) as problem:
        checked = known["gz2.mapping"].checksum
        notes.append(
            f"Zenodo's record can't be used ({problem}); "
            + ("truemorph's own list of checksums was" if checked else "nothing published was checked against")
        )
        return {}
    notes += [f"Zenodo's record doesn't list {file}, or without checksum" for file in files if file not in stated]
    return stated


def _read_record(body: bytes) -> dict[str, _Published]:
    """Files that a record of Zenodo's states a checksum of.

    Zenodo's API: a record has `files`, each with `key`, `size` and `checksum` ("md5:..."), and `metadata.license.id`.
    """
    record_text = json.loads(body)
    licence = (record_text.get("metadata", {}).get("license") or {}).get("id")
    stated = {}
    for one in record_text["files"]:
        try:
            split_checksum(one["checksum"])
        except (InputError, KeyError):
            continue
        size = str(one.get("size"))
        stated[str(one["key"])] = _Published(one["checksum"], int(size) if size.isdecimal() else None, licence)
    return stated


def _one(web: Web, address: Address, out: Path, file: str, kind: str, published: dict[str, _Published]) -> Path:
    stated = published.get(file, _Published(None, None, None))
    checksum = stated.checksum or address.checksum
    size = stated.size if stated.checksum else address.size
    got = download(web, address.url, out / file, checksum=checksum, size=size, expect=kind)
    more = {"checksum": checksum, "licence_stated": stated.licence}
    more = {name: value for name, value in more.items() if value is not None}
    record(
        out,
        file,
        address=address,
        url=got.url,
        sha256=got.sha256,
        bytes=got.bytes,
        fetched=got.fetched,
        date=got.when,
        **more,
    )
    return got.path


def _header(path: Path) -> list[str]:
    """Names in the first line of a CSV file, packed or not."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as lines:
            line = lines.readline(_LONGEST_HEADER)
    except UnicodeDecodeError as problem:
        raise TruemorphError(
            f"{path}: is no CSV table; delete it and run the same again, and if that stays so replace its address "
            "(--addresses)"
        ) from problem
    return [name.strip().strip('"') for name in line.rstrip("\r\n").split(",")]


def _list_images(out: Path, names: tuple[str, ...], address: Address) -> tuple[int, int, int]:
    """Write images.parquet; returns objects with an image, those with two, and those of the mapping without any."""
    path = out / "gz2_filename_mapping.csv"
    try:
        mapping = pl.read_csv(path, schema_overrides={"objid": pl.Int64, "asset_id": pl.Int64, "sample": pl.String})
    except pl.exceptions.PolarsError as problem:
        raise TruemorphError(
            f"{path}: can't be read ({str(problem).splitlines()[0]}); delete it and run the same again"
        ) from problem
    rank = {sample: number for number, sample in enumerate(SAMPLES)}
    mapping = mapping.with_columns(
        image=pl.format("images/{}.jpg", "asset_id"),
        rank=pl.col("sample").replace_strict(rank, default=len(rank), return_dtype=pl.Int64),
    )
    there = mapping.filter(pl.col("image").is_in(pl.Series(names, dtype=pl.String).implode()))
    first = there.sort("rank", "asset_id").unique("objid", keep="first", maintain_order=True).sort("objid")
    target, listed = out / "images.parquet", first.select(*_IMAGE_COLUMNS)
    if not (is_whole(target) and pl.read_parquet(target).equals(listed)):
        query = "images_gz2.zip joined with gz2_filename_mapping.csv"
        write_described(target, [listed], _IMAGE_COLUMNS, address, query, fetched=False)
    return first.height, there.height - first.height, mapping["objid"].n_unique() - first.height
