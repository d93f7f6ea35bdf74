"""What is asked of a catalogue: its tables, how they are read, rules for rows, a sample; settled before any work."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from truemorph.arrays import float_array
from truemorph.catalogs.choosing import choose_mapping, detect_mapping
from truemorph.catalogs.expressions import read_expression
from truemorph.catalogs.funnel import RESERVED
from truemorph.catalogs.joining import Join, Joined, join_tables
from truemorph.catalogs.mapping import (
    ALL,
    BALANCED,
    Cut,
    Mapping,
    Parts,
    Sample,
    mapping_files,
    read_mapping,
    shares_of,
)
from truemorph.catalogs.physical import known_cosmologies, named_cosmology
from truemorph.errors import InputError
from truemorph.tables import CatalogTable, kind_of, read_table

_LONGEST_NAME = 60


@dataclass(frozen=True)
class Request:
    """Tables that have been read and joined, and the mapping with all that was asked beside it.

    Attributes
    ----------
    joined : Joined
    mapping : Mapping
        With the rules, cosmology, sample and split that were asked for in place of its own.
    chosen : dict
        truemorph's name → column that was asked for.
    psf_fwhm : float or None
        One width for all galaxies, arcsec.
    path : Path or None
        File of the first table.
    files : tuple of Path
        Every table's file.
    pages : tuple of Path
        The mapping's file, and those that it extends.
    cosmology : Any
        What was given: a name, a cosmology of astropy's, or None.
    """

    joined: Joined
    mapping: Mapping
    chosen: dict[str, str]
    psf_fwhm: float | None
    path: Path | None
    source: str
    files: tuple[Path, ...]
    pages: tuple[Path, ...]
    cosmology: Any

    @property
    def table(self) -> CatalogTable:
        """The table, with the others beside it."""
        return self.joined.table

    @property
    def own(self) -> list[str]:
        """Columns of the first table."""
        return [name for name in self.table.frame.columns if name not in self.joined.tables]

    def with_names(self, note: str) -> str:
        """A note with files' names in place of their paths, which are of this machine alone."""
        for file in self.files:
            note = note.replace(str(file), file.name)
        return note


def settle(
    source: Any,
    *,
    preset: str | None = None,
    mapping: Mapping | dict[str, Any] | str | os.PathLike[str] | None = None,
    joins: Any = (),
    columns: dict[str, str] | None = None,
    psf_fwhm: Any = None,
    keep: str | Iterable[str] = (),
    cosmology: Any = None,
    balance: bool = False,
    sample: tuple[int, int] | str | None = None,
    split: Sequence[float] | None = None,
) -> Request:
    """Read the tables, join them, choose the mapping and put into it what else was asked for.

    Parameters are those of `prepare_catalogue`.

    Raises
    ------
    InputError
        If anything can't be read, or contradicts itself.
    """
    table = read_table(source)
    path = Path(source) if isinstance(source, str | os.PathLike) else table.path
    name = kind_of(source) if path is None else str(path)
    chosen = dict(columns or {})
    width = None
    if isinstance(psf_fwhm, str):
        chosen["psf_fwhm"] = psf_fwhm
    elif psf_fwhm is not None:
        width = _one_width(psf_fwhm)
    wanted = _joins(joins)
    asked = mapping if preset is None else preset
    if preset is not None and mapping is not None:
        choose_mapping(None, preset, mapping)  # refuses both
    reads = read_mapping(asked) if asked is not None else _detected(table.frame.columns, name, chosen)
    joined = join_tables(table, wanted, reads, chosen, source=name)
    existing = joined.table.frame.columns
    own = [one for one in existing if one not in joined.tables]
    kind = choose_mapping(existing, preset, mapping, chosen, width, name, own)
    kind = with_requests(kind, keep, cosmology, balance, sample, split)
    files = [Path(one) for one in (path, *(join.source for join in wanted)) if isinstance(one, str | os.PathLike)]
    return Request(joined, kind, chosen, width, path, name, tuple(files), tuple(mapping_files(asked)), cosmology)


