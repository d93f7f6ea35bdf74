"""What truemorph calls the columns of a catalogue: names, units, and a description of each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

FRACTIONS = ("smooth_fraction", "disk_fraction", "artefact_fraction")
VOTES = ("smooth_votes", "disk_votes", "artefact_votes")


@dataclass(frozen=True)
class Role:
    """One of truemorph's names for what a table may hold.

    Attributes
    ----------
    about : str
        Description of the column in a catalogue.
    units : tuple of str
        The unit it is converted to; the first of several to which its own can be. "" is a pure number.
    kind : {"number", "count", "id", "file"}
    needed : bool
        Whether a catalogue can't be made without it.
    option : str
        Of `truemorph prepare`, where there is one.
    """

    about: str
    units: tuple[str, ...] = ("",)
    kind: Literal["number", "count", "id", "file"] = "number"
    needed: bool = False
    option: str = ""


ROLES: dict[str, Role] = {
    "object_id": Role("identifier of the galaxy", kind="id", needed=True, option="--id"),
    "image": Role("file of the image, below the folder in image_root", kind="file"),
    "smooth_fraction": Role('share of votes for "smooth"', needed=True),
    "disk_fraction": Role('share of votes for "features or disk"'),
    "artefact_fraction": Role('share of votes for "star or artefact"'),
    "smooth_votes": Role('number of votes for "smooth"', kind="count"),
    "disk_votes": Role('number of votes for "features or disk"', kind="count"),
    "artefact_votes": Role('number of votes for "star or artefact"', kind="count"),
    "vote_count": Role("number of votes on the first question", kind="count"),
    "radius": Role("Petrosian radius", ("arcsec",), needed=True, option="--radius"),
    "psf_fwhm": Role("full width at half maximum of the PSF", ("arcsec",), needed=True, option="--psf-fwhm"),
    "ra": Role("right ascension", ("deg",)),
    "dec": Role("declination", ("deg",)),
    "redshift": Role("redshift"),
    "magnitude": Role("apparent magnitude, r band", ("mag",)),
    "extinction": Role("Galactic extinction, r band", ("mag",)),
    "radius_kpc": Role("physical Petrosian radius", ("kpc",)),
    "M_r": Role("absolute magnitude, r band", ("mag",)),
    "sersic_n": Role("Sersic index"),
    "ellipticity": Role("ellipticity, 1 - b/a"),
    "r_half": Role("half-light radius", ("kpc", "arcsec")),
}

# A catalogue's own columns besides. FITS headers hold ASCII only: no Greek letters.
MADE = {
    "label": "majority of the votes: 0 smooth, 1 disk",
    "alpha": "resolution: radius over the width of the PSF; metadata say in which unit",
    "split": "train, validation or test; unused where not drawn for the sample",
    "sampling_weight": "undoes the choice of the sample by label",
    "truth": "trusted class, 0 smooth, 1 disk; truth_definition in the metadata says what a disk is",
}

# Names that `label` and `bias` give to columns of their own.
LATER = (
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

_PART_OF_LIGHT = re.compile(r"petro(?:r|_th)(50|90)", re.IGNORECASE)


def part_of_light(column: str) -> str | None:
    """How many per cent of the light a radius encloses that is no Petrosian radius, as SDSS and the NSA name such.

    Examples
    --------
    >>> part_of_light("petroR90_r"), part_of_light("petroRad_r")
    ('90', None)
    """
    found = _PART_OF_LIGHT.search(column)
    return None if found is None else found[1]
