"""The command fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from truemorph.cli.shell import AsJson, app, names, say, show
from truemorph.errors import InputError


@app.command
def fetch(
    *archives: Annotated[Literal["gz2", "sdss", "simard", "hst"], Parameter(help="what to fetch")],
    out: Annotated[
        Path | None, Parameter(help="folder; default data/ARCHIVE. Of several archives, the folder that theirs go into")
    ] = None,
    no_images: Annotated[bool, Parameter(help="gz2: the tables only, without 3.4 GB of images")] = False,
    ids: Annotated[Path | None, Parameter(help="sdss: table of DR7 objids; default the gz2 folder beside")] = None,
    id_column: Annotated[str | None, Parameter(help="sdss: column of ids; default dr7objid or objid")] = None,
    tables: Annotated[str | None, Parameter(help="simard: of 1,2,3; default 3")] = None,
    positions: Annotated[Path | None, Parameter(help="hst: table of object_id, ra, dec (degrees)")] = None,
    hips: Annotated[str | None, Parameter(help="hst: mosaics, best first, such as CDS/P/HST/color")] = None,
    fov: Annotated[float | None, Parameter(help="hst: side of an image, arcsec; default 30")] = None,
    pixels: Annotated[int | None, Parameter(help="hst: pixels on a side; default 424")] = None,
    addresses: Annotated[Path | None, Parameter(help="TOML file of addresses in place of the packaged ones")] = None,
    rate: Annotated[float | None, Parameter(help="most requests a second")] = None,
    offline: Annotated[bool, Parameter(help="make no request: use what is here, or say what is missing")] = False,
    json: AsJson = False,
) -> None:
    """Fetch archives' tables or images: checked, with their origin recorded. If interrupted, run it again to resume.

    Example: truemorph fetch gz2 sdss simard --out data
    """
    from truemorph.archives import fetch as room

    given: dict[str, Any] = {
        "images": False if no_images else None,
        "ids": ids,
        "id_column": id_column,
        "tables": names(tables) or None,
        "positions": positions,
        "hips": names(hips) or None,
        "fov": fov,
        "pixels": pixels,
    }
    if not archives:
        raise InputError(f"name what to fetch: {', '.join(room.ARCHIVES)}")
    options = {name: value for name, value in given.items() if value is not None}
    for name in options:
        if not any(name in room.options_of(archive) for archive in archives):
            of = next(archive for archive in room.ARCHIVES if name in room.options_of(archive))
            flag = "no-images" if name == "images" else name.replace("_", "-")
            raise InputError(f"--{flag} is an option of fetch {of}; fetch {' '.join(archives)} has no use for it")
    results = []
    for archive in dict.fromkeys(archives):
        folder = out if out is None or len(archives) == 1 else out / archive
        own = {name: value for name, value in options.items() if name in room.options_of(archive)}
        fetched = room.fetch(archive, folder, addresses_from=addresses, per_second=rate, offline=offline, **own)
        for note in fetched.notes:
            say(f"note: {note}")
        results.append(fetched.to_dict())
        if not json:
            lines = [f"{what:32s} {count:>15,d}" for what, count in fetched.counts.items()]
            show({}, False, [*lines, *fetched.credits(), f"wrote   {fetched.folder}"])
    if json:
        show(results[0] if len(results) == 1 else {"archives": results}, True, ())
