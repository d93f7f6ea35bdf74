"""From a table of votes to a catalogue ready to measure and train on, with an account of every row."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph._version import __version__
from truemorph.catalogs.archives.checksums import file_hash
from truemorph.catalogs.archives.provenance import origin
from truemorph.catalogs.asking import Request, settle
from truemorph.catalogs.catalogue import gold_classes
from truemorph.catalogs.columns import Mapped, apply_mapping, carried_columns
from truemorph.catalogs.datasheet import datasheet
from truemorph.catalogs.derived import with_physical
from truemorph.catalogs.joining import Join
from truemorph.catalogs.mapping import ALL, Mapping, Sample
from truemorph.catalogs.physical import COSMOLOGY, cosmology_name
from truemorph.catalogs.pictures import find_images
from truemorph.catalogs.resolution import PsfUnit, describe_alpha, resolution
from truemorph.catalogs.roles import FRACTIONS, MADE, ROLES
from truemorph.catalogs.rows import label_rows, label_rule, positive, remarks, select_rows
from truemorph.catalogs.sampling import SHARES, UNUSED, Drawn, draw_and_split
from truemorph.catalogs.schema import as_ids, object_ids
from truemorph.errors import InputError
from truemorph.tables import CatalogTable, write_table

# First in a catalogue; what else truemorph has names for, then the table's other columns, follow.
_FIRST = ("object_id", "image", "label", "alpha", *FRACTIONS, "radius", "psf_fwhm", "split", "sampling_weight")


@dataclass(frozen=True)
class Preparation:
    """A prepared catalogue and its funnel.

    Attributes
    ----------
    catalogue : CatalogTable
        One row a galaxy; metadata says what α is, where images are, and the seed.
    dropped : polars.DataFrame
        `row` (in the input, from 1), `object_id`, `reason` of every row left out.
    funnel : list of (str, int)
        Rows in, rows lost to each rule, rows out.
    notes : list of str
        What a careful reader should know.
    source : Path, optional
        The table it was made from, where that is a file.
    matches : list of (str, str, dict)
        Tables that were joined, and the statistics of each match (`truemorph.catalogs.crossmatch.Match`).
    origins : dict
        File it was made from → digest, size, and what is recorded of where it came from.
    inputs : tuple of Path
        Every file that was read: tables and mappings.
    """

    catalogue: CatalogTable
    dropped: pl.DataFrame
    funnel: list[tuple[str, int]]
    notes: list[str]
    source: Path | None = None
    matches: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    origins: dict[str, dict[str, Any]] = field(default_factory=dict)
    inputs: tuple[Path, ...] = ()


def prepare_catalogue(
    source: Any,
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
    balance: bool = False,
    sample: tuple[int, int] | str | None = None,
    split: tuple[float, float, float] | None = None,
    truth: str | None = None,
    seed: int = 0,
) -> Preparation:
    """Make a catalogue of labels, resolution, intrinsic columns and splits from a table of votes, and others beside it.

    Parameters
    ----------
    source : path, or a table in memory
        See `read_table`.
    preset : str, optional
        Which survey's table it is (`truemorph.catalogs.mapping.preset_names`); found from the columns if not given.
    mapping : path, dict or Mapping, optional
        In place of a preset, a description of your own (`truemorph.catalogs.mapping.read_mapping`).
    joins : iterable of Join or path, optional
        Other tables whose columns are wanted: photometry, profiles, images. A path is joined by object id.
    columns : dict, optional
        Columns that differ from the mapping's, by truemorph's name (`object_id`, `radius`, `image`, …).
    psf_fwhm : str, float or quantity of angle, optional
        Column of PSF FWHM in arcsec, or one number for all galaxies.
    psf : {"sigma", "fwhm"}
        Unit of α.
    images : path, optional
        Folder of images: `<image column>` or `<object id>.jpg` below it; default: that of the table with the column.
    where : iterable of str
        "column=value" conditions that rows must meet.
    keep : iterable of str
        Rules that rows must meet, SQL over the table's columns and truemorph's names, such as "petroMag_r < 17".
    cosmology : str or astropy.cosmology.FLRW, optional
        Of astropy's, for `radius_kpc` and `M_r`; default the mapping's, or WMAP9.
    balance : bool
        Draw equally many galaxies of each label for training. The others stay in the catalogue with split
        "unused", and `sampling_weight` undoes the selection.
    sample : tuple of 2 int or "all", optional
        In its place, how many smooth and how many disk galaxies to draw; default the mapping's, or all.
    split : tuple of 3 numbers, optional
        Shares of train, validation, test; or how many of each. Default the mapping's, or 0.8, 0.1, 0.1.
    truth : str, optional
        Trusted classes where they are known: a column of 0 and 1, or a rule such as "t_type>=-3". They become the
        column `truth`, and the rule, which is the definition of a disk, goes into the metadata.
    seed : int

    Returns
    -------
    Preparation

    Raises
    ------
    InputError
        If a column is missing, ids repeat or would lose digits, a class is empty, or no row is left.
    """
    if psf not in ("sigma", "fwhm"):
        raise InputError(f'psf is "sigma" or "fwhm"; got {psf!r}')
    try:
        seed = int(seed)
    except (TypeError, ValueError) as problem:
        raise InputError(f"the seed is a whole number; got {seed!r}") from problem
    asked = settle(
        source, preset=preset, mapping=mapping, joins=joins, columns=columns, psf_fwhm=psf_fwhm, keep=keep,
        cosmology=cosmology, balance=balance, sample=sample, split=split,
    )  # fmt: skip
    table, kind, name, joined = asked.table, asked.mapping, asked.source, asked.joined
    where = [where] if isinstance(where, str) else list(where)
    needed = [role for role in ROLES if ROLES[role].needed]
    model = cosmology or kind.cosmology or COSMOLOGY
    given = apply_mapping(
        table, kind, asked.chosen, source=name, psf_fwhm=asked.psf_fwhm, needed=needed, joined=joined.tables
    )
    mapped = with_physical(given, model)
    raw_ids = mapped.frame["object_id"].alias(str(mapped.sources["object_id"]))
    alpha = _alpha(mapped, psf)
    # Rules speak of the table's columns, without what means missing, and of truemorph's; of two alike, truemorph's.
    named = table.frame.with_columns(**mapped.cleaned)
    named = named.with_columns(*mapped.frame, pl.Series("alpha", alpha).fill_nan(None))

    notes = [*joined.notes, *mapped.notes]
    funnel = select_rows(named, kind, where, name, notes)
    # Rows that were not asked for may have any ids.
    object_ids(raw_ids.filter(funnel.kept), name, np.flatnonzero(funnel.kept))
    ids = as_ids(raw_ids)
    labels = label_rows(funnel, mapped, ids, name, notes)
    kept = funnel.kept
    shown = next((joined.files[one] for one in mapped.needs.get("image", ()) if one in joined.files), asked.path)
    if images is None and shown == asked.path and mapped.needs.get("image") == ("image",):
        images = table.metadata.get("image_root")  # of a prepared catalogue
    root, paths = find_images(mapped, ids, kept, images, shown, notes)
    remarks(mapped, kept, notes)
    kept_ids, kept_labels = object_ids(raw_ids.filter(kept), name), labels[kept]
    drawn = _draw(kept_labels, kept_ids, kind, seed, name)
    notes += drawn.notes

    made: dict[str, Any] = {
        "object_id": kept_ids,
        "image": pl.Series([one for one, keep in zip(paths, kept, strict=True) if keep], dtype=pl.String),
        "label": kept_labels,
        "alpha": alpha[kept],
        "split": drawn.split,
        "sampling_weight": drawn.weights,
    }
    known: dict[str, Any] = {}
    if {"radius_kpc", "M_r"} & _computed(mapped):
        known["cosmology"] = cosmology_name(model)
    elif cosmology is not None:
        notes.append(f"{cosmology_name(model)} is not used: nothing is made with a distance here")
    classes, definition = _truth(table, named.filter(kept), truth, asked, notes)
    if classes is not None:
        made["truth"], known["truth_definition"] = pl.Series(classes).replace(-1, None), definition
    before = table.metadata if table.metadata.get("kind") == "catalogue" else {}
    if before:
        notes.append(f"{name} is a prepared catalogue: labels, alpha, sample and split are made anew")
    metadata: dict[str, Any] = {
        "kind": "catalogue",
        "truemorph_version": __version__,
        "source": name if asked.path is None else asked.path.name,
        "preset": kind.name,
        "about": before.get("about") or kind.about,
        "votes": before.get("votes") or kind.votes,
        "columns": mapped.sources,
        **({"tables": mapped.tables} if mapped.tables else {}),
        "mapping": kind.model_dump(mode="json", exclude_defaults=True, exclude={"lacking"}),
        **({"where": where} if where else {}),
        **({"rules": {cut.name: cut.keep for cut in kind.cuts}} if kind.cuts else {}),
        "label_rule": label_rule(mapped, kept),
        "alpha": describe_alpha(*_widths(mapped, before), psf),
        "alpha_psf": psf,
        "image_root": str(root),
        "seed": seed,
        **_sampled(kind, drawn, kept_labels),
        "matches": [{"left": left, "right": right, **numbers} for left, right, numbers in joined.matches],
        **known,
    }
    catalogue = _catalogue(table, mapped, kept, made, metadata)
    origins = {str(file): _origin(file, notes) for file in asked.files}
    return Preparation(
        catalogue,
        funnel.dropped(ids),
        funnel.steps(),
        [asked.with_names(note) for note in notes],
        None if asked.path is None else asked.path.resolve(),
        joined.matches,
        origins,
        tuple(file.resolve() for file in (*asked.files, *asked.pages)),
    )


def _truth(
    table: CatalogTable, named: pl.DataFrame, rule: str | None, asked: Request, notes: list[str]
) -> tuple[np.ndarray | None, str]:
    """Trusted classes by the rule that was given, or the table's own."""
    if rule is not None:
        return gold_classes(named, rule, asked.source)
    own = table.frame["truth"] if "truth" in table.frame.columns else None
    if own is None:
        return None, ""
    if "truth" in asked.joined.tables or own.dtype == pl.String:
        where = asked.joined.tables.get("truth", "the table")
        notes.append(f"column truth of {where} is carried as truth_input; --truth with a rule makes it trusted classes")
        return None, ""
    before = table.metadata.get("truth_definition")
    stated = before or "not stated (column truth of the table; prepare with --truth to state it)"
    try:
        return gold_classes(named, "truth", asked.source)[0], str(stated)
    except InputError as problem:
        raise InputError(f"{problem} as --truth") from problem


