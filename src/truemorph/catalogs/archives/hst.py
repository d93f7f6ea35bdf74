"""HST images at given positions: cut-outs of the mosaics that CDS keeps as HiPS, by hips2fits.

Facts and where they are from. The mosaics are CDS/P/HST/color, .../I, .../R, .../V and others (CDS's HiPS list). The
MOCServer says which of them cover a circle: RA, DEC, SR in degrees, intersect=overlaps, ID=CDS/P/HST*, get=id and
fmt=json give a list of ids (the server's own form and documentation, v5.10). hips2fits takes hips, ra, dec, fov
(degrees), width, height, projection, coordsys and format (CDS's documentation, astroquery.hips2fits). Maps of coverage
are coarser than images: where a map promises an image and there is none, hips2fits draws an empty one.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.catalogs.archives.addresses import Address
from truemorph.catalogs.archives.fetched import Fetched, record_made, write_frame, write_whole
from truemorph.catalogs.archives.web import Web
from truemorph.catalogs.schema import nearest
from truemorph.catalogs.tables import read_table
from truemorph.errors import InputError, TruemorphError
from truemorph.progress import progress

HIPS = tuple(f"CDS/P/HST/{name}" for name in ("color", "I", "SDSSz", "SDSSr", "R", "wideV", "V", "B"))
FOV, PIXELS = 30.0, 424
OK, OUTSIDE, BLANK = "ok", "outside", "blank"
_ID_NAMES = ("object_id", "objid", "dr7objid")
_SAVE_EVERY = 25
_GIVE_UP = 8  # failures in a row
_SAME = 1e-6  # degrees
# Grey levels between the darkest and the brightest pixel, and a share of pixels: less is an empty image.
_FLAT, _FILLED = 8, 0.5
_SCHEMA = {
    "object_id": pl.String,
    "ra": pl.Float64,
    "dec": pl.Float64,
    "file": pl.String,
    "hips": pl.String,
    "status": pl.String,
}


@dataclass(frozen=True)
class Cutout:
    """How images are cut out.

    Attributes
    ----------
    fov : float
        Side, arcsec.
    pixels : int
        On a side.
    format : {"jpg", "png", "fits"}
    hips : tuple of str
        Mosaics, the preferred first; those in colour have no FITS.
    """

    fov: float = FOV
    pixels: int = PIXELS
    format: str = "jpg"
    hips: tuple[str, ...] = HIPS

    def __post_init__(self) -> None:
        """Refuse what can't be cut out."""
        if not 1 <= self.fov <= 3600 or not 16 <= self.pixels <= 4096:
            raise InputError(f"a cut-out is 1 to 3600 arcsec and 16 to 4096 pixels; got {self.fov} and {self.pixels}")
        if self.format not in ("jpg", "png", "fits"):
            raise InputError(f"images are jpg, png or fits; got {self.format!r}")
        if not self.mosaics:
            raise InputError("name at least one mosaic, such as CDS/P/HST/I (those in colour have no FITS)")

    @property
    def mosaics(self) -> tuple[str, ...]:
        """Mosaics that have the format."""
        return tuple(one for one in self.hips if self.format != "fits" or not one.endswith("color"))


