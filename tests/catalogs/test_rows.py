"""Selection and labels of rows, and checks for silent mistakes."""

import numpy as np
import pytest

from catalogs.made_up import ARTEFACT, DISK, IDS, SMOOTH, full, noted, refused, votes
from truemorph import prepare_catalogue as prepare
from truemorph.catalogs.rows import labels_from_votes
from truemorph.tables import CatalogTable


@pytest.mark.parametrize(
    ("fractions", "expected"),
    [
        ((0.4, 0.35, 0.25), (0, "")),  # the largest of the three, but not above one half
        ((0.45, 0.55, 0.0), (1, "")),
        ((0.1, 0.2, 0.7), (-1, "majority star or artefact")),
        ((0.4, 0.4, 0.2), (-1, "smooth and disk tied")),
        ((0.0, 0.0, 0.0), (-1, "neither smooth nor disk has votes")),
        ((0.51, np.nan, np.nan), (0, "")),
        ((0.49, np.nan, np.nan), (1, "")),
        ((0.5, np.nan, np.nan), (-1, "smooth and disk tied")),
        ((np.nan, 0.4, 0.1), (-1, "no vote fractions")),
    ],
)
def test_the_largest_fraction_is_the_label(fractions, expected):
    labels, reasons = labels_from_votes(*np.array(fractions)[:, None], ("smooth", "disk"))
    assert (labels[0], reasons[0]) == expected


ODD = np.arange(60) % 2
FRACTION = np.linspace(0.02, 0.97, 60)
COUNT = np.round(41 * FRACTION)
NAMED = full(s=FRACTION, d=1 - FRACTION, n_s=COUNT, n_d=41 - COUNT, odd=ODD)


@pytest.mark.parametrize(
    ("columns", "disks"),
    [
        ({"smooth": "s", "disk": "d"}, FRACTION < 0.5),
        ({"smooth": "n_s", "disk": "41 - n_s"}, COUNT < 20.5),
        ({"label": "odd"}, ODD == 1),
        ({"label": "odd = 0"}, ODD == 0),
    ],
)
def test_votes_or_labels_named_by_the_user_replace_those_of_the_preset(columns, disks):
    got = prepare(NAMED, columns=columns).catalogue
    assert got.frame["label"].to_list() == disks.astype(int).tolist()
    assert got.frame["artefact_fraction"].null_count() == disks.size
    assert all(text in got.metadata["votes"] for text in columns.values())


def test_every_row_is_kept_or_listed_under_one_reason():
    row, kind, flag = np.arange(60), ["a", "b"] * 30, [0, None, None] + [1] * 57
    smooth, disk = votes()[SMOOTH].to_list(), votes()[DISK].to_list()
    smooth[12:18:2], disk[12:18:2] = [0.0, 0.4, None], [0.0, 0.4, 0.2]
    changed = {SMOOTH: smooth, DISK: disk, ARTEFACT: np.where(row < 6, 0.97, 0.01)}
    changed |= {"petroRad_r": np.where(row == 6, -5.0, 5.0), "psfWidth_r": np.where(row == 10, 0.0, 1.2)}
    table = full(row=row, kind=kind, flag=flag, **changed)
    got = prepare(table, where=["kind=a"], keep=["flag = 1", "row > -1", "row < 57"])
    assert got.funnel == [
        ("rows in", 60),
        ("not selected (where)", -30),
        ("flag = 1", -2),
        ("row > -1", 0),
        ("row < 57", -1),
        ("majority star or artefact", -2),
        ("no vote fractions", -1),
        ("smooth and disk tied", -1),
        ("no positive radius", -1),
        ("no positive PSF width", -1),
        ("rows out", 21),
    ]
    assert noted([one for one in got.findings if one.code == "rule-without-value"], "1 of", "flag = 1")
    assert got.dropped.filter(got.dropped["row"] % 2 == 1)["row"].to_list() == [1, 3, 5, 7, 11, 13, 15, 17, 59]
    assert (got.dropped["object_id"] - IDS + 1).to_list() == got.dropped["row"].to_list()
    assert noted(got.findings, "flag = 1", "1 of the rows")  # null is not true


SCALES = {"arcmin": ("petroRad_r", 60), "psf_sigma": ("psfWidth_r", 2.3548)}
SIZES = full(**{name: full()[column] / factor for name, (column, factor) in SCALES.items()})


@pytest.mark.parametrize(
    ("wrong", "mentioned", "units", "right"),
    [
        ({"radius": "arcmin"}, "`radius`", {}, {"radius": "60 * arcmin"}),
        ({"radius": "arcmin"}, "`radius`", {"arcmin": "arcmin"}, {"radius": "arcmin"}),
        ({"radius": "psfWidth_r"}, "`radius`", {}, {}),
        ({"psf_fwhm": "psf_sigma"}, "2.3548", {}, {"psf_fwhm": "2.3548 * psf_sigma"}),
    ],
)
def test_implausible_columns_raise_errors_that_units_and_expressions_avoid(wrong, mentioned, units, right):
    with refused(*wrong.values(), mentioned):
        prepare(SIZES, columns=wrong)
    got, expected = prepare(CatalogTable(SIZES, units), columns=right), prepare(full())
    np.testing.assert_allclose(got.catalogue.frame["alpha"], expected.catalogue.frame["alpha"])
    assert got.findings == ()


@pytest.mark.parametrize(
    ("asked", "code", "word"),
    [
        ({"psf_fwhm": "1 * psf_sigma"}, "psf-unusual", "1.8"),
        ({"columns": {"smooth": SMOOTH}}, "class-fraction-missing", "60"),
        ({"table": full(**{ARTEFACT: 0.5})}, "fractions-above-one", "1.49"),
    ],
)
def test_doubtful_sizes_and_votes_give_a_finding(asked, code, word):
    found = prepare(**{"table": SIZES, **asked}).findings
    assert noted([one for one in found if one.code == code], word)
