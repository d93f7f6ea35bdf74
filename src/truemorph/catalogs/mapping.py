"""How a survey's table maps onto truemorph's columns: a page of TOML, packaged for Galaxy Zoo's tables.

```toml
name = "mysurvey"
votes = "raw vote fractions of my survey"     # what the fractions are; recorded with every model
psf_fwhm = 0.8                                # arcsec, if the table has no such column
[columns]
object_id = "id"                              # a column, or several in order of preference
smooth_votes = { expression = "round_votes + cigar_votes" }
disk_votes = "disk_votes"
radius = { column = "r_petro", unit = "0.27 arcsec", missing = [-1.0] }   # in pixels of 0.27 arcsec
redshift = { column = "z_spec", optional = true }
[[cuts]]
name = "well resolved"
keep = "radius > 3 AND NOT star"              # the table's columns, and truemorph's in truemorph's units
```
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from truemorph.catalogs.expressions import Expression, column_expression, read_expression
from truemorph.catalogs.names import FRACTIONS, NAMED, VOTES, percent_of_light
from truemorph.catalogs.physical import COSMOLOGY, named_cosmology
from truemorph.catalogs.units import conversion
from truemorph.errors import InputError, nearest
from truemorph.io import read_toml

# Tried in this order where no mapping is named. gz2-debiased is not among them: whoever wants debiased votes instead of
# the volunteers' must say so.
DETECTED = ("gz2", "gz-challenge", "desi", "gz-decals", "gz-hubble", "candels", "truemorph")
PRESETS = (*DETECTED, "gz2-debiased", "paper")
ALL, BALANCED = "all", "balanced"
_ANY_VOTES = {"label", "smooth_fraction", "smooth_votes"}
_VOTE_COLUMNS = ("label", *FRACTIONS, *VOTES, "vote_count")


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _finite(value: Any) -> Any:
    """NaN and infinity are missing anyway."""
    several = value if isinstance(value, list | tuple) else (value,)
    return tuple(one for one in several if not isinstance(one, float) or math.isfinite(one))


def _sample(value: Any) -> Any:
    if value is None or isinstance(value, dict | BaseModel) or value in (ALL, BALANCED):
        return value
    raise ValueError(f'give "{ALL}", "{BALANCED}", or numbers of galaxies such as {{ smooth = 10, disk = 10 }}')


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Column(_Model):
    """Where one of truemorph's columns comes from: the first candidate whose columns are all in the table."""

    column: Names = Field((), description="the table's column, or several in order of preference")
    expression: Names = Field((), description="instead, SQL over columns, or several in order of preference")
    unit: str | None = Field(None, description="unit of the column, where the table states none")
    missing: Annotated[tuple[float | int | str, ...], BeforeValidator(_finite)] = Field(
        (), description="values that mean missing, beside -99, -999, -9999 and their like"
    )
    description: str | None = Field(None, description="description in the catalogue")
    optional: bool = Field(False, description="whether the table may lack it")

    @model_validator(mode="after")
    def _one_of_two(self) -> Column:
        if bool(self.column) == bool(self.expression):
            raise ValueError('give either column = "…" or expression = "…"')
        return self

    def candidates(self, name: str) -> Iterator[Expression]:
        """Yield the candidates; a plain column is the expression that names it."""
        for column in self.column:
            yield column_expression(column)
        for text in self.expression:
            yield read_expression(text, f"[columns.{name}]")


class Cut(_Model):
    """A rule that rows must meet, and its name in the account of rows."""

    name: str = Field(min_length=1)
    keep: str = Field(description="SQL over the table's columns and truemorph's; rows where it is unknown are dropped")


class Sample(_Model):
    """How many galaxies of each label to draw."""

    smooth: int = Field(ge=1, le=10**12)
    disk: int = Field(ge=1, le=10**12)


