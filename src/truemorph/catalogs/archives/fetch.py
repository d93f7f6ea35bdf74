"""Archives by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truemorph.catalogs.archives.addresses import addresses
from truemorph.catalogs.archives.fetched import Fetched
from truemorph.catalogs.archives.folder import working_folder
from truemorph.catalogs.archives.gz2 import check_gz2, fetch_gz2
from truemorph.catalogs.archives.hst import check_hst, fetch_hst
from truemorph.catalogs.archives.sdss import check_sdss, fetch_sdss
from truemorph.catalogs.archives.simard import check_simard, fetch_simard
from truemorph.catalogs.archives.web import Web, check_rate
from truemorph.errors import InputError, nearest


@dataclass(frozen=True)
class Archive:
    """An archive: what fetches it and what looks at its options, and how many requests a second it is asked at most."""

    fetch: Callable[..., Fetched]
    check: Callable[..., None]
    per_second: float
    about: str
    inside: tuple[str, ...] = ()


ARCHIVES = {
    "gz2": Archive(fetch_gz2, check_gz2, 2.0, "Galaxy Zoo 2: votes and images", ("images",)),
    # SkyServer takes 60 queries a minute.
    "sdss": Archive(fetch_sdss, check_sdss, 0.9, "SDSS DR7: photometry, redshift and seeing", ("parts",)),
    "simard": Archive(
        fetch_simard,
        check_simard,
        1.0,
        "Simard et al. (2011): Sersic index, ellipticity, half-light radius",
        ("parts",),
    ),
    "hst": Archive(fetch_hst, check_hst, 2.0, "HST images at given positions"),
}


def check(
    name: str,
    out: str | os.PathLike[str] | None = None,
    *,
    addresses_from: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    per_second: float | None = None,
    **options: Any,
) -> Path:
    """Refuse what `fetch` would refuse, before anything is asked or written; parameters as there.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
    """
    if name not in ARCHIVES:
        raise InputError(f"no archive {name!r}; {nearest(name, list(ARCHIVES), what='archives')}")
    folder = Path(out) if out is not None else Path("data") / name
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; --out takes a folder")
    if per_second is not None:
        check_rate(per_second)
    addresses(addresses_from)
    ARCHIVES[name].check(folder, **options)
    return folder


def fetch(
    name: str,
    out: str | os.PathLike[str] | None = None,
    *,
    addresses_from: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    offline: bool = False,
    per_second: float | None = None,
    web: Web | None = None,
    **options: Any,
) -> Fetched:
    """Fetch an archive into a folder; run again, it goes on where it was.

    Parameters
    ----------
    name : {"gz2", "sdss", "simard", "hst"}
    out : path, optional
        Default: data/NAME.
    addresses_from : path or mapping, optional
        Addresses that take the place of the packaged ones, see `addresses`.
    offline : bool
        Ask nobody: what is here already is enough, or an error says what is missing.
    per_second : float, optional
        Most requests a second to one host; default as the archive likes it.
    web : Web, optional
        In place of one made from `offline` and `per_second`.
    **options
        Of `fetch_gz2`, `fetch_sdss`, `fetch_simard` or `fetch_hst`.

    Returns
    -------
    Fetched

    Raises
    ------
    InputError
        If there is no such archive, or an option can't be used.
    TruemorphError
        If something can't be fetched.

    Examples
    --------
    >>> fetch("sdss7")
    Traceback (most recent call last):
        ...
    truemorph.errors.InputError: no archive 'sdss7'; nearest: sdss
    """
    folder = check(name, out, addresses_from=addresses_from, per_second=per_second, **options)
    archive = ARCHIVES[name]
    web = web or Web(offline=offline, per_second=archive.per_second if per_second is None else per_second)
    with working_folder(folder, offline=web.offline, inside=archive.inside):
        return archive.fetch(web, addresses(addresses_from), folder, **options)
