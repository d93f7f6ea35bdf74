"""Presets: tables with the columns of the surveys' files get the correct labels."""

from importlib import resources

import numpy as np
import polars as pl
import pytest

from catalogs.made_up import T01, noted, refused
from truemorph import prepare_catalogue as prepare
from truemorph.catalogs.columns import VOTES
from truemorph.catalogs.mapping import PRESETS

N = 40
SMOOTH = np.arange(N) % 20 + 1  # of 24 votes, 4 of which are "artefact" except for two galaxies
ARTEFACT = np.where(np.arange(N) % 20 == 5, 22 - SMOOTH, 4)
DISK = 24 - SMOOTH - ARTEFACT
RADII = np.random.default_rng(3).uniform(3, 20, N)
Q, T00 = "smooth-or-featured", "t00_smooth_or_featured_"
ANSWERS, FEATURES = ("smooth", "featured-or-disk", "artifact"), ("smooth", "features", "artifact")
GZ2_ANSWERS = ("a01_smooth", "a02_features_or_disk", "a03_star_or_artifact")
IDS = {"id_str": [f"{n}_{n}" for n in range(N)]}
SIZES = {"petro_theta": RADII, "psfsize_r": 1.1}
R = {"columns": {"radius": "r"}}


def counts(names):
    return dict(zip(names, (SMOOTH, DISK, ARTEFACT), strict=True))


def fractions(names):
    return {name: votes / 24 for name, votes in counts(names).items()}


def gz2(*kinds):
    columns = {"dr7objid": 587722981736120347 + np.arange(N), "gz2_class": "Er", "total_classifications": 30}
    columns |= {"petroRad_r": RADII, "psfWidth_r": 1.4, "petroMag_r": 16.5, "extinction_r": 0.1, "redshift": 0.1}
    for kind in kinds:
        names = [f"{T01}{answer}_{kind}" for answer in GZ2_ANSWERS]
        columns |= counts(names) if kind == "count" else fractions(names)
    return columns


def question(prefix, answers=ANSWERS):
    """Counts, fractions and total of a question; in galaxy-datasets, the campaign is part of its name."""
    names = [f"{prefix}_{answer}" for answer in answers]
    return counts(names) | fractions([f"{name}_fraction" for name in names]) | {f"{prefix}_total-votes": 24}


def all_campaigns():
    """One table of three campaigns; each galaxy has votes in only one of them."""
    return {
        name: np.where(np.arange(N) % 3 == turn, votes, np.nan if name.endswith("fraction") else 0)
        for turn, campaign in enumerate(("dr12", "dr5", "dr8"))
        for name, votes in question(f"{Q}-{campaign}").items()
    }


DECALS = {
    **{"iauname": [f"J{n:06d}" for n in range(N)], "redshift": 0.05, "petro_theta": RADII, "petro_th50": RADII / 2},
    **{"elpetro_absmag_r": -20.5, "mag_r": 16.0, "ra": 1.0},
    **question(Q),
}
HUBBLE = {
    **{"zooniverse_id": [f"AHZ{n}" for n in range(N)], "survey_id": [str(n) for n in range(N)], "imaging": "COSMOS"},
    **{"RA": 150.0, "DEC": 2.0, "Z_BEST": np.where(np.arange(N) == 4, -9999.0, 0.7), "N_GALFIT_HI": 1.5},
    **{"BA_GALFIT_HI": 0.75, "RE_GALFIT_HI": 12.0, f"{T01}total_count": 40, f"{T01}total_weight": 39.5},
    **fractions([f"{T01}{answer}_weighted_fraction" for answer in GZ2_ANSWERS]),
    "r": RADII / 10,
}
CANDELS = {
    **{"ID": [f"COS_{n}" for n in range(N)], "RA": 150.0, "Dec": 2.0, "num_classifications": 40, "r": RADII / 10},
    **fractions([f"{T00}{answer}_weighted_frac" for answer in ("a0_smooth", "a1_features", "a2_artifact")]),
    f"{T00}count": 40,
}
CHALLENGE = {"GalaxyID": np.arange(N), **fractions(["Class1.1", "Class1.2", "Class1.3"]), "petroRad_r": RADII}
OWN = {"object_id": np.arange(N), "radius": RADII, "psf_fwhm": 1.3}
OWN |= fractions(["smooth_fraction", "disk_fraction", "artefact_fraction"])

