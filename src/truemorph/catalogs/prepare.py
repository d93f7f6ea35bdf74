"""From a table of votes to a catalogue ready to measure and train on, with an account of every row."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph._version import __version__
from truemorph.archives.provenance import origin
from truemorph.catalogs.catalogue import gold_classes
from truemorph.catalogs.datasheet import datasheet
from truemorph.catalogs.expressions import read_expression
from truemorph.catalogs.ids import as_ids, object_ids
from truemorph.catalogs.images import find_images
from truemorph.catalogs.joining import Join, Joined
from truemorph.catalogs.mapped import Mapped, apply_mapping, check_required
from truemorph.catalogs.mapping import ALL, Mapping, Sample, mapping_files
from truemorph.catalogs.names import ADDED, FRACTIONS, NAMED, RESERVED, VOTES, percent_of_light
from truemorph.catalogs.physical import (
    COSMOLOGY,
    PsfUnit,
    absolute_magnitude,
    cosmology_name,
    describe_alpha,
    physical_radius_kpc,
    resolution,
)
from truemorph.catalogs.request import Request, read_request
from truemorph.catalogs.rows import check_sizes, label_rows, label_rule, positive, select_rows, vote_notes
from truemorph.catalogs.sampling import FRACTIONS_OF_SPLIT, UNUSED, draw_sample, sampling_weights, split_galaxies
from truemorph.errors import InputError
from truemorph.io import file_hash, written_whole
from truemorph.missing import without_sentinels
from truemorph.tables import CatalogTable, write_table

# The first columns of a catalogue; truemorph's others and the table's own follow.
_TELLING = ("object_id", "label", *FRACTIONS, *VOTES, "vote_count")
_UNSTATED = Mapping.model_fields["votes"].default
_FIRST = ("object_id", "image", "label", "alpha", *FRACTIONS, "radius", "psf_fwhm", "split", "sampling_weight")


@dataclass(frozen=True)
class Preparation:
    """A prepared catalogue, and what became of every row.

    Attributes
    ----------
    catalogue : CatalogTable
        One row per galaxy; the metadata say what α is, where the images are, and the seed.
    dropped : polars.DataFrame
        `row` (in the input, from 1), `object_id` and `reason` of every row that was left out.
    funnel : list of (str, int)
        Rows in, the rows lost to each rule, rows out.
    notes : list of str
        What users should know about the input.
    matches : list of (str, str, dict)
        Joined tables and the statistics of each match (`truemorph.catalogs.crossmatch.Match`).
    origins : dict of str to dict
        File → checksum, size, and what is recorded about where it came from.
    inputs : tuple of Path
        Every file that was read: tables and mappings.
    """

    catalogue: CatalogTable
    dropped: pl.DataFrame
    funnel: list[tuple[str, int]]
    notes: list[str]
    matches: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    origins: dict[str, dict[str, Any]] = field(default_factory=dict)
    inputs: tuple[Path, ...] = ()


def prepare_catalogue(
    table: Any,
    *,
    preset: str | None = None,
    mapping: Mapping | dict[str, Any] | str | os.PathLike[str] | None = None,
    joins: Join | str | os.PathLike[str] | Iterable[Join | str | os.PathLike[str]] = (),
    columns: dict[str, str] | None = None,
    psf_fwhm: Any = None,
    psf: PsfUnit = "sigma",
    images: str | os.PathLike[str] | None = None,
    where: str | Iterable[str] = (),
    keep: str | Iterable[str] = (),
    cosmology: Any = None,
    sample: tuple[int, int] | str | None = None,
    split: tuple[float, float, float] | None = None,
    gold: str | None = None,
    seed: int = 0,
) -> Preparation:
    """Make a catalogue of labels, resolution, intrinsic columns and splits from a table of votes and others beside it.

    Parameters
    ----------
    table : path, or a table in memory
        See `truemorph.read_table`.
    preset : str, optional
        The survey's table, one of `truemorph.catalogs.mapping.PRESETS`; recognised by its columns if not given.
    mapping : path, dict or Mapping, optional
        Instead of a preset, your own description (`truemorph.catalogs.mapping.read_mapping`).
    joins : iterable of Join or path, optional
        Other tables whose columns are wanted, such as photometry. A path is joined by object id.
    columns : dict of str to str, optional
        Columns that differ from the mapping's: truemorph's name (`object_id`, `label`, `radius`, `image`, …) → a column
        of the table or an SQL expression over its columns. "smooth", "disk" and "artefact" stand for vote fractions or
        numbers of votes, whichever the columns hold.
    psf_fwhm : str, float or quantity of angle, optional
        Column (or expression) of the PSF's FWHM in arcsec, or one number for all galaxies.
    psf : {"sigma", "fwhm"}
        Unit of α.
    images : path, optional
        Folder of images: `<image column>` or `<object id>.jpg` in it. Default: the folder of the table with the column.
    where : str or iterable of str
        Conditions that rows must meet: "column=value", or SQL over the table's columns and truemorph's.
    keep : str or iterable of str
        The same, each with its own line in the account of rows.
    cosmology : str or astropy.cosmology.FLRW, optional
        For `radius_kpc` and `M_r`. Default: the mapping's, or WMAP9.
    sample : tuple of 2 int, "balanced" or "all", optional
        The numbers of smooth and disk galaxies to draw for training, or equal numbers of both. The others stay in the
        catalogue with split "unused", and `sampling_weight` undoes the selection. Default: the mapping's, or all.
    split : tuple of 3 numbers, optional
        Fractions, or numbers of galaxies, for train, validation and test. Default: the mapping's, or 0.8, 0.1, 0.1.
    gold : str, optional
        Gold labels: a column of 0 and 1, or an SQL condition that is true for disks, such as "t_type >= -3". They
        become the column `gold`; the condition, which defines what a disk is, goes into the metadata.
    seed : int

    Returns
    -------
    Preparation

    Raises
    ------
    InputError
        If a column is missing, ids repeat or would lose digits, a class is empty, or no row is left.

    Examples
    --------
    >>> votes = pl.DataFrame({"id": range(10), "smooth": [0.8, 0.2] * 5, "r": 6.0, "fwhm": 1.2})
    >>> columns = {"object_id": "id", "smooth": "smooth", "disk": "1 - smooth", "radius": "r"}
    >>> prepared = prepare_catalogue(votes, columns=columns, psf_fwhm="fwhm")
    >>> prepared.funnel
    [('rows in', 10), ('rows out', 10)]
    >>> prepared.catalogue.frame["label"].to_list()
    [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    """
    if psf not in ("sigma", "fwhm"):
        raise InputError(f'psf is "sigma" or "fwhm"; got {psf!r}')
    asked = read_request(
        table, preset=preset, mapping=mapping, joins=joins, columns=columns, psf_fwhm=psf_fwhm, keep=keep,
        cosmology=cosmology, sample=sample, split=split,
    )  # fmt: skip
    source, kind, name = asked.table, asked.mapping, asked.table_name
    conditions = [where] if isinstance(where, str) else list(where)
    model = cosmology or kind.cosmology or COSMOLOGY

    mapped = apply_mapping(source, kind, table_name=name, own=asked.joined.own)
    check_required(mapped, source, kind, name)
    mapped = _with_physical(mapped, model)
    alpha = _alpha(mapped, psf)
    named, sentinels = _named(source, mapped, alpha, kind, gold, name)
    funnel, selection = select_rows(named, kind, conditions, name)
    raw_ids = mapped.frame["object_id"].alias(str(mapped.sources["object_id"]))
    # Rows that were not selected may have any ids.
    object_ids(raw_ids.filter(funnel.kept), name, np.flatnonzero(funnel.kept))
    ids = as_ids(raw_ids)
    labels, dropped_notes = label_rows(funnel, mapped, alpha, ids, name)
    kept = funnel.kept
    rows = replace(mapped, frame=mapped.frame.filter(kept))
    sizes = check_sizes(rows, kind, _alpha(rows, "sigma"), source.units, name)
    root, paths, image_notes = _images(asked, mapped, ids, kept, images)
    missing = [
        label for label, n in zip(("smooth", "disk"), np.bincount(labels[kept], minlength=2), strict=True) if not n
    ]
    if missing:
        raise InputError(f"{name}: no galaxy is labelled {missing[0]}, and both are needed ({funnel.account()})")
    drawn, weights, drawing = _draw(labels[kept], ids.filter(kept), kind, seed)

    known: dict[str, Any] = {}
    if any("at the distance of" in str(mapped.sources.get(one, "")) for one in ("radius_kpc", "M_r")):
        known["cosmology"] = cosmology_name(model)
    elif cosmology is not None:
        drawing = [*drawing, f"{cosmology_name(model)} is not used: no column is computed from a distance"]
    made: dict[str, Any] = {
        "object_id": object_ids(raw_ids.filter(kept), name),
        "image": pl.Series([one for one, keep_it in zip(paths, kept, strict=True) if keep_it], dtype=pl.String),
        "label": labels[kept],
        "alpha": alpha[kept],
        "split": drawn,
        "sampling_weight": weights,
    }
    before = source.metadata if source.metadata.get("kind") == "catalogue" else {}
    if gold is not None or ("gold" in source.frame.columns and before.get("gold_definition")):
        classes, definition = gold_classes(named.filter(kept), gold or "gold", name)
        made["gold"] = pl.Series(classes).replace(-1, None)
        known["gold_definition"] = definition if gold is not None else before["gold_definition"]
        drawing = [*drawing, f"gold labels: {(classes >= 0).sum():,d} of {kept.sum():,d} galaxies"]
    elif "gold" in source.frame.columns:
        drawing = [*drawing, "column gold is kept as gold_input; give --gold gold if it holds gold labels"]
    if before:
        drawing = [*drawing, f"{name} is a prepared catalogue: its labels, alpha, sample and split are made anew"]
    metadata: dict[str, Any] = {
        "kind": "catalogue",
        "truemorph_version": __version__,
        "source": Path(name).name,
        "preset": kind.name,
        "about": before.get("about") or kind.about,
        "votes": kind.votes if kind.votes != _UNSTATED else before.get("votes", kind.votes),
        "columns": mapped.sources,
        **_given(
            tables=_tables(asked.joined, mapped), where=conditions, rules={cut.name: cut.keep for cut in kind.cuts}
        ),
        "mapping": kind.model_dump(mode="json", exclude_defaults=True, exclude={"lacking"}),
        "label_rule": label_rule(mapped, kept),
        "alpha": describe_alpha(*_sizes(mapped, before), psf),
        "alpha_psf": psf,
        "image_root": str(root),
        "seed": int(seed),
        **_sampled(kind, drawn, labels[kept]),
        "matches": [{"left": left, "right": right, **numbers} for left, right, numbers in asked.joined.matches],
        **known,
    }
    origins, unknown = _origins(asked.files)
    notes = [
        *asked.joined.notes, *mapped.notes, *_borrowed(asked, mapped), *sentinels, *selection, *dropped_notes,
        *vote_notes(mapped, kept), *sizes, *image_notes, *drawing, *unknown,
    ]  # fmt: skip
    return Preparation(
        _catalogue(source, mapped, kept, made, metadata),
        funnel.dropped(ids),
        funnel.steps(),
        [_with_names(note, asked.files) for note in dict.fromkeys(notes)],
        asked.joined.matches,
        origins,
        tuple(file.resolve() for file in (*asked.files, *mapping_files(mapping))),
    )


def write_preparation(prepared: Preparation, out: str | os.PathLike[str]) -> Path:
    """Write a catalogue, and beside it its datasheet and the list of the rows that were left out.

    Parameters
    ----------
    prepared : Preparation
    out : path
        `.parquet`, or another format that holds metadata. `<name>.datasheet.md` and `<name>.dropped.csv` lie beside it.

    Raises
    ------
    InputError
        If the format can't hold what α is, or a file would overwrite one that the catalogue is made from.
    """
    out = Path(out)
    if out.name.lower().endswith((".csv", ".csv.gz", ".tsv")):
        raise InputError(f"{out}: a catalogue needs metadata, which {out.suffix} can't hold; use .parquet")
    dropped, sheet = (out.with_name(f"{out.stem}.{end}") for end in ("dropped.csv", "datasheet.md"))
    for target in (out, dropped, sheet):
        if target.resolve() in prepared.inputs:
            raise InputError(f"{target}: would overwrite a file that the catalogue is made from; choose another --out")
    write_table(prepared.catalogue, out)
    write_table(CatalogTable(prepared.dropped), dropped)
    catalogue = prepared.catalogue
    # Where a column may have one of several units, no unit means unknown; elsewhere it means dimensionless.
    own = [one for one in catalogue.frame.columns if one in ADDED or (one in NAMED and len(NAMED[one].units) == 1)]
    page = datasheet(
        catalogue.frame,
        name=out.name,
        units=dict.fromkeys(own, "") | catalogue.units,
        descriptions=catalogue.descriptions,
        metadata={key: value for key, value in catalogue.metadata.items() if key not in ("matches", "mapping")},
        funnel=prepared.funnel,
        notes=prepared.notes,
        matches=prepared.matches,
        provenance={_short(file, prepared.origins): entry for file, entry in prepared.origins.items()},
    )
    with written_whole(sheet) as partial:
        partial.write_text(page, encoding="utf-8")
    return out


def _given(**entries: Any) -> dict[str, Any]:
    """Leave out entries that are empty."""
    return {name: value for name, value in entries.items() if value}


def _with_physical(mapped: Mapped, cosmology: Any) -> Mapped:
    """Add `radius_kpc` and `M_r` where they can be computed and the table has none."""
    have = set(mapped.frame.columns)
    if "redshift" not in have or {"radius_kpc", "M_r"} <= have:
        return mapped
    values: dict[str, np.ndarray] = {}
    sources: dict[str, str] = {}
    redshift, at = mapped.numbers("redshift"), f"at the distance of {mapped.sources['redshift']}"
    at = f"{at} ({cosmology_name(cosmology)})"
    if "radius_kpc" not in have:
        values["radius_kpc"] = physical_radius_kpc(mapped.numbers("radius"), redshift, cosmology)
        sources["radius_kpc"] = f"{mapped.sources['radius']} {at}"
    if "M_r" not in have and "magnitude" in have:
        dust = mapped.numbers("extinction") if "extinction" in have else 0.0
        values["M_r"] = absolute_magnitude(mapped.numbers("magnitude"), redshift, dust, cosmology)
        corrected = f"minus {mapped.sources['extinction']}" if "extinction" in have else "not corrected for extinction"
        sources["M_r"] = f"{mapped.sources['magnitude']}, {corrected}, {at}; no K-correction"
    descriptions = {name: f"{NAMED[name].description}: {text}" for name, text in sources.items()}
    percent = percent_of_light(str(mapped.sources["radius"]))
    if percent and "radius_kpc" in sources:
        descriptions["radius_kpc"] = f"physical radius of {percent} % of the Petrosian light: {sources['radius_kpc']}"
    return replace(
        mapped,
        frame=mapped.frame.with_columns(pl.Series(name, one).fill_nan(None) for name, one in values.items()),
        units=mapped.units | {name: NAMED[name].units[0] for name in values},
        descriptions=mapped.descriptions | descriptions,
        sources={**mapped.sources, **sources},
    )


def _alpha(mapped: Mapped, psf: PsfUnit) -> np.ndarray:
    """α of every row, NaN where the radius or PSF width is not positive."""
    radius, fwhm = mapped.numbers("radius"), mapped.numbers("psf_fwhm")
    known = positive(radius) & positive(fwhm)
    alpha = np.full(radius.size, np.nan)
    if known.any():
        alpha[known] = resolution(radius[known], fwhm[known], psf)
    return alpha


def _named(
    table: CatalogTable, mapped: Mapped, alpha: np.ndarray, kind: Mapping, gold: str | None, table_name: str
) -> tuple[pl.DataFrame, list[str]]:
    """Return the columns that rules may use: the table's, without missing values, and truemorph's, which win."""
    frame = table.frame.with_columns(**mapped.cleaned)
    rules = [cut.keep for cut in kind.cuts] + ([gold] if gold is not None and gold not in frame.columns else [])
    used = {column for rule in rules for column in read_expression(rule, f"{table_name}: {rule}").columns} | {gold}
    notes: list[str] = []
    for column in [one for one in frame.columns if one in used and one not in mapped.frame.columns]:
        series, more = without_sentinels(frame[column], f"{table_name}: column {column}")
        frame = frame.with_columns(series)
        notes += more
    return frame.with_columns(*mapped.frame, pl.Series("alpha", alpha).fill_nan(None)), notes


def _images(
    asked: Request, mapped: Mapped, ids: pl.Series, kept: np.ndarray, images: str | os.PathLike[str] | None
) -> tuple[Path, list[str | None], list[str]]:
    names = mapped.frame["image"] if "image" in mapped.frame.columns else None
    if names is not None and names.null_count() == len(names):
        names = None
    needs = mapped.found["image"].columns if "image" in mapped.found else ()
    files = [file for one in needs if one in asked.joined.added and (file := asked.joined.added[one][1]) is not None]
    path = files[0] if files else asked.table.path
    root = asked.table.metadata.get("image_root")
    if images is None and names is not None and not files and needs == ("image",):
        images = root  # of a prepared catalogue
    return find_images(ids, names, kept, images, Path.cwd() if path is None else path.resolve().parent)


def _draw(labels: np.ndarray, ids: pl.Series, kind: Mapping, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Draw the mapping's sample and split it: split ("unused" where not drawn), sampling weights, notes."""
    keys, notes = ids.to_list(), []
    chosen, weights = np.ones(labels.size, dtype=bool), np.ones(labels.size)
    if kind.sample not in (None, ALL):
        wanted: Any = (kind.sample.smooth, kind.sample.disk) if isinstance(kind.sample, Sample) else kind.sample
        chosen, note = draw_sample(labels, keys, wanted, seed)
        weights = sampling_weights(labels, chosen)
        notes += [note] if note else []
    drawn = [one for one, taken in zip(keys, chosen, strict=True) if taken]
    split = np.full(labels.size, UNUSED, dtype="<U10")
    split[chosen], note = split_galaxies(drawn, kind.split.parts if kind.split else FRACTIONS_OF_SPLIT, seed)
    return split, weights, notes + ([note] if note else [])


def _sampled(kind: Mapping, split: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """What was asked of the sample, and whether galaxies were drawn by label, and equally many of each."""
    used = split != UNUSED
    smooth, disk = np.bincount(labels[used], minlength=2)
    asked = {key: getattr(kind, key) for key in ("sample", "split") if getattr(kind, key)}
    plain = {key: one if isinstance(one, str) else one.model_dump() for key, one in asked.items()}
    return {**plain, "drawn": bool((~used).any()), "balanced": bool((~used).any() and smooth == disk)}


def _sizes(mapped: Mapped, before: dict[str, Any]) -> tuple[str, str | float]:
    """Describe radius and PSF width for α; in a catalogue that is prepared again, as it was described."""
    earlier = before.get("columns", {})
    found = []
    for name in ("radius", "psf_fwhm"):
        source = mapped.sources[name]
        source = earlier.get(name, source) if source == name else source
        plain = not isinstance(source, str) or source.replace("_", "").isalnum()
        found.append(source if plain else f"({source})")
    return str(found[0]), found[1]


def _tables(joined: Joined, mapped: Mapped) -> dict[str, str]:
    """truemorph's column → the joined table that it comes from."""
    tables = {}
    for name, what in mapped.found.items():
        names = dict.fromkeys(joined.added[one][0] for one in what.columns if one in joined.added)
        if names:
            tables[name] = ", ".join(names)
    return tables


def _borrowed(asked: Request, mapped: Mapped) -> list[str]:
    """Say if ids or votes are a joined table's: they may belong to another survey than the galaxies."""
    tables = _tables(asked.joined, mapped)
    votes = [name for name in tables if name in _TELLING]
    return [f"{', '.join(votes)}: from {tables[votes[0]]}, not from {asked.table_name}"] if votes else []


def _catalogue(
    table: CatalogTable, mapped: Mapped, kept: np.ndarray, made: dict[str, Any], metadata: dict[str, Any]
) -> CatalogTable:
    """Assemble the columns: those that were made, those that were mapped, and the table's others."""
    own = {**mapped.frame.filter(kept).to_dict(), **made}
    absent = pl.Series([None], dtype=pl.Float64).new_from_index(0, int(kept.sum()))
    own = {name: own.get(name, absent) for name in (*_FIRST, *(name for name in own if name not in _FIRST))}
    carried = table.frame.filter(kept).drop(mapped.replaced)
    if table.metadata.get("kind") == "catalogue":
        carried = carried.drop(ADDED, strict=False)  # these are made anew
    renamed: dict[str, str] = {}
    for name in carried.columns:
        if name in {*own, *ADDED, *NAMED, *RESERVED}:
            free = f"{name}_input"
            while free in carried.columns or free in renamed.values():
                free += "_"
            renamed[name] = free
    units, descriptions = (
        {renamed.get(name, name): text for name, text in texts.items() if name in carried.columns}
        for texts in (table.units, table.descriptions)
    )
    about = {name: mapped.descriptions.get(name) or ADDED.get(name) or NAMED[name].description for name in own}
    frame = pl.concat([pl.DataFrame(own), carried.rename(renamed)], how="horizontal")
    return CatalogTable(frame, units | mapped.units, metadata, descriptions=descriptions | about)


def _origins(files: Sequence[Path]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What is recorded about each file, and notes on records that can't be read."""
    found: dict[str, dict[str, Any]] = {}
    notes = []
    for file in files:
        try:
            found[str(file)] = origin(file)
        except InputError as problem:
            notes.append(f"the origin of {file.name} is unknown: {problem}")
            found[str(file)] = {"sha256": file_hash(file), "bytes": file.stat().st_size}
    return found, notes


def _with_names(note: str, files: Sequence[Path]) -> str:
    """Replace paths, which mean nothing on another machine, by file names."""
    for file in files:
        note = note.replace(str(file), file.name).replace(f"{file.parent}{os.sep}provenance.json", "provenance.json")
    return note


def _short(file: str, files: Iterable[str]) -> str:
    """A file's name; with its folder where another file has the same name."""
    path = Path(file)
    twins = [other for other in files if Path(other).name == path.name]
    return path.name if len(twins) == 1 else f"{path.parent.name}/{path.name}"
