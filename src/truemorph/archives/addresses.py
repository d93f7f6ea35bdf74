"""Remote addresses, from `addresses.toml`. Each can be replaced by a mirror, a newer release or a test server.

Replacements are written in a TOML file, given as `overrides` or by the environment variable TRUEMORPH_ADDRESSES:

    "gz2.hart16" = "https://mirror.example.org/gz2_hart16.csv.gz"

    [gz2.images]
    url = "https://mirror.example.org/images_gz2.zip"
    checksum = "md5:..."
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from importlib.resources import as_file, files
from typing import Any
from urllib.parse import urlsplit

from truemorph.errors import InputError, nearest
from truemorph.io import read_toml

ENVIRONMENT = "TRUEMORPH_ADDRESSES"
_CHECKSUM = re.compile(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", re.IGNORECASE)


@dataclass(frozen=True)
class Address:
    """A remote file or service.

    Attributes
    ----------
    name : str
        Archive and entry, such as "gz2.hart16".
    url : str
    licence : str
        Terms of use, if published.
    citation : str
        Citation, with bibcode or DOI.
    checksum : str or None
        "md5:..." or "sha256:...", if published.
    """

    name: str
    url: str
    licence: str
    citation: str
    checksum: str | None = None

    def __post_init__(self) -> None:
        """Validate the URL and the checksum."""
        if not re.fullmatch(r"https?://[^/\s\[\]]+(/\S*)?", str(self.url)):
            raise InputError(f"{self.name}: an address must begin with http:// or https://; got {self.url!r}")
        if self.checksum is not None and not _CHECKSUM.fullmatch(str(self.checksum)):
            raise InputError(
                f'{self.name}: a checksum must be "md5:" or "sha256:" and hexadecimal digits; got {self.checksum!r}'
            )

    @property
    def public_url(self) -> str:
        """URL without user name and password."""
        return without_login(self.url)


_SETTINGS = [field.name for field in fields(Address) if field.name != "name"]


def without_login(url: str) -> str:
    """Remove user name and password from a URL.

    Examples
    --------
    >>> without_login("https://name:secret@example.org:8000/table.csv?x=1")
    'https://example.org:8000/table.csv?x=1'
    """
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def addresses(overrides: str | os.PathLike[str] | Mapping[str, Any] | None = None) -> dict[str, Address]:
    """Return the addresses by name; TRUEMORPH_ADDRESSES, then `overrides`, replace the packaged ones.

    Parameters
    ----------
    overrides : path or mapping, optional
        A TOML file of `name = "url"` or of tables with `url` and `checksum`, or the same as a dict. A new URL removes
        the packaged checksum, unless a new one is given.

    Returns
    -------
    dict of str to Address

    Raises
    ------
    InputError
        If a name or setting is unknown, a URL or checksum is malformed, or a file can't be read.

    Examples
    --------
    >>> addresses()["gz2.hart16"].url
    'https://gz2hart.s3.amazonaws.com/gz2_hart16.csv.gz'
    >>> addresses({"gz2.hart16": "http://127.0.0.1:8000/gz2_hart16.csv.gz"})["gz2.hart16"].url
    'http://127.0.0.1:8000/gz2_hart16.csv.gz'
    """
    with as_file(files("truemorph.archives") / "addresses.toml") as packaged:
        known = {name: Address(name, **settings) for name, settings in _entries(read_toml(packaged))}
    if named := os.environ.get(ENVIRONMENT):
        known |= _replaced(known, read_toml(named), f"{named} ({ENVIRONMENT})")
    if isinstance(overrides, Mapping):
        known |= _replaced(known, overrides, "addresses")
    elif overrides is not None:
        known |= _replaced(known, read_toml(overrides), str(overrides))
    return known


def _entries(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield names and settings; in TOML, `gz2.images = ...` is a nested table but `"gz2.images" = ...` is not."""
    for key, value in table.items():
        if not isinstance(value, Mapping):
            yield before + key, {"url": value}
        elif "." not in before + key:
            yield from _entries(value, f"{before}{key}.")
        else:
            yield before + key, dict(value)


def _replaced(known: dict[str, Address], table: Mapping[str, Any], source: str) -> dict[str, Address]:
    out = {}
    for name, settings in _entries(table):
        if name not in known:
            raise InputError(f"{source}: no address {name}; {nearest(name, list(known), what='addresses')}")
        for key in settings:
            if key not in _SETTINGS:
                raise InputError(f"{source}: {name} has no setting {key}; {nearest(key, _SETTINGS, what='settings')}")
        # The published checksum is not valid for another file.
        dropped = {"checksum": None} if settings.get("url", known[name].url) != known[name].url else {}
        try:
            out[name] = replace(known[name], **(dropped | settings))
        except InputError as problem:
            raise InputError(f"{source}: {problem}") from problem
    return out
