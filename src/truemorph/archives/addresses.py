"""Remote addresses, from `addresses.toml`. Each can be replaced by a mirror, a newer release or a test server.

Replacements are a TOML file (`overrides`, or the environment variable TRUEMORPH_ADDRESSES), see docs/archives.md.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from truemorph.errors import InputError, nearest
from truemorph.io import checked, read_toml

ENVIRONMENT = "TRUEMORPH_ADDRESSES"


class Address(BaseModel, frozen=True, extra="forbid"):
    """A remote file or service, such as "gz2.hart16": terms of use, citation, and checksum if published."""

    name: str
    url: str = Field(pattern=r"^https?://[^/\s\[\]]+(/\S*)?$")
    licence: str
    citation: str
    checksum: str | None = Field(None, pattern=r"^(?i:md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")

    @property
    def public_url(self) -> str:
        """URL without user name and password."""
        return without_login(self.url)


def without_login(url: str) -> str:
    """Remove user name and password from a URL.

    Examples
    --------
    >>> without_login("https://name:secret@example.org:8000/table.csv?x=1")
    'https://example.org:8000/table.csv?x=1'
    """
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def addresses(overrides: Path | None = None) -> dict[str, Address]:
    """Return the addresses by name; TRUEMORPH_ADDRESSES, then `overrides`, replace the packaged ones.

    Overrides are a file of name and url, or url and checksum. A new URL removes the packaged checksum.
    """
    packaged = read_toml(Path(__file__).with_name("addresses.toml"))
    by_name = {name: Address(name=name, **settings) for name, settings in _entries(packaged)}
    for source in (source for source in (os.environ.get(ENVIRONMENT), overrides) if source):
        for name, settings in _entries(read_toml(source)):
            if name not in by_name:
                raise InputError(f"{source}: no address {name}; {nearest(name, list(by_name), what='addresses')}")
            old = by_name[name].model_dump()
            if settings.get("url", old["url"]) != old["url"]:
                old["checksum"] = None  # it is not valid for another file
            by_name[name] = checked(Address, old | settings, f"{source}: {name}:")
    return by_name


def _entries(table: dict[str, Any], before: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield names and settings; in TOML, `gz2.images = ...` is a nested table but `"gz2.images" = ...` is not."""
    for key, value in table.items():
        name = before + key
        if not isinstance(value, dict):
            yield name, {"url": value}
        elif "." in name:
            yield name, value
        else:
            yield from _entries(value, f"{name}.")
