"""HST images at given positions: cutouts from the HiPS mosaics at CDS, by hips2fits.

The mosaics are CDS/P/HST/color, .../I, .../R, .../V and others (CDS's list of HiPS). The MOCServer lists those that
cover a circle: RA, DEC, SR in degrees, intersect=overlaps, ID=CDS/P/HST*, get=id and fmt=json return a list of ids (the
server's form and documentation, v5.10). hips2fits has parameters hips, ra, dec, fov (degrees), width, height,
projection, coordsys and format (CDS's documentation, and astroquery). Coverage maps are coarser than images: if a
covered position has no image, hips2fits returns an empty one.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.archives.addresses import Address
from truemorph.archives.http import ComeBackLaterError, Session
from truemorph.archives.provenance import Fetched, entry_of, write_recorded
from truemorph.archives.queries import find_column
from truemorph.errors import InputError, TruemorphError, nearest
from truemorph.findings import Finding
from truemorph.io import file_hash, write_file
from truemorph.progress import progress
from truemorph.tables import numeric_columns, read_table

PER_SECOND = 2.0
HIPS = tuple(f"CDS/P/HST/{name}" for name in ("color", "I", "SDSSz", "SDSSr", "R", "wideV", "V", "B"))
OK, OUTSIDE, BLANK, FAILED = "ok", "outside", "blank", "failed"
_ID_NAMES = ("object_id", "objid", "dr7objid")
_FILE_NAME = r"^[A-Za-z0-9_+][A-Za-z0-9 ._+-]{0,99}$"
_GIVE_UP = 8  # failures in a row
_FLAT = 8  # grey levels between the darkest and brightest pixel; an image with less is empty
_SCHEMA = {
    **{"object_id": pl.String, "ra": pl.Float64, "dec": pl.Float64, "fov": pl.Float64},
    **dict.fromkeys(("file", "hips", "status", "sha256"), pl.String),
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
    """Fetch <object_id>.jpg of objects that HST has observed, from the first of the mosaics `hips` that has an image.

    `positions` as for `read_positions`; `fov` is the width in arcsec where these have none. hst.csv has a row per
    object; its status is ok, outside (of HST's coverage), blank (covered, but the image is empty), or failed with the
    reason. A later run requests missing images first, then failed ones. Single failures do not stop the others.
    """
    if unknown := [name for name in hips if name not in HIPS]:
        raise InputError(f"no HST mosaic {unknown[0]}; {nearest(unknown[0], HIPS, what='mosaics')} (`hips`)")
    if not 16 <= pixels <= 4096:
        raise InputError(f"images must be 16 to 4096 pixels wide (`pixels`); got {pixels}")
    objects = {row["object_id"]: row for row in read_positions(positions, fov).iter_rows(named=True)}
    query = f"hips in order of preference {', '.join(hips)}; fov {fov} arcsec, {pixels} pixels, TAN"
    rows = _earlier(out, query)
    missing = [name for name, row in objects.items() if not _is_done(out, row, rows.get(name, {}))]
    missing.sort(key=lambda name: name in rows)  # earlier failures last, because they may fail again
    sources = (known["hst.hips2fits"], known["hst.moc"])
    in_a_row = 0
    for name in progress(len(objects), "HST", "objects", initial=len(objects) - len(missing), of=missing):
        rows[name] = dict.fromkeys(_SCHEMA) | objects[name]
        try:
            rows[name] |= _fetch_image(session, known, out / f"{name}.jpg", objects[name], pixels, hips)
            in_a_row = 0
        except ComeBackLaterError:
            raise
        except TruemorphError as problem:
            rows[name]["status"] = f"{FAILED}: {problem}"
            in_a_row += 1
        table = pl.DataFrame(list(rows.values()), schema=_SCHEMA)
        write_recorded(out / "hst.csv", table, sources[0], query, {})
        if in_a_row == _GIVE_UP:
            raise TruemorphError(f"{in_a_row} images in a row {rows[name]['status']}")
    statuses = [rows[name]["status"] for name in objects]
    failed = [status for status in statuses if status.startswith(FAILED)]
    counts = {status: statuses.count(status) for status in (OK, OUTSIDE, BLANK)} | {FAILED: len(failed)}
    findings = []
    if failed:
        text = f"{len(failed):,d} images could not be fetched (first: {failed[0]})."
        findings.append(Finding("images-failed", "caution", text, "Run the same command again."))
    return Fetched("hst", out, counts, sources, tuple(findings))


def read_positions(source: Any, fov: float) -> pl.DataFrame:
    """Read object_id (or objid, dr7objid) as text, ra and dec in degrees, and fov in arcsec, by default the given one.

    Positions may have another unit in the table.
    """
    if source is None:
        raise InputError("give a table of the objects' positions (`positions`) with object_id, ra and dec")
    from astropy import units

    table = read_table(source)
    frame = table.frame
    what = str(table.path or "positions")
    identifier, ra, dec = (find_column(frame, names, what) for names in (_ID_NAMES, ["ra"], ["dec"]))
    if frame[identifier].dtype.is_float():
        raise InputError(f"{what}: ids in {identifier} are floats, which may have lost digits; write them as integers")
    try:
        degrees = [units.Unit(table.units.get(column) or "deg").to("deg") for column in (ra, dec)]
    except (ValueError, units.UnitConversionError) as problem:
        raise InputError(f"{what}: {ra} and {dec} are not angles ({problem}); give degrees") from problem
    if "fov" not in frame.columns:
        frame = frame.with_columns(fov=pl.lit(None, pl.Float64))
    numbers = numeric_columns(frame, [ra, dec, "fov"], what) * [*degrees, 1]
    chosen = pl.DataFrame(numbers, ["ra", "dec", "fov"]).with_columns(pl.col("fov").fill_nan(fov))
    chosen.insert_column(0, frame[identifier].cast(pl.String).alias("object_id"))
    bad = chosen.filter(
        ~(pl.col("ra").is_between(0, 360) & pl.col("dec").is_between(-90, 90) & pl.col("fov").is_between(1, 3600))
        | ~pl.col("object_id").str.contains(_FILE_NAME).fill_null(False)
        | pl.col("object_id").is_duplicated()
    )
    if bad.height:
        needed = "a unique id of letters, digits and ' _+-.', ra and dec in degrees, fov from 1 to 3600 arcsec"
        raise InputError(f"{what}: {bad.height:,d} rows do not have {needed}, such as {bad.row(0)}")
    return chosen


def _earlier(out: Path, query: str) -> dict[str, dict[str, Any]]:
    """Return rows of earlier runs by object."""
    path = out / "hst.csv"
    if not path.is_file():
        return {}
    made = entry_of(path).get("query", query)
    if made != query:
        raise InputError(f"{out}: holds images with other settings ({made}); choose another folder (`out`)")
    try:
        return {row["object_id"]: row for row in pl.read_csv(path, schema=_SCHEMA).iter_rows(named=True)}
    except pl.exceptions.PolarsError as problem:
        raise InputError(f"{path}: not readable as CSV; choose another folder (`out`)") from problem


def _is_done(out: Path, place: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether an earlier run has an object: same position and width, and its image still exists."""
    if any(row.get(name) != value for name, value in place.items()):
        return False
    if row["status"] != OK:
        return row["status"] in (OUTSIDE, BLANK)
    image = out / f"{row['object_id']}.jpg"
    return image.is_file() and file_hash(image) == row["sha256"]


def _fetch_image(
    session: Session, hosts: dict[str, Address], path: Path, place: dict[str, Any], pixels: int, mosaics: Sequence[str]
) -> dict[str, str]:
    """Fetch one object's image from the first mosaic that has it; return columns of its row."""
    fov = place["fov"] / 3600
    circle = {"RA": place["ra"], "DEC": place["dec"], "SR": fov / 2, "intersect": "overlaps"}
    body = session.read(hosts["hst.moc"].url, circle | {"ID": "CDS/P/HST*", "get": "id", "fmt": "json"})
    try:
        covering = set(json.loads(body))
    except (ValueError, TypeError) as problem:
        raise TruemorphError(f"{hosts['hst.moc'].public_url}: expected a list of ids; got {body[:80]!r}") from problem
    chosen = [name for name in mosaics if name in covering]
    image = {"ra": place["ra"], "dec": place["dec"], "fov": fov, "width": pixels, "height": pixels}
    for hips in chosen:
        form = image | {"hips": hips, "projection": "TAN", "coordsys": "icrs", "format": "jpg"}
        body = session.read(hosts["hst.hips2fits"].url, form)
        if not is_blank(body, pixels):
            write_file(path, body)
            return {"file": path.name, "hips": hips, "status": OK, "sha256": file_hash(path)}
    return {"status": BLANK if chosen else OUTSIDE}


def is_blank(body: bytes, side: int) -> bool:
    """Whether the centre of a JPEG is empty; an error if it can't be read or is not `side` pixels wide."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(body), formats=["JPEG"]) as picture:
            if picture.size != (side, side):  # before decoding, in case it is huge
                raise ValueError(f"{picture.size} pixels")
            pixels = np.asarray(picture.convert("RGB"), float)
    except Exception as problem:  # readers raise many types for damaged files
        raise TruemorphError(f"not an image of {side} x {side} pixels: {problem}") from problem
    middle = pixels[side // 4 : side - side // 4, side // 4 : side - side // 4]
    return bool(np.ptp(middle) <= _FLAT)
