"""What columns are called: truemorph's own names, and presets for the tables people have.

truemorph's names: `object_id`, `smooth_fraction`, `disk_fraction`, `artefact_fraction` (weighted vote
fractions, 0 to 1), `radius` (Petrosian radius, arcsec), `psf_fwhm` (arcsec), `image` (path).
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from truemorph.errors import InputError

_T01 = "t01_smooth_or_features_"


@dataclass(frozen=True)
class Preset:
    """Column names of one kind of table: candidates in order of preference for each of truemorph's names."""

    name: str
    columns: dict[str, tuple[str, ...]]
    fraction_kind: str


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "gz2",
            {
                "object_id": ("dr7objid", "objid", "dr7_objid"),
                "smooth_fraction": (f"{_T01}a01_smooth_weighted_fraction",),
                "disk_fraction": (f"{_T01}a02_features_or_disk_weighted_fraction",),
                "artefact_fraction": (f"{_T01}a03_star_or_artifact_weighted_fraction",),
                "radius": ("petroRad_r", "petroR_r"),
                "psf_fwhm": ("psfWidth_r", "psf_fwhm"),
                "image": ("image",),
            },
            "Galaxy Zoo 2 weighted fractions (Willett et al. 2013)",
        ),
        Preset(
            "gz2-debiased",
            {
                "object_id": ("dr7objid", "objid", "dr7_objid"),
                "smooth_fraction": (f"{_T01}a01_smooth_debiased",),
                "disk_fraction": (f"{_T01}a02_features_or_disk_debiased",),
                "artefact_fraction": (f"{_T01}a03_star_or_artifact_debiased",),
                "radius": ("petroRad_r", "petroR_r"),
                "psf_fwhm": ("psfWidth_r", "psf_fwhm"),
                "image": ("image",),
            },
            "Galaxy Zoo 2 debiased fractions (Hart et al. 2016)",
        ),
        Preset(
            "gz-challenge",
            {
                "object_id": ("GalaxyID",),
                "smooth_fraction": ("Class1.1",),
                "disk_fraction": ("Class1.2",),
                "artefact_fraction": ("Class1.3",),
                "radius": ("petroRad_r",),
                "psf_fwhm": ("psfWidth_r", "psf_fwhm"),
                "image": ("image",),
            },
            "Galaxy Zoo challenge fractions",
        ),
    )
}

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".fits", ".fit", ".fits.gz")
REQUIRED = ("object_id", "smooth_fraction", "radius", "psf_fwhm")
_FLAGS = {"object_id": "--id", "radius": "--radius", "psf_fwhm": "--psf-fwhm"}


def nearest(name: str, existing: list[str], n: int = 3) -> str:
    """Phrase the columns closest in name, for an error message."""
    by_case = {column.lower(): column for column in existing}
    close = difflib.get_close_matches(name.lower(), list(by_case), n=n, cutoff=0.5)
    shown = [by_case[c] for c in close] or existing[:12]
    return f"nearest: {', '.join(shown)}" if close else f"columns are: {', '.join(shown)}"


def numeric_columns(frame: pl.DataFrame, names: Sequence[str], source: str) -> np.ndarray:
    """Take numeric columns by name, shape (N, P), NaN where missing.

    Raises
    ------
    InputError
        If a column is absent (the nearest names are given) or does not hold numbers.
    """
    for name in names:
        if name not in frame.columns:
            raise InputError(f"{source}: no column {name!r}; {nearest(name, frame.columns)}")
        if not frame[name].dtype.is_numeric():
            raise InputError(f"{source}: column {name!r} holds {frame[name].dtype}, not numbers; choose another")
    return frame.select(pl.col(list(names)).cast(pl.Float64).fill_null(float("nan"))).to_numpy()


def detect_preset(columns: list[str], source: str, chosen: dict[str, str]) -> Preset:
    """Find the preset whose ids (unless chosen by the user) and smooth fraction are among the columns.

    Raises
    ------
    InputError
        If none fits.
    """
    for preset in PRESETS.values():
        if all(key in chosen or set(preset.columns[key]) & set(columns) for key in ("object_id", "smooth_fraction")):
            return preset
    raise InputError(
        f"{source}: no known kind of catalogue: expected ids and votes named as in {', '.join(PRESETS)}; "
        f"columns are: {', '.join(columns[:12])}"
    )