def fetch_hst(
    web: Web,
    known: dict[str, Address],
    out: Path,
    *,
    positions: Path | pl.DataFrame | None = None,
    cutout: Cutout | None = None,
) -> Fetched:
    """Fetch HST images of the objects that HST has seen.

    Parameters
    ----------
    web : Web
    known : dict of Address
    out : Path
        Gets <object_id>.jpg (or .png, .fits) and hst.csv, a row an object: object_id, ra, dec, file, hips, and status:
        ok, outside (of HST's coverage), blank (covered, but the image is empty), or failed and why. Run again, it asks
        for what is missing or failed.
    positions : path or DataFrame
        object_id (or objid, dr7objid), ra and dec in degrees.
    cutout : Cutout, optional

    Returns
    -------
    Fetched

    Raises
    ------
    InputError
        If the table lacks a column, an id isn't one, or the folder holds images that were cut out differently.
    TruemorphError
        If several images in a row fail. One that fails doesn't stop the others.
    """
    cutout = cutout or Cutout()
    if positions is None:
        raise InputError("give the objects' positions: --positions TABLE with object_id, ra and dec")
    wanted = _positions(positions)
    out.mkdir(parents=True, exist_ok=True)
    _same_settings(out, cutout)
    rows = {row["object_id"]: row for row in _done(out, wanted).iter_rows(named=True)}
    missing = wanted.filter(~pl.col("object_id").is_in(list(rows)))
    in_a_row = 0
    with progress(wanted.height, "HST", "objects", initial=wanted.height - missing.height) as bar:
        try:
            for number, (name, ra, dec) in enumerate(missing.iter_rows(), 1):
                file, hips, status = _one(web, known, out, name, ra, dec, cutout)
                rows[name] = dict(zip(_SCHEMA, (name, ra, dec, file, hips, status), strict=True))
                in_a_row = in_a_row + 1 if status.startswith("failed") else 0
                if in_a_row >= _GIVE_UP:
                    raise TruemorphError(f"{in_a_row} images in a row {status}; what has arrived is kept")
                if number % _SAVE_EVERY == 0:
                    _save(out, wanted, rows)
                bar.update(1)
        finally:
            if rows:
                _save(out, wanted, rows)
    statuses = pl.Series([rows[name]["status"] for name in wanted["object_id"]], dtype=pl.String)
    query = (
        f"hips in order of preference {', '.join(cutout.hips)}; fov {cutout.fov} arcsec, {cutout.pixels} pixels, TAN"
    )
    record_made(out, "hst.csv", known["hst.hips2fits"], query, coverage=known["hst.moc"].url)
    counts = {one: int((statuses == one).sum()) for one in (OK, OUTSIDE, BLANK)}
    failed = statuses.filter(statuses.str.starts_with("failed"))
    notes = []
    if failed.len():
        notes.append(f"{failed.len():,d} images failed (first: {failed[0]}); run the same again for them")
    counts["failed"] = failed.len()
    return Fetched("hst", out, counts, (known["hst.hips2fits"], known["hst.moc"]), tuple(notes))


def _positions(source: Path | pl.DataFrame) -> pl.DataFrame:
    table = read_table(source)
    frame, what = table.frame, str(table.path or "positions")
    by_case = {name.lower(): name for name in frame.columns}
    name = next((by_case[one] for one in _ID_NAMES if one in by_case), None)
    if name is None:
        raise InputError(f"{what}: no column object_id; {nearest('object_id', frame.columns)}")
    for one in ("ra", "dec"):
        if one not in by_case:
            raise InputError(f"{what}: no column {one} (degrees); {nearest(one, frame.columns)}")
        if not frame[by_case[one]].dtype.is_numeric():
            raise InputError(f"{what}: column {by_case[one]} holds no numbers; give degrees")
    if frame[name].dtype.is_float():
        raise InputError(
            f"{what}: column {name} holds ids as floats, which may have lost digits; write them as integers"
        )
    chosen = frame.select(
        object_id=pl.col(name).cast(pl.String),
        ra=pl.col(by_case["ra"]).cast(pl.Float64),
        dec=pl.col(by_case["dec"]).cast(pl.Float64),
    )
    bad = chosen.filter(
        ~(pl.col("ra").is_between(0, 360) & pl.col("dec").is_between(-90, 90)).fill_null(False)
        | pl.col("object_id").is_null()
    )
    if bad.height:
        raise InputError(f"{what}: {bad.row(0)} is no object at a position in degrees ({bad.height} such rows)")
    again = chosen.filter(pl.col("object_id").is_duplicated())
    if again.height:
        raise InputError(f"{what}: object {again['object_id'][0]} is there more than once; give one row an object")
    return chosen


def _same_settings(out: Path, cutout: Cutout) -> None:
    """Refuse a folder whose images were cut out differently."""
    path = out / "cutout.json"
    asked = {"fov": cutout.fov, "pixels": cutout.pixels, "format": cutout.format, "hips": list(cutout.hips)}
    if not path.is_file():
        write_whole(path, json.dumps(asked, indent=1).encode())
        return
    try:
        had = dict(json.loads(path.read_text()))
    except ValueError as problem:
        raise InputError(f"{path}: can't be read ({problem}); choose another --out") from problem
    if had != asked:
        differ = ", ".join(f"{key} {had.get(key)}" for key in asked if had.get(key) != asked[key])
        raise InputError(f"{out}: holds images that were cut out differently ({differ}); choose another --out")