# Preset, table, whether it has counts, and columns missing in the published tables.
TABLES = [
    ("gz2", gz2("weighted_fraction"), False, {}),
    ("gz2", gz2("count", "weighted_fraction", "debiased", "fraction"), True, {}),
    ("gz2-debiased", gz2("debiased"), False, {"preset": "gz2-debiased"}),
    ("gz-challenge", CHALLENGE, False, {"psf_fwhm": 1.32}),
    ("gz-decals", DECALS, True, {"psf_fwhm": 1.2}),
    ("gz-decals", {**IDS, **question(f"{Q}-dr5"), **SIZES}, True, {}),
    ("desi", {"dr8_id": IDS["id_str"], **question(Q), **SIZES, "est_petro_th50": 3.0}, True, {}),
    ("desi", {**IDS, **question(f"{Q}-dr8"), "petro_theta": RADII}, True, {"psf_fwhm": 1.2}),
    ("desi", {**IDS, "dataset_name": "gz_desi", **all_campaigns(), **SIZES}, True, {}),
    ("gz-hubble", HUBBLE, False, R | {"psf_fwhm": 0.09}),
    ("gz-hubble", {**IDS, **question(f"{Q}-hubble", FEATURES), "r": RADII / 10}, True, R | {"psf_fwhm": 0.09}),
    ("candels", CANDELS, False, R | {"psf_fwhm": 0.18}),
    ("candels", {**IDS, **question(f"{Q}-candels", FEATURES), "r": RADII / 10}, True, R | {"psf_fwhm": 0.18}),
    ("truemorph", OWN, False, {}),
]


def test_every_preset_is_listed():
    """Those that are found by the columns of a table are in `DETECTED`, in order."""
    files = (resources.files("truemorph.catalogs") / "presets").iterdir()
    assert {file.name.removesuffix(".toml") for file in files} | {"truemorph"} == set(PRESETS)


def frame_of(columns):
    return pl.select(**{name: pl.lit(pl.Series(v)) if np.ndim(v) else pl.lit(v) for name, v in columns.items()})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "columns", "counted", "options"), TABLES, ids=[f"{t[0]}-{n}" for n, t in enumerate(TABLES)]
)
def test_each_survey_is_recognised_by_its_columns_and_labelled_correctly(name, columns, counted, options):
    prepared = prepare(frame_of(columns), **options)
    frame, funnel = prepared.catalogue.frame, dict(prepared.funnel)
    artefact, tied = np.maximum(SMOOTH, DISK) < ARTEFACT, SMOOTH == DISK
    assert funnel["majority star or artefact"] == -artefact.sum() == funnel["smooth and disk tied"] == -tied.sum() == -2
    kept = ~artefact & ~tied
    np.testing.assert_array_equal(frame["label"], (DISK > SMOOTH)[kept])
    np.testing.assert_allclose(frame["artefact_fraction"], (ARTEFACT / 24)[kept], atol=1e-6)
    assert ("smooth_votes" in frame.columns) == counted
    for column, votes in counts(VOTES).items() if counted else ():
        np.testing.assert_array_equal(frame[column], votes[kept])
    assert prepared.catalogue.metadata["preset"] == name


def test_other_columns_get_truemorphs_names_and_units():
    got = prepare(frame_of(HUBBLE), **R, psf_fwhm=0.09).catalogue
    for column, value in (("ellipticity", 0.25), ("sersic_n", 1.5), ("vote_count", 40)):
        assert (got.frame[column] == value).all()
    assert got.frame["redshift"].null_count() == 1
    got = prepare(frame_of(DECALS), psf_fwhm=1.2).catalogue
    assert {"ra": "deg", "M_r": "mag", "magnitude": "mag"}.items() <= got.units.items()
    assert "H0 = 100" in got.descriptions["M_r"]
    light = prepare(frame_of(DECALS), columns={"radius": "petro_th50"}, psf_fwhm=1.2)
    assert noted(light.findings, "petro_th50", "50 %")
    assert "radius of 50 %" in light.catalogue.descriptions["radius"]


def test_a_missing_column_gives_an_error_that_says_what_to_do():
    with refused("a01_smooth_debiased", "`preset`=gz2-debiased"):
        prepare(frame_of(gz2("debiased")))
    with refused("petro_theta", "`radius`", "nearest: petro_th"):
        prepare(frame_of(DECALS).drop("petro_theta"))
    with refused("psfsize_r or psf_fwhm", "1.2 arcsec", "`psf_fwhm`"):
        prepare(frame_of(DECALS))


def test_signal_depth_and_surface_brightness_of_surveys():
    tractor = {"flux_r": 100.0, "flux_ivar_r": 4.0, "psfdepth_r": 25.0 * 10**0.8}
    got = prepare(frame_of(DECALS | tractor), psf_fwhm=1.2).catalogue.frame
    np.testing.assert_allclose(got["snr"], 200.0)
    np.testing.assert_allclose(got["depth"], 22.5 + 1.0)  # 5 sigma: 10^-0.4 nanomaggies
    np.testing.assert_allclose(got["surface_brightness"], 16.0 + 2.5 * np.log10(2 * np.pi * got["r50"].to_numpy() ** 2))
    for column in ("GZ_MU_HI", "mu_max_i"):
        got = prepare(frame_of(HUBBLE | {column: 21.5}), **R, psf_fwhm=0.09).catalogue
        assert (got.frame["surface_brightness"] == 21.5).all()
        assert got.frame["rest_surface_brightness"].drop_nulls().to_numpy() == pytest.approx(21.5 - 10 * np.log10(1.7))