class Split(_Model):
    """Fractions of the galaxies to train, validate and test on, or numbers of galaxies."""

    train: int | float = Field(gt=0)
    validation: int | float = Field(ge=0)
    test: int | float = Field(ge=0)

    @model_validator(mode="after")
    def _fractions_or_numbers(self) -> Split:
        parts = self.parts
        fractions = abs(sum(parts) - 1) < 1e-9
        if not (fractions or (sum(parts) > 1 and all(float(part).is_integer() for part in parts))):
            raise ValueError("give fractions that sum to 1, or whole numbers of galaxies")
        return self

    @property
    def parts(self) -> tuple[float, float, float]:
        """Train, validation, test."""
        return self.train, self.validation, self.test


class Mapping(_Model):
    """What truemorph must know about a survey's table."""

    name: str = Field("mapping", min_length=1)
    about: str = Field("", description="the survey, and the source of the column names")
    votes: str = Field("votes as in the table", description="what the vote fractions are")
    psf_fwhm: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="PSF FWHM in arcsec, where the table has no column for it"
    )
    psf_range: tuple[float, float] | None = Field(
        None, description="PSF FWHM in arcsec between which the median of a sample lies in this survey"
    )
    columns: dict[str, Column] = Field(description="truemorph's name → where it comes from")
    cuts: tuple[Cut, ...] = ()
    cosmology: str | None = Field(None, description="name of an astropy cosmology, for kpc and absolute magnitudes")
    sample: Annotated[Sample | str | None, BeforeValidator(_sample)] = Field(
        None, description='how many galaxies of each label to draw, "balanced" for equal numbers, or "all"'
    )
    split: Split | None = Field(None, description="fractions, or numbers of galaxies, to train, validate and test on")
    lacking: dict[str, str] = Field({}, description="truemorph's name → advice where the table has no such column")

    @field_validator("columns", mode="before")
    @classmethod
    def _short_forms(cls, columns: Any) -> Any:
        if not isinstance(columns, dict):
            return columns
        return {name: {"column": one} if isinstance(one, str | list | tuple) else one for name, one in columns.items()}


# --- reading ----------------------------------------------------------------------------------------------------------


def read_mapping(source: Mapping | dict[str, Any] | str | os.PathLike[str]) -> Mapping:
    """Read a mapping.

    Parameters
    ----------
    source : str, path, dict or Mapping
        The name of a preset (one of `PRESETS`), a TOML file, or the content of one.

    Raises
    ------
    InputError
        If it can't be read, or names something unknown; the message gives the nearest known name.

    Examples
    --------
    >>> read_mapping("gz-challenge").columns["smooth_fraction"].column
    ('Class1.1',)
    >>> read_mapping({"columns": {"radius": {"column": "r", "unit": "arcmin"}}}).columns["radius"].unit
    'arcmin'
    """
    if isinstance(source, Mapping):
        return _checked(source, "mapping")
    if isinstance(source, dict):
        base = source.get("extends")
        named = {} if base is None else {"name": f"{Path(str(base)).stem}, changed"}
        return _validated(named | source, "mapping")
    if not isinstance(source, str | os.PathLike):
        raise InputError(f"a mapping is a preset's name, a TOML file or a dict; got {type(source).__name__}")
    name = os.fspath(source)
    if isinstance(source, str) and name in PRESETS:
        return _preset(name)
    if not name.lower().endswith(".toml"):
        near = nearest(name, PRESETS, what="presets")
        raise InputError(f"unknown preset {name!r}; {near}; a mapping of your own is a .toml file")
    return _validated({"name": Path(name).stem, **read_toml(name)}, name, (Path(name),))


@cache
def _preset(name: str) -> Mapping:
    return _validated(_preset_content(name), f"preset {name}")


