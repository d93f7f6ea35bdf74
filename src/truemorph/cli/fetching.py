"""The command fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from truemorph.cli.shell import AsJson, Seed, app, names, say, show
from truemorph.errors import InputError

# What each archive has a use for, as the command line calls it.
_OPTIONS = {
    "gz2": {"no_images"},
    "sdss": {"ids", "id_column", "batch", "own_field"},
    "simard": {"tables"},
    "hst": {"positions", "hips", "fov", "pixels", "format"},
}


@app.command
def fetch(
    *archives: Annotated[Literal["gz2", "sdss", "simard", "hst"], Parameter(help="what to fetch")],
    out: Annotated[
        Path | None, Parameter(help="folder; default data/ARCHIVE. Of several archives, the folder that theirs go into")
    ] = None,
    no_images: Annotated[bool, Parameter(help="gz2: the tables only, without 3.4 GB of images")] = False,
    ids: Annotated[Path | None, Parameter(help="sdss: table of DR7 objids; default the gz2 folder beside")] = None,
    id_column: Annotated[str | None, Parameter(help="sdss: column of ids; default dr7objid or objid")] = None,
    batch: Annotated[int | None, Parameter(help="sdss: ids a query; default 150")] = None,
    own_field: Annotated[bool, Parameter(help="sdss: don't look for fields with better seeing")] = False,
    tables: Annotated[str | None, Parameter(help="simard: of 1,2,3; default 3")] = None,
    positions: Annotated[Path | None, Parameter(help="hst: table of object_id, ra, dec (degrees)")] = None,
    hips: Annotated[str | None, Parameter(help="hst: mosaics, best first, such as CDS/P/HST/color")] = None,
    fov: Annotated[float | None, Parameter(help="hst: side of an image, arcsec; default 30")] = None,
    pixels: Annotated[int | None, Parameter(help="hst: pixels on a side; default 424")] = None,
    format: Annotated[Literal["jpg", "png", "fits"] | None, Parameter(help="hst: default jpg")] = None,
    addresses: Annotated[Path | None, Parameter(help="TOML file of addresses in place of the packaged ones")] = None,
    rate: Annotated[float | None, Parameter(help="most requests a second to one host")] = None,
    offline: Annotated[bool, Parameter(help="ask nobody: use what is here, or say what is missing")] = False,
    seed: Seed = 0,
    json: AsJson = False,
) -> None:
    """Fetch archives' tables or images: checked, with where they are from, resumed when run again.

    Nothing here is random; --seed is taken as everywhere.

    Example: truemorph fetch gz2 sdss simard --out data
    """
    from truemorph.catalogs.archives import fetch as archive_fetching

    given: dict[str, Any] = {
        "no_images": no_images or None,
        "ids": ids,
        "id_column": id_column,
        "batch": batch,
        "own_field": own_field or None,
        "tables": tables,
        "positions": positions,
        "hips": hips,
        "fov": fov,
        "pixels": pixels,
        "format": format,
    }
    options = {name: value for name, value in given.items() if value is not None}
    if not archives:
        raise InputError(f"name what to fetch: {', '.join(_OPTIONS)}")
    for name in options:
        if not any(name in _OPTIONS[archive] for archive in archives):
            of = next(one for one, mine in _OPTIONS.items() if name in mine)
            raise InputError(
                f"--{name.replace('_', '-')} is of fetch {of}; fetch {' '.join(archives)} has no use for it"
            )
    shared: dict[str, Any] = {"addresses_from": addresses, "per_second": rate}
    wanted: list[tuple[str, Path | None, dict[str, Any]]] = []
    for archive in dict.fromkeys(archives):
        folder = out if out is None or len(archives) == 1 else out / archive
        own = {name: value for name, value in options.items() if name in _OPTIONS[archive]}
        wanted.append((archive, folder, _wording(archive, own)))
    for name, folder, own in wanted:  # all of them, before the first is asked for hours
        archive_fetching.check(name, folder, **shared, **own)
    results = []
    for name, folder, own in wanted:
        fetched = archive_fetching.fetch(name, folder, offline=offline, **shared, **own)
        for note in fetched.notes:
            say(f"note: {note}")
        results.append(fetched.described())
        if not json:
            lines = [f"{what:32s} {count:>15,d}" for what, count in fetched.counts.items()]
            show({}, False, [*lines, *fetched.credits(), f"wrote   {fetched.folder}"])
    if json:
        show(results[0] if len(results) == 1 else {"archives": results}, True, ())


def _wording(archive: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options as the archive's own function takes them."""
    if archive == "gz2":
        return {"images": False} if options else {}
    if archive == "sdss":
        own = options.pop("own_field", False)
        return {**options, "best_field": not own}
    if archive == "simard":
        try:
            return {"tables": [int(one) for one in names(options["tables"])]} if options else {}
        except ValueError:
            raise InputError(f"--tables takes numbers such as 1,3; got {options['tables']!r}") from None
    from truemorph.catalogs.archives.cutouts import Cutout

    positions = options.pop("positions", None)
    if "hips" in options:
        options["hips"] = names(options["hips"])
    return {"positions": positions, "cutout": Cutout(**options)}
