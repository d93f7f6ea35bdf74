"""The version, in one place, and those of the packages that results rest on."""

from __future__ import annotations

__version__ = "0.1.0"


def installed_versions(*packages: str) -> dict[str, str]:
    """Versions of those of some packages that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
