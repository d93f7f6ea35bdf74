"""Every remote address truemorph asks, in one table: `addresses.toml`; any of them can be replaced.

A mirror, a newer release or a test server takes an address's place through a TOML file, given as `overrides` or named
by the environment variable TRUEMORPH_ADDRESSES:

    "gz2.hart16" = "https://mirror.example.org/gz2_hart16.csv.gz"

    [gz2.images]
    url = "https://mirror.example.org/images_gz2.zip"
    checksum = "md5:..."
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from truemorph.catalogs.archives.checksums import split_checksum
from truemorph.errors import InputError

ENVIRONMENT = "TRUEMORPH_ADDRESSES"


@dataclass(frozen=True)
class Address:
    """A remote file or service, with what its use asks for.

    Attributes
    ----------
    name : str
        Such as "gz2.hart16".
    url : str
    about : str
        What it is, in one line.
    licence : str
        Terms of use, as far as they are published.
    citation : str
        What to cite, with bibcode or DOI.
    checksum : str or None
        "md5:..." or "sha256:...", where one is published.
    size : int or None
        Bytes, where published.
    """

    name: str
    url: str
    about: str
    licence: str
    citation: str
    checksum: str | None = None
    size: int | None = None


_FIELDS = {one.name for one in fields(Address)} - {"name"}


def _entries(table: Mapping[str, Any], source: str, before: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and settings; `gz2.images = ...` is a table in a table to TOML, `"gz2.images" = ...` is not."""
    for key, value in table.items():
        name = before + key
        if isinstance(value, str):
            yield name, {"url": value}
        elif not isinstance(value, Mapping):
            raise InputError(f"{source}: {name} takes an address in quotes, or a table with url; got {value!r}")
        elif _FIELDS & set(value):
            yield name, dict(value)
        else:
            yield from _entries(value, source, f"{name}.")


def _checked(address: Address, source: str) -> Address:
    parts = urlsplit(address.url) if isinstance(address.url, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{source}: {address.name}: an address begins with http:// or https://; got {address.url!r}")
    if address.checksum is not None:
        try:
            split_checksum(address.checksum)
        except InputError as problem:
            raise InputError(f"{source}: {address.name}: {problem}") from problem
    if address.size is not None and (type(address.size) is not int or address.size < 0):
        raise InputError(f"{source}: {address.name}: size is a number of bytes; got {address.size!r}")
    return address


@cache
def _packaged() -> dict[str, Address]:
    text = files("truemorph.catalogs.archives").joinpath("addresses.toml").read_text(encoding="utf-8")
    return {
        name: _checked(Address(name, **settings), "addresses.toml")
        for name, settings in _entries(tomllib.loads(text), "addresses.toml")
    }


def _read(path: str | os.PathLike[str], source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as problem:
        raise InputError(f"{source}: {problem.strerror or problem}") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise InputError(f"{source}: not valid TOML: {problem}") from problem


def _replaced(known: dict[str, Address], table: Mapping[str, Any], source: str) -> dict[str, Address]:
    known = dict(known)
    for name, settings in _entries(table, source):
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise InputError(f"{source}: no address {name}; {hint}")
        for key in settings:
            if key not in _FIELDS:
                near = get_close_matches(key, _FIELDS, 1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(_FIELDS))}"
                raise InputError(f"{source}: {name} has no setting {key}; {hint}")
        # What was published of one file says nothing of another.
        dropped = {"checksum": None, "size": None} if settings.get("url", known[name].url) != known[name].url else {}
        known[name] = _checked(replace(known[name], **(dropped | settings)), source)
    return known


def addresses(overrides: str | os.PathLike[str] | Mapping[str, Any] | None = None) -> dict[str, Address]:
    """Every remote address by name: the packaged table, then TRUEMORPH_ADDRESSES, then `overrides`.

    Parameters
    ----------
    overrides : path or mapping, optional
        A TOML file of `name = "url"` or of tables with `url`, `checksum`, `size`; or the same as a dict.
        Another url drops the packaged checksum and size, unless new ones are given.

    Returns
    -------
    dict of str to Address

    Raises
    ------
    InputError
        If a name or setting is unknown (the nearest is named), a url is no web address, or a file can't be read.

    Examples
    --------
    >>> addresses()["gz2.hart16"].url
    'https://gz2hart.s3.amazonaws.com/gz2_hart16.csv.gz'
    >>> addresses({"gz2.hart16": "http://127.0.0.1:8000/gz2_hart16.csv.gz"})["gz2.hart16"].url
    'http://127.0.0.1:8000/gz2_hart16.csv.gz'
    """
    table = _packaged()
    if named := os.environ.get(ENVIRONMENT):
        source = f"{named} ({ENVIRONMENT})"
        table = _replaced(table, _read(named, source), source)
    if isinstance(overrides, Mapping):
        table = _replaced(table, overrides, "addresses")
    elif overrides is not None:
        table = _replaced(table, _read(overrides, str(overrides)), str(overrides))
    return dict(table)
