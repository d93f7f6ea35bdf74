"""How a survey's table maps onto truemorph's names: a page of TOML, for Galaxy Zoo's tables and for any other.

```toml
name = "mysurvey"
votes = "raw vote fractions of my survey"     # what the fractions are; travels with every model
psf_fwhm = 0.8                                # arcsec, where the table has no such column
[columns]
object_id = "id"                              # a column, or several in order of preference
smooth_votes = { expression = "round_votes + cigar_votes" }
disk_votes = "disk_votes"
radius = { column = "r_petro", unit = "0.27 arcsec", missing = [-99.0] }   # in pixels of 0.27 arcsec
redshift = { column = "z_spec", optional = true }
[[cuts]]
name = "well resolved"
keep = "radius > 3 AND NOT star"              # the table's columns, and truemorph's names in truemorph's units
```
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from truemorph.catalogs.expressions import Expression, read_expression
from truemorph.catalogs.roles import ROLES
from truemorph.catalogs.schema import nearest
from truemorph.catalogs.units import conversion
from truemorph.errors import InputError

_FROZEN = ConfigDict(frozen=True, extra="forbid")
# In this order they are tried where no mapping is named.
DETECTED = ("gz2", "gz2-debiased", "gz-challenge", "desi", "gz-decals", "gz-hubble", "candels", "truemorph")
PRESETS = (*DETECTED, "paper")


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_several)]


class Column(BaseModel):
    """Where one of truemorph's columns comes from.

    Candidates are tried in order; the first whose columns are all in the table is taken.
    """

    model_config = _FROZEN

    column: Names = Field((), description="the table's column, or several in order of preference")
    expression: Names = Field((), description="in place of it, SQL over columns, or several in order of preference")
    unit: str | None = Field(None, description="unit of the column, where the table states none")
    missing: tuple[float | int | str, ...] = Field((), description="values that mean missing")
    description: str | None = Field(None, description="what it is, for the catalogue")
    optional: bool = Field(False, description="whether the table may lack it")

    @model_validator(mode="after")
    def _one_of_two(self) -> Column:
        if bool(self.column) == bool(self.expression):
            raise ValueError('give either column = "…" or expression = "…"')
        return self

    def candidates(self, role: str) -> Iterator[Expression]:
        """What it may come from; a column is the expression that names it."""
        for name in self.column:
            yield Expression(name, '"{}"'.format(name.replace('"', '""')), (name,), True)
        for text in self.expression:
            yield read_expression(text, f"[columns.{role}]")


class Cut(BaseModel):
    """A rule that rows must meet, and its name in the account of rows."""

    model_config = _FROZEN

    name: str = Field(min_length=1, max_length=60)
    keep: str = Field(description="SQL over the table's columns and truemorph's names; rows where it is unknown go too")


class Sample(BaseModel):
    """How many galaxies of each label to draw."""

    model_config = _FROZEN

    smooth: int = Field(ge=1)
    disk: int = Field(ge=1)


class Parts(BaseModel):
    """How many galaxies to train, validate and test on."""

    model_config = _FROZEN

    train: int = Field(ge=1)
    validation: int = Field(ge=0)
    test: int = Field(ge=0)


class Mapping(BaseModel):
    """Everything that truemorph must know of a survey's table."""

    model_config = _FROZEN

    name: str = Field("mapping", min_length=1)
    about: str = Field("", description="the survey, and where its columns' names are from")
    votes: str = Field("votes as the table has them", description="what the vote fractions are")
    psf_fwhm: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="PSF FWHM, arcsec, where the table has no column of it"
    )
    columns: dict[str, Column] = Field(description="truemorph's name → where it comes from")
    cuts: tuple[Cut, ...] = ()
    cosmology: str | None = Field(None, description="name of a cosmology of astropy's, for radii in kpc and magnitudes")
    sample: Sample | None = Field(None, description="how many galaxies of each label to draw, if not all")
    split: Parts | None = Field(None, description="how many galaxies to train, validate and test on")
    lacking: dict[str, str] = Field({}, description="truemorph's name → what to do where the table has no such column")

    @field_validator("columns", mode="before")
    @classmethod
    def _short_forms(cls, columns: Any) -> Any:
        if not isinstance(columns, dict):
            return columns
        return {role: {"column": one} if isinstance(one, str | list | tuple) else one for role, one in columns.items()}


def preset_names() -> tuple[str, ...]:
    """Names of the mappings that come with truemorph.

    Examples
    --------
    >>> preset_names()[:2]
    ('gz2', 'gz2-debiased')
    """
    return PRESETS


