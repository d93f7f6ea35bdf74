"""Mappings from a survey's table to truemorph's columns: TOML files, packaged for Galaxy Zoo's tables.

```toml
name = "mysurvey"
votes = "raw vote fractions of my survey"     # description of the votes, stored with every model
psf_fwhm = 0.8                                # arcsec, if the table has no such column
[columns]
object_id = "id"                              # a column, or several in order of preference
smooth_votes = { expression = "round_votes + cigar_votes" }
disk_votes = "disk_votes"
radius = { column = "r_petro", unit = "0.27 arcsec", missing = [-1.0] }   # in pixels of 0.27 arcsec
redshift = { column = "z_spec", optional = true }
[[cuts]]
name = "well resolved"
keep = "radius > 3 AND NOT star"              # columns of the table, and truemorph's in its units
```
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from truemorph.arrays import float_array
from truemorph.catalogs.columns import FRACTIONS, NAMED, VOTES, conversion
from truemorph.catalogs.expressions import Expression, column_expression, read_expression
from truemorph.catalogs.physical import COSMOLOGY, named_cosmology
from truemorph.catalogs.sampling import split_galaxies
from truemorph.errors import InputError, nearest
from truemorph.io import read_toml

# Presets tried, in this order, if no mapping is named. gz2-debiased is not among them, because debiased votes must be
# chosen explicitly.
DETECTED = ("gz2", "gz-challenge", "desi", "gz-decals", "gz-hubble", "candels", "truemorph")
PRESETS = (*DETECTED, "gz2-debiased", "paper")
_ANY_VOTES = {"label", "smooth_fraction", "smooth_votes"}
_VOTE_COLUMNS = ("label", *FRACTIONS, *VOTES, "vote_count")
_SHAPES = {
    "sample": 'give "all", "balanced", or numbers of smooth and disk galaxies, such as 62225,59759',
    "split": "give three fractions (train, validation, test) that sum to 1, or three numbers, such as 0.8,0.1,0.1",
}


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _finite(value: Any) -> Any:
    """Drop NaN and infinity, which are always missing values."""
    several = value if isinstance(value, list | tuple) else (value,)
    return tuple(one for one in several if not isinstance(one, float) or math.isfinite(one))


def _short_form(value: Any) -> Any:
    return {"column": value} if isinstance(value, str | list | tuple) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Column(_Model):
    """Source of one of truemorph's columns: the first candidate whose columns all exist."""

    column: Names = Field((), description="column of the table, or several in order of preference")
    expression: Names = Field((), description="SQL expression instead of a column, or several in order of preference")
    unit: str | None = Field(None, description="unit of the column, if the table has none")
    missing: Annotated[tuple[float | int | str, ...], BeforeValidator(_finite)] = Field(
        (), description="values that mean missing, in addition to -99, -999, -9999 and similar"
    )
    description: str | None = Field(None, description="description in the catalogue")
    optional: bool = Field(False, description="whether the column may be missing")

    @model_validator(mode="after")
    def _one_of_two(self) -> Column:
        if bool(self.column) == bool(self.expression):
            raise ValueError('give either column = "…" or expression = "…"')
        list(self.candidates())
        return self

    def candidates(self) -> Iterator[Expression]:
        """Yield the candidates as expressions."""
        yield from map(column_expression, self.column)
        for text in self.expression:
            yield read_expression(text, "expression")


class Cut(_Model):
    """A condition that rows must meet, and its name in the row counts."""

    name: str = Field(min_length=1)
    keep: str = Field(description="SQL over the table's columns and truemorph's; rows for which it is null are dropped")

    @model_validator(mode="after")
    def _readable(self) -> Cut:
        read_expression(self.keep, f"cut {self.name!r}")
        return self


class _Numbers(_Model):
    """Numbers by name, from a TOML table, a sequence, or text with commas."""

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        parts = value.split(",") if isinstance(value, str) else value
        if isinstance(parts, list | tuple) and len(parts) == len(cls.model_fields):
            return dict(zip(cls.model_fields, parts, strict=True))
        return value


class Sample(_Numbers):
    """Numbers of galaxies of each label to draw."""

    smooth: int = Field(ge=1, le=10**12)
    disk: int = Field(ge=1, le=10**12)