def _origin(file: Path, notes: list[str]) -> dict[str, Any]:
    try:
        return origin(file)
    except InputError as problem:
        notes.append(
            f"where {file.name} came from is unknown: {str(problem).replace(str(file.parent), '').lstrip('/')}"
        )
        return {"sha256": file_hash(file), "bytes": file.stat().st_size}


def _widths(mapped: Mapped, before: dict[str, Any]) -> tuple[str, str | float]:
    """What radius and width of the PSF are, for the description of α; of a prepared catalogue, what they were."""
    radius, fwhm = (mapped.sources[role] for role in ("radius", "psf_fwhm"))
    earlier = before.get("columns", {})
    radius, fwhm = (
        earlier.get(role, one) if one == role else one for role, one in (("radius", radius), ("psf_fwhm", fwhm))
    )
    return str(_phrase(radius)), _phrase(fwhm)


def _sampled(kind: Mapping, drawn: Drawn, labels: np.ndarray) -> dict[str, Any]:
    """What was asked of the sample, and whether some galaxies were drawn by label, and as many of each."""
    used = drawn.split != UNUSED
    smooth, disk = np.bincount(labels[used], minlength=2)
    said = {
        key: one if isinstance(one, str) else one.model_dump()
        for key in ("sample", "split")
        if (one := getattr(kind, key))
    }
    return {**said, "drawn": bool((~used).any()), "balanced": bool((~used).any() and smooth == disk)}


