"""Mappings from a survey's table to truemorph's columns (docs/catalogues.md): TOML files, packaged for Galaxy Zoo."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationError,
    WrapValidator,
    model_validator,
)

from truemorph.catalogs.columns import FRACTIONS, NAMED, VOTES
from truemorph.catalogs.expressions import Expression, column_expression, read_expression
from truemorph.catalogs.physical import COSMOLOGY, named_cosmology
from truemorph.catalogs.sampling import SPLITS
from truemorph.config import by_commas
from truemorph.errors import InputError, nearest
from truemorph.io import PathLike, checked, read_toml
from truemorph.questions import SMOOTH_OR_DISK, Tree, check_class_names, packaged_trees, read_tree

# Presets tried, in this order, if no mapping is named. gz2-debiased is not among them, because debiased votes must be
# chosen explicitly.
DETECTED = ("gz2", "gz-challenge", "desi", "gz-decals", "gz-hubble", "candels", "truemorph")
PRESETS = (*DETECTED, "gz2-debiased", "paper")
_NEEDED = ("object_id", "radius", "psf_fwhm")
_ANY_VOTES = {"label", "smooth_fraction", "smooth_votes"}
_VOTE_COLUMNS = ("label", *FRACTIONS, *VOTES, "vote_count")


def _as_tuple(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


def _names(value: Any) -> Any:
    """Split "a,b"; names in a list of several may have commas."""
    return value if isinstance(value, list | tuple) and len(value) > 1 else by_commas(value)


def _short_form(value: Any) -> Any:
    return {"column": value} if isinstance(value, str | list | tuple) else value


def _numbers(names: Sequence[str], valid: str) -> WrapValidator:
    """Accept numbers also by name, or as text with commas; errors say what is `valid`."""

    def read(value: Any, handler: Callable[[Any], Any]) -> Any:
        if isinstance(value, dict) and value.keys() == set(names):
            value = [value[name] for name in names]
        try:
            return handler(value.split(",") if isinstance(value, str) and "," in value else value)
        except ValidationError as problem:
            raise ValueError(f"give {valid}") from problem

    return WrapValidator(read)


Names = Annotated[
    tuple[str, ...], BeforeValidator(_as_tuple), PlainSerializer(lambda names: names[0] if len(names) == 1 else names)
]
Count = Annotated[int, Field(ge=1, le=10**12)]
Sample = Annotated[
    Literal["all", "balanced"] | tuple[Count, Count] | None,
    _numbers(
        ("smooth", "disk"), '"all", "balanced", or numbers of smooth and disk galaxies to draw, such as 62225,59759'
    ),
]
Split = Annotated[
    tuple[float | int, float | int, float | int] | None,
    _numbers(SPLITS[:3], "fractions (train, validation, test) that sum to 1, or numbers, such as 0.8,0.1,0.1"),
]


class Column(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Source of one of truemorph's columns: the first candidate whose columns all exist."""

    column: Names = ()  # one, or several in order of preference
    expression: Names = ()  # SQL instead of a column
    unit: str | None = None  # if the table has none
    missing: Annotated[tuple[float | int | str, ...], BeforeValidator(_as_tuple)] = ()  # in addition to SENTINELS
    description: str | None = None
    optional: bool = False  # whether the column may be missing

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


