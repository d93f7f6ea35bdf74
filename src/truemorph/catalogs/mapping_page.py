"""A mapping written as a page of TOML, to read, change and give back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tomli_w
from pydantic import BaseModel

from truemorph.catalogs.choosing import resolve
from truemorph.catalogs.mapping import Mapping


def narrowed(mapping: Mapping, existing: Iterable[str], own: Iterable[str] | None = None) -> Mapping:
    """Keep of every name what a table with these columns gives, and drop names it doesn't have."""
    columns = {}
    for role, found in resolve(mapping, existing, own).items():
        where = (
            {"column": found.columns, "expression": ()} if found.lone else {"column": (), "expression": (found.text,)}
        )
        columns[role] = mapping.columns[role].model_copy(update=where)
    return mapping.model_copy(update={"columns": columns})


def mapping_toml(mapping: Mapping, existing: Sequence[str] | None = None, own: Sequence[str] | None = None) -> str:
    """Write a mapping as TOML, to read, change and give back.

    Parameters
    ----------
    mapping : Mapping
    existing : sequence of str, optional
        A table's columns: only what is taken from it is written; what it lacks is said in comments.
    own : sequence of str, optional
        Those of them that are not from a joined table.

    Examples
    --------
    >>> from truemorph.catalogs.mapping import read_mapping
    >>> print(mapping_toml(read_mapping({"name": "mine", "columns": {"object_id": ["id", "ID"]}}), ["ID"]))
    name = "mine"
    about = ""
    votes = "votes as the table has them"
    <BLANKLINE>
    [columns.object_id]
    column = "ID"
    <BLANKLINE>
    """
    asked = mapping if existing is None else narrowed(mapping, existing, own)
    lines = [tomli_w.dumps({key: getattr(mapping, key) for key in ("name", "about", "votes")})]
    if mapping.psf_fwhm is not None:
        lines.append(f"psf_fwhm = {mapping.psf_fwhm}  # arcsec, where the table has no column of it\n")
    if mapping.cosmology is not None:
        lines.append(tomli_w.dumps({"cosmology": mapping.cosmology}))
    if isinstance(mapping.sample, str):
        lines.append(tomli_w.dumps({"sample": mapping.sample}))
    if not asked.columns:
        lines.append("\n[columns]\n")
    for role, column in mapping.columns.items():
        if role not in asked.columns:
            # A name may hold anything, but a comment ends with its line.
            sought = " or ".join(one.said for one in column.candidates(role))
            sought = "".join(one if one.isprintable() else " " for one in sought)
            needed = "" if column.optional else " (needed)"
            lines.append(f"\n# {role}{needed}: the table has no {sought}\n")
            continue
        plain = asked.columns[role].model_dump(exclude_defaults=True)
        for kind in ("column", "expression"):
            if len(plain.get(kind, ())) == 1:
                plain[kind] = plain[kind][0]
        lines.append(f"\n[columns.{role}]\n{tomli_w.dumps(plain)}")
    for cut in mapping.cuts:
        lines.append(f"\n[[cuts]]\n{tomli_w.dumps(cut.model_dump())}")
    for key, table in (("sample", mapping.sample), ("split", mapping.split)):
        if isinstance(table, BaseModel):
            lines.append(f"\n[{key}]\n{tomli_w.dumps(table.model_dump())}")
    if mapping.lacking:
        lines.append(f"\n[lacking]\n{tomli_w.dumps(mapping.lacking)}")
    return "".join(lines)
