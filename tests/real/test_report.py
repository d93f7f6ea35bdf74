"""The report on real galaxies: expert labels and Galaxy Zoo 1 flags, without images (science.md, section 3)."""

import numpy as np
import polars as pl
import pytest

import truemorph as tm
from truemorph import ReportOptions
from truemorph import prepare_catalogue as prepare
from truemorph.catalogs.prepare import write_preparation
from truemorph.report.writing import make_report

pytestmark = pytest.mark.slow

PAPERS, LATE = "disk: t_type >= -3", "disk: t_type >= 1"


@pytest.fixture(scope="module")
def result(shared_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")
    fractions = "t01_smooth_or_features_{}_weighted_fraction"
    pl.read_csv(shared_data / "expert_vs_crowd.csv").with_columns(
        (1.0 - pl.col("gz1_spiral")).alias(fractions.format("a01_smooth")),
        (1.0 * pl.col("gz1_spiral")).alias(fractions.format("a02_features_or_disk")),
    ).write_csv(folder / "experts.csv")
    prepared = prepare(folder / "experts.csv", preset="gz2", columns={"radius": "petroR90_g"}, psf_fwhm=1.32)
    catalogue = write_preparation(prepared, folder / "cat.parquet").out
    options = ReportOptions(catalogue=catalogue, gold=("t_type>=-3", "t_type>=1"), bootstrap=10)
    estimate = tm.estimate_transition(catalogue, fraction_bins=5)  # of labels alone
    return make_report([estimate], folder / "page.html", options).content, folder


def test_the_correction_is_correct_for_one_definition_and_wrong_for_the_other(result):
    report, _ = result
    compared = ("fractions-worse", "fractions-not-better", "fractions-inaccurate")
    found = {one["code"]: one["message"] for one in report["findings"] if one["code"] in compared}
    assert LATE in found.pop("fractions-worse")
    assert PAPERS in found.pop("fractions-inaccurate", "") + " ".join(one["measured"] for one in report["passed"])
    assert not found
    assert report["verdict"]["status"] == "problem"


def test_the_page_works_without_images(result):
    report, folder = result
    page = (folder / "page.html").read_text()
    assert 'id="gallery"' not in page
    (told,) = report["questions"]
    assert told["changed"] > 0
    assert np.isfinite(told["transition"]["parameters"]["theta"])
