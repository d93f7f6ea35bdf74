"""From a table of votes to a catalogue ready to measure and train on, with an account of every row."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph._version import __version__
from truemorph.catalogs.catalogue import rows_where, trusted_classes
from truemorph.catalogs.columns import Mapped, apply_mapping, carried_columns, image_paths
from truemorph.catalogs.expressions import compute, read_expression
from truemorph.catalogs.funnel import Funnel
from truemorph.catalogs.mapping import Mapping, choose_mapping
from truemorph.catalogs.objects import kind_of
from truemorph.catalogs.resolution import PsfUnit, describe_alpha, resolution
from truemorph.catalogs.roles import FRACTIONS, MADE, ROLES
from truemorph.catalogs.sampling import balanced_sample, sampling_weights, split_by_id
from truemorph.catalogs.schema import object_ids
from truemorph.catalogs.tables import CatalogTable, read_table, write_table
from truemorph.catalogs.votes import labels_from_votes
from truemorph.errors import InputError

NOT_SELECTED, NO_RADIUS, NO_PSF = "not selected by --where", "no positive radius", "no positive PSF width"
_PART_OF_LIGHT = re.compile(r"petro(?:r|_th)(50|90)", re.IGNORECASE)  # as SDSS and the NSA name such radii
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
    """

    catalogue: CatalogTable
    dropped: pl.DataFrame
    funnel: list[tuple[str, int]]
    notes: list[str]
    source: Path | None = None