class Split(_Numbers):
    """Fractions, or numbers, of galaxies for training, validation and test."""

    train: int | float = Field(gt=0)
    validation: int | float
    test: int | float

    @model_validator(mode="after")
    def _fractions_or_numbers(self) -> Split:
        split_galaxies((), self.parts)
        return self

    @property
    def parts(self) -> tuple[float, float, float]:
        """Train, validation, test."""
        return self.train, self.validation, self.test


class Mapping(_Model):
    """Description of a survey's table."""

    name: str = Field("mapping", min_length=1)
    about: str = Field("", description="the survey and the source of the column names")
    votes: str = Field("votes as in the table", description="description of the vote fractions")
    psf_fwhm: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="PSF FWHM in arcsec, if the table has no such column"
    )
    psf_range: tuple[float, float] | None = Field(
        None, description="range of the median PSF FWHM in arcsec in this survey"
    )
    columns: dict[str, Annotated[Column, BeforeValidator(_short_form)]] = Field(
        description="truemorph's name → source in the table"
    )
    cuts: tuple[Cut, ...] = ()
    cosmology: str | None = Field(None, description="name of an astropy cosmology, for kpc and absolute magnitudes")
    sample: Literal["all", "balanced"] | Sample | None = Field(
        None, description='numbers of galaxies of each label to draw, "balanced" for equal numbers, or "all"'
    )
    split: Split | None = Field(None, description="fractions, or numbers of galaxies, of train, validation and test")
    lacking: dict[str, str] = Field({}, description="truemorph's name → advice if the table has no such column")

    @model_validator(mode="after")
    def _known(self) -> Mapping:
        """Validate names, units, rules and cosmology."""
        for name in (*self.columns, *self.lacking):
            if name not in NAMED:
                raise ValueError(f"unknown name {name!r}; {nearest(name, list(NAMED), what='names')}")
        for name, column in self.columns.items():
            units = NAMED[name].units
            if column.unit is not None and conversion(column.unit, units) is None:
                known = " or ".join(units) or "no unit"
                raise ValueError(f"{name} can't be in {column.unit!r}: astropy doesn't convert it to {known}")
        names = [cut.name for cut in self.cuts]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two cuts are named {name!r}; give each its own name")
        if self.cosmology not in (None, COSMOLOGY):  # astropy.cosmology takes a second to import
            named_cosmology(self.cosmology)
        return self


# --- reading ----------------------------------------------------------------------------------------------------------


