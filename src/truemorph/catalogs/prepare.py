"""From a table of votes to a catalogue ready to measure and train on, with an account of every row."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from truemorph._version import __version__
from truemorph.catalogs.archives.provenance import origin
from truemorph.catalogs.catalogue import trusted_classes
from truemorph.catalogs.columns import Mapped, apply_mapping, carried_columns, image_paths
from truemorph.catalogs.datasheet import datasheet
from truemorph.catalogs.derived import with_physical
from truemorph.catalogs.joining import Join, join_tables
from truemorph.catalogs.mapping import Cut, Mapping, choose_mapping, read_mapping
from truemorph.catalogs.objects import kind_of
from truemorph.catalogs.physical import COSMOLOGY
from truemorph.catalogs.resolution import PsfUnit, describe_alpha, resolution
from truemorph.catalogs.roles import FRACTIONS, MADE, ROLES
from truemorph.catalogs.rows import account_rows, positive, remarks
from truemorph.catalogs.sampling import SHARES, UNUSED, Drawn, draw_and_split
from truemorph.catalogs.schema import object_ids
from truemorph.catalogs.tables import CatalogTable, read_table, write_table
from truemorph.errors import InputError

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
    """

    catalogue: CatalogTable
    dropped: pl.DataFrame
    funnel: list[tuple[str, int]]
    notes: list[str]
    source: Path | None = None
    matches: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    origins: dict[str, dict[str, Any]] = field(default_factory=dict)


