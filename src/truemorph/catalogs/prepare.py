"""From a table of votes to a catalogue ready to measure and train on, with an account of every row."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph._version import __version__
from truemorph.catalogs.catalogue import rows_where, trusted_classes
from truemorph.catalogs.resolution import PsfUnit, describe_alpha, resolution
from truemorph.catalogs.sampling import balanced_sample, sampling_weights, split_by_id
from truemorph.catalogs.schema import IMAGE_ENDINGS, PRESETS, detect_preset, find_columns, object_ids
from truemorph.catalogs.tables import CatalogTable, read_table, write_table
from truemorph.catalogs.votes import labels_from_votes
from truemorph.errors import InputError

NOT_SELECTED, NO_RADIUS, NO_PSF = "not selected by --where", "no positive radius", "no positive PSF width"
_OWN_NAMES = (
    "object_id",
    "image",
    "label",
    "alpha",
    "smooth_fraction",
    "disk_fraction",
    "artefact_fraction",
    "radius",
    "psf_fwhm",
    "split",
    "sampling_weight",
    # What `label` and `bias` call their own.
    "p_smooth",
    "p_disk",
    "p_spread",
    "relation",
    "crowd_label",
    "model_label",
    "posterior_smooth",
    "posterior_disk",
    "posterior_label",
    "label_quality",
)


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
    """

    catalogue: CatalogTable
    dropped: pl.DataFrame
    funnel: list[tuple[str, int]]
    notes: list[str]
    source: Path | None = None


def _floats(frame: pl.DataFrame, column: str | None, source: str) -> np.ndarray:
    if column is None:
        return np.full(frame.height, np.nan)
    series = frame[column]
    if not series.dtype.is_numeric():
        numeric = series.cast(pl.Float64, strict=False)
        bad = numeric.is_null() & series.is_not_null()
        if bad.any():
            row = int(bad.arg_true()[0])
            raise InputError(
                f"{source}: column {column} should hold numbers, but row {row + 1} is {series[row]!r}; "
                "mend it, or leave it empty if unknown"
            )
        series = numeric
    return series.cast(pl.Float64).fill_null(np.nan).to_numpy()


def _in_arcsec(values: np.ndarray, column: str, units: dict[str, str], source: str) -> np.ndarray:
    unit = units.get(column)
    if unit is None:
        return values
    from astropy import units as u

    try:
        return values * u.Unit(unit).to(u.arcsec)
    except (ValueError, u.UnitConversionError) as problem:
        raise InputError(
            f"{source}: column {column} is in {unit!r}, which is not an angle; give a column in arcsec"
        ) from problem


def _free_names(columns: list[str]) -> dict[str, str]:
    """New names for carried columns that are called like one of truemorph's own."""
    renamed: dict[str, str] = {}
    for name in columns:
        if name in _OWN_NAMES:
            free = f"{name}_input"
            while free in columns or free in renamed.values():
                free += "_"
            renamed[name] = free
    return renamed


def _image_paths(
    frame: pl.DataFrame, ids: pl.Series, column: str | None, images: Path | None, table_folder: Path
) -> tuple[Path, list[str | None]]:
    """Image root, and each galaxy's path below it (None where there is no file)."""
    if column is None and images is None:
        return table_folder, [None] * frame.height
    root = (images or table_folder).resolve()
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of images")
    if column is not None:
        # As written, or by its last part: the folder may be the one that the column names.
        given = frame[column].cast(pl.String).to_list()
        names = [[name, name.rsplit("/", 1)[-1]] if name else [] for name in given]
    else:
        ends = [end for lower in IMAGE_ENDINGS for end in (lower, lower.upper())]
        names = [[f"{one}{end}" for end in ends] for one in ids.to_list()]
    return root, [next((n for n in some if (root / n).is_file()), None) for some in names]


