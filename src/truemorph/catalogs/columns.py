"""Columns of a catalogue: names, units, descriptions, and conversion of units."""

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from truemorph.findings import Finding
from truemorph.questions import SMOOTH_OR_DISK, columns_of

FRACTIONS = ("smooth_fraction", "disk_fraction", "artefact_fraction")
VOTES = ("smooth_votes", "disk_votes", "artefact_votes")
# Properties of an image beside resolution, on which labels may depend.
OBSERVABLES = ("surface_brightness", "snr", "depth")
_COUNTS = (0, 2.0**53)


@dataclass(frozen=True)
class NamedColumn:
    """A column of a survey's table, which may have another name there.

    `unit` is that of the catalogue, "" if dimensionless. `argument` of `truemorph prepare` names the survey's column.
    Values outside `limits` are impossible and treated as missing. Of observables, which describe the image, `best`
    is the end at which galaxies are seen best: "first" if small values are good, as of magnitudes.
    """

    description: str
    unit: str = ""
    kind: Literal["number", "count", "id", "file", "label"] = "number"
    argument: str = ""
    limits: tuple[float, float] = (-1e6, 1e6)
    best: Literal["", "first", "last"] = ""


NAMED: dict[str, NamedColumn] = {
    "object_id": NamedColumn("identifier of the galaxy", kind="id", argument="id"),
    "image": NamedColumn("image file, relative to the folder image_root in the metadata", kind="file"),
    "label": NamedColumn("observed label: 0 or 1, for the first or second class", kind="label", argument="label"),
    "hart_label": NamedColumn("label by the debiased votes of Hart et al. (2016): 0 or 1", kind="label"),
    "smooth_fraction": NamedColumn("fraction of votes for the first class, such as smooth", argument="smooth"),
    "disk_fraction": NamedColumn("fraction of votes for the second class, such as features or disk", argument="disk"),
    "artefact_fraction": NamedColumn('fraction of votes for "star or artefact"', argument="artifact"),
    "smooth_votes": NamedColumn(
        "number of votes for the first class, such as smooth", kind="count", argument="smooth", limits=_COUNTS
    ),
    "disk_votes": NamedColumn(
        "number of votes for the second class, such as features or disk", kind="count", argument="disk", limits=_COUNTS
    ),
    "artefact_votes": NamedColumn(
        'number of votes for "star or artefact"', kind="count", argument="artifact", limits=_COUNTS
    ),
    "vote_count": NamedColumn("number of votes on the first question", kind="count", limits=_COUNTS),
    "radius": NamedColumn("Petrosian radius", "arcsec", argument="radius", best="last"),
    "radius_error": NamedColumn("error of the Petrosian radius", "arcsec", limits=(0, 1e6)),
    "psf_error": NamedColumn("error of the full width at half maximum of the PSF", "arcsec", limits=(0, 1e6)),
    "alpha_error": NamedColumn("relative error of the resolution alpha", limits=(0, 1e6)),
    "r50": NamedColumn("radius of half of the light", "arcsec", best="last"),
    "psf_fwhm": NamedColumn("full width at half maximum of the PSF", "arcsec", argument="psf_fwhm", best="first"),
    "alpha": NamedColumn("resolution: radius over the width of the PSF", argument="alpha", best="last"),
    "ra": NamedColumn("right ascension", "deg"),
    "dec": NamedColumn("declination", "deg"),
    "redshift": NamedColumn("redshift", limits=(-0.5, 20)),
    "magnitude": NamedColumn("apparent magnitude, r band", "mag", limits=(-10, 50), best="first"),
    "surface_brightness": NamedColumn("surface brightness as observed", "mag / arcsec2", limits=(0, 50), best="first"),
    "snr": NamedColumn("signal-to-noise ratio of the galaxy in the image", best="last"),
    "depth": NamedColumn("limiting magnitude of the image", "mag", limits=(-10, 50), best="last"),
    "extinction": NamedColumn("Galactic extinction, r band", "mag", limits=(-1, 50)),
    "radius_kpc": NamedColumn("physical Petrosian radius", "kpc"),
    "M_r": NamedColumn("absolute magnitude, r band", "mag", limits=(-50, 20)),
    "rest_surface_brightness": NamedColumn("surface brightness in the rest frame", "mag / arcsec2", limits=(-20, 50)),
    "sersic_n": NamedColumn("Sersic index", limits=(0, 50)),
    "ellipticity": NamedColumn("ellipticity, 1 - b/a", limits=(0, 1)),
    "r_half": NamedColumn("half-light radius", "kpc"),
}

# Columns that `prepare` adds. FITS headers hold ASCII only, so descriptions have no Greek letters.
ADDED = {
    "label": "observed label, the majority of the votes: the number of its class, from 0",
    "alpha": "resolution: Petrosian radius over the width of the PSF; its definition is in the metadata",
    "split": "train, validation or test; unused if the galaxy is not in the sample",
    "sampling_weight": "weight that corrects for selecting the sample by label",
    "gold": "gold label: 0 or 1, for the first or second class; gold_definition in the metadata defines it",
    "gold_probability": "probability with which the galaxy was selected for a gold label",
    "gold_uncertain": "1 where people could not tell the class, or did not agree",
}

# The column of observed labels in a table of a model's labels.
OBSERVED_LABEL = "observed_label"

