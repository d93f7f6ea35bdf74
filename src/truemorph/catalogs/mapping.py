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

import math
import os
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from truemorph.catalogs.expressions import Expression, column_expression, read_expression
from truemorph.catalogs.funnel import RESERVED
from truemorph.catalogs.physical import COSMOLOGY, named_cosmology
from truemorph.catalogs.roles import ROLES
from truemorph.catalogs.units import conversion
from truemorph.errors import InputError, nearest

_FROZEN = ConfigDict(frozen=True, extra="forbid")
# In this order they are tried where no mapping is named.
DETECTED = ("gz2", "gz2-debiased", "gz-challenge", "desi", "gz-decals", "gz-hubble", "candels", "truemorph")
PRESETS = (*DETECTED, "paper")


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _on_one_line(value: Any) -> Any:
    return " ".join(value.split()) if isinstance(value, str) else value


def _known(value: Any) -> Any:
    """One value or several; what is not a finite number is missing anyway."""
    several = value if isinstance(value, list | tuple) else (value,)
    return tuple(one for one in several if not isinstance(one, float) or math.isfinite(one))


def _how_many(value: Any) -> Any:
    if value is None or isinstance(value, dict | BaseModel) or value in (ALL, BALANCED):
        return value
    raise ValueError(f'give "{ALL}", "{BALANCED}", or how many of each, such as {{ smooth = 10, disk = 10 }}')


Names = Annotated[tuple[str, ...], BeforeValidator(_several)]
ALL, BALANCED = "all", "balanced"


class Column(BaseModel):
    """Where one of truemorph's columns comes from.

    Candidates are tried in order; the first whose columns are all in the table is taken.
    """

    model_config = _FROZEN

    column: Names = Field((), description="the table's column, or several in order of preference")
    expression: Names = Field((), description="in place of it, SQL over columns, or several in order of preference")
    unit: str | None = Field(None, description="unit of the column, where the table states none")
    missing: Annotated[tuple[float | int | str, ...], BeforeValidator(_known)] = Field(
        (), description="one value, or several, that mean missing"
    )
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
            yield column_expression(name)
        for text in self.expression:
            yield read_expression(text, f"[columns.{role}]")


class Cut(BaseModel):
    """A rule that rows must meet, and its name in the account of rows."""

    model_config = _FROZEN

    name: Annotated[str, BeforeValidator(_on_one_line)] = Field(min_length=1, max_length=60)
    keep: str = Field(description="SQL over the table's columns and truemorph's names; rows where it is unknown go too")


class Sample(BaseModel):
    """How many galaxies of each label to draw."""

    model_config = _FROZEN

    smooth: int = Field(ge=1, le=10**12)
    disk: int = Field(ge=1, le=10**12)


class Parts(BaseModel):
    """How many galaxies to train, validate and test on, or which shares of them."""

    model_config = _FROZEN

    train: int | float = Field(gt=0)
    validation: int | float = Field(ge=0)
    test: int | float = Field(ge=0)

    @model_validator(mode="after")
    def _numbers_or_shares(self) -> Parts:
        parts = (self.train, self.validation, self.test)
        shares = abs(sum(parts) - 1) < 1e-9
        if not (shares or (sum(parts) > 1 and all(float(part).is_integer() for part in parts))):
            raise ValueError("give shares that sum to 1, or whole numbers of galaxies")
        return self


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
    sample: Annotated[Sample | str | None, BeforeValidator(_how_many)] = Field(
        None, description='how many galaxies of each label to draw, "balanced" for as many of each, or "all"'
    )
    split: Parts | None = Field(None, description="how many galaxies, or which shares, to train, validate and test on")
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


