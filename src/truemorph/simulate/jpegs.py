"""Pictures of simulated galaxies as files."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import simplejpeg

from truemorph.errors import InputError
from truemorph.simulate.observe import FIELD_R90, GZ2_SIZE, render


def write_jpegs(
    galaxies: pl.DataFrame,
    folder: Path,
    size: int = GZ2_SIZE,
    seed: int = 0,
    *,
    field: float = FIELD_R90,
    quality: int = 75,
) -> list[Path]:
    """Write `<object_id>.jpg` for each galaxy, by default as Galaxy Zoo 2's: 424 pixels, quality 75, 4:2:0.

    Parameters
    ----------
    galaxies : polars.DataFrame
        From `simulate_galaxies`.
    folder : Path
        Made if it isn't there.
    size, seed, field
        As for `render`.
    quality : int
        Of the JPEG, 1 to 100; above 90 colours are kept at full resolution.

    Returns
    -------
    list of Path
        In the order of the rows.

    Raises
    ------
    InputError
        If quality is out of range.
    """
    if not 1 <= quality <= 100:
        raise InputError(f"JPEG quality is 1 to 100; got {quality}")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for row, image in render(galaxies, size, seed, field=field):
        sampling = "444" if quality > 90 else "420"
        data = simplejpeg.encode_jpeg(image, quality=quality, colorspace="RGB", colorsubsampling=sampling)
        paths.append(folder / f"{galaxies['object_id'][row]}.jpg")
        paths[-1].write_bytes(data)
    return paths
