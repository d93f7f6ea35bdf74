"""Presets: tables with the columns that the surveys' own files have become the right labels."""

import tomllib
from importlib import resources

import numpy as np
import polars as pl
import pytest

from truemorph.catalogs.choosing import detect_mapping, resolve
from truemorph.catalogs.mapping import PRESETS, preset_names, read_mapping
from truemorph.catalogs.mapping_page import mapping_toml
from truemorph.catalogs.prepare import prepare_catalogue
from truemorph.errors import InputError

N = 40
SMOOTH = np.arange(N) % 20 + 1  # of 24 votes, 4 of them "artefact" but for two galaxies
ARTEFACT = np.where(np.arange(N) % 20 == 5, 22 - SMOOTH, 4)
DISK = 24 - SMOOTH - ARTEFACT
T01 = "t01_smooth_or_features_"
Q = "smooth-or-featured"


def fractions(names):
    return {name: votes / 24 for name, votes in zip(names, (SMOOTH, DISK, ARTEFACT), strict=True)}


def counts(names):
    return dict(zip(names, (SMOOTH, DISK, ARTEFACT), strict=True))


def sky():
    rng = np.random.default_rng(2)
    return {"ra": rng.uniform(0, 360, N), "dec": rng.uniform(-30, 60, N), "redshift": rng.uniform(0.01, 0.2, N)}


RADII = np.random.default_rng(3).uniform(3, 20, N)
SDSS = {"petroRad_r": RADII, "psfWidth_r": np.full(N, 1.4), "petroMag_r": np.full(N, 16.5), "extinction_r": 0.1}
LONG = 587722981736120347 + np.arange(N)
IDS = {"id_str": [f"{n}_{n}" for n in range(N)]}
_GZ2 = ("a01_smooth", "a02_features_or_disk", "a03_star_or_artifact")
_ANSWERS = ("smooth", "featured-or-disk", "artifact")


def gz2(*kinds):
    columns = {"dr7objid": LONG, "ra": 1.0, "dec": 2.0, "gz2_class": "Er", "total_classifications": 30}
    columns |= {"total_votes": 120, "rastring": "13:01:48.00", **SDSS}
    for kind in kinds:
        names = [f"{T01}{answer}_{kind}" for answer in _GZ2]
        columns |= counts(names) if kind == "count" else fractions(names)
    return columns


def published(answers=_ANSWERS, **more):
    """As in GZ DECaLS' and GZ DESI's own files."""
    return {
        **counts([f"{Q}_{answer}" for answer in answers]),
        **fractions([f"{Q}_{answer}_fraction" for answer in answers]),
        f"{Q}_total-votes": 24,
        **more,
    }


NSA = {"petro_theta": RADII, "petro_th50": RADII / 2, "petro_th90": RADII, "elpetro_absmag_r": -20.5, "mag_r": 16.0}
HUBBLE = [f"{T01}{answer}_weighted_fraction" for answer in _GZ2]
CANDELS = [f"t00_smooth_or_featured_{answer}_weighted_frac" for answer in ("a0_smooth", "a1_features", "a2_artifact")]


def of_campaign(campaign, answers=_ANSWERS, share=True, scale=1):
    """As in galaxy-datasets and on the hub: the campaign is written into each question."""
    names = [f"{Q}-{campaign}_{answer}" for answer in answers]
    columns = {name: votes * scale for name, votes in counts(names).items()} | {
        f"{Q}-{campaign}_total-votes": 24 * scale
    }
    return columns | (fractions([f"{name}_fraction" for name in names]) if share else {})


def all_campaigns():
    """One table of three campaigns: galaxies have votes in one of them, and elsewhere none."""
    columns = {}
    for turn, campaign in enumerate(("dr12", "dr5", "dr8")):
        mine = np.arange(N) % 3 == turn
        for name, votes in of_campaign(campaign, share=False).items():
            columns[name] = np.where(mine, votes, 0).astype(np.int32)
            if not name.endswith("total-votes"):
                columns[f"{name}_fraction"] = np.where(mine, votes / 24, np.nan).astype(np.float32)
    return columns


