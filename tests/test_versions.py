"""Catalogues, fits, models and labels that each release wrote are read by all later ones, with the same numbers.

`versions/RELEASE/` has simulated galaxies: the catalogue, a fit of T(α), a logistic model of two folds and its labels,
and an estimate of bars, written by that release. `versions/write.py` writes them.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import truemorph as tm
from conftest import codes, done
from truemorph import write_table
from truemorph.bias.curves.families import transition_from_dict
from truemorph.bias.files import read_fit
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.config import options_in
from truemorph.errors import InputError

VERSIONS = Path(__file__).parent / "versions"
# Galaxies, and gold labels that are disks, of each release.
COUNTS = {"0.2": (394, 309)}


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_files_of_a_release_are_read_with_the_same_numbers(name, capsys, tmp_path):
    release = VERSIONS / name
    catalogue = read_catalogue(release / "catalogue.parquet")
    assert (catalogue.frame.height, catalogue.frame["gold"].sum()) == COUNTS[name]
    assert catalogue.metadata["gold_definition"] == "disk: truth is 1"
    fit = transition_from_dict(read_fit(release / "transition.json"))
    again = tm.estimate_transition(catalogue, compare=False).fit
    assert again.values["theta"] == pytest.approx(fit.theta, rel=1e-4)
    assert "M_r" in options_in(release / "model" / "run.toml")["features"]
    files = (release / "catalogue.parquet", "--transition", release / "transition.json", "--out", tmp_path / "again")
    done(capsys, "train", *files, "--config", release / "model" / "run.toml", "--dry-run")
    labelled = tm.label_galaxies(release / "model", release / "catalogue.parquet", out=tmp_path / "labels.parquet")
    assert "model-without-checksums" not in codes(labelled)
    before, now = (pl.read_parquet(path) for path in (release / "labels.parquet", tmp_path / "labels.parquet"))
    assert before["object_id"].equals(now["object_id"])
    for name in ("p_disk", "posterior_disk"):
        np.testing.assert_allclose(now[name], before[name], rtol=1e-9)
    assert now["observed_label"].equals(catalogue.frame["label"])
    measured = tm.measure_bias(catalogue, labels=release / "labels.parquet", bootstrap=0)
    assert {"observed labels", "model labels", "gold labels"} <= set(measured.results)


def test_an_estimate_of_bars_is_read_with_the_same_numbers():
    release = VERSIONS / "0.2"
    before = tm.Estimate.read(release / "bars.json")
    now = tm.estimate_transition(release / "catalogue.parquet", question="bar", gold="truth_bar", fraction_bins=4)
    for name in ("fraction", "low", "high", "labelled"):
        np.testing.assert_allclose(getattr(before["bar fraction"], name), getattr(now["bar fraction"], name), rtol=1e-6)
    # 0.3 gives both errors, and asks for the images of all gold labels, also of a column called truth.
    assert {*codes(before)} - {"errors-of-these-galaxies"} == {*codes(now)} - {"gold-images-unknown"}
    assert np.isnan(before["bar fraction"].population_stderr).all()
    answers, alpha = before.fit.transition, np.array([5.0, 20.0])
    np.testing.assert_allclose(answers.matrix(alpha), now.fit.transition.matrix(alpha), rtol=1e-4)


def test_an_estimate_from_labels_alone_is_shown_without_errors_of_a_population():
    before = tm.Estimate.read(VERSIONS / "0.2" / "transition.json")
    assert np.isnan(before["disk fraction"].population_stderr).all()
    assert "by the assumption" in before.summary()


@pytest.mark.slow
def test_files_of_0_2_make_one_report_without_another_fit(tmp_path):
    release = VERSIONS / "0.2"
    options = tm.ReportOptions(
        catalogue=release / "catalogue.parquet", labels=[release / "labels.parquet"], bootstrap=5
    )
    sources = release / "model", release / "transition.json"
    report = tm.write_report(*sources, out=tmp_path / "report.html", options=options).to_dict()
    before, (shown,) = json.loads((release / "transition.json").read_text()), report["questions"]
    for name in ("parameters", "values", "stderr"):
        assert shown["transition"][name] == before[name]
    # Nothing says that these files belong to other galaxies, or to another estimate.
    cautions = {finding["code"] for finding in report["findings"] if finding["severity"] != "note"}
    of_labels_alone = {"flat-fractions-assumed", "fractions-drift", "fractions-undetermined", "intrinsic-missing"}
    assert cautions == {*of_labels_alone, "labels-worse", "fractions-inaccurate"}


def test_files_of_0_1_are_refused(tmp_path):
    catalogue = read_catalogue(VERSIONS / "0.2" / "catalogue.parquet")
    first = {name: value for name, value in catalogue.metadata.items() if name != "format_version"}
    with pytest.raises(InputError):
        read_catalogue(write_table(replace(catalogue, metadata=first), tmp_path / "catalogue.parquet"))


def test_files_of_a_later_version_are_refused(tmp_path):
    release = VERSIONS / "0.2"
    folder = shutil.copytree(release, tmp_path / "later")
    catalogue = read_catalogue(release / "catalogue.parquet")
    later = replace(catalogue, metadata={**catalogue.metadata, "format_version": 99})
    write_table(later, folder / "catalogue.parquet")
    for name in ("transition.json", "model/config.json"):
        described = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**described, "format_version": 99}))
    for read, name in ((read_catalogue, "catalogue.parquet"), (read_fit, "transition.json"), (tm.load, "model")):
        with pytest.raises(InputError):
            read(folder / name)