def find_columns(
    frame: pl.DataFrame, preset: Preset, chosen: dict[str, str], source: str, given: Collection[str] = ()
) -> dict[str, str]:
    """Map truemorph's names to the table's columns.

    Parameters
    ----------
    frame : polars.DataFrame
    preset : Preset
    chosen : dict
        Names given by the user; they win over the preset's, and must exist.
    source : str
        File name, for messages.
    given : collection of str
        Names that need no column, because the user gave a value.

    Returns
    -------
    dict
        truemorph name → column name; optional columns that are absent are left out.

    Raises
    ------
    InputError
        If a chosen or required column is absent; the message names the nearest existing ones.
    """
    unknown = set(chosen) - set(preset.columns)
    if unknown:
        raise InputError(f"unknown column role {sorted(unknown)[0]!r}; roles are {', '.join(preset.columns)}")
    found = {}
    for key, candidates in preset.columns.items():
        if key in given:
            continue
        if key in chosen:
            if chosen[key] not in frame.columns:
                raise InputError(
                    f"{source}: no column {chosen[key]!r} (asked for as {key}); {nearest(chosen[key], frame.columns)}"
                )
            found[key] = chosen[key]
            continue
        present = [name for name in candidates if name in frame.columns]
        if present:
            found[key] = present[0]
    missing = [key for key in REQUIRED if key not in found and key not in given]
    if missing:
        key = missing[0]
        wanted = " or ".join(preset.columns[key])
        how = f"; name yours with {_FLAGS[key]}" if key in _FLAGS else "; another --preset may fit"
        raise InputError(
            f"{source}: no column {wanted} ({key}) for preset {preset.name}{how} "
            f"({nearest(preset.columns[key][0], frame.columns)})"
        )
    return found


def object_ids(series: pl.Series, source: str) -> pl.Series:
    """Return ids as int64 or strings, never as floats that may have lost digits.

    Raises
    ------
    InputError
        If ids are missing, repeated, or floats that can't hold every digit.
    """
    name = series.name
    if series.null_count():
        row = int(series.is_null().arg_true()[0]) + 1
        raise InputError(
            f"{source}: column {name} has {series.null_count()} missing ids (first: row {row}); give every galaxy an id"
        )
    if series.dtype.is_float():
        values = series.to_numpy()
        if (values != values).any():
            row = int((values != values).argmax()) + 1
            raise InputError(f"{source}: column {name} has missing ids (first: row {row}); give every galaxy an id")
        # Above 2^53 (2^24 in single precision) a float can't tell neighbouring integers apart.
        exact = 2**24 if series.dtype == pl.Float32 else 2**53
        bad = (abs(values) >= exact) | (values != values.round())
        if bad.any():
            row = int(bad.argmax()) + 1
            raise InputError(
                f"{source}: column {name} holds ids as floats, and row {row} ({values[row - 1]!r}) may have "
                "lost digits; write ids as integers or text (pandas: read them with dtype='int64' or str)"
            )
        series = series.cast(pl.Int64)
    elif series.dtype.is_integer():
        largest, smallest = series.max(), series.min()
        fits = isinstance(largest, int) and isinstance(smallest, int) and smallest >= -(2**63) and largest < 2**63
        series = series.cast(pl.Int64) if fits else series.cast(pl.String)
    elif series.dtype != pl.String:
        raise InputError(f"{source}: column {name} ({series.dtype}) can't be an id; use integers or text")
    repeated = series.is_duplicated()
    if repeated.any():
        rows = repeated.arg_true().to_list()
        first = series[rows[0]]
        twins = [row + 1 for row in rows if series[row] == first]
        raise InputError(
            f"{source}: {len(rows)} rows share an id in column {name} (first: {first} in rows "
            f"{', '.join(map(str, twins[:4]))}); keep one row a galaxy"
        )
    return series.alias("object_id")
