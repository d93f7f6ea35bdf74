"""Versions of truemorph and of the packages it uses."""

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version


def installed_versions(*packages: str) -> dict[str, str]:
    """Return the versions of the given packages, if installed."""
    versions = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


# Derived from the repository when the package is installed (pyproject.toml); sources alone do not know it.
__version__ = installed_versions("truemorph").get("truemorph", "0+unknown")
