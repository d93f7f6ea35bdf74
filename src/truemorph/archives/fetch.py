"""Fetch an archive by name."""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

from truemorph.archives.addresses import addresses
from truemorph.archives.provenance import Fetched
from truemorph.errors import extras_named

# Modules of this package with PER_SECOND (maximum requests per second) and `fetch(session, known, out, *, options)`.
Archive = Literal["gz2", "sdss", "simard", "hst"]
ARCHIVES = get_args(Archive)


def options_of(name: str) -> set[str]:
    """Return the names of an archive's options: the keyword arguments of `fetch` in its module."""
    return set(_module(name).fetch.__kwdefaults__ or ())


def fetch(
    name: str,
    out: Path | None = None,
    *,
    addresses_from: Path | None = None,
    per_second: float | None = None,
    **options: Any,
) -> Fetched:
    """Fetch an archive into a folder (default data/NAME), with its own options. If interrupted, the same call resumes.

    `addresses_from` replaces packaged addresses (see `addresses`).
    """
    archive = _module(name)  # first, because an InputError says which extra it needs
    from truemorph.archives.http import Session

    session = Session(archive.PER_SECOND if per_second is None else per_second)
    return archive.fetch(session, addresses(addresses_from), out or Path("data") / name, **options)


def _module(name: str) -> ModuleType:
    with extras_named():
        return import_module(f"truemorph.archives.{name}")