def _computed(mapped: Mapped) -> set[str]:
    """Columns that were made from others, with a cosmology."""
    return {name for name in ("radius_kpc", "M_r") if "at the distance of" in str(mapped.sources.get(name, ""))}


def _alpha(mapped: Mapped, psf: PsfUnit) -> np.ndarray:
    """α of every row, NaN where radius or PSF are not positive."""
    radius, fwhm = mapped.numbers("radius"), mapped.numbers("psf_fwhm")
    known = positive(radius) & positive(fwhm)
    alpha = np.full(radius.size, np.nan)
    if known.any():
        alpha[known] = resolution(radius[known], fwhm[known], psf)
    return alpha


def _phrase(source: str | float) -> str | float:
    """A column as it is; an expression in brackets."""
    return f"({source})" if isinstance(source, str) and not source.replace("_", "").isalnum() else source


def _draw(labels: np.ndarray, ids: pl.Series, mapping: Mapping, seed: int, source: str) -> Drawn:
    """Draw and split as the mapping says, in which is what was asked for."""
    counts = np.bincount(labels, minlength=2)
    if counts.min() == 0:
        empty = "smooth" if counts[0] == 0 else "disk"
        raise InputError(f"{source}: no galaxy is labelled {empty} among {labels.size} rows: nothing to learn from")
    sample: Any = mapping.sample
    if isinstance(sample, Sample):
        sample = (sample.smooth, sample.disk)
    sample = None if sample == ALL else sample
    split = mapping.split
    parts = SHARES if split is None else (split.train, split.validation, split.test)
    return draw_and_split(labels, ids.to_list(), sample, parts, seed)