# preset, the table, whether the catalogue has counts, and what the published tables lack
TABLES = [
    ("gz2", gz2("weighted_fraction"), False, {}),
    ("gz2", gz2("count", "weighted_fraction", "debiased", "fraction"), True, {}),
    ("gz2-debiased", gz2("debiased"), False, {}),
    (
        "gz-challenge",
        {"GalaxyID": np.arange(N), **fractions(["Class1.1", "Class1.2", "Class1.3"]), "petroRad_r": RADII},
        False,
        {"psf_fwhm": 1.32},
    ),
    (
        "gz-decals",
        {"iauname": [f"J{n:06d}" for n in range(N)], **sky(), **NSA, **published(wrong_size_warning=False)},
        True,
        {"psf_fwhm": 1.2},
    ),
    ("gz-decals", {**IDS, **of_campaign("dr5"), "petro_theta": RADII, "psfsize_r": 1.1}, True, {}),
    ("gz-decals", {**IDS, **of_campaign("dr12"), "petro_theta": RADII, "psfsize_r": 1.1}, True, {}),
    (
        "gz-decals",
        {**IDS, **fractions([f"{Q}-dr5_{a}_fraction" for a in _ANSWERS]), "petro_theta": RADII, "psfsize_r": 1.1},
        False,
        {},
    ),
    (
        "desi",
        {
            "dr8_id": IDS["id_str"],
            **sky(),
            **published(),
            "petro_theta": RADII,
            "psfsize_r": 1.1,
            "est_petro_th50": 3.0,
        },
        True,
        {},
    ),
    ("desi", {**IDS, **of_campaign("dr8"), "petro_theta": RADII}, True, {"psf_fwhm": 1.2}),
    ("desi", {**IDS, "dataset_name": "gz_desi", **all_campaigns(), "petro_theta": RADII, "psfsize_r": 1.1}, True, {}),
    (
        "gz-hubble",
        {
            "zooniverse_id": [f"AHZ{n}" for n in range(N)],
            "survey_id": [str(n) for n in range(N)],
            "imaging": "COSMOS",
            "RA": 150.0,
            "DEC": 2.0,
            "Z_BEST": np.where(np.arange(N) == 4, -9999.0, 0.7),
            "N_GALFIT_HI": 1.5,
            "BA_GALFIT_HI": 0.75,
            "RE_GALFIT_HI": 12.0,
            **fractions(HUBBLE),
            f"{T01}total_count": 40,
            f"{T01}total_weight": 39.5,
            "r": RADII / 10,
        },
        False,
        {"psf_fwhm": 0.09, "columns": {"radius": "r"}},
    ),
    (
        "gz-hubble",
        {**IDS, **of_campaign("hubble", ("smooth", "features", "artifact")), "r": RADII / 10},
        True,
        {"psf_fwhm": 0.09, "columns": {"radius": "r"}},
    ),
    (
        "candels",
        {
            "ID": [f"COS_{n}" for n in range(N)],
            "RA": 150.0,
            "Dec": 2.0,
            "num_classifications": 40,
            **fractions(CANDELS),
            "t00_smooth_or_featured_count": 40,
            "r": RADII / 10,
        },
        False,
        {"psf_fwhm": 0.18, "columns": {"radius": "r"}},
    ),
    (
        "candels",
        {**IDS, **of_campaign("candels", ("smooth", "features", "artifact")), "filename": "x.jpg", "r": RADII / 10},
        True,
        {"psf_fwhm": 0.18, "columns": {"radius": "r"}},
    ),
    (
        "truemorph",
        {
            "object_id": np.arange(N),
            **fractions(["smooth_fraction", "disk_fraction", "artefact_fraction"]),
            "radius": RADII,
            "psf_fwhm": 1.3,
        },
        False,
        {},
    ),
]


def frame_of(columns):
    return pl.select(**{name: pl.lit(pl.Series(v)) if np.ndim(v) else pl.lit(v) for name, v in columns.items()})