def prepare_catalogue(
    source: Any,
    *,
    preset: str | None = None,
    mapping: Mapping | dict[str, Any] | str | os.PathLike[str] | None = None,
    joins: Iterable[Join | str | os.PathLike[str]] = (),
    columns: dict[str, str] | None = None,
    psf_fwhm: str | float | None = None,
    psf: PsfUnit = "sigma",
    images: str | os.PathLike[str] | None = None,
    where: Iterable[str] = (),
    keep: Iterable[str] = (),
    cosmology: str | None = None,
    balance: bool = False,
    sample: tuple[int, int] | None = None,
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
    psf_fwhm : str or float, optional
        Column of PSF FWHM in arcsec, or one number for all galaxies.
    psf : {"sigma", "fwhm"}
        Unit of α.
    images : path, optional
        Folder of images: `<image column>` or `<object id>.jpg` below it; default: that of the table with the column.
    where : iterable of str
        "column=value" conditions that rows must meet.
    keep : iterable of str
        Rules that rows must meet, SQL over the table's columns and truemorph's names, such as "petroMag_r < 17".
    cosmology : str, optional
        Of astropy's, for `radius_kpc` and `M_r`; default the mapping's, or WMAP9.
    balance : bool
        Draw equally many galaxies of each label for training. The others stay in the catalogue with split
        "unused", and `sampling_weight` undoes the selection.
    sample : tuple of 2 int, optional
        In its place, how many smooth and how many disk galaxies to draw; default the mapping's.
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
    table = read_table(source)
    path = Path(source) if isinstance(source, str | os.PathLike) else table.path
    name = kind_of(source) if path is None else str(path)
    chosen = dict(columns or {})
    if isinstance(psf_fwhm, str):
        chosen["psf_fwhm"] = psf_fwhm
    width = None if psf_fwhm is None or isinstance(psf_fwhm, str) else float(psf_fwhm)
    wanted = [one if isinstance(one, Join) else Join(one) for one in joins]
    joined = join_tables(table, wanted, _asked(preset, mapping), chosen, source=name)
    table = joined.table
    kind = choose_mapping(table.frame.columns, preset, mapping, chosen, width, name)
    kind = kind.model_copy(update={"cuts": (*kind.cuts, *(Cut(name=rule[:60], keep=rule) for rule in keep))})
    needed = [role for role in ROLES if ROLES[role].needed]
    cosmology = cosmology or kind.cosmology or COSMOLOGY
    mapped = with_physical(apply_mapping(table, kind, source=name, needed=needed), cosmology)
    ids = object_ids(mapped.frame["object_id"].alias(str(mapped.sources["object_id"])), name)
    alpha = _alpha(mapped, psf)
    # Rules speak of the table's columns and of truemorph's names; of two alike, truemorph's counts.
    named = table.frame.with_columns(*mapped.frame, pl.Series("alpha", alpha).fill_nan(None))

    notes = [*joined.notes, *mapped.notes]
    funnel, labels = account_rows(named, mapped, kind, ids, where, name, notes)
    kept = funnel.kept
    shown = joined.files.get(str(mapped.sources.get("image")), path)
    root, paths = _images(mapped, ids, kept, images, shown, notes)
    remarks(mapped, kept, notes)
    kept_ids, kept_labels = ids.filter(kept), labels[kept]
    if balance and sample is not None:
        raise InputError("a balanced sample and one of stated numbers exclude each other; give one of them")
    drawn = _draw(kept_labels, kept_ids, "balanced" if balance else sample, split, kind, seed, name)
    notes += drawn.notes

    made = {
        "object_id": kept_ids,
        "image": pl.Series([one for one, keep in zip(paths, kept, strict=True) if keep], dtype=pl.String),
        "label": kept_labels,
        "alpha": alpha[kept],
        "split": drawn.split,
        "sampling_weight": drawn.weights,
    }
    known: dict[str, Any] = {"cosmology": cosmology} if {"radius_kpc", "M_r"} & _computed(mapped) else {}
    if truth is not None:
        classes, known["truth_definition"] = trusted_classes(named.filter(kept), truth, name)
        made["truth"] = pl.Series(classes).replace(-1, None)
    elif "truth" in table.frame.columns:
        known["truth_definition"] = "not stated (column truth of the table; prepare with --truth to state it)"
    radius, fwhm = (_phrase(mapped.sources[role]) for role in ("radius", "psf_fwhm"))
    metadata: dict[str, Any] = {
        "kind": "catalogue",
        "truemorph_version": __version__,
        "source": name if path is None else path.name,
        "preset": kind.name,
        "about": kind.about,
        "votes": kind.votes,
        "columns": mapped.sources,
        "mapping": kind.model_dump(mode="json", exclude_defaults=True, exclude={"lacking"}),
        "label_rule": "largest weighted vote fraction",
        "alpha": describe_alpha(str(radius), fwhm, psf),
        "alpha_psf": psf,
        "image_root": str(root),
        "seed": seed,
        "balanced": bool((drawn.split == UNUSED).any()),
        "matches": [{"left": left, "right": right, **numbers} for left, right, numbers in joined.matches],
        **known,
    }
    catalogue = _catalogue(table, mapped, kept, made, metadata)
    files = [Path(one) for one in (path, *(join.source for join in wanted)) if isinstance(one, str | os.PathLike)]
    return Preparation(
        catalogue,
        funnel.dropped(ids),
        funnel.steps(),
        notes,
        None if path is None else path.resolve(),
        joined.matches,
        {str(file): origin(file) for file in files},
    )


def _asked(preset: str | None, mapping: Mapping | dict[str, Any] | str | os.PathLike[str] | None) -> Mapping | None:
    """The mapping that was named, if any was: it knows which columns hold ids and positions."""
    named = preset if mapping is None else mapping
    return None if named is None else read_mapping(named)


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


def _images(
    mapped: Mapped,
    ids: pl.Series,
    kept: np.ndarray,
    images: str | os.PathLike[str] | None,
    path: Path | None,
    notes: list[str],
) -> tuple[Path, list[str | None]]:
    """Find the images, and say how many are not there."""
    files = mapped.frame["image"] if "image" in mapped.frame.columns else None
    beside = Path.cwd() if path is None else path.resolve().parent
    root, paths = image_paths(ids, files, None if images is None else Path(images), beside)
    absent = sum(one is None for one, keep in zip(paths, kept, strict=True) if keep)
    if images is None and files is None:
        return root, paths
    if absent == kept.sum():
        raise InputError(
            f"{root}: none of the {kept.sum()} images is there (first looked for: "
            f"{files[0] if files is not None else f'{ids[0]}.jpg'}); give their folder with --images"
        )
    if absent:
        notes.append(f"{absent} of {kept.sum()} galaxies have no image below {root}: kept, but not trained on")
    return root, paths


def _draw(
    labels: np.ndarray,
    ids: pl.Series,
    sample: tuple[int, int] | Literal["balanced"] | None,
    split: tuple[float, float, float] | None,
    mapping: Mapping,
    seed: int,
    source: str,
) -> Drawn:
    """Draw and split as asked for, or as the mapping says."""
    counts = np.bincount(labels, minlength=2)
    if counts.min() == 0:
        empty = "smooth" if counts[0] == 0 else "disk"
        raise InputError(f"{source}: no galaxy is labelled {empty} among {labels.size} rows: nothing to learn from")
    if sample is None and mapping.sample is not None:
        sample = (mapping.sample.smooth, mapping.sample.disk)
    if split is None and mapping.split is not None:
        split = (mapping.split.train, mapping.split.validation, mapping.split.test)
    return draw_and_split(labels, ids.to_list(), sample, split or SHARES, seed)


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
    if Path(out).resolve() in {prepared.source, *(Path(file).resolve() for file in prepared.origins)}:
        raise InputError(f"{out}: would overwrite a table that it is made from; choose another --out")
    out = write_table(prepared.catalogue, out)
    write_table(CatalogTable(prepared.dropped), out.with_name(f"{out.stem}.dropped.csv"))
    catalogue = prepared.catalogue
    own = [name for name in catalogue.frame.columns if name in MADE or name in ROLES]
    page = datasheet(
        catalogue.frame,
        name=out.name,
        units=dict.fromkeys(own, "") | catalogue.units,
        descriptions=catalogue.descriptions,
        metadata={key: value for key, value in catalogue.metadata.items() if key not in ("matches", "mapping")},
        funnel=prepared.funnel,
        notes=prepared.notes,
        matches=prepared.matches,
        provenance=prepared.origins,
    )
    sheet = out.with_name(f"{out.stem}.datasheet.md")
    partial = sheet.with_name(f".{os.getpid()}.{sheet.name}")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, sheet)
    return out