def _preset_content(name: str) -> dict[str, Any]:
    text = (resources.files("truemorph.catalogs") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@cache
def preset_mapping(name: str) -> Mapping:
    """The mapping of a preset."""
    return _settle(_preset_content(name), f"preset {name}")


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
        return _checked(source, "mapping")
    if isinstance(source, dict):
        base = source.get("extends")
        named = {} if base is None else {"name": f"{Path(str(base)).stem}, changed"}
        return _settle(named | source, "mapping")
    if not isinstance(source, str | os.PathLike):
        raise InputError(f"a mapping is a preset's name, a TOML file or a dict; got {type(source).__name__}")
    name = os.fspath(source)
    if isinstance(source, str) and name in PRESETS:
        return preset_mapping(name)
    if not name.lower().endswith(".toml"):
        raise InputError(
            f"unknown preset {name!r}; {nearest(name, PRESETS, what='presets')}; a mapping of your own is a .toml file"
        )
    content = _read_page(Path(name))
    content.setdefault("name", Path(name).stem)
    return _settle(content, name, Path(name))


def _read_page(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as problem:
        raise InputError(f"{path}: {problem.strerror or problem}") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise InputError(f"{path}: not valid TOML: {problem}") from problem


def mapping_files(source: Any) -> list[Path]:
    """The file that a mapping was read from, and those that it extends, one after the other."""
    files: list[Path] = []
    path = None if source is None or isinstance(source, Mapping | dict) else Path(source)
    while path is not None and path.suffix.lower() == ".toml" and path.is_file() and path not in files:
        files.append(path)
        base = _read_page(path).get("extends")
        path = path.parent / base if isinstance(base, str) and base not in PRESETS else None
    return files


def _extended(content: dict[str, Any], source: str, path: Path | None, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a mapping says itself, over what the preset or file says that it extends."""
    content = dict(content)
    base = content.pop("extends", None)
    under: dict[str, Any] = {}
    if isinstance(base, str) and base.lower().endswith(".toml"):
        file = (Path() if path is None else path.parent) / base
        if file.resolve() in seen:
            raise InputError(f"{source}: extends {base!r}, which extends it; mappings can't go round in a circle")
        under = _extended(_read_page(file), str(file), file, (*seen, file.resolve()))
    elif isinstance(base, str) and base in PRESETS:
        under = _extended(_preset_content(base), f"preset {base}", None)
    elif base is not None:
        raise InputError(
            f"{source}: extends {base!r}, which is no preset and no .toml file; "
            f"{nearest(str(base), PRESETS, what='presets')}"
        )
    for key in ("columns", "lacking"):
        if isinstance(content.get(key, {}), dict) and (key in content or key in under):
            content[key] = under.get(key, {}) | content.get(key, {})
    if isinstance(content.get("columns"), dict):
        # false or "" takes back what the extended mapping says of a name.
        content["columns"] = {role: one for role, one in content["columns"].items() if one is not False and one != ""}
    if under and isinstance(content.get("cuts", []), list):
        content["cuts"] = [*under.get("cuts", []), *content.get("cuts", [])]
    if "sample" in content and "split" not in content and isinstance(under.get("split"), dict):
        content["split"] = shares_of(under["split"])
    return under | content


def shares_of(split: dict[str, Any]) -> dict[str, Any]:
    """A split as shares: how many was said of another sample.

    Examples
    --------
    >>> shares_of({"train": 80, "validation": 10, "test": 10})
    {'train': 0.8, 'validation': 0.1, 'test': 0.1}
    """
    whole = sum(part for part in split.values() if isinstance(part, int | float))
    return {name: part / whole if isinstance(part, int | float) and whole else part for name, part in split.items()}


def _settle(content: dict[str, Any], source: str, path: Path | None = None) -> Mapping:
    try:
        seen = () if path is None else (path.resolve(),)
        mapping = Mapping.model_validate(_extended(content, source, path, seen))
    except ValidationError as problem:
        raise InputError(f"{source}: {_explain(problem)}") from problem
    return _checked(mapping, source)


def _checked(mapping: Mapping, source: str) -> Mapping:
    """Refuse what a mapping says of names, units, rules and cosmologies that there are not."""
    _check_roles(mapping, source)
    for cut in mapping.cuts:
        read_expression(cut.keep, f"{source}: cut {cut.name!r}")
    names = [cut.name for cut in mapping.cuts]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{source}: two rules are called {name!r}; give each cut a name of its own")
        if name in RESERVED:
            raise InputError(
                f"{source}: a cut can't be called {name!r}, as truemorph's own rule is; give it another name"
            )
    if mapping.cosmology not in (None, COSMOLOGY):
        try:
            named_cosmology(mapping.cosmology)
        except InputError as problem:
            raise InputError(f"{source}: {problem}") from problem
    return mapping


def _explain(problem: ValidationError) -> str:
    # A misspelt key is also a missing one: the former says more.
    errors = sorted(
        problem.errors(), key=lambda one: (one["type"] != "extra_forbidden", one["loc"][-1:] in (("str",), ("Sample",)))
    )
    first, place = errors[0], [str(part) for part in errors[0]["loc"] if part != "Sample"]
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
        shown = {
            "split": "{ train = 0.8, validation = 0.1, test = 0.1 }",
            "cuts": '{ name = "bright", keep = "r < 17" }',
        }
        if place[0] in shown:
            return f"{where}: give a table such as {shown[place[0]]}"
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
