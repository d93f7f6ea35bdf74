"""HST images at given positions: cut-outs of the mosaics that CDS keeps as HiPS, by hips2fits.

Facts and where they are from. The mosaics are CDS/P/HST/color, .../I, .../R, .../V and others (CDS's HiPS list). The
MOCServer says which there are, and which of them cover a circle: RA, DEC, SR in degrees, intersect=overlaps,
ID=CDS/P/HST*, get=id and fmt=json give a list of ids (the server's own form and documentation, v5.10). hips2fits takes
hips, ra, dec, fov (degrees), width, height, projection, coordsys and format (CDS's documentation, and astroquery).
Maps of coverage are coarser than images: where a map promises an image and there is none, hips2fits draws an empty one.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from truemorph.catalogs.archives.addresses import Address
from truemorph.catalogs.archives.checksums import file_hash
from truemorph.catalogs.archives.cutouts import HIPS, Cutout, is_blank
from truemorph.catalogs.archives.failures import UnansweredError
from truemorph.catalogs.archives.fetched import Fetched, write_list, write_whole
from truemorph.catalogs.archives.positions import file_stems, read_positions
from truemorph.catalogs.archives.provenance import is_whole
from truemorph.catalogs.archives.web import Web
from truemorph.errors import InputError, TruemorphError, nearest
from truemorph.progress import progress

OK, OUTSIDE, BLANK, FAILED = "ok", "outside", "blank", "failed"
_SAVE_EVERY = 25
_GIVE_UP = 8  # failures in a row that say nothing against the object
_REFUSED = {401, 403, 404, 407, 410}  # by the service as a whole
_SAME = 1e-6  # degrees
_SCHEMA = {
    "object_id": pl.String,
    "ra": pl.Float64,
    "dec": pl.Float64,
    "file": pl.String,
    "hips": pl.String,
    "status": pl.String,
    "sha256": pl.String,
}
_MOSAICS = {"ID": "CDS/P/HST*", "get": "id", "fmt": "json"}

Row = dict[str, Any]


def check_hst(out: Path, *, positions: Any = None, cutout: Cutout | None = None) -> None:
    """Refuse what `fetch_hst` would refuse, before anything is fetched.

    Raises
    ------
    InputError
    """
    if positions is None:
        raise InputError("give the objects' positions: --positions TABLE with object_id, ra and dec")
    read_positions(positions)


def fetch_hst(
    web: Web, known: dict[str, Address], out: Path, *, positions: Any = None, cutout: Cutout | None = None
) -> Fetched:
    """Fetch HST images of the objects that HST has seen.

    Parameters
    ----------
    web : Web
    known : dict of Address
    out : Path
        Gets <object_id>.jpg (or .png, .fits) and hst.csv, a row an object: object_id, ra, dec, file, hips, status (ok,
        outside (of HST's coverage), blank (covered, but the image is empty), or failed and why) and sha256. Run again,
        it asks for what is missing, then for what failed.
    positions : path or table
        object_id (or objid, dr7objid), ra and dec in degrees, or the unit that the table states.
    cutout : Cutout, optional

    Returns
    -------
    Fetched

    Raises
    ------
    InputError
        If the table lacks a column, an id isn't one, there is no such mosaic, or the folder holds images that were cut
        out differently.
    TruemorphError
        If the service fails several times in a row, or asks to come back later. An image that fails for reasons of its
        own doesn't stop the others.
    """
    check_hst(out, positions=positions)
    cutout, wanted = cutout or Cutout(), read_positions(positions)
    had = _had(out)
    rows = _still_good(out, had, wanted, cutout, _other_mosaics(out, cutout))
    # What failed before may fail for ever; the others come first.
    failed = {name for name, row in had.items() if str(row["status"]).startswith(FAILED)}
    names = wanted["object_id"].to_list()
    missing = sorted((name for name in names if name not in rows), key=lambda name: name in failed)
    # Images of objects that are somewhere else now.
    stale = {had[name]["file"] for name in missing if name in had and _is_name(had[name]["file"])}
    if missing:
        if web.offline:
            raise TruemorphError(
                f"{out}: {len(missing):,d} of {len(names):,d} objects are missing, and this is offline; run the same "
                f"with a network (images are at {known['hst.hips2fits'].url})"
            )
        _check_mosaics(web, known["hst.moc"], cutout)
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "cutout.json", json.dumps(_settings(cutout), indent=1).encode())
        try:
            _fetch_all(web, known, out, wanted, missing, rows, cutout)
        finally:
            for file in stale - {row["file"] for row in rows.values()}:
                (out / file).unlink(missing_ok=True)
    if missing or not is_whole(out / "hst.csv"):
        _save(out, known, wanted, rows, cutout)
    return _summary(out, known, [rows[name]["status"] for name in names])


def _summary(out: Path, known: dict[str, Address], statuses: list[str]) -> Fetched:
    counts = {one: statuses.count(one) for one in (OK, OUTSIDE, BLANK)}
    failed = [one for one in statuses if one.startswith(FAILED)]
    notes = (f"{len(failed):,d} images failed (first: {failed[0]}); run the same again for them",) if failed else ()
    return Fetched("hst", out, counts | {FAILED: len(failed)}, (known["hst.hips2fits"], known["hst.moc"]), notes)


def _fetch_all(
    web: Web,
    known: dict[str, Address],
    out: Path,
    wanted: pl.DataFrame,
    missing: list[str],
    rows: dict[str, Row],
    cutout: Cutout,
) -> None:
    """Ask for each missing object, into `rows`, which is saved now and then and at the end."""
    places = {name: (ra, dec) for name, ra, dec in wanted.iter_rows()}
    # Whoever had a file under its plain name keeps it.
    stems = file_stems([*wanted["object_id"], *rows])
    in_a_row = 0
    with progress(wanted.height, "HST", "objects", initial=wanted.height - len(missing)) as bar:
        try:
            for number, name in enumerate(missing, 1):
                ra, dec = places[name]
                row: Row = dict.fromkeys(_SCHEMA) | {"object_id": name, "ra": ra, "dec": dec}
                try:
                    rows[name] = row | _one(web, known, out, stems[name], ra, dec, cutout)
                    in_a_row = 0
                except UnansweredError as problem:
                    rows[name] = row | {"status": f"{FAILED}: {problem}"}
                    in_a_row = in_a_row + 1 if problem.passing or problem.status in _REFUSED else 0
                    if in_a_row >= _GIVE_UP:
                        raise TruemorphError(
                            f"{in_a_row} images in a row failed: {problem}; what has arrived is kept"
                        ) from problem
                if number % _SAVE_EVERY == 0:
                    _save(out, known, wanted, rows, cutout)
                bar.update(1)
        finally:
            _save(out, known, wanted, rows, cutout)


def _settings(cutout: Cutout) -> dict[str, Any]:
    return asdict(cutout) | {"hips": list(cutout.hips)}


def _other_mosaics(out: Path, cutout: Cutout) -> bool:
    """Whether the folder's images were chosen among other mosaics.

    Raises
    ------
    InputError
        If they were cut out differently.
    """
    path, asked = out / "cutout.json", _settings(cutout)
    if not path.is_file():
        return False
    try:
        had = dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as problem:
        raise InputError(f"{path}: can't be read ({problem}); choose another --out") from problem
    differ = [key for key in asked if key != "hips" and had.get(key) != asked[key]]
    if differ:
        said = ", ".join(f"{key} {had.get(key)}" for key in differ)
        raise InputError(f"{out}: holds images that were cut out differently ({said}); choose another --out")
    return had.get("hips") != asked["hips"]


def _had(out: Path) -> dict[str, Row]:
    """What earlier runs found out, by object."""
    path = out / "hst.csv"
    if not path.is_file():
        return {}
    try:
        table = pl.read_csv(path, schema_overrides=_SCHEMA, null_values=[""]).select(*_SCHEMA)
    except (pl.exceptions.PolarsError, OSError) as problem:
        raise InputError(f"{path}: can't be read ({str(problem).splitlines()[0]}); choose another --out") from problem
    return {row["object_id"]: row for row in table.iter_rows(named=True) if row["object_id"] is not None}


def _is_name(file: str | None) -> bool:
    """Whether it is the name of a file in the folder: a table can be edited."""
    return bool(file) and Path(str(file)).name == file


def _still_good(
    out: Path, had: dict[str, Row], wanted: pl.DataFrame, cutout: Cutout, other_mosaics: bool
) -> dict[str, Row]:
    """Rows less what failed, is gone or damaged, is somewhere else now, or might be in a mosaic that wasn't asked."""
    places = {name: (ra, dec) for name, ra, dec in wanted.iter_rows()}

    def good(name: str, row: Row) -> bool:
        ra, dec = places.get(name, (row["ra"], row["dec"]))
        if None in (row["ra"], row["dec"]) or max(abs(row["ra"] - ra), abs(row["dec"] - dec)) > _SAME:
            return False
        if row["status"] in (OUTSIDE, BLANK):
            return not other_mosaics
        file = row["file"]
        if row["status"] != OK or not _is_name(file) or row["hips"] not in cutout.hips:
            return False
        return (out / file).is_file() and file_hash(out / file) == row["sha256"]

    # Failures of objects that nobody asks for now stay on record.
    return {name: row for name, row in had.items() if good(name, row) or name not in places}


def _save(out: Path, known: dict[str, Address], wanted: pl.DataFrame, rows: dict[str, Row], cutout: Cutout) -> None:
    """Write hst.csv: the objects asked for in their order, then others of earlier runs."""
    if not rows:
        return
    order = dict.fromkeys([*(name for name in wanted["object_id"] if name in rows), *rows])
    query = (
        f"hips in order of preference {', '.join(cutout.hips)}; fov {cutout.fov} arcsec, {cutout.pixels} pixels, TAN"
    )
    table = pl.DataFrame([rows[name] for name in order], schema=_SCHEMA)
    write_list(out / "hst.csv", table, known["hst.hips2fits"], query, fetched=False, coverage=known["hst.moc"].url)


def _one(
    web: Web, known: dict[str, Address], out: Path, stem: str, ra: float, dec: float, cutout: Cutout
) -> dict[str, str]:
    """File, mosaic, status and digest of one object.

    Raises
    ------
    UnansweredError
    """
    circle = {"RA": ra, "DEC": dec, "SR": cutout.fov / 2 / 3600, "intersect": "overlaps"}
    covering = _mosaics(web, known["hst.moc"], circle)
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
        body = web.get(known["hst.hips2fits"].url, parameters, expect=kind, what=f"HST image {stem}")
        if not is_blank(body, cutout):
            path = out / f"{stem}.{cutout.format}"
            write_whole(path, body)
            return {"file": path.name, "hips": hips, "status": OK, "sha256": file_hash(path)}
    return {"status": BLANK if chosen else OUTSIDE}


def _mosaics(web: Web, address: Address, circle: dict[str, Any]) -> set[str]:
    """Ids of HST's mosaics: of all, or those that cover some of a circle (degrees)."""
    body = web.get(address.url, circle | _MOSAICS, expect="json", what="HST coverage")
    try:
        return {one["ID"] if isinstance(one, dict) else str(one) for one in json.loads(body)}
    except (ValueError, KeyError, TypeError) as problem:
        raise UnansweredError(f"{address.url}: wanted a list of ids; got {body[:80]!r}") from problem


def _check_mosaics(web: Web, address: Address, cutout: Cutout) -> None:
    """Refuse mosaics that there aren't; of the default ones some may be gone, but not all.

    Raises
    ------
    InputError
        With the nearest that there is.
    TruemorphError
        If the service knows none.
    """
    there = _mosaics(web, address, {})
    unknown = [one for one in cutout.mosaics if one not in there]
    if not there:
        raise TruemorphError(
            f"{address.url}: knows no HST mosaic; try again later, or replace the address (--addresses)"
        )
    if unknown and (cutout.hips != HIPS or len(unknown) == len(cutout.mosaics)):
        raise InputError(f"no HST mosaic {unknown[0]}; {nearest(unknown[0], sorted(there), what='mosaics')} (--hips)")