@pytest.mark.parametrize(
    ("name", "columns", "counted", "options"), TABLES, ids=[f"{t[0]}-{n}" for n, t in enumerate(TABLES)]
)
def test_each_survey_is_known_by_its_columns_and_labelled_right(tmp_path, name, columns, counted, options):
    table = frame_of(columns)
    assert detect_mapping(table.columns).name == name
    options = dict(options)
    if "filename" in columns:
        (tmp_path / "x.jpg").write_bytes(b"")
        options["images"] = tmp_path
    prepared = prepare_catalogue(table, **options)
    frame = prepared.catalogue.frame
    artefact, tied = np.maximum(SMOOTH, DISK) < ARTEFACT, SMOOTH == DISK
    assert dict(prepared.funnel)["majority star or artefact"] == -artefact.sum() == -2
    assert dict(prepared.funnel)["smooth and disk tied"] == -tied.sum() == -2
    kept = ~artefact & ~tied
    np.testing.assert_array_equal(frame["label"], (DISK > SMOOTH)[kept])
    np.testing.assert_allclose(frame["artefact_fraction"], (ARTEFACT / 24)[kept], atol=1e-6)
    assert ("smooth_votes" in frame.columns) == counted
    if counted:
        for role, votes in (("smooth_votes", SMOOTH), ("disk_votes", DISK), ("artefact_votes", ARTEFACT)):
            np.testing.assert_array_equal(frame[role], votes[kept])
        assert (frame["vote_count"] == 24).all()
    assert prepared.catalogue.metadata["preset"] == name
    described = prepared.catalogue.descriptions
    assert all(described[role] for role in ("label", "alpha", "radius", "smooth_fraction", "split"))


def test_what_else_the_tables_hold_comes_in_truemorphs_names_and_units():
    hubble = next(table for name, table, *_ in TABLES if name == "gz-hubble")
    got = prepare_catalogue(frame_of(hubble), columns={"radius": "r"}, psf_fwhm=0.09).catalogue
    assert (got.frame["ellipticity"] == 0.25).all()
    assert (got.frame["sersic_n"] == 1.5).all()
    assert (got.frame["vote_count"] == 40).all()
    assert got.frame["redshift"].null_count() == 1
    assert "r_half" not in got.frame.columns  # in arcsec or in pixels: the descriptions disagree
    decals = next(table for name, table, *_ in TABLES if name == "gz-decals")
    got = prepare_catalogue(frame_of(decals), psf_fwhm=1.2).catalogue
    assert {"ra": "deg", "M_r": "mag", "magnitude": "mag", "r_half": "arcsec"}.items() <= got.units.items()
    np.testing.assert_allclose(got.frame["r_half"] * 2, got.frame["radius"])
    assert "Petrosian" in got.descriptions["radius"]
    zoo = prepare_catalogue(frame_of(gz2("weighted_fraction"))).catalogue
    assert (zoo.frame["magnitude"] == 16.5).all()
    assert zoo.frame["petroMag_r"].equals(zoo.frame["magnitude"].alias("petroMag_r"))


@pytest.mark.parametrize(
    ("name", "without", "says"),
    [
        ("gz2", "petroRad_r", r"join SDSS's petroRad_r by dr7objid; name yours with --radius"),
        ("gz2", "psfWidth_r", r"join SDSS's psfWidth_r by dr7objid .*; name yours with --psf-fwhm"),
        ("gz-decals", "petro_theta", r"join it by iauname.*nearest: petro_th"),
        ("gz-decals", "", r"no column psfsize_r or psf_fwhm .*join psfsize_r .*about 1.2 arcsec"),
        ("desi", "petro_theta", r"est_petro_th50.*no Petrosian radii"),
        ("gz-hubble", "", r"says nothing of radius.*0.03 arcsec"),
        ("candels", "", r"says nothing of radius.*half-light radii"),
    ],
)
def test_what_a_survey_lacks_is_said_with_what_to_do(name, without, says):
    columns = next(table for preset, table, *_ in TABLES if preset == name)
    with pytest.raises(InputError, match=says) as caught:
        prepare_catalogue(frame_of({key: value for key, value in columns.items() if key != without}))
    assert "\n" not in str(caught.value)


def test_a_radius_of_part_of_the_light_is_said_to_be_one():
    columns = next(table for name, table, *_ in TABLES if name == "gz-decals")
    prepared = prepare_catalogue(frame_of(columns), columns={"radius": "petro_th50"}, psf_fwhm=1.2)
    assert any("petro_th50, the radius of 50 % of the light" in note for note in prepared.notes)


def test_ids_that_the_user_names_leave_the_survey_to_its_own():
    columns = next(table for name, table, *_ in TABLES if name == "gz-hubble")
    assert detect_mapping(list(columns), chosen=["object_id"]).name == "gz-hubble"


def test_every_preset_is_a_file_of_its_name_that_says_where_its_names_are_from():
    files = {file.name: file for file in (resources.files("truemorph.catalogs") / "presets").iterdir()}
    assert set(files) == {f"{name}.toml" for name in PRESETS}
    for name in preset_names():
        text = files[f"{name}.toml"].read_text(encoding="utf-8")
        assert text.startswith("# ")
        mapping = read_mapping(name)
        assert mapping.name == name
        assert read_mapping(tomllib.loads(mapping_toml(mapping))) == mapping
        assert max(map(len, text.splitlines())) <= 400