def _catalogue(
    table: CatalogTable, mapped: Mapped, kept: np.ndarray, made: dict[str, Any], metadata: dict[str, Any]
) -> CatalogTable:
    """Put together what was made, what was mapped, and what is carried; every column of truemorph's is described."""
    own = {**mapped.frame.filter(kept).to_dict(), **made}
    absent = pl.Series(np.full(int(kept.sum()), np.nan)).fill_nan(None)
    own = {name: own.get(name, absent) for name in (*_FIRST, *(name for name in own if name not in _FIRST))}
    carried = table.frame.filter(kept).drop(mapped.replaced)
    renamed = carried_columns(carried, list(own))
    units, descriptions = (
        {renamed.get(name, name): text for name, text in texts.items() if name in carried.columns}
        for texts in (table.units, table.descriptions)
    )
    about = {name: mapped.descriptions.get(name) or MADE.get(name) or ROLES[name].about for name in own}
    frame = pl.concat([pl.DataFrame(own), carried.rename(renamed)], how="horizontal")
    return CatalogTable(frame, units | mapped.units, metadata, descriptions=descriptions | about)


def write_preparation(prepared: Preparation, out: str | os.PathLike[str]) -> Path:
    """Write the catalogue, and beside it its datasheet and a list of every row left out.

    `<name>.datasheet.md` and `<name>.dropped.csv`.

    Raises
    ------
    InputError
        If the format can't carry what α is, or the file is the table the catalogue was made from.
    """
    if Path(out).name.lower().endswith((".csv", ".csv.gz", ".tsv")):
        raise InputError(f"{out}: a catalogue carries what alpha is, which {Path(out).suffix} can't; use .parquet")
    out = Path(out)
    dropped, sheet = (out.with_name(f"{out.stem}.{end}") for end in ("dropped.csv", "datasheet.md"))
    read = {prepared.source, *prepared.inputs, *(Path(file).resolve() for file in prepared.origins)}
    for target in (out, dropped, sheet):
        if target.resolve() in read:
            raise InputError(f"{target}: would overwrite a file that the catalogue is made from; choose another --out")
    out = write_table(prepared.catalogue, out)
    write_table(CatalogTable(prepared.dropped), dropped)
    catalogue = prepared.catalogue
    # Of what has one of several units, an empty one is unknown, not none.
    own = [one for one in catalogue.frame.columns if one in MADE or (one in ROLES and len(ROLES[one].units) == 1)]
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
    partial = sheet.with_name(f".{os.getpid()}.{sheet.name}")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, sheet)
    return out


def _short(file: str, files: Iterable[str]) -> str:
    """A file's name; with its folder where another has the same."""
    path = Path(file)
    twins = [other for other in files if Path(other).name == path.name]
    return path.name if len(twins) == 1 else f"{path.parent.name}/{path.name}"
