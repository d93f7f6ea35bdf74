"""Columns of Simard et al. (2011), tables 1 to 3: VizieR's names, truemorph's, units, and what is missing."""

from __future__ import annotations

import polars as pl

from truemorph.catalogs.archives.fetched import Column

_MISSING = -99.99

# VizieR's name: truemorph's name, unit, what it is.
_COMMON = {
    "objID": ("objID", "", "SDSS DR7 objID"),
    "z": ("z", "", "redshift that was used: spectroscopic, or photometric where Sp is -1"),
    "Sp": ("Sp", "", "SDSS SpecClass; -1 photometric redshift, -2 none"),
    "Scale": ("Scale", "kpc / arcsec", "physical scale at z (H0 = 70, flat, matter 0.3)"),
    "Rhlg": ("Rhlg", "kpc", "half-light radius, g, along the semi-major axis"),
    "Rhlr": ("Rhlr", "kpc", "half-light radius, r, along the semi-major axis"),
    "Rchl,g": ("Rchl_g", "kpc", "circular half-light radius, g"),
}
TABLES = {
    3: _COMMON
    | {
        "rg2d": ("rg2d", "mag", "r magnitude of the model"),
        "Rchl,r": ("r_half", "kpc", "circular half-light radius, r (Rchl,r)"),
        "e": ("ellipticity", "", "ellipticity, 1 - b/a (e)"),
        "e_e": ("ellipticity_error", "", "error of the ellipticity (e_e)"),
        "ng": ("sersic_n", "", "Sersic index (ng), fitted between 0.5 and 8"),
        "e_ng": ("sersic_n_error", "", "error of the Sersic index (e_ng)"),
    },
    **dict.fromkeys(
        (1, 2),
        _COMMON
        | {
            "Rchl,r": ("Rchl_r", "kpc", "circular half-light radius, r"),
            "(B/T)g": ("bulge_fraction_g", "", "bulge fraction, g ((B/T)g)"),
            "(B/T)r": ("bulge_fraction_r", "", "bulge fraction, r ((B/T)r)"),
            "e_(B/T)r": ("bulge_fraction_r_error", "", "error of the bulge fraction, r"),
            "Re": ("Re", "kpc", "effective radius of the bulge along the semi-major axis"),
            "e": ("bulge_ellipticity", "", "ellipticity of the bulge (e)"),
            "Rd": ("Rd", "kpc", "scale length of the disk"),
            "i": ("inclination", "deg", "inclination of the disk, 0 is face-on (i)"),
            "nb": ("bulge_sersic_n", "", "Sersic index of the bulge (nb)"),
            "PpS": ("PpS", "", "probability that bulge and disk are no better than one Sersic profile"),
        },
    ),
}
_LENGTHS = {"Rhlg", "Rhlr", "Rchl_g", "Rchl_r", "r_half", "Re", "Rd", "Scale"}
_ARCSEC = Column("arcsec", "circular half-light radius, r (Rchl,r / Scale)")


def described(number: int) -> dict[str, Column]:
    """Columns of a table as it is written."""
    columns = {name: Column(unit, about) for name, unit, about in TABLES[number].values()}
    return columns | {"r_half_arcsec": _ARCSEC} if number == 3 else columns


def cleaned(frame: pl.DataFrame, number: int) -> pl.DataFrame:
    """Rename columns; null for what is missing or means nothing."""
    frame = frame.rename({name: ours for name, (ours, _, _) in TABLES[number].items()})
    numbers = pl.col(pl.Float64)
    frame = frame.with_columns(pl.when((numbers - _MISSING).abs() > 1e-3).then(numbers))
    lengths = [name for name in frame.columns if name in _LENGTHS]
    frame = frame.with_columns(pl.when(pl.col(name) > 0).then(name).name.keep() for name in lengths)
    if number == 3:
        frame = frame.with_columns(r_half_arcsec=pl.col("r_half") / pl.col("Scale"))
    return frame