class Cut(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A condition that rows must meet, and its name in the row counts."""

    name: str = Field(min_length=1)
    keep: str  # SQL over the table's columns and truemorph's; rows for which it is null are dropped

    @model_validator(mode="after")
    def _readable(self) -> Cut:
        read_expression(self.keep, f"cut {self.name!r}")
        return self


class Mapping(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Description of a survey's table."""

    name: str = Field("mapping", min_length=1)
    about: str = ""  # the survey and the source of the column names
    votes: str = "votes as in the table"  # what the vote fractions are
    # Names of the labels 0, 1, …
    classes: Annotated[
        tuple[str, ...], BeforeValidator(_names), Field(min_length=2), AfterValidator(check_class_names)
    ] = SMOOTH_OR_DISK
    definition: str = ""  # what counts as the second class
    tree: str | Tree | None = None  # decision tree of the survey
    psf_fwhm: float | None = Field(None, gt=0)  # arcsec, if the table has no such column
    psf_range: tuple[float, float] | None = None  # of the median PSF FWHM in this survey, arcsec
    columns: dict[str, Annotated[Column, BeforeValidator(_short_form)]]  # by truemorph's name
    cuts: tuple[Cut, ...] = ()
    cosmology: str | None = None  # one of astropy's, for kpc and absolute magnitudes
    sample: Sample = None
    drawn_with: tuple[str, ...] = ()  # columns of which galaxies of the sample need a value, where the table has them
    split: Split = None
    lacking: dict[str, str] = {}  # advice if the table has no such column

    @model_validator(mode="after")
    def _known(self) -> Mapping:
        for name in (*self.columns, *self.lacking):
            if name not in NAMED:
                raise ValueError(f"unknown name {name!r}; {nearest(name, list(NAMED), what='names')}")
        if self.cosmology not in (None, COSMOLOGY):  # astropy.cosmology takes a second to import
            named_cosmology(self.cosmology)
        return self


def read_mapping(source: Mapping | dict[str, Any] | PathLike) -> Mapping:
    """Read a mapping: the name of a preset (one of `PRESETS`), a TOML file, or its content as a dict."""
    if isinstance(source, Mapping):
        return source
    if isinstance(source, dict):
        return _validated(source, "mapping")
    name = os.fspath(source)
    if name.lower().endswith(".toml"):
        return _validated({"name": Path(name).stem, **read_toml(name)}, name)
    return _preset(name)


def extended(mapping: Mapping, content: dict[str, Any], source: str) -> Mapping:
    """Update a mapping with content from `source`: columns and advice by name (false removes); cuts are added."""
    under = mapping.model_dump(exclude_defaults=True)
    merged = under | content
    for key in ("columns", "lacking"):
        if isinstance(content.get(key), dict):
            merged[key] = {
                name: option for name, option in (under.get(key, {}) | content[key]).items() if option is not False
            }
    if isinstance(content.get("cuts"), list | tuple):
        cuts = under.get("cuts", ())
        merged["cuts"] = [*cuts, *(rule for rule in content["cuts"] if rule not in cuts)]
    return _validated(merged, source)


@cache
def _preset(name: str) -> Mapping:
    if name not in PRESETS:
        near = nearest(name, PRESETS, what="presets")
        raise InputError(f"unknown preset {name!r}; {near}; your own mapping must be a .toml file")
    if name == "truemorph":  # tables with truemorph's own column names, and ids as in any survey
        surveys = (_preset(other).columns["object_id"].column for other in PRESETS if other != name)
        ids = list(dict.fromkeys(chain(["object_id"], *surveys)))
        columns = {
            name: {
                "column": ids if name == "object_id" else name,
                "unit": column.unit or None,
                "optional": name not in _NEEDED,
            }
            for name, column in NAMED.items()
        }
        about = "truemorph's own names, in its units unless the table has other units"
        return Mapping.model_validate({"name": name, "about": about, "columns": columns})
    content = read_toml(Path(__file__).with_name("presets") / f"{name}.toml")
    if "tree" in content:
        content["columns"] = _votes_of_root(read_tree(content["tree"])) | content["columns"]
    return _validated(content, f"preset {name}")


def _votes_of_root(tree: Tree) -> dict[str, Any]:
    """Return the columns that tables may have of the votes for a tree's first question, as columns of a mapping."""
    columns = dict[str, Any]()
    for kinds, templates in ((VOTES, tree.counts), (FRACTIONS, tree.fractions)):
        by_kind = zip(kinds, *tree.root.columns(templates), strict=True)
        columns |= {kind: {"column": names, "optional": True} for kind, *names in by_kind if names}
    return columns


def _validated(content: dict[str, Any], source: str) -> Mapping:
    if "extends" in content:
        base = _preset(str(content["extends"]))
        changes = {key: option for key, option in content.items() if key != "extends"}
        return extended(base, {"name": f"{base.name}, changed", **changes}, source)
    return checked(Mapping, content, f"{source}:")


def resolve(mapping: Mapping, existing: Iterable[str], own: Sequence[str] = ()) -> dict[str, Expression]:
    """Find the source of each of truemorph's columns among those that exist, by preference among `own`, not joined."""
    there = set(existing)
    mine = set(own or there)
    chosen = {}
    for name, column in mapping.columns.items():
        candidates = [candidate for candidate in column.candidates() if there.issuperset(candidate.columns)]
        if candidates:
            chosen[name] = min(candidates, key=lambda expression: not mine.issuperset(expression.columns))
    return chosen


def detect_mapping(existing: Sequence[str], table_name: str = "table", chosen: Iterable[str] = ()) -> Mapping:
    """Find the preset that fits a table's columns of votes; `chosen` are the columns that the user named.

    Of surveys with the same columns of votes, it is the first whose ids the table has too. Debiased votes alone are an
    InputError, because they must be chosen explicitly.
    """
    columns = {name: resolve(_preset(name), existing) for name in DETECTED}
    fitting = [name for name in DETECTED if _ANY_VOTES & columns[name].keys()]
    if fitting:
        return _preset(next((name for name in fitting if "object_id" in columns[name]), fitting[0]))
    if _ANY_VOTES & set(chosen):
        return _preset("truemorph")
    debiased = resolve(_preset("gz2-debiased"), existing).get("smooth_fraction")
    if debiased is not None:
        raise InputError(
            f"{table_name}: has debiased vote fractions ({debiased.text}) but no raw ones under a known name; name the "
            "raw ones (`smooth`, `disk`), or use the debiased ones with `preset`=gz2-debiased"
        )
    for tree in packaged_trees():
        if tree.other_answers(existing):
            tree.columns(tree.root.name, existing)  # says what to do
    raise InputError(
        f"{table_name}: unknown kind of catalogue, with columns {', '.join(existing[:12])}; name its columns (`id`, "
        "with `smooth` and `disk`, or `label`), or those of a question (`question`, with `answers` or a `tree`), or "
        "describe the table in a mapping (`preset`=gz2 with `dry_run` shows one)"
    )


def recognised_tree(questions: Sequence[str], existing: Sequence[str], named: Iterable[str]) -> Tree | None:
    """Return the first survey's tree whose columns a table has for some questions; None if that of its preset does.

    `named` are the columns that the user named, by truemorph's names.
    """
    of_preset = None
    with suppress(InputError):  # no preset
        of_preset = detect_mapping(existing, chosen=named).tree
    fitting = dict[str, Tree]()
    for tree in packaged_trees():
        with suppress(InputError):  # another question, or other columns
            for question in questions:
                tree.columns(question, existing)
            fitting[tree.name] = tree
    return None if of_preset in fitting else next(iter(fitting.values()), None)


def named_columns(chosen: dict[str, str], existing: Sequence[str], table_name: str) -> dict[str, Any]:
    """Return the columns named by the user (truemorph's name → column or SQL expression) as content of a mapping."""
    content: dict[str, Any] = {"columns": {}}
    if votes := [text for name, text in chosen.items() if name in _VOTE_COLUMNS and name != "vote_count"]:
        # The two kinds of votes must not be mixed.
        content["columns"] = dict.fromkeys(_VOTE_COLUMNS, False)
        content |= {"about": "", "definition": "", "votes": f"columns named by the user: {', '.join(votes)}"}
    for name, text in chosen.items():
        if name not in NAMED:
            raise InputError(f"unknown column {name!r}; {nearest(name, list(NAMED), what='columns of truemorph')}")
        if text not in existing and (text.isidentifier() or read_expression(text, table_name).lone):
            raise InputError(f"{table_name}: no column {text!r} (given as {name}); {nearest(text, existing)}")
        content["columns"][name] = {"column" if text in existing else "expression": text}
    return content


def narrowed(mapping: Mapping, existing: Iterable[str], own: Sequence[str]) -> Mapping:
    """Keep only the candidates that exist in a table."""
    columns = {
        name: mapping.columns[name].model_copy(
            update={"column": (entry.text,) if entry.lone else (), "expression": () if entry.lone else (entry.text,)}
        )
        for name, entry in resolve(mapping, existing, own).items()
    }
    return mapping.model_copy(update={"columns": columns})


def mapping_toml(mapping: Mapping) -> str:
    """Write a mapping as TOML, to read, change and use again."""
    content = {"name": mapping.name, "votes": mapping.votes} | mapping.model_dump(exclude_defaults=True)
    return tomli_w.dumps(content)