def _detected(existing: Sequence[str], name: str, chosen: dict[str, str]) -> Mapping | None:
    """The preset that a table fits before anything is joined to it, if any."""
    try:
        return detect_mapping(existing, name, chosen)
    except InputError:
        return None


def _joins(joins: Any) -> list[Join]:
    alone = isinstance(joins, Join | str | os.PathLike) or not isinstance(joins, Iterable) or hasattr(joins, "columns")
    return [one if isinstance(one, Join) else Join(one) for one in ([joins] if alone else joins)]


def _one_width(width: Any) -> float:
    try:
        values = float_array(width, "psf_fwhm", "arcsec")
    except InputError:
        values = np.empty(0)
    if values.size != 1 or not (np.isfinite(values).all() and (values > 0).all()):
        raise InputError(f"psf_fwhm is a column, or one positive number of arcsec; got {str(width)[:60]}")
    return float(values.reshape(()))


def with_requests(
    mapping: Mapping,
    keep: str | Iterable[str] = (),
    cosmology: Any = None,
    balance: bool = False,
    sample: tuple[int, int] | str | None = None,
    split: Sequence[float] | None = None,
) -> Mapping:
    """A mapping with rules for rows added, and another cosmology, sample and split.

    Raises
    ------
    InputError
        If a rule is empty, a cosmology unknown, or a sample or split can't be.

    Examples
    --------
    >>> with_requests(read_mapping("gz2"), ["redshift > 0.1"], sample=(3, 4)).sample
    Sample(smooth=3, disk=4)
    """
    cuts = list(mapping.cuts)
    for number, rule in enumerate(dict.fromkeys([keep] if isinstance(keep, str) else keep), 1):
        if not isinstance(rule, str) or not rule.strip():
            raise InputError(f'rule {number} of --keep is empty; give one such as "petroMag_r < 17"')
        read_expression(rule, f"rule {number} of --keep")
        cuts.append(Cut(name=_free(" ".join(rule.split()), {*RESERVED, *(cut.name for cut in cuts)}), keep=rule))
    more: dict[str, Any] = {"cuts": tuple(cuts)}
    if cosmology is not None:
        # A mapping holds names; what has none is known to the catalogue alone.
        more["cosmology"] = cosmology if named_cosmology(cosmology) is not cosmology else cosmology.name
        if more["cosmology"] not in known_cosmologies():
            more["cosmology"] = None
    if balance and sample is not None:
        raise InputError("a balanced sample and one of stated numbers exclude each other; give one of them")
    if balance or sample is not None:
        more["sample"] = BALANCED if balance else sample if sample == ALL else _numbers_of(sample)
        if split is None and mapping.split is not None:
            split = list(shares_of(mapping.split.model_dump()).values())
    if split is not None:
        more["split"] = _parts(split)
    return mapping.model_copy(update=more)


def _free(rule: str, taken: set[str]) -> str:
    """A name that no other line of the account has."""
    name, number = rule[:_LONGEST_NAME], 1
    while name in taken:
        number += 1
        name = f"{rule[: _LONGEST_NAME - 5]} ({number})"
    return name


def _numbers_of(sample: Any) -> Sample:
    try:
        smooth, disk = sample
        return Sample(smooth=smooth, disk=disk)
    except (TypeError, ValueError, ValidationError) as problem:
        raise InputError(
            f'a sample is "{ALL}", or how many smooth and how many disk galaxies, whole numbers above 0; got {sample}'
        ) from problem


def _parts(split: Any) -> Parts:
    try:
        train, validation, test = (int(one) if float(one).is_integer() and one > 1 else float(one) for one in split)
        return Parts(train=train, validation=validation, test=test)
    except (TypeError, ValueError, OverflowError) as problem:
        raise InputError(
            "a split is three shares of train, validation and test that sum to 1, or three numbers of galaxies; "
            f"got {split}"
        ) from problem