def _done(out: Path, wanted: pl.DataFrame) -> pl.DataFrame:
    """What earlier runs found out, less what failed, is gone, or is somewhere else now; other objects' rows too."""
    path = out / "hst.csv"
    if not path.is_file():
        return pl.DataFrame(schema=_SCHEMA)
    try:
        had = pl.read_csv(path, schema_overrides=_SCHEMA).select(*_SCHEMA)
    except pl.exceptions.PolarsError as problem:
        raise InputError(f"{path}: can't be read ({str(problem).splitlines()[0]}); choose another --out") from problem
    now = had.join(wanted, on="object_id", how="left", suffix="_now", maintain_order="left")
    moved = ((now["ra"] - now["ra_now"]).abs() > _SAME) | ((now["dec"] - now["dec_now"]).abs() > _SAME)
    there = [
        status in (OUTSIDE, BLANK) or (status == OK and (out / file).is_file())
        for status, file in had.select("status", "file").iter_rows()
    ]
    return had.filter(pl.Series(there, dtype=pl.Boolean) & ~moved.fill_null(False))


def _save(out: Path, wanted: pl.DataFrame, rows: dict[str, dict[str, Any]]) -> None:
    """Write hst.csv: the objects asked for in their order, then others of earlier runs."""
    order = dict.fromkeys([*(name for name in wanted["object_id"] if name in rows), *rows])
    write_frame(out / "hst.csv", pl.DataFrame([rows[name] for name in order], schema=_SCHEMA))


def _one(
    web: Web, known: dict[str, Address], out: Path, name: str, ra: float, dec: float, cutout: Cutout
) -> tuple[str | None, str | None, str]:
    """File, mosaic and status of one object."""
    try:
        covering = _coverage(web, known["hst.moc"], ra, dec, cutout.fov / 2 / 3600)
        chosen = [one for one in cutout.mosaics if one in covering]
        for hips in chosen:
            parameters = {
                "hips": hips,
                "ra": ra,
                "dec": dec,
                "fov": cutout.fov / 3600,
                "width": cutout.pixels,
                "height": cutout.pixels,
                "projection": "TAN",
                "coordsys": "icrs",
                "format": cutout.format,
            }
            kind = "fits" if cutout.format == "fits" else "image"
            body = web.get(known["hst.hips2fits"].url, parameters, expect=kind, what=f"HST image of {name}")
            if not _blank(body, kind):
                file = f"{re.sub(r'[^A-Za-z0-9._+-]', '_', name)}.{cutout.format}"
                write_whole(out / file, body)
                return file, hips, OK
    except TruemorphError as problem:
        if web.offline:
            raise
        return None, None, f"failed: {problem}"
    return None, None, BLANK if chosen else OUTSIDE


def _coverage(web: Web, address: Address, ra: float, dec: float, radius: float) -> set[str]:
    """Ids of HST's mosaics that cover some of a circle (degrees)."""
    query = {
        "RA": ra,
        "DEC": dec,
        "SR": radius,
        "intersect": "overlaps",
        "ID": "CDS/P/HST*",
        "get": "id",
        "fmt": "json",
    }
    body = web.get(address.url, query, expect="json", what="HST coverage")
    try:
        entries = json.loads(body)
        return {one["ID"] if isinstance(one, dict) else str(one) for one in entries}
    except (ValueError, KeyError, TypeError) as problem:
        raise TruemorphError(f"{address.url}: wanted a list of ids; got {body[:80]!r}") from problem


def _blank(body: bytes, kind: str) -> bool:
    """Whether the middle of an image shows nothing.

    Raises
    ------
    TruemorphError
        If it can't be read.
    """
    try:
        if kind == "fits":
            from astropy.io import fits

            with fits.open(io.BytesIO(body)) as hdus:
                pixels = np.atleast_3d(np.asarray(hdus[0].data, dtype=np.float64).T)
        else:
            from PIL import Image

            with Image.open(io.BytesIO(body)) as image:
                pixels = np.atleast_3d(np.asarray(image.convert("RGB"), dtype=np.float64))
    except (OSError, ValueError, TypeError) as problem:
        raise TruemorphError(f"the image can't be read: {problem}") from problem
    rows, columns = (slice(side // 4, side - side // 4) for side in pixels.shape[:2])
    middle = pixels[rows, columns]
    if kind == "fits":
        filled = np.isfinite(middle) & (middle != 0)
        return bool(filled.mean() < _FILLED or np.ptp(middle[filled]) == 0)
    return bool(np.ptp(middle) <= _FLAT)