def _read_preset(name: str) -> dict[str, Any]:
    text = (resources.files("truemorph.catalogs") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    return _extended(tomllib.loads(text), f"preset {name}")


@cache
def _preset(name: str) -> Mapping:
    return _settle(_read_preset(name), f"preset {name}")


def read_mapping(source: Mapping | dict[str, Any] | str | os.PathLike[str]) -> Mapping:
    """Read a mapping.

    Parameters
    ----------
    source : str, path, dict or Mapping
        The name of one that comes with truemorph (`preset_names`), a TOML file, or its content.

    Raises
    ------
    InputError
        If it can't be read, or something in it is unknown: one line that names the nearest known.

    Examples
    --------
    >>> read_mapping("gz-challenge").columns["smooth_fraction"].column
    ('Class1.1',)
    >>> read_mapping({"columns": {"radius": {"column": "r", "unit": "arcmin"}}}).columns["radius"].unit
    'arcmin'
    """
    if isinstance(source, Mapping):
        return source
    if isinstance(source, dict):
        return _settle(source, "mapping")
    name = os.fspath(source)
    if isinstance(source, str) and name in PRESETS:
        return _preset(name)
    if not name.lower().endswith(".toml"):
        raise InputError(
            f"unknown preset {name!r}; known: {', '.join(PRESETS)} ({nearest(name, PRESETS, what='presets')}); "
            "a mapping of your own is a .toml file"
        )
    try:
        content = tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as problem:
        raise InputError(f"{name}: {problem.strerror or problem}") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise InputError(f"{name}: not valid TOML: {problem}") from problem
    content.setdefault("name", Path(name).stem)
    return _settle(content, name)


def _extended(content: dict[str, Any], source: str) -> dict[str, Any]:
    """What a mapping says itself, over what the preset says that it extends."""
    content = dict(content)
    base = content.pop("extends", None)
    if base is None:
        return content
    if base not in PRESETS:
        raise InputError(
            f"{source}: extends {base!r}, which is no preset; {nearest(str(base), PRESETS, what='presets')}"
        )
    under = _read_preset(base)
    for key in ("columns", "lacking"):
        if isinstance(content.get(key, {}), dict):
            content[key] = under.get(key, {}) | content.get(key, {})
    if isinstance(content.get("cuts", []), list):
        content["cuts"] = [*under.get("cuts", []), *content.get("cuts", [])]
    return under | content


def _settle(content: dict[str, Any], source: str) -> Mapping:
    try:
        mapping = Mapping(**_extended(content, source))
    except ValidationError as problem:
        raise InputError(f"{source}: {_explain(problem)}") from problem
    _check_roles(mapping, source)
    for cut in mapping.cuts:
        read_expression(cut.keep, f"{source}: cut {cut.name!r}")
    names = [cut.name for cut in mapping.cuts]
    twice = [name for name in names if names.count(name) > 1 or name in ("rows in", "rows out")]
    if twice:
        raise InputError(f"{source}: two rules are called {twice[0]!r}; give each cut a name of its own")
    return mapping


def _explain(problem: ValidationError) -> str:
    # A misspelt key is also a missing one: the former says more.
    errors = sorted(problem.errors(), key=lambda one: one["type"] != "extra_forbidden")
    first, place = errors[0], [str(part) for part in errors[0]["loc"]]
    where = ".".join(place)
    if first["type"] == "extra_forbidden":
        models: dict[str, type[BaseModel]] = {"columns": Column, "cuts": Cut} if len(place) > 2 else {}
        models |= {"sample": Sample, "split": Parts} if len(place) > 1 else {}
        known = [*models.get(place[0], Mapping).model_fields, *(["extends"] if len(place) == 1 else [])]
        inside = f" in {'.'.join(place[:-1])}" if len(place) > 1 else ""
        return f"unknown key {place[-1]!r}{inside}; {nearest(place[-1], known, what='keys')}"
    if first["type"] == "missing":
        return f"{where} is missing"
    if first["type"] == "model_type":
        return f'{where}: give the name of a column, or a table such as {{ column = "name", unit = "arcsec" }}'
    said = first["msg"].removeprefix("Value error, ")
    got = "" if isinstance(first["input"], dict) else f"; got {str(first['input'])[:60]!r}"
    return f"{where}: {said[0].lower()}{said[1:]}{got}"


def _check_roles(mapping: Mapping, source: str) -> None:
    for role in (*mapping.columns, *mapping.lacking):
        if role not in ROLES:
            raise InputError(f"{source}: unknown name {role!r}; {nearest(role, list(ROLES), what='names')}")
    for role, column in mapping.columns.items():
        try:
            list(column.candidates(role))
            fits = column.unit is None or conversion(column.unit, ROLES[role].units)
        except InputError as problem:
            raise InputError(f"{source}: {problem}") from problem
        if not fits or (column.unit is not None and ROLES[role].kind in ("id", "file")):
            units = " or ".join(ROLES[role].units) or "a pure number"
            raise InputError(f"{source}: {role} can't be in {column.unit!r}; it is converted to {units}")


def resolve(mapping: Mapping, existing: Iterable[str]) -> dict[str, Expression]:
    """What each of truemorph's columns comes from in a table with these columns; those it lacks are left out."""
    there = set(existing)
    found = {}
    for role, column in mapping.columns.items():
        for one in column.candidates(role):
            if there.issuperset(one.columns):
                found[role] = one
                break
    return found


def detect_mapping(existing: Sequence[str], source: str = "table", chosen: Iterable[str] = ()) -> Mapping:
    """Find the preset whose ids and votes are among the columns.

    Parameters
    ----------
    existing : sequence of str
        The table's columns.
    source : str
        File name, for messages.
    chosen : iterable of str
        Names whose column the user gave.

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
    fitting = []
    for name in DETECTED:
        found = set(resolve(_preset(name), existing))
        if ("object_id" in found or "object_id" in chosen) and {"smooth_fraction", "smooth_votes"} & (found | chosen):
            # The table's own ids say more than its votes, which several surveys call alike.
            fitting.append(("object_id" not in found, name))
    if not fitting:
        raise InputError(
            f"{source}: no known kind of catalogue: expected ids and votes named as in {', '.join(DETECTED)}; columns "
            f"are: {', '.join(existing[:12])}; describe yours in a mapping (--preset gz2 --dry-run prints one to "
            "change)"
        )
    return _preset(min(fitting, key=lambda one: one[0])[1])


def choose_mapping(
    existing: Sequence[str] | None,
    preset: str | None = None,
    mapping: Mapping | dict[str, Any] | str | os.PathLike[str] | None = None,
    chosen: dict[str, str] | None = None,
    psf_fwhm: float | None = None,
    source: str = "table",
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
        settled = detect_mapping(existing, source, chosen)
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


def narrowed(mapping: Mapping, existing: Iterable[str]) -> Mapping:
    """Keep of every name what a table with these columns gives, and drop names it doesn't have."""
    columns = {}
    for role, found in resolve(mapping, existing).items():
        where = (
            {"column": found.columns, "expression": ()} if found.lone else {"column": (), "expression": (found.text,)}
        )
        columns[role] = mapping.columns[role].model_copy(update=where)
    return mapping.model_copy(update={"columns": columns})


def mapping_toml(mapping: Mapping, existing: Sequence[str] | None = None) -> str:
    """Write a mapping as TOML, to read, change and give back.

    Parameters
    ----------
    mapping : Mapping
    existing : sequence of str, optional
        A table's columns: only what is taken from it is written; what it lacks is said in comments.

    Examples
    --------
    >>> print(mapping_toml(read_mapping({"name": "mine", "columns": {"object_id": ["id", "ID"]}}), ["ID"]))
    name = "mine"
    about = ""
    votes = "votes as the table has them"
    <BLANKLINE>
    [columns.object_id]
    column = "ID"
    <BLANKLINE>
    """
    asked = mapping if existing is None else narrowed(mapping, existing)
    lines = [tomli_w.dumps({key: getattr(mapping, key) for key in ("name", "about", "votes")})]
    if mapping.psf_fwhm is not None:
        lines.append(f"psf_fwhm = {mapping.psf_fwhm}  # arcsec, where the table has no column of it\n")
    if mapping.cosmology is not None:
        lines.append(tomli_w.dumps({"cosmology": mapping.cosmology}))
    if not asked.columns:
        lines.append("\n[columns]\n")
    for role, column in mapping.columns.items():
        if role not in asked.columns:
            sought = " or ".join(one.text for one in column.candidates(role))
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
        if table is not None:
            lines.append(f"\n[{key}]\n{tomli_w.dumps(table.model_dump())}")
    if mapping.lacking:
        lines.append(f"\n[lacking]\n{tomli_w.dumps(mapping.lacking)}")
    return "".join(lines)