def prepare_catalogue(
    path: str | os.PathLike[str],
    *,
    preset: str | None = None,
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
    path : path
        The table (see `read_table`).
    preset : {"gz2", "gz2-debiased", "gz-challenge"}, optional
        How its columns are named; found from the columns if not given.
    columns : dict, optional
        Names that differ from the preset's, by truemorph's name (`object_id`, `radius`, `image`, …).
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
    table = read_table(path)
    frame, source = table.frame, str(path)
    columns = dict(columns or {})
    constant_psf = None
    if isinstance(psf_fwhm, str):
        columns["psf_fwhm"] = psf_fwhm
    elif psf_fwhm is not None:
        constant_psf = float(psf_fwhm)
    if preset is not None and preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    kind = PRESETS[preset] if preset else detect_preset(frame.columns, source, columns)
    given = {"psf_fwhm"} if constant_psf is not None else set()
    found = find_columns(frame, kind, columns, source, given)
    ids = object_ids(frame[found["object_id"]], source)

    fractions = {
        key: _floats(frame, found.get(key), source) for key in ("smooth_fraction", "disk_fraction", "artefact_fraction")
    }
    radius = _in_arcsec(_floats(frame, found["radius"], source), found["radius"], table.units, source)
    if constant_psf is not None:
        fwhm = np.full(frame.height, constant_psf)
    else:
        fwhm = _in_arcsec(_floats(frame, found["psf_fwhm"], source), found["psf_fwhm"], table.units, source)

    notes = []
    # The first rule that fails names the reason; the order is that of the funnel.
    reason = np.full(frame.height, "", dtype="<U32")
    selected = rows_where(frame, where, source)
    for key, values in fractions.items():
        bad = np.flatnonzero(selected & ((values < -1e-6) | (values > 1 + 1e-6)))
        if bad.size:
            raise InputError(
                f"{source}: column {found[key]} holds vote fractions, between 0 and 1; {bad.size} rows do not "
                f"(first: row {bad[0] + 1}, {values[bad[0]]:g}); are they counts or percentages?"
            )
    labels = np.full(frame.height, -1)
    reasons = np.full(frame.height, "", dtype="<U32")
    labels[selected], reasons[selected] = labels_from_votes(*(values[selected] for values in fractions.values()))
    for rule, broken in (
        (NOT_SELECTED, ~selected),
        *((str(name), reasons == name) for name in np.unique(reasons[reasons != ""])),
        (NO_RADIUS, ~(np.isfinite(radius) & (radius > 0))),
        (NO_PSF, ~(np.isfinite(fwhm) & (fwhm > 0))),
    ):
        newly = broken & (reason == "")
        reason[newly] = rule
        if rule in (NO_RADIUS, NO_PSF) and newly.any():
            row = int(newly.argmax())
            column = found["radius"] if rule == NO_RADIUS else found.get("psf_fwhm", "--psf-fwhm")
            value = (radius if rule == NO_RADIUS else fwhm)[row]
            notes.append(
                f"{source}: {newly.sum()} rows dropped, column {column} is missing, zero or negative "
                f"(first: row {row + 1}, id {ids[row]}, {value:g}); mend them to keep them"
            )
    kept = reason == ""
    counted = [(str(rule), int((reason == rule).sum())) for rule in dict.fromkeys(reason[reason != ""])]
    funnel = [("rows in", frame.height), *((rule, -n) for rule, n in counted), ("rows out", int(kept.sum()))]
    if not kept.any():
        lost = ", ".join(f"{rule}: {n}" for rule, n in counted)
        raise InputError(f"{source}: no rows left ({lost})")

    root, paths = _image_paths(
        frame, ids, found.get("image"), None if images is None else Path(images), Path(path).resolve().parent
    )
    wants_images = images is not None or "image" in found
    n_absent = sum(one is None for one, keep in zip(paths, kept, strict=True) if keep)
    if wants_images and n_absent == kept.sum():
        raise InputError(
            f"{root}: none of the {kept.sum()} images is there (first looked for: "
            f"{(frame[found['image']][0] if 'image' in found else f'{ids[0]}.jpg')}); give their folder with --images"
        )
    if wants_images and n_absent:
        notes.append(f"{n_absent} of {kept.sum()} galaxies have no image below {root}: kept, but not trained on")
    unknown_disk = int((np.isnan(fractions["disk_fraction"]) & kept).sum())
    if unknown_disk:
        notes.append(
            f"{unknown_disk} rows lack the features-or-disk fraction: labelled smooth above 0.5; "
            "the star-or-artefact rule needs it"
        )
    elif "artefact_fraction" not in found:
        notes.append("no star-or-artefact fraction in this table: none dropped as such")
    if np.ptp(fwhm[kept]) == 0:
        notes.append("one PSF width for all galaxies: alpha is then only a size in other units")
    if found["radius"].lower().startswith("petror90"):
        notes.append(
            f"alpha is made from {found['radius']}, the radius of 90 % of the light, not the Petrosian radius; "
            "theta is in its units and can't be compared with the paper's"
        )

    counts = np.bincount(labels[kept], minlength=2)
    if counts.min() == 0:
        empty = "smooth" if counts[0] == 0 else "disk"
        raise InputError(f"{source}: no galaxy is labelled {empty} among {kept.sum()} rows: nothing to learn from")
    kept_ids, kept_labels = ids.filter(kept), labels[kept]
    weights = np.ones(kept_labels.size)
    chosen = np.ones(kept_labels.size, dtype=bool)
    if balance:
        chosen = balanced_sample(kept_labels, kept_ids.to_list(), seed)
        weights = sampling_weights(kept_labels, chosen)
    splits = np.full(kept_labels.size, "unused", dtype="<U10")
    splits[chosen] = split_by_id(kept_ids.filter(chosen).to_list(), split, seed)

    own = pl.DataFrame(
        {
            "object_id": kept_ids,
            "image": pl.Series([p for p, k in zip(paths, kept, strict=True) if k], dtype=pl.String),
            "label": kept_labels,
            "alpha": resolution(radius[kept], fwhm[kept], psf),
            **{key: values[kept] for key, values in fractions.items()},
            "radius": radius[kept],
            "psf_fwhm": fwhm[kept],
            "split": splits,
            "sampling_weight": weights,
        }
    ).with_columns(pl.col(list(fractions)).fill_nan(None))
    # What truemorph's own columns hold already is not carried twice.
    carried = frame.filter(kept).drop(set(found.values()))
    known = {}
    if truth is not None:
        classes, known["truth_definition"] = trusted_classes(carried, truth, source)
        if "truth" in carried.columns:
            carried = carried.rename({"truth": "truth_input"})
        own = own.with_columns(truth=pl.Series(classes).replace(-1, None))
    elif "truth" in carried.columns:
        known["truth_definition"] = "not stated (column truth of the table; prepare with --truth to state it)"
    carried = carried.rename(_free_names(carried.columns))
    metadata: dict[str, Any] = {
        "kind": "catalogue",
        "truemorph_version": __version__,
        "source": Path(path).name,
        "preset": kind.name,
        "votes": kind.fraction_kind,
        "columns": found,
        "label_rule": "largest weighted vote fraction",
        "alpha": describe_alpha(found["radius"], found["psf_fwhm"] if constant_psf is None else constant_psf, psf),
        "alpha_psf": psf,
        "image_root": str(root),
        "seed": seed,
        "balanced": balance,
        **known,
    }
    dropped = pl.DataFrame(
        {"row": np.flatnonzero(~kept) + 1, "object_id": ids.filter(~kept), "reason": reason[~kept].tolist()}
    )
    units = {"radius": "arcsec", "psf_fwhm": "arcsec"}
    units |= {name: unit for name, unit in table.units.items() if name in carried.columns}
    catalogue = CatalogTable(pl.concat([own, carried], how="horizontal"), units, metadata)
    return Preparation(catalogue, dropped, funnel, notes, Path(path).resolve())


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
