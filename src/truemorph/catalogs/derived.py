"""What follows from a table's columns and a cosmology: radius in kpc, absolute magnitude."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from truemorph.catalogs.columns import Mapped
from truemorph.catalogs.physical import COSMOLOGY, absolute_magnitude, cosmology_name, physical_radius_kpc
from truemorph.catalogs.roles import ROLES, part_of_light


def with_physical(mapped: Mapped, cosmology: Any = COSMOLOGY) -> Mapped:
    """Add `radius_kpc` and `M_r` where they can be made and the table does not have them.

    Parameters
    ----------
    mapped : Mapped
        With `redshift`, and `radius` (arcsec) for a radius, `magnitude` (and `extinction`) for a magnitude.
    cosmology : str or astropy.cosmology.FLRW

    Returns
    -------
    Mapped
        What it was given, if nothing could be added. Each new column's description says what it is made from.
    """
    have = set(mapped.frame.columns)
    made: dict[str, np.ndarray] = {}
    said: dict[str, str] = {}
    if "redshift" not in have or {"radius_kpc", "M_r"} <= have:
        return mapped
    called = cosmology_name(cosmology)
    redshift, z = mapped.numbers("redshift"), mapped.sources["redshift"]
    if "radius_kpc" not in have:
        made["radius_kpc"] = physical_radius_kpc(mapped.numbers("radius"), redshift, cosmology)
        said["radius_kpc"] = f"{mapped.sources['radius']} at the distance of {z} ({called})"
    if "M_r" not in have and "magnitude" in have:
        dust = mapped.numbers("extinction") if "extinction" in have else 0.0
        made["M_r"] = absolute_magnitude(mapped.numbers("magnitude"), redshift, dust, cosmology)
        less = f"less {mapped.sources['extinction']}" if "extinction" in have else "nothing taken off for extinction"
        said["M_r"] = f"{mapped.sources['magnitude']}, {less}, at the distance of {z} ({called}); no K-correction"
    about = {name: f"{ROLES[name].about}: {text}" for name, text in said.items()}
    part = part_of_light(str(mapped.sources.get("radius", "")))
    if part and "radius_kpc" in said:
        about["radius_kpc"] = f"physical radius of {part} % of the Petrosian light: {said['radius_kpc']}"
    units = {name: ROLES[name].units[0] for name in made}
    frame = mapped.frame.with_columns(pl.Series(name, values).fill_nan(None) for name, values in made.items())
    return replace(
        mapped, frame=frame, units=mapped.units | units, descriptions=mapped.descriptions | about,
        sources={**mapped.sources, **said},
    )  # fmt: skip
