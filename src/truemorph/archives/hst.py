"""HST images at given positions: cut-outs of the mosaics that CDS keeps as HiPS, by hips2fits.

The mosaics are CDS/P/HST/color, .../I, .../R, .../V and others (CDS's list of HiPS). The MOCServer says which of them
cover a circle: RA, DEC, SR in degrees, intersect=overlaps, ID=CDS/P/HST*, get=id and fmt=json give a list of ids (the
server's own form and documentation, v5.10). hips2fits takes hips, ra, dec, fov (degrees), width, height, projection,
coordsys and format (CDS's documentation, and astroquery). Maps of coverage are coarser than images: where a map
promises an image and there is none, hips2fits draws an empty one.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.archives.addresses import Address
from truemorph.archives.http import ComeBackLaterError, Session
from truemorph.archives.provenance import Fetched, read_provenance, write_recorded
from truemorph.archives.queries import find_column
from truemorph.errors import InputError, TruemorphError, nearest
from truemorph.findings import Finding
from truemorph.io import file_hash, written_whole
from truemorph.progress import progress
from truemorph.tables import numeric_columns, read_table

PER_SECOND = 2.0
HIPS = tuple(f"CDS/P/HST/{name}" for name in ("color", "I", "SDSSz", "SDSSr", "R", "wideV", "V", "B"))
OK, OUTSIDE, BLANK, FAILED = "ok", "outside", "blank", "failed"
_ID_NAMES = ("object_id", "objid", "dr7objid")
_GIVE_UP = 8  # failures in a row
_FLAT = 8  # grey levels between the darkest and the brightest pixel: less is an empty image
_SCHEMA = {
    "object_id": pl.String,
    "ra": pl.Float64,
    "dec": pl.Float64,
    "file": pl.String,
    "hips": pl.String,
    "status": pl.String,
    "sha256": pl.String,
}


def fetch(
    session: Session,
    known: dict[str, Address],
    out: Path,
    *,
    positions: Any = None,
    hips: Sequence[str] = HIPS,
    fov: float = 30.0,
    pixels: int = 424,
) -> Fetched:
    """Fetch HST images of the objects that HST has seen.

    Parameters
    ----------
    session : Session
    known : dict of Address
    out : Path
        Gets <object_id>.jpg and hst.csv, a row an object: object_id, ra, dec, file, hips, status (ok, outside (of HST's
        coverage), blank (covered, but the image is empty), or failed and why) and sha256. A later run asks for what is
        missing, then for what failed.
    positions : path or table
        object_id (or objid, dr7objid), ra and dec in degrees, or in the unit that the table states.
    hips : sequence of str
        Mosaics, of `HIPS`, the preferred first.
    fov : float
        Side of an image, arcsec.
    pixels : int
        Pixels on a side.

    Raises
    ------
    InputError
        If the table lacks a column, an id is repeated, there is no such mosaic, or the folder holds images that were
        cut out differently.
    TruemorphError
        If the service fails several times in a row, or asks to come back later. Single failures don't stop the others.
    """
    wanted = read_positions(positions)
    if unknown := [one for one in hips if one not in HIPS]:
        raise InputError(f"no HST mosaic {unknown[0]}; {nearest(unknown[0], HIPS, what='mosaics')} (`hips`)")
    if not 1 <= fov <= 3600 or not 16 <= pixels <= 4096:
        raise InputError(
            f"an image is 1 to 3600 arcsec (`fov`) and 16 to 4096 pixels (`pixels`); got {fov} and {pixels}"
        )
    query = f"hips in order of preference {', '.join(hips)}; fov {fov} arcsec, {pixels} pixels, TAN"
    rows = _earlier(out, query)
    places = {name: (ra, dec) for name, ra, dec in wanted.iter_rows()}
    missing = [name for name, place in places.items() if name not in rows or not _is_good(out, rows[name], *place)]
    missing.sort(key=lambda name: name in rows)  # what failed before may fail for ever: the others come first
    sources = (known["hst.hips2fits"], known["hst.moc"])
    if missing and session.offline:
        raise TruemorphError(
            f"{out}: {len(missing):,d} of {len(places):,d} objects are missing, and cannot be requested with "
            f"`offline`; run the same command without it (images are at {sources[0].public_url})"
        )

    in_a_row = 0
    with progress(len(places), "HST", "objects", initial=len(places) - len(missing)) as bar:
        for name in missing:
            ra, dec = places[name]
            row = dict.fromkeys(_SCHEMA) | {"object_id": name, "ra": ra, "dec": dec}
            image = {"ra": ra, "dec": dec, "fov": fov / 3600, "width": pixels, "height": pixels}
            try:
                rows[name] = row | _one(session, known, out / f"{_stem(name)}.jpg", image, hips)
                in_a_row = 0
            except ComeBackLaterError:
                raise
            except TruemorphError as problem:
                rows[name] = row | {"status": f"{FAILED}: {problem}"}
                in_a_row += 1
            table = pl.DataFrame(list(rows.values()), schema=_SCHEMA)
            write_recorded(out / "hst.csv", table, sources[0], query, coverage=sources[1].public_url)
            if in_a_row == _GIVE_UP:
                raise TruemorphError(f"{in_a_row} images in a row {rows[name]['status']}")
            bar.update(1)
    statuses = [str(rows[name]["status"]) for name in places]
    failed = [one for one in statuses if one.startswith(FAILED)]
    counts = {one: statuses.count(one) for one in (OK, OUTSIDE, BLANK)} | {FAILED: len(failed)}
    findings: tuple[Finding, ...] = ()
    if failed:
        findings = (
            Finding(
                "images-failed",
                "caution",
                f"{len(failed):,d} images could not be fetched (first: {failed[0]}).",
                "Run the same command again.",
            ),
        )
    return Fetched("hst", out, counts, sources, findings)


def read_positions(source: Any) -> pl.DataFrame:
    """Read object_id (text), ra and dec (degrees).

    Raises
    ------
    InputError
        If a column is missing, an id is a float or repeated, or a position is impossible.
    """
    if source is None:
        raise InputError("give a table of the objects' positions (`positions`) with object_id, ra and dec")
    from astropy import units

    table = read_table(source)
    frame, what = table.frame, str(table.path or "positions")
    identifier, ra, dec = (find_column(frame, names, what) for names in (_ID_NAMES, ["ra"], ["dec"]))
    if frame[identifier].dtype.is_float():
        raise InputError(f"{what}: ids in {identifier} are floats, which may have lost digits; write them as integers")
    try:
        degrees = [units.Unit(table.units.get(one) or "deg").to("deg") for one in (ra, dec)]
    except (ValueError, units.UnitConversionError) as problem:
        raise InputError(f"{what}: {ra} and {dec} are not angles ({problem}); give degrees") from problem
    angles = numeric_columns(frame, [ra, dec], what) * degrees
    chosen = pl.DataFrame({"object_id": frame[identifier].cast(pl.String), "ra": angles[:, 0], "dec": angles[:, 1]})
    bad = chosen.filter(
        ~(pl.col("ra").is_between(0, 360) & pl.col("dec").is_between(-90, 90))
        | (pl.col("object_id").fill_null("").str.strip_chars() == "")
        | pl.col("object_id").is_duplicated()
    )
    if bad.height:
        raise InputError(
            f"{what}: each row needs an id of its own, ra of 0 to 360 and dec of -90 to 90 degrees; "
            f"{bad.height:,d} have not, such as {bad.row(0)}"
        )
    return chosen


def _stem(name: str) -> str:
    """Return what an object's file is called: its id or, where that can't be a file name, with digits of its SHA-256.

    Examples
    --------
    >>> _stem("587722981748572353"), _stem("NGC 1/2")
    ('587722981748572353', 'NGC_1_2-c2d3a36fe5')
    """
    clean = re.sub(r"^[^A-Za-z0-9_+]|[^A-Za-z0-9._+-]", "_", name)[:100]
    return clean if clean == name else f"{clean}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def _earlier(out: Path, query: str) -> dict[str, dict[str, Any]]:
    """Return the rows of earlier runs by object."""
    path = out / "hst.csv"
    if not path.is_file():
        return {}
    made = read_provenance(out).get(path.name, {}).get("query", query)
    if made != query:
        raise InputError(f"{out}: holds images that were cut out differently ({made}); choose another folder (`out`)")
    try:
        table = pl.read_csv(path, schema_overrides=_SCHEMA).select(*_SCHEMA)
    except pl.exceptions.PolarsError as problem:
        raise InputError(f"{path}: not readable as CSV; choose another folder (`out`)") from problem
    return {row["object_id"]: row for row in table.iter_rows(named=True)}


def _is_good(out: Path, row: dict[str, Any], ra: float, dec: float) -> bool:
    """Whether an object has been dealt with, is still at its place, and its image is still there."""
    if (row["ra"], row["dec"]) != (ra, dec):
        return False
    if row["status"] != OK:
        return row["status"] in (OUTSIDE, BLANK)
    image = out / f"{_stem(row['object_id'])}.jpg"
    return image.is_file() and file_hash(image) == row["sha256"]


def _one(
    session: Session, known: dict[str, Address], path: Path, image: dict[str, Any], preferred: Sequence[str]
) -> dict[str, str]:
    """Fetch the image of one object from the first mosaic that shows it; returns columns of its row."""
    circle = {"RA": image["ra"], "DEC": image["dec"], "SR": image["fov"] / 2, "intersect": "overlaps"}
    body = session.read(known["hst.moc"].url, circle | {"ID": "CDS/P/HST*", "get": "id", "fmt": "json"})
    try:
        covering = set(json.loads(body))
    except (ValueError, TypeError) as problem:
        raise TruemorphError(f"{known['hst.moc'].public_url}: expected a list of ids; got {body[:80]!r}") from problem
    chosen = [one for one in preferred if one in covering]
    for hips in chosen:
        form = image | {"hips": hips, "projection": "TAN", "coordsys": "icrs", "format": "jpg"}
        body = session.read(known["hst.hips2fits"].url, form)
        if not is_blank(body, image["width"]):
            with written_whole(path) as partial:
                partial.write_bytes(body)
            return {"file": path.name, "hips": hips, "status": OK, "sha256": file_hash(path)}
    return {"status": BLANK if chosen else OUTSIDE}


def is_blank(body: bytes, side: int) -> bool:
    """Whether the middle of a JPEG shows nothing.

    Parameters
    ----------
    body : bytes
    side : int
        Pixels on a side that it should have.

    Raises
    ------
    TruemorphError
        If it can't be read, or has another size.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(body)) as picture:
            if picture.size != (side, side):  # before a huge image is decoded
                raise ValueError(f"{picture.size} pixels")
            pixels = np.asarray(picture.convert("RGB"), dtype=np.float64)
    except Exception as problem:  # readers raise dozens of types for damaged files
        raise TruemorphError(f"not an image of {side} x {side} pixels: {problem}") from problem
    middle = pixels[side // 4 : side - side // 4, side // 4 : side - side // 4]
    return bool(np.ptp(middle) <= _FLAT)
