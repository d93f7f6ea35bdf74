"""Catalogues, fits, models and labels that each release wrote are read by all later ones, with the same numbers.

`versions/RELEASE/` has 240 made-up galaxies: the catalogue, a fit of T(α), a logistic model of two folds and its
labels, written by that release.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import truemorph as tm
from conftest import codes
from truemorph.bias.families import transition_from_dict
from truemorph.bias.files import read_fit
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.config import run_config
from truemorph.errors import InputError
from truemorph.tables import write_table

RELEASES = sorted(path for path in (Path(__file__).parent / "versions").iterdir() if path.is_dir())


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_files_of_a_release_are_read_with_the_same_numbers(release, tmp_path):
    catalogue = read_catalogue(release / "catalogue.parquet")
    assert catalogue.frame.height == 240
    assert (catalogue.frame["gold"].sum(), catalogue.metadata["gold_definition"]) == (120, "disk: truth is 1")
    fit = transition_from_dict(read_fit(release / "transition.json"))
    again = tm.estimate_transition(catalogue, compare=False).fit
    assert again.values["theta"] == pytest.approx(fit.theta, rel=1e-4)
    assert run_config(release / "model" / "run.toml").training.features == ("sersic_n", "M_r")
    labelled = tm.label_galaxies(release / "model", release / "catalogue.parquet", out=tmp_path / "labels.parquet")
    has_checksums = "sha256" in json.loads((release / "model" / "config.json").read_text())
    assert ("model-without-checksums" in codes(labelled)) != has_checksums
    before, now = (pl.read_parquet(path) for path in (release / "labels.parquet", tmp_path / "labels.parquet"))
    assert before["object_id"].equals(now["object_id"])
    for name in ("p_disk", "posterior_disk"):
        np.testing.assert_allclose(now[name], before[name], rtol=1e-9)
    assert now["observed_label"].equals(catalogue.frame["label"])
    measured = tm.measure_bias(catalogue, labels=release / "labels.parquet", bootstrap=0)
    assert {"observed labels", "model labels", "gold labels"} <= set(measured.results)


def test_files_of_a_later_version_are_refused(tmp_path):
    release = RELEASES[0]
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