# Names as the published tables, and those that people make of them, have them; written out, not read from the presets.
NAMES = {
    "gz2": {
        "object_id": "dr7objid objid dr7_objid",
        "smooth_fraction": "t01_smooth_or_features_a01_smooth_weighted_fraction",
        "disk_fraction": "t01_smooth_or_features_a02_features_or_disk_weighted_fraction",
        "artefact_fraction": "t01_smooth_or_features_a03_star_or_artifact_weighted_fraction",
        "smooth_votes": "t01_smooth_or_features_a01_smooth_count",
        "disk_votes": "t01_smooth_or_features_a02_features_or_disk_count",
        "artefact_votes": "t01_smooth_or_features_a03_star_or_artifact_count",
        "radius": "petroRad_r petroR_r",
        "psf_fwhm": "psfWidth_r psf_fwhm",
        "magnitude": "petroMag_r",
        "extinction": "extinction_r",
    },
    "gz2-debiased": {
        "smooth_fraction": "t01_smooth_or_features_a01_smooth_debiased",
        "disk_fraction": "t01_smooth_or_features_a02_features_or_disk_debiased",
        "artefact_fraction": "t01_smooth_or_features_a03_star_or_artifact_debiased",
    },
    "gz-challenge": {"object_id": "GalaxyID", "smooth_fraction": "Class1.1", "disk_fraction": "Class1.2"},
    "gz-decals": {
        "object_id": "iauname id_str",
        "smooth_votes": "smooth-or-featured_smooth smooth-or-featured-dr5_smooth smooth-or-featured-dr12_smooth",
        "vote_count": "smooth-or-featured_total-votes smooth-or-featured_total smooth-or-featured-dr5_total-votes",
        "radius": "petro_theta",
        "psf_fwhm": "psfsize_r psf_fwhm",
        "image": "image file_loc filename png_loc",
        "M_r": "elpetro_absmag_r",
        "r_half": "petro_th50",
    },
    "desi": {
        "object_id": "dr8_id id_str",
        "radius": "petro_theta petro_radius",
        "redshift": "redshift spec_z",
        "magnitude": "mag_r_desi mag_r",
        "r_half": "est_petro_th50",
    },
    "gz-hubble": {
        "object_id": "zooniverse_id OBJNO survey_id id_str",
        "smooth_fraction": "t01_smooth_or_features_a01_smooth_weighted_fraction",
        "vote_count": "t01_smooth_or_features_total_count smooth-or-featured-hubble_total-votes",
        "ra": "RA ra",
        "redshift": "Z_BEST",
        "sersic_n": "N_GALFIT_HI",
    },
    "candels": {
        "object_id": "ID id_str",
        "smooth_fraction": "t00_smooth_or_featured_a0_smooth_weighted_frac t00_smooth_or_featured_a0_smooth_frac",
        "vote_count": "t00_smooth_or_featured_count smooth-or-featured-candels_total-votes",
        "redshift": "z_best",
        "dec": "Dec DEC dec",
    },
}


@pytest.mark.parametrize("name", list(NAMES))
def test_every_name_is_known_and_in_this_order(name):
    mapping = read_mapping(name)
    for role, names in NAMES[name].items():
        known = names.split()
        for number, column in enumerate(known):
            assert resolve(mapping, [*known[number:], "other"])[role].columns == (column,), role


@pytest.mark.parametrize(
    ("name", "column"),
    [("gz2", "redshift"), ("gz2", "petroMag_r"), ("gz-decals", "redshift"), ("gz-decals", "elpetro_absmag_r")],
)
def test_what_means_missing_in_the_surveys_is_missing(name, column):
    columns = {**next(table for preset, table, *_ in TABLES if preset == name), **(sky() if name == "gz2" else {})}
    table = frame_of(columns).with_columns(pl.when(pl.int_range(N) == 1).then(-9999.0).otherwise(0.5).alias(column))
    role = {"petroMag_r": "magnitude", "elpetro_absmag_r": "M_r"}.get(column, column)
    got = prepare_catalogue(table, psf_fwhm=1.2).catalogue.frame
    assert got[role].null_count() == 1
