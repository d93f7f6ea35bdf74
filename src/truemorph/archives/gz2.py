"""Galaxy Zoo 2: vote tables of Willett et al. (2013) and Hart et al. (2016), redshifts, images and their galaxies.

The tables have 243,500 and 239,695 rows, with columns as in the data tables of data.galaxyzoo.org and in the schema of
SDSS's zoo2MainSpecz. According to the README of Zenodo record 3565489, the zip has 243,434 JPEGs of the original
sample, named by asset_id, and gz2_filename_mapping.csv has 355,990 rows of objid, sample and asset_id, not all of which
have an image. objid is that of DR7, except in the samples from the Stripe 82 coadd, whose ids (8647...) are not in DR7.
"""

import re
from pathlib import Path

import polars as pl

from truemorph.archives.addresses import Address
from truemorph.archives.http import Session, download, unzip
from truemorph.archives.provenance import Fetched, is_recorded, write_recorded
from truemorph.errors import TruemorphError
from truemorph.findings import Finding
from truemorph.tables import read_columns

PER_SECOND = 2.0
# For an object in two samples, the image of the first of these is used.
SAMPLES = ("original", "extra", "stripe82", "stripe82_coadd_1", "stripe82_coadd_2")
VOTE_TABLES = ("gz2_hart16.csv.gz", "zoo2MainSpecz.csv.gz")
SAMPLE, MAPPING, ZIP = "gz2sample.csv.gz", "gz2_filename_mapping.csv", "images_gz2.zip"
_TABLES = {"gz2.willett13": VOTE_TABLES[1], "gz2.hart16": VOTE_TABLES[0], "gz2.sample": SAMPLE, "gz2.mapping": MAPPING}
# macOS adds "__MACOSX/images/._<asset_id>.jpg".
_IMAGE = re.compile(r"(?:.*/)?(images/\d+\.jpg)")
_IMAGE_COLUMNS = {
    "objid": ("", "SDSS objID of the galaxy: from DR7, or from the Stripe 82 coadd in its samples"),
    "image": ("", "JPEG shown to the volunteers, relative to this folder"),
    "sample": ("", "Galaxy Zoo 2 sample of the image"),
}


def fetch(session: Session, known: dict[str, Address], out: Path, *, no_images: bool = False) -> Fetched:
    """Fetch the tables as published and, unless `no_images`, the zip file of 3.4 GB.

    It is unpacked to images/<asset_id>.jpg; images.parquet has a row per object: objid (int64), image, sample.
    """
    counts: dict[str, int] = {}
    findings: list[Finding] = []
    sources = [known[name] for name in _TABLES]
    for name, file in _TABLES.items():
        download(session, known[name], out / file)
        counts[f"{file}, bytes"] = (out / file).stat().st_size
    if not no_images:
        download(session, known["gz2.images"], out / ZIP)
        names = unzip(out / ZIP, out, _IMAGE)
        listed, findings = _list_images(out, names, known["gz2.images"])
        counts |= {"images": len(names), "objects with an image": listed}
        sources.append(known["gz2.images"])
    return Fetched("gz2", out, counts, tuple(sources), tuple(findings))


def _list_images(out: Path, names: list[str], address: Address) -> tuple[int, list[Finding]]:
    """Write images.parquet; return the number of objects with an image, and findings."""
    target = out / "images.parquet"
    kinds = {"objid": pl.Int64, "asset_id": pl.Int64, "sample": pl.String}
    mapping = read_columns(out / MAPPING, kinds, nulls=True)
    there = mapping.with_columns(image=pl.format("images/{}.jpg", "asset_id"))
    there = there.filter(pl.col("image").is_in(pl.Series(names, dtype=pl.String).implode()))
    if there.height == 0:
        raise TruemorphError(f"{out / ZIP}: none of its images are in {MAPPING}; delete both and retry")
    rank = pl.col("sample").cast(pl.Enum(SAMPLES), strict=False)
    listed = (
        there.sort(rank, "asset_id", nulls_last=True)
        .unique("objid", keep="first", maintain_order=True)
        .sort("objid")
        .select(*_IMAGE_COLUMNS)
    )
    if not (is_recorded(target) and pl.read_parquet(target).equals(listed)):
        write_recorded(target, listed, address, f"{ZIP} joined with {MAPPING}", _IMAGE_COLUMNS)
    bare = mapping["objid"].n_unique() - listed.height
    text = f"{bare:,d} objects of {MAPPING} have no image in the zip."
    return listed.height, [Finding("objects-without-image", "note", text)] if bare else []