# Columns that later commands add to a catalogue.
RESERVED = (
    "p_spread",
    "label",
    "relation",
    "observed_label",
    "alpha",
    "split",
    "unlike_training",
    "posterior_label",
    "label_quality",
    "model_hash",
    *columns_of("p", SMOOTH_OR_DISK),
    *columns_of("posterior", SMOOTH_OR_DISK),
    "model_label",
    "draw_weight",
)

_PERCENT_OF_LIGHT = re.compile(r"petro(?:r|_th)(50|90)", re.IGNORECASE)


def percent_of_light(column: str) -> str | None:
    """Return the percentage of the light that a radius encloses, for names such as SDSS's petroR90_r."""
    match = _PERCENT_OF_LIGHT.search(column)
    return None if match is None else match[1]


# Names of columns of votes in the tables of Galaxy Zoo, and of positions.
_OF_VOTES = re.compile(
    r"debias|vote|(?<!\bbulge)_frac(tion)?\b|weighted_|smooth[-_]or|\bt\d\d_|\bclass\d+\.\d+|\bp_(el|cw|acw|edge|dk|mg|cs)\b"
    r"|gz\d?_?(spiral|elliptical|uncertain)",
    re.IGNORECASE,
)
_OF_POSITIONS = re.compile(
    r"(^|_)(ra|dec|de|raj2000|dej2000|glon|glat|elon|elat|htmid|x|y|xpix|ypix)(_|deg|$)", re.IGNORECASE
)


def names_votes(text: str) -> bool:
    """Whether a column's name, or a rule, names votes of volunteers, debiased ones too."""
    return _OF_VOTES.search(text) is not None


_LENTICULAR = re.compile(r"(e/)?s[ab]{0,2}0.*|lenticulars?", re.IGNORECASE)


def lenticulars(words: Iterable[object], classes: Sequence[str] = SMOOTH_OR_DISK) -> str:
    """Return what to do about class names such as S0 among these words; empty if there are none."""
    named = sorted({str(word) for word in words if _LENTICULAR.fullmatch(str(word).strip())})
    if not named:
        return ""
    return (
        f"; whether lenticulars ({', '.join(named[:3])}) are {classes[1]}s depends on your definition, so count them "
        f"as {classes[1]}, as {classes[0]}, or as neither, and state it (`definition`)"
    )


def names_position(column: str) -> bool:
    """Whether a column's name is that of a position on the sky or on a detector."""
    return _OF_POSITIONS.search(column) is not None


def free_name(name: str, taken: Container[str]) -> str:
    """Return a name that is not taken, by appending underscores."""
    while name in taken:
        name += "_"
    return name


def which_rows(bad: np.ndarray | pl.Series, values: pl.Series | np.ndarray | None = None) -> str:
    """Describe how many rows are bad, and the first of them: "2 of 3 rows (first: row 2, 7.5)"."""
    row = int(np.asarray(bad).argmax())
    value = None if values is None else values[row]
    shown = "" if value is None else f", {value.item()!r}" if isinstance(value, np.generic) else f", {value!r}"
    return f"{bad.sum():,d} of {len(bad):,d} rows (first: row {row + 1}{shown})"


def vote_findings(values: np.ndarray, question: str, about: str = "") -> Iterator[Finding]:
    """Say where votes for a question and its gates, shape (N, P), are impossible or missing."""
    if (bad := ((values < 0) | np.isinf(values)).any(axis=1)).any():
        outside = f"{about}Numbers of votes below 0 or infinite were treated as missing in {which_rows(bad)}."
        yield Finding("values-impossible", "caution", outside, "Check the columns of votes.")
    if (missing := np.isnan(values).any(axis=1)).any():
        absent = (
            f"{about}Votes for {question!r} or its gates are missing in {which_rows(missing)}, and count as no votes."
        )
        yield Finding("votes-missing", "note", absent)


# Spellings in archives and published tables that astropy can't parse.
_SPELLINGS = {
    **dict.fromkeys(("degrees", "deg (j2000)", "j2000 degrees"), "deg"),
    **dict.fromkeys(("arcsecs", "arcseconds", "asec", '"'), "arcsec"),
    **dict.fromkeys(("arcmins", "arcminutes", "amin", "'"), "arcmin"),
    **dict.fromkeys(("ab mag", "abmag", "mag(ab)", "mags", "magnitude"), "mag"),
    **dict.fromkeys(("pixel", "pixels"), "pix"),
    **dict.fromkeys(("fraction", "redshift", "-"), ""),
}


def conversion(unit: str, wanted: str) -> float | None:
    """Return the conversion factor to a unit, also from spellings in published tables; None if there is none.

    Logarithmic units (dex, dB, magnitudes other than AB) have no factor.
    """
    if unit == wanted:
        return 1.0
    from astropy import units as u

    lower = unit.strip().lower()
    for text in (_SPELLINGS.get(lower, unit), lower):
        try:
            own = u.Unit(text)
            factor = float(own.to(u.Unit(wanted)))
        except (TypeError, ValueError, OverflowError):  # astropy can raise any of these
            continue
        logarithmic = isinstance(own, u.function.FunctionUnitBase) or {u.dex, u.dB} & {own, *own.bases}
        return factor if not logarithmic and 0 < factor < np.inf else None
    return None