def prepare_catalogue(
    source: Any,
    *,
    preset: str | None = None,
    mapping: Mapping | dict[str, Any] | str | os.PathLike[str] | None = None,
    columns: dict[str, str] | None = None,
    psf_fwhm: str | float | None = None,
    psf: PsfUnit = "sigma",
    images: str | os.PathLike[str] | None = None,
    where: Iterable[str] = (),
    balance: bool = False,
    split: tuple[float, float, float] = (0.8, 0.1, 0.1),
    truth: str | None = None,
    seed: int = 0,
) -> Preparation:
    """Make a catalogue of labels, resolution and splits from a table of votes.

    Parameters
    ----------
    source : path, or a table in memory
        See `read_table`.
    preset : str, optional
        Which survey's table it is (`truemorph.catalogs.mapping.preset_names`); found from the columns if not given.
    mapping : path, dict or Mapping, optional
        In place of a preset, a description of your own (`truemorph.catalogs.mapping.read_mapping`).
    columns : dict, optional
        Columns that differ from the mapping's, by truemorph's name (`object_id`, `radius`, `image`, …).
    psf_fwhm : str or float, optional
        Column of PSF FWHM in arcsec, or one number for all galaxies.
    psf : {"sigma", "fwhm"}
        Unit of α.
    images : path, optional
        Folder of images: `<image column>` or `<object id>.jpg` below it; default: beside the table.
    where : iterable of str
        "column=value" conditions that rows must meet.
    balance : bool
        Draw equally many galaxies of each label for training. The others stay in the catalogue with split
        "unused", and `sampling_weight` undoes the selection.
    split : tuple of 3 floats
        Shares of train, validation, test.
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
    kind = choose_mapping(table.frame.columns, preset, mapping, chosen, width, name)
    needed = [role for role in ROLES if ROLES[role].needed]
    mapped = apply_mapping(table, kind, source=name, needed=needed)
    ids = object_ids(mapped.frame["object_id"].alias(str(mapped.sources["object_id"])), name)
    alpha = _alpha(mapped, psf)
    # Rules speak of the table's columns and of truemorph's names; of two alike, truemorph's counts.
    named = table.frame.with_columns(*mapped.frame, pl.Series("alpha", alpha).fill_nan(None))

    notes = list(mapped.notes)
    funnel, labels = _account(named, mapped, kind, ids, where, name, notes)
    kept = funnel.kept
    root, paths = _images(mapped, ids, kept, images, path, notes)
    _remark(mapped, kept, notes)
    kept_ids, kept_labels = ids.filter(kept), labels[kept]
    splits, weights = _draw(kept_labels, kept_ids, balance, split, seed, name)

    made = {
        "object_id": kept_ids,
        "image": pl.Series([one for one, keep in zip(paths, kept, strict=True) if keep], dtype=pl.String),
        "label": kept_labels,
        "alpha": alpha[kept],
        "split": splits,
        "sampling_weight": weights,
    }
    known = {}
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
        "balanced": balance,
        **known,
    }
    catalogue = _catalogue(table, mapped, kept, made, metadata)
    return Preparation(catalogue, funnel.dropped(ids), funnel.steps(), notes, None if path is None else path.resolve())


def _alpha(mapped: Mapped, psf: PsfUnit) -> np.ndarray:
    """α of every row, NaN where radius or PSF are not positive."""
    radius, fwhm = mapped.numbers("radius"), mapped.numbers("psf_fwhm")
    known = _positive(radius) & _positive(fwhm)
    alpha = np.full(radius.size, np.nan)
    if known.any():
        alpha[known] = resolution(radius[known], fwhm[known], psf)
    return alpha


def _positive(values: np.ndarray) -> np.ndarray:
    return np.isfinite(values) & (values > 0)


def _phrase(source: str | float) -> str | float:
    """A column as it is; an expression in brackets."""
    return f"({source})" if isinstance(source, str) and not source.replace("_", "").isalnum() else source


def _account(
    named: pl.DataFrame,
    mapped: Mapped,
    mapping: Mapping,
    ids: pl.Series,
    where: Iterable[str],
    source: str,
    notes: list[str],
) -> tuple[Funnel, np.ndarray]:
    """Apply every rule; labels of rows that are left, -1 elsewhere.

    The order is that of the funnel: what was asked for, the mapping's cuts, votes, sizes.
    """
    funnel = Funnel(named.height)
    funnel.drop(NOT_SELECTED, ~rows_where(named, where, source))
    for cut in mapping.cuts:
        about = f"{source}: cut {cut.name!r}"
        keep = compute(read_expression(cut.keep, about), named, about)
        if keep.dtype not in (pl.Boolean, pl.Null):
            raise InputError(f"{about}: keep = {cut.keep!r} gives {keep.dtype}, not true or false; write a comparison")
        lost = funnel.drop(cut.name, ~keep.fill_null(False).cast(pl.Boolean).to_numpy(), show=True)
        unknown = int((keep.is_null().to_numpy() & lost).sum())
        if unknown:
            notes.append(f"cut {cut.name!r}: {unknown} of the rows it drops lack a value that it needs")
    fractions = {role: mapped.numbers(role) for role in FRACTIONS}
    selected = funnel.kept
    for role, values in fractions.items():
        bad = np.flatnonzero(selected & ((values < -1e-6) | (values > 1 + 1e-6)))
        if bad.size:
            raise InputError(
                f"{source}: column {mapped.sources[role]} holds vote fractions, between 0 and 1; {bad.size} rows do "
                f"not (first: row {bad[0] + 1}, {values[bad[0]]:g}); are they counts or percentages?"
            )
    labels = np.full(named.height, -1)
    reasons = np.full(named.height, "", dtype="<U32")
    labels[selected], reasons[selected] = labels_from_votes(*(values[selected] for values in fractions.values()))
    for reason in np.unique(reasons[reasons != ""]):
        funnel.drop(str(reason), reasons == reason)
    for rule, role, option in ((NO_RADIUS, "radius", "--radius"), (NO_PSF, "psf_fwhm", "--psf-fwhm")):
        values = mapped.numbers(role)
        newly = funnel.drop(rule, ~_positive(values))
        if newly.any():
            row = int(newly.argmax())
            column = mapped.sources[role] if isinstance(mapped.sources[role], str) else option
            notes.append(
                f"{source}: {newly.sum()} rows dropped, column {column} is missing, zero or negative "
                f"(first: row {row + 1}, id {ids[row]}, {values[row]:g}); mend them to keep them"
            )
    if not funnel.kept.any():
        lost_to = ", ".join(f"{rule}: {-n}" for rule, n in funnel.steps()[1:-1])
        raise InputError(f"{source}: no rows left ({lost_to})")
    return funnel, labels


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


def _remark(mapped: Mapped, kept: np.ndarray, notes: list[str]) -> None:
    """Say what is unusual in votes, widths and radii."""
    unknown = int((np.isnan(mapped.numbers("disk_fraction")) & kept).sum())
    if unknown:
        notes.append(
            f"{unknown} rows lack the features-or-disk fraction: labelled smooth above 0.5; "
            "the star-or-artefact rule needs it"
        )
    elif "artefact_fraction" not in mapped.sources:
        notes.append("no star-or-artefact fraction in this table: none dropped as such")
    if np.ptp(mapped.numbers("psf_fwhm")[kept]) == 0:
        notes.append("one PSF width for all galaxies: alpha is then only a size in other units")
    part = _PART_OF_LIGHT.search(str(mapped.sources["radius"]))
    if part:
        notes.append(
            f"alpha is made from {mapped.sources['radius']}, the radius of {part[1]} % of the light, not the Petrosian "
            "radius; theta is in its units and can't be compared with the paper's"
        )


def _draw(
    labels: np.ndarray, ids: pl.Series, balance: bool, split: tuple[float, float, float], seed: int, source: str
) -> tuple[np.ndarray, np.ndarray]:
    """Parts to train, validate and test on, and the weights that undo a balanced choice."""
    counts = np.bincount(labels, minlength=2)
    if counts.min() == 0:
        empty = "smooth" if counts[0] == 0 else "disk"
        raise InputError(f"{source}: no galaxy is labelled {empty} among {labels.size} rows: nothing to learn from")
    weights = np.ones(labels.size)
    chosen = np.ones(labels.size, dtype=bool)
    if balance:
        chosen = balanced_sample(labels, ids.to_list(), seed)
        weights = sampling_weights(labels, chosen)
    splits = np.full(labels.size, "unused", dtype="<U10")
    splits[chosen] = split_by_id(ids.filter(chosen).to_list(), split, seed)
    return splits, weights


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
    """Write the catalogue, and beside it `<name>.dropped.csv` with every row left out.

    Raises
    ------
    InputError
        If the format can't carry what α is, or the file is the table the catalogue was made from.
    """
    if Path(out).name.lower().endswith((".csv", ".csv.gz", ".tsv")):
        raise InputError(f"{out}: a catalogue carries what alpha is, which {Path(out).suffix} can't; use .parquet")
    if prepared.source is not None and Path(out).resolve() == prepared.source:
        raise InputError(f"{out}: would overwrite the table of votes; choose another --out")
    out = write_table(prepared.catalogue, out)
    write_table(CatalogTable(prepared.dropped), out.with_name(f"{out.stem}.dropped.csv"))
    return out
