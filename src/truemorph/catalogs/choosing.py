"""Which mapping reads a table, and what each of truemorph's columns comes from in it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from truemorph.catalogs.expressions import Expression
from truemorph.catalogs.mapping import DETECTED, PRESETS, Column, Mapping, preset_mapping, read_mapping
from truemorph.catalogs.roles import ROLES
from truemorph.errors import InputError, nearest


def resolve(mapping: Mapping, existing: Iterable[str], own: Iterable[str] | None = None) -> dict[str, Expression]:
    """What each of truemorph's columns comes from in a table with these columns; those it lacks are left out.

    Candidates that the table's own columns (`own`) give win over all that need a joined table.
    """
    found = {}
    for role in mapping.columns:
        for one in candidates(mapping, role, existing, own):
            found[role] = one
            break
    return found


def candidates(
    mapping: Mapping, role: str, existing: Iterable[str], own: Iterable[str] | None = None
) -> Iterator[Expression]:
    """What one of truemorph's columns may come from in a table with these columns, the best first."""
    there = set(existing)
    mine = there if own is None else set(own) & there
    known = [one for one in mapping.columns[role].candidates(role) if there.issuperset(one.columns)]
    yield from sorted(known, key=lambda one: not mine.issuperset(one.columns))


def detect_mapping(
    existing: Sequence[str], source: str = "table", chosen: Iterable[str] = (), own: Sequence[str] | None = None
) -> Mapping:
    """Find the preset whose ids and votes are among the columns.

    Parameters
    ----------
    existing : sequence of str
        The table's columns.
    source : str
        File name, for messages.
    chosen : iterable of str
        Names whose column the user gave.
    own : sequence of str, optional
        Columns that are not from a joined table: if they alone fit a preset, it is that one.

    Raises
    ------
    InputError
        If none fits.

    Examples
    --------
    >>> detect_mapping(["GalaxyID", "Class1.1", "Class1.2"]).name
    'gz-challenge'
    """
    chosen = set(chosen)
    fitting = (_fitting(own, chosen) if own is not None else []) or _fitting(existing, chosen)
    if not fitting:
        raise InputError(
            f"{source}: no known kind of catalogue: expected ids and votes named as in {', '.join(DETECTED)}; columns "
            f"are: {', '.join(existing[:12])}; describe yours in a mapping (--preset gz2 --dry-run prints one to "
            "change)"
        )
    return preset_mapping(min(fitting, key=lambda one: one[0])[1])


def _fitting(existing: Sequence[str], chosen: set[str]) -> list[tuple[bool, str]]:
    """Presets that know the columns, and whether they lack the ids' column."""
    fitting = []
    for name in DETECTED:
        found = set(resolve(preset_mapping(name), existing))
        if ("object_id" in found or "object_id" in chosen) and {"smooth_fraction", "smooth_votes"} & (found | chosen):
            # The table's own ids say more than its votes, which several surveys call alike.
            fitting.append(("object_id" not in found, name))
    return fitting


def choose_mapping(
    existing: Sequence[str] | None,
    preset: str | None = None,
    mapping: Mapping | dict[str, Any] | str | os.PathLike[str] | None = None,
    chosen: dict[str, str] | None = None,
    psf_fwhm: float | None = None,
    source: str = "table",
    own: Sequence[str] | None = None,
) -> Mapping:
    """Settle how a table is read: a preset, or a mapping, or what its columns look like; then what was asked for.

    Parameters
    ----------
    existing : sequence of str, optional
        The table's columns.
    preset, mapping : optional
        See `read_mapping`; not both.
    chosen : dict, optional
        truemorph's name → column; wins over the mapping's.
    psf_fwhm : float, optional
        One width for all galaxies, arcsec; wins over every column.
    source : str
        What to call the table in messages.
    own : sequence of str, optional
        Columns that are not from a joined table: the first to say which survey's table it is.

    Raises
    ------
    InputError
        If a name or column is unknown, or no preset fits.

    Examples
    --------
    >>> choose_mapping(["GalaxyID", "Class1.1", "size"], chosen={"radius": "size"}).columns["radius"].column
    ('size',)
    """
    chosen = chosen or {}
    if preset is not None and mapping is not None:
        raise InputError("a preset and a mapping exclude each other; copy the preset (--dry-run) and change it")
    if preset is not None:
        settled = read_mapping(preset)
    elif mapping is not None:
        settled = read_mapping(mapping)
    elif existing is not None:
        settled = detect_mapping(existing, source, chosen, own)
    else:
        raise InputError(f"give a table, --preset ({', '.join(PRESETS)}) or --mapping")
    columns = dict(settled.columns)
    for role, name in chosen.items():
        if role not in ROLES:
            raise InputError(f"unknown column role {role!r}; {nearest(role, list(ROLES), what='roles')}")
        if existing is not None and name not in existing:
            raise InputError(f"{source}: no column {name!r} (asked for as {role}); {nearest(name, existing)}")
        # Its own unit counts, not that of the column it replaces; the survey's way to say missing is likely the same.
        columns[role] = Column(column=(name,), missing=columns[role].missing if role in columns else ())
    if psf_fwhm is not None:
        columns.pop("psf_fwhm", None)
        settled = settled.model_copy(update={"psf_fwhm": psf_fwhm})
    return settled.model_copy(update={"columns": columns})