def read_mapping(source: Mapping | dict[str, Any] | str | os.PathLike[str]) -> Mapping:
    """Read a mapping.

    Parameters
    ----------
    source : str, path, dict or Mapping
        The name of a preset (one of `PRESETS`), a TOML file, or its content as a dict.

    Raises
    ------
    InputError
        If it can't be read or has an unknown name; the message gives a similar name.

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
        base = source.get("extends")
        named = {} if base is None else {"name": f"{Path(str(base)).stem}, changed"}
        return _validated(named | source, "mapping", ())
    return _read(source, ())


def extended(mapping: Mapping, content: dict[str, Any], source: str) -> Mapping:
    """Update a mapping with the content of another.

        Its columns and advice replace those of the mapping, its cuts are appended, and `redshift = false` removes a
        column. A sample of another size is split into the same fractions.

    Parameters
    ----------
    mapping : Mapping
    content : dict
    source : str
        Source of the content, for messages.

    Raises
    ------
    InputError
        If something is unknown or impossible.

    Examples
    --------
    >>> round(extended(read_mapping("paper"), {"sample": "3,4"}, "options").split.train, 3)
    0.8
    """
    under = mapping.model_dump(exclude_defaults=True)
    merged = under | content
    for key in ("columns", "lacking"):
        if isinstance(content.get(key), dict):
            merged[key] = {name: one for name, one in (under.get(key, {}) | content[key]).items() if one is not False}
    if isinstance(content.get("cuts"), list | tuple):
        cuts = under.get("cuts", ())
        merged["cuts"] = [*cuts, *(one for one in content["cuts"] if one not in cuts)]
    if "sample" in content and "split" not in content and "split" in under:
        whole = sum(under["split"].values())
        merged["split"] = {name: part / whole for name, part in under["split"].items()}
    return _validated(merged, source, ())


@cache
def _preset(name: str) -> Mapping:
    with resources.as_file(resources.files("truemorph.catalogs") / "presets" / f"{name}.toml") as file:
        return _validated(read_toml(file), f"preset {name}", ())


def _read(source: str | os.PathLike[str], extending: tuple[Path, ...]) -> Mapping:
    """Read a preset or a file; `extending` are the files that extend it, the last one directly."""
    name = os.fspath(source)
    if name in PRESETS:
        return _preset(name)
    if not name.lower().endswith(".toml"):
        near = nearest(name, PRESETS, what="presets")
        raise InputError(f"unknown preset {name!r}; {near}; your own mapping must be a .toml file")
    file = (extending[-1].parent if extending else Path()) / name
    if file.resolve() in {one.resolve() for one in extending}:
        raise InputError(f"{extending[-1]}: extends {name!r}, which extends it again; remove one of the two")
    return _validated({"name": file.stem, **read_toml(file)}, str(file), (*extending, file))


def _validated(content: dict[str, Any], source: str, files: tuple[Path, ...]) -> Mapping:
    if "extends" in content:
        base = _read(str(content["extends"]), files)
        return extended(base, {key: one for key, one in content.items() if key != "extends"}, source)
    try:
        return Mapping.model_validate(content)
    except ValidationError as problem:
        raise InputError(f"{source}: {_explained(problem)}") from problem


def _explained(problem: ValidationError) -> str:
    """Describe the first error in a mapping in one line."""
    # A misspelt key also causes a missing key; the former is more useful.
    first = min(problem.errors(), key=lambda one: one["type"] != "extra_forbidden")
    place = [str(part) for part in first["loc"] if str(part) != "Sample"]
    where = ".".join(place)
    if first["type"] == "extra_forbidden":
        inside: dict[str, type[BaseModel]] = {"columns": Column, "cuts": Cut, "sample": Sample, "split": Split}
        model: type[BaseModel] = inside.get(place[0], Mapping) if len(place) > 1 else Mapping
        return f"unknown key {where!r}; {nearest(place[-1], [*model.model_fields, 'extends'], what='keys')}"
    message = first["msg"].removeprefix("Value error, ")
    if where.startswith(tuple(_SHAPES)):
        where, message = place[0], _SHAPES[place[0]]
    got = "" if isinstance(first["input"], dict | BaseModel) else f"; got {str(first['input'])[:60]!r}"
    return f"{where}: {message}{got}" if where else message


# --- a mapping and a table --------------------------------------------------------------------------------------------


def resolve(mapping: Mapping, existing: Iterable[str], own: Iterable[str] | None = None) -> dict[str, Expression]:
    """Find the source of each of truemorph's columns in a table; missing ones are left out.

    Parameters
    ----------
    mapping : Mapping
    existing : iterable of str
        The table's columns.
    own : iterable of str, optional
        Columns that are not from a joined table; candidates that use only these are preferred.

    Examples
    --------
    >>> resolve(read_mapping("gz2"), ["objid", "petroRad_r"])["radius"].columns
    ('petroRad_r',)
    """
    there = set(existing)
    mine = there if own is None else set(own) & there
    found = {}
    for name, column in mapping.columns.items():
        known = [one for one in column.candidates() if there.issuperset(one.columns)]
        if known:
            found[name] = min(known, key=lambda one: not mine.issuperset(one.columns))
    return found


def detect_mapping(existing: Sequence[str], table_name: str = "table", chosen: Iterable[str] = ()) -> Mapping:
    """Find the preset that fits a table's id and vote columns.

    Parameters
    ----------
    existing : sequence of str
        The table's columns.
    table_name : str
        Name of the table in messages.
    chosen : iterable of str
        truemorph's columns for which the user named a column.

    Raises
    ------
    InputError
        If no preset fits, or there are only debiased votes.

    Examples
    --------
    >>> detect_mapping(["GalaxyID", "Class1.1", "Class1.2"]).name
    'gz-challenge'
    """
    given = set(chosen)
    fitting = []
    for name in DETECTED:
        found = set(resolve(_preset(name), existing))
        has_id, has_votes = "object_id" in found, bool(_ANY_VOTES & found)
        # Only the table's own columns identify the survey, not those named by the user.
        if (has_id or has_votes) and (has_id or "object_id" in given) and (has_votes or _ANY_VOTES & given):
            fitting.append((not has_id, name))
    if fitting:  # several surveys have the same vote columns, but different id columns
        return _preset(min(fitting, key=lambda one: one[0])[1])
    if given & _ANY_VOTES:
        return _preset("truemorph")
    debiased = resolve(_preset("gz2-debiased"), existing).get("smooth_fraction")
    if debiased is not None:
        raise InputError(
            f"{table_name}: has debiased vote fractions ({debiased.text}) but no raw ones under a known name; name the "
            "raw ones (`smooth`, `disk`), or use the debiased ones with `preset`=gz2-debiased"
        )
    raise InputError(
        f"{table_name}: unknown kind of catalogue: id and vote columns fit none of {', '.join(DETECTED)}; columns are "
        f"{', '.join(existing[:12])}; name yours (`id`, `smooth` and `disk`, or `label`), or describe the table in "
        "a mapping (`preset`=gz2 with `dry_run` shows one to change)"
    )


def named_columns(chosen: dict[str, str], existing: Sequence[str], table_name: str = "table") -> dict[str, Any]:
    """Return the columns named by the user, as content to update a mapping.

    Parameters
    ----------
    chosen : dict of str to str
        truemorph's name → a column of the table, or an SQL expression over its columns.
    existing : sequence of str
        The table's columns.
    table_name : str

    Raises
    ------
    InputError
        If a name or column is unknown.

    Examples
    --------
    >>> named_columns({"redshift": "z", "M_r": "mag - 38"}, ["z", "mag"])
    {'columns': {'redshift': {'column': 'z'}, 'M_r': {'expression': 'mag - 38'}}}
    """
    content: dict[str, Any] = {"columns": {}}
    if votes := [text for name, text in chosen.items() if name in _VOTE_COLUMNS]:
        # The two kinds of votes must not be mixed.
        content["columns"] = dict.fromkeys(_VOTE_COLUMNS, False)
        content |= {"about": "", "votes": f"columns named by the user: {', '.join(votes)}"}
    for name, text in chosen.items():
        if name not in NAMED:
            raise InputError(f"unknown column {name!r}; {nearest(name, list(NAMED), what='columns of truemorph')}")
        if text not in existing and (text.isidentifier() or read_expression(text, table_name).lone):
            raise InputError(f"{table_name}: no column {text!r} (given as {name}); {nearest(text, existing)}")
        content["columns"][name] = {"column" if text in existing else "expression": text}
    return content


def one_width(psf_fwhm: Any) -> dict[str, Any]:
    """Return one PSF width for all galaxies, as content to update a mapping.

    Raises
    ------
    InputError
        If it is not a positive number in arcsec or an angle.
    """
    width = float_array(psf_fwhm, "psf_fwhm", "arcsec")
    if width.size != 1:
        raise InputError(f"psf_fwhm must be a column or a number in arcsec; got {str(psf_fwhm)[:60]}")
    return {"psf_fwhm": width.item(), "columns": {"psf_fwhm": False}}


# --- writing ----------------------------------------------------------------------------------------------------------


def narrowed(mapping: Mapping, existing: Iterable[str], own: Iterable[str] | None = None) -> Mapping:
    """Keep only the candidates that exist in a table."""
    columns = {
        name: mapping.columns[name].model_copy(
            update={"column": (found.text,) if found.lone else (), "expression": () if found.lone else (found.text,)}
        )
        for name, found in resolve(mapping, existing, own).items()
    }
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
    # A single candidate is written without brackets, and as a plain name if nothing else is given.
    columns = {
        name: {key: one[0] if key in ("column", "expression") and len(one) == 1 else one for key, one in column.items()}
        for name, column in content["columns"].items()
    }
    content["columns"] = {
        name: column["column"] if list(column) == ["column"] else column for name, column in columns.items()
    }
    return tomli_w.dumps(content)
