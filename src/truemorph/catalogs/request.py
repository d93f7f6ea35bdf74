"""What was asked of `prepare`: the tables, read and joined, and one mapping with all options in it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import ValidationError

from truemorph.arrays import float_array
from truemorph.catalogs.expressions import Expression, column_expression, compute, read_expression
from truemorph.catalogs.joining import Join, Joined, join_tables
from truemorph.catalogs.mapping import (
    ALL,
    BALANCED,
    PRESETS,
    Cut,
    Mapping,
    Sample,
    Split,
    detect_mapping,
    read_mapping,
    split_fractions,
    with_columns,
)
from truemorph.catalogs.physical import named_cosmology
from truemorph.errors import InputError
from truemorph.tables import CatalogTable, kind_of, read_table

_VOTES = ("smooth", "disk", "artefact")


@dataclass(frozen=True)
class Request:
    """The tables, read and joined, and the mapping with everything that was asked for.

    Attributes
    ----------
    joined : Joined
    mapping : Mapping
    table_name : str
    files : tuple of Path
        Files of the tables, the first table's first.
    """

    joined: Joined
    mapping: Mapping
    table_name: str
    files: tuple[Path, ...]

    @property
    def table(self) -> CatalogTable:
        """The joined table."""
        return self.joined.table


def read_request(
    table: Any,
    *,
    preset: str | None = None,
    mapping: Mapping | dict[str, Any] | str | os.PathLike[str] | None = None,
    joins: Any = (),
    columns: dict[str, str] | None = None,
    psf_fwhm: Any = None,
    **options: Any,
) -> Request:
    """Read and join the tables, choose the mapping, and put into it what else was asked for.

    Parameters are those of `prepare_catalogue`; `options` are those of `with_options`.

    Raises
    ------
    InputError
        If anything can't be read, or contradicts itself.
    """
    source = read_table(table)
    path = Path(table) if isinstance(table, str | os.PathLike) else source.path
    name = kind_of(table) if path is None else str(path)
    asked = dict(columns or {})
    named = {"smooth_fraction" if key == "smooth" else key for key in asked}
    wanted = _joins(joins)
    base = read_base(preset, mapping)
    if base is None:
        try:
            base = detect_mapping(source.frame.columns, name, named)
        except InputError:
            if not wanted:
                raise
    keys: dict[str, str] = {key: asked[key] for key in ("object_id", "ra", "dec") if key in asked}
    first = None if base is None else with_columns(base, keys, source.frame.columns, name)
    joined = join_tables(source, wanted, first, table_name=name)
    existing = joined.table.frame.columns
    base = base or detect_mapping(existing, name, named, joined.own)
    chosen, notes = _vote_columns(asked, joined.table.frame, name)
    kind = with_options(with_psf(with_columns(base, chosen, existing, name), psf_fwhm, existing, name), **options)
    files = [Path(one) for one in (path, *(join.source for join in wanted)) if isinstance(one, str | os.PathLike)]
    return Request(replace(joined, notes=[*joined.notes, *notes]), kind, name, tuple(files))


def mapping_of(
    *, preset: str | None, mapping: Any, joins: Any, columns: dict[str, str], psf_fwhm: Any, **options: Any
) -> Mapping:
    """Return the mapping with everything that was asked for, without a table.

    Raises
    ------
    InputError
        If neither a preset nor a mapping is named.
    """
    base = read_base(preset, mapping)
    if base is None or joins:
        raise InputError(f"give a table, or --preset ({', '.join(PRESETS)}) or --mapping alone")
    chosen, _ = _vote_columns(columns, None, "table")
    return with_options(with_psf(with_columns(base, chosen, None), psf_fwhm, None, "table"), **options)


def read_base(preset: str | None, mapping: Any) -> Mapping | None:
    """Read the preset or the mapping that was asked for, if any.

    Raises
    ------
    InputError
        If both are given, or it can't be read.
    """
    if preset is not None and mapping is not None:
        raise InputError('a preset and a mapping exclude each other; in a mapping, write extends = "<preset>"')
    asked = mapping if preset is None else preset
    return None if asked is None else read_mapping(asked)


def with_psf(mapping: Mapping, psf_fwhm: Any, existing: Sequence[str] | None, table_name: str) -> Mapping:
    """Put the PSF width that the user gave, a column, expression or number, in place of the mapping's.

    Raises
    ------
    InputError
        If it is none of them.
    """
    if psf_fwhm is None:
        return mapping
    if isinstance(psf_fwhm, str):
        return with_columns(mapping, {"psf_fwhm": psf_fwhm}, existing, table_name)
    try:
        values = float_array(psf_fwhm, "psf_fwhm", "arcsec")
    except InputError:
        values = np.empty(0)
    if values.size != 1 or not (np.isfinite(values).all() and (values > 0).all()):
        raise InputError(f"psf_fwhm is a column, or one positive number of arcsec; got {str(psf_fwhm)[:60]}")
    columns = {name: one for name, one in mapping.columns.items() if name != "psf_fwhm"}
    return mapping.model_copy(update={"columns": columns, "psf_fwhm": float(values.reshape(()))})


def with_options(
    mapping: Mapping,
    keep: str | Iterable[str] = (),
    cosmology: Any = None,
    sample: tuple[int, int] | str | None = None,
    split: Sequence[float] | None = None,
) -> Mapping:
    """Add rules for rows to a mapping, and replace its cosmology, sample and split.

    Raises
    ------
    InputError
        If a rule is empty, the cosmology is unknown, or the sample or split is impossible.

    Examples
    --------
    >>> with_options(read_mapping("gz2"), ["redshift > 0.1"], sample=(3, 4)).sample
    Sample(smooth=3, disk=4)
    """
    cuts = list(mapping.cuts)
    for number, rule in enumerate(dict.fromkeys([keep] if isinstance(keep, str) else keep), 1):
        if not isinstance(rule, str) or not rule.strip():
            raise InputError(f'rule {number} of --keep is empty; give one such as "petroMag_r < 17"')
        read_expression(rule, f"rule {number} of --keep")
        name = " ".join(rule.split())
        cuts.append(Cut(name=f"{name} (--keep)" if any(cut.name == name for cut in cuts) else name, keep=rule))
    update: dict[str, Any] = {"cuts": tuple(cuts)}
    if cosmology is not None:
        # A mapping holds the names of astropy's cosmologies; others are recorded in the catalogue only.
        update["cosmology"] = cosmology if isinstance(cosmology, str) else None
        named_cosmology(cosmology)
    if sample is not None:
        update["sample"] = sample if sample in (ALL, BALANCED) else _sample(sample)
        if split is None and mapping.split is not None:
            split = list(split_fractions(mapping.split.model_dump()).values())
    if split is not None:
        update["split"] = _split(split)
    return mapping.model_copy(update=update)


def _sample(sample: Any) -> Sample:
    try:
        smooth, disk = sample
        return Sample(smooth=smooth, disk=disk)
    except (TypeError, ValueError, ValidationError) as problem:
        raise InputError(
            f'a sample is "{ALL}", "{BALANCED}", or two whole numbers of galaxies, smooth and disk; got {sample}'
        ) from problem


def _split(split: Any) -> Split:
    try:
        train, validation, test = (int(one) if float(one).is_integer() and one > 1 else float(one) for one in split)
        return Split(train=train, validation=validation, test=test)
    except (TypeError, ValueError, OverflowError) as problem:
        raise InputError(
            "a split is three fractions for train, validation and test that sum to 1, or three numbers of galaxies; "
            f"got {split}"
        ) from problem


def _joins(joins: Any) -> list[Join]:
    alone = isinstance(joins, Join | str | os.PathLike) or not isinstance(joins, Iterable) or hasattr(joins, "columns")
    return [one if isinstance(one, Join) else Join(one) for one in ([joins] if alone else joins)]


def _vote_columns(
    chosen: dict[str, str], frame: pl.DataFrame | None, table_name: str
) -> tuple[dict[str, str], list[str]]:
    """Replace "smooth", "disk" and "artefact" by the names of vote fractions or numbers, and say which they are.

    Raises
    ------
    InputError
        If the columns hold percentages, or some fractions and others numbers.
    """
    given = [name for name in _VOTES if name in chosen]
    kind, notes = "fraction", []
    texts = {name: chosen[name] for name in given}
    if (
        frame is not None
        and given
        and all(set(_expression(one, frame).columns) <= set(frame.columns) for one in texts.values())
    ):
        columns = [compute(_expression(text, frame), frame, f"{table_name}: {text}") for text in texts.values()]
        values = np.stack([one.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy() for one in columns])
        sums = values.sum(axis=0)
        known = values[:, np.isfinite(sums) & (sums > 0)]
        sums = known.sum(axis=0)
        if known.size and np.mean(sums <= 1.01) < 0.9:  # a few bad fractions are errors of their own
            kind = "votes"
            whole = (known == np.round(known)).all()
            if not whole and abs(np.median(sums) - 100) < 1 and len(given) > 1:
                raise InputError(
                    f"{table_name}: {', '.join(texts.values())} are percentages; divide them by 100, such as "
                    f'--smooth "{texts[given[0]]} / 100"'
                )
            small = [
                text for text, one in zip(texts.values(), known, strict=True) if (one <= 1).all() and (one % 1).any()
            ]
            if small:
                raise InputError(f"{table_name}: {small[0]} holds fractions, other votes are numbers; give one kind")
        counted = {"fraction": "fractions", "votes": "numbers of votes"}[kind]
        notes = [f"{', '.join(texts.values())}: read as {counted}"]
    return {f"{name}_{kind}" if name in given else name: column for name, column in chosen.items()}, notes


def _expression(text: str, frame: pl.DataFrame) -> Expression:
    return column_expression(text) if text in frame.columns else read_expression(text, "votes")