def _preset_content(name: str) -> dict[str, Any]:
    text = (resources.files("truemorph.catalogs") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def mapping_files(source: Any) -> list[Path]:
    """Return the file that a mapping was read from, followed by those that it extends."""
    files: list[Path] = []
    path = Path(source) if isinstance(source, str | os.PathLike) else None
    while path is not None and path.suffix.lower() == ".toml" and path not in files:
        files.append(path)
        base = read_toml(path).get("extends")
        path = path.parent / base if isinstance(base, str) and base not in PRESETS else None
    return files


def _extended(content: dict[str, Any], source: str, files: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Lay a mapping over the preset or file that it extends; `files` are those on the way here, the latest last."""
    content = dict(content)
    base = content.pop("extends", None)
    under: dict[str, Any] = {}
    if isinstance(base, str) and base in PRESETS:
        under = _extended(_preset_content(base), f"preset {base}")
    elif isinstance(base, str) and base.lower().endswith(".toml"):
        file = (files[-1].parent if files else Path()) / base
        if file.resolve() in {one.resolve() for one in files}:
            raise InputError(f"{source}: extends {base!r}, which extends it; mappings can't form a circle")
        under = _extended(read_toml(file), str(file), (*files, file))
    elif base is not None:
        near = nearest(str(base), PRESETS, what="presets")
        raise InputError(f"{source}: extends {base!r}, which is neither a preset nor a .toml file; {near}")
    for key in ("columns", "lacking"):
        if isinstance(content.get(key, {}), dict) and (key in content or key in under):
            content[key] = under.get(key, {}) | content.get(key, {})
    if isinstance(content.get("columns"), dict):
        # `redshift = false` removes a column of the extended mapping.
        content["columns"] = {name: one for name, one in content["columns"].items() if one is not False}
    if under and isinstance(content.get("cuts", []), list):
        content["cuts"] = [*under.get("cuts", []), *content.get("cuts", [])]
    if "sample" in content and "split" not in content and isinstance(under.get("split"), dict):
        content["split"] = split_fractions(under["split"])
    return under | content


def split_fractions(split: dict[str, Any]) -> dict[str, Any]:
    """Turn the numbers of a split into fractions, for a sample of another size.

    Examples
    --------
    >>> split_fractions({"train": 80, "validation": 10, "test": 10})
    {'train': 0.8, 'validation': 0.1, 'test': 0.1}
    """
    whole = sum(split.values())
    return {name: part / whole for name, part in split.items()}


def _validated(content: dict[str, Any], source: str, files: tuple[Path, ...] = ()) -> Mapping:
    try:
        return _checked(Mapping.model_validate(_extended(content, source, files)), source)
    except ValidationError as problem:
        raise InputError(f"{source}: {_explained(problem)}") from problem


def _checked(mapping: Mapping, source: str) -> Mapping:
    """Validate names, units, expressions, rules and cosmology."""
    for name in (*mapping.columns, *mapping.lacking):
        if name not in NAMED:
            raise InputError(f"{source}: unknown name {name!r}; {nearest(name, list(NAMED), what='names')}")
    for name, column in mapping.columns.items():
        try:
            list(column.candidates(name))
            fits = column.unit is None or conversion(column.unit, NAMED[name].units)
        except InputError as problem:
            raise InputError(f"{source}: {problem}") from problem
        if not fits:
            units = " or ".join(NAMED[name].units) or "a pure number"
            raise InputError(f"{source}: {name} can't be in {column.unit!r}; it is converted to {units}")
    names = [cut.name for cut in mapping.cuts]
    for cut in mapping.cuts:
        read_expression(cut.keep, f"{source}: cut {cut.name!r}")
        if names.count(cut.name) > 1:
            raise InputError(f"{source}: two cuts are named {cut.name!r}; give each its own name")
    if mapping.cosmology not in (None, COSMOLOGY):  # astropy.cosmology takes a second to import
        try:
            named_cosmology(mapping.cosmology)
        except InputError as problem:
            raise InputError(f"{source}: {problem}") from problem
    return mapping


def _explained(problem: ValidationError) -> str:
    """Say what is wrong with a mapping, in one line."""
    # A misspelt key is also a missing one: the former says more.
    first = min(problem.errors(), key=lambda one: (one["type"] != "extra_forbidden", one["loc"][-1:] == ("str",)))
    place = [str(part) for part in first["loc"] if part != "Sample"]
    where = ".".join(place)
    if first["type"] == "extra_forbidden":
        inside: dict[str, type[BaseModel]] = {"columns": Column, "cuts": Cut, "sample": Sample, "split": Split}
        model: type[BaseModel] = inside.get(place[0], Mapping) if len(place) > 1 else Mapping
        known = [*model.model_fields, *(["extends"] if model is Mapping else [])]
        return f"unknown key {where!r}; {nearest(place[-1], known, what='keys')}"
    if first["type"] == "missing":
        return f"{where} is missing"
    message = first["msg"].removeprefix("Value error, ")
    got = "" if isinstance(first["input"], dict) else f"; got {str(first['input'])[:60]!r}"
    return f"{where}: {message[0].lower()}{message[1:]}{got}"


# --- a mapping and a table --------------------------------------------------------------------------------------------


def resolve(mapping: Mapping, existing: Iterable[str], own: Iterable[str] | None = None) -> dict[str, Expression]:
    """Find what each of truemorph's columns comes from in a table; those that the table lacks are left out.

    Parameters
    ----------
    mapping : Mapping
    existing : iterable of str
        The table's columns.
    own : iterable of str, optional
        Those that are not from a joined table. Candidates that need these alone are preferred.

    Examples
    --------
    >>> resolve(read_mapping("gz2"), ["objid", "petroRad_r"])["radius"].columns
    ('petroRad_r',)
    """
    there = set(existing)
    mine = there if own is None else set(own) & there
    found = {}
    for name, column in mapping.columns.items():
        known = [one for one in column.candidates(name) if there.issuperset(one.columns)]
        if known:
            found[name] = min(known, key=lambda one: not mine.issuperset(one.columns))
    return found


def detect_mapping(
    existing: Sequence[str], table_name: str = "table", chosen: Iterable[str] = (), own: Sequence[str] | None = None
) -> Mapping:
    """Find the preset whose ids and votes are among a table's columns.

    Parameters
    ----------
    existing : sequence of str
        The table's columns.
    table_name : str
        For messages.
    chosen : iterable of str
        truemorph's columns for which the user named the table's.
    own : sequence of str, optional
        Columns that are not from a joined table: if a preset fits these alone, it is taken.

    Raises
    ------
    InputError
        If none fits, or only debiased votes are there.

    Examples
    --------
    >>> detect_mapping(["GalaxyID", "Class1.1", "Class1.2"]).name
    'gz-challenge'
    """
    given = set(chosen)
    fitting = (_fitting(own, given) if own is not None else []) or _fitting(existing, given)
    if fitting:
        return _preset(fitting[0])
    if given & _ANY_VOTES:
        return _preset("truemorph")
    debiased = resolve(_preset("gz2-debiased"), existing).get("smooth_fraction")
    if debiased is not None:
        raise InputError(
            f"{table_name}: has debiased vote fractions ({debiased.text}) but no raw ones under a known name; name the "
            "raw ones with --smooth and --disk, or choose the debiased ones with --preset gz2-debiased"
        )
    raise InputError(
        f"{table_name}: unknown kind of catalogue: no ids and votes named as in {', '.join(DETECTED)}; columns are "
        f"{', '.join(existing[:12])}; name yours with --id, --smooth and --disk (or --label), or describe the table in "
        "a mapping (--preset gz2 --dry-run prints one to change)"
    )


def _fitting(existing: Sequence[str], given: set[str]) -> list[str]:
    """Presets that fit, the best first: several surveys share the names of votes, but not those of ids."""
    fitting = []
    for name in DETECTED:
        found = set(resolve(_preset(name), existing))
        has_id, has_votes = "object_id" in found, bool(_ANY_VOTES & found)
        # The table itself must tell the survey; what the user named tells nothing.
        if (has_id or has_votes) and (has_id or "object_id" in given) and (has_votes or _ANY_VOTES & given):
            fitting.append((not has_id, name))
    return [name for _, name in sorted(fitting, key=lambda one: one[0])]


def with_columns(
    mapping: Mapping, chosen: dict[str, str], existing: Sequence[str] | None, table_name: str = "table"
) -> Mapping:
    """Put the columns that the user named in place of the mapping's.

    Parameters
    ----------
    mapping : Mapping
    chosen : dict of str to str
        truemorph's name → a column of the table, or an SQL expression over its columns.
    existing : sequence of str, optional
        The table's columns, to check the names.
    table_name : str

    Raises
    ------
    InputError
        If a name or column is unknown.

    Examples
    --------
    >>> with_columns(read_mapping("gz2"), {"radius": "60 * r"}, ["r"]).columns["radius"].expression
    ('60 * r',)
    """
    columns = dict(mapping.columns)
    if any(name in _VOTE_COLUMNS for name in chosen):
        # Votes of two kinds must not be mixed.
        columns = {name: one for name, one in columns.items() if name not in _VOTE_COLUMNS}
        shown = ", ".join(text for name, text in chosen.items() if name in _VOTE_COLUMNS)
        mapping = mapping.model_copy(update={"about": "", "votes": f"columns named by the user: {shown}"})
    for name, text in chosen.items():
        if name not in NAMED:
            raise InputError(f"unknown column {name!r}; {nearest(name, list(NAMED), what='columns of truemorph')}")
        said = {}
        if name == "radius" and percent_of_light(text) is None:
            said = {"description": f"{text}, used as the Petrosian radius"}
        if existing is None or text in existing:
            columns[name] = Column(column=(text,), **said)
            continue
        # A mistyped column name says more than a failed expression.
        absent = InputError(f"{table_name}: no column {text!r} (asked for as {name}); {nearest(text, existing)}")
        try:
            expression = read_expression(text, f"{table_name}: {name}")
        except InputError as problem:
            raise absent if text.replace("_", "").isalnum() else problem from None
        if expression.lone:
            raise absent
        columns[name] = Column(expression=(text,), **said)
    return mapping.model_copy(update={"columns": columns})


# --- writing ----------------------------------------------------------------------------------------------------------


def narrowed(mapping: Mapping, existing: Iterable[str], own: Iterable[str] | None = None) -> Mapping:
    """Keep of every column the candidate that a table has, and drop columns that it lacks."""
    columns = {}
    for name, found in resolve(mapping, existing, own).items():
        kept = (
            {"column": found.columns, "expression": ()} if found.lone else {"column": (), "expression": (found.text,)}
        )
        columns[name] = mapping.columns[name].model_copy(update=kept)
    return mapping.model_copy(update={"columns": columns})


def mapping_toml(mapping: Mapping) -> str:
    """Write a mapping as TOML, to read, change and use again.

    Examples
    --------
    >>> print(mapping_toml(narrowed(read_mapping({"columns": {"object_id": ["id", "ID"]}}), ["ID"])))
    name = "mapping"
    votes = "votes as in the table"
    <BLANKLINE>
    [columns]
    object_id = "ID"
    <BLANKLINE>
    """
    content = {"name": mapping.name, "votes": mapping.votes} | mapping.model_dump(exclude_defaults=True)
    # One candidate is written without brackets, and without anything else as a plain name.
    columns = {
        name: {key: one[0] if key in ("column", "expression") and len(one) == 1 else one for key, one in column.items()}
        for name, column in content["columns"].items()
    }
    content["columns"] = {
        name: column["column"] if list(column) == ["column"] else column for name, column in columns.items()
    }
    return tomli_w.dumps(content)
