"""Labels: out of fold for training galaxies, no row lost, no label counted twice."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy.special import expit

from conftest import codes
from truemorph import Classifier, Finding, RayleighTransition, label_galaxies, posterior, read_table, write_table
from truemorph.bias.curves.families import transition_to_dict
from truemorph.classifiers.classifier import describe
from truemorph.config import training_config
from truemorph.errors import InputError
from truemorph.io import write_json
from truemorph.labelling import sources
from truemorph.tables import CatalogTable

T = RayleighTransition(10.0)


def logistic_model(intercepts, seen, transition=None):
    """A model in which member f has p(disk) = 1 / (1 + exp(-n - intercept f))."""
    config = training_config("dcv14", features=("n",), folds=max(1, len(intercepts)))
    described = describe(
        config,
        transition or transition_to_dict(T),
        catalogue={"alpha": "radius / sigma_PSF", "alpha_psf": "sigma", "source": "catalogue.parquet", "rows": 6},
        members=len(intercepts),
        metrics={},
        normalisation={},
    )
    members = [{"coef": np.array([[0.0], [1.0]]), "intercept": np.array([0.0, b])} for b in intercepts]
    frame = pl.DataFrame(seen, schema={"object_id": pl.Int64, "role": pl.String, "fold": pl.Int64}, orient="row")
    return Classifier(described, members, frame)


def catalogue(tmp_path, **changes):
    rng = np.random.default_rng(0)
    columns = {
        "object_id": np.arange(6),
        "label": rng.integers(0, 2, 6),
        "alpha": rng.lognormal(2.3, 0.4, 6),
        "split": ["train"] * 6,
        "n": rng.normal(size=6),
    }
    table = CatalogTable(pl.DataFrame({**columns, **changes}), metadata={"alpha_psf": "sigma"})
    return write_table(table, tmp_path / "catalogue.parquet")


def test_training_galaxies_are_labelled_by_the_member_that_did_not_see_them(tmp_path):
    seen = [(0, "out_of_fold", 0), (1, "out_of_fold", 1), (2, "early_stopping", -1)]
    path = catalogue(tmp_path)
    label_galaxies(logistic_model([-2.0, 3.0], seen), path, tmp_path / "labels.parquet")
    got, given = read_table(tmp_path / "labels.parquet").frame, read_table(path).frame
    n = given["n"].to_numpy()
    first, second = expit(n - 2), expit(n + 3)
    expected = (first + second) / 2
    expected[0], expected[1] = first[0], second[1]
    np.testing.assert_allclose(got["p_disk"], expected)
    assert got["relation"].to_list() == ["out_of_fold", "out_of_fold", "early_stopping", "new", "new", "new"]
    assert got["p_spread"].is_null().to_list() == [True, True, False, False, False, False]
    after = posterior(np.column_stack([1 - expected, expected]), given["label"], given["alpha"].to_numpy(), T)
    np.testing.assert_allclose(got["posterior_disk"], after[:, 1])
    np.testing.assert_allclose(got["label_quality"], after[np.arange(6), given["label"].to_numpy()])


def test_training_galaxies_of_one_member_and_those_without_a_label_have_no_posterior(tmp_path):
    model = logistic_model([0.0], [(0, "in_sample", -1), (1, "in_sample", -1)])
    path = catalogue(tmp_path, label=[0, 1, 0, 1, 0, None], n=[0.1, 0.2, float("nan"), 0.3, None, 0.4])
    report = label_galaxies(model, path, tmp_path / "labels.parquet")
    got = read_table(tmp_path / "labels.parquet").frame
    assert got["observed_label"].to_list() == [0, 1, 1, None]
    for name in ("posterior_disk", "posterior_label", "label_quality"):
        assert got[name].is_null().to_list() == [True, True, False, True]
    assert got["p_disk"].is_not_null().all()
    assert "posterior-missing" in codes(report)
    # Galaxies without a feature are listed.
    assert (report.rows_in, report.labelled, len(report.problems)) == (6, 4, 2)
    assert read_table(tmp_path / "labels.problems.csv").frame["object_id"].to_list() == [2, 4]


def test_naive_models_have_no_posterior(tmp_path):
    naive = logistic_model([0.0], [], {"family": "matrix", "parameters": {"values": [[1, 0], [0, 1]]}})
    path = catalogue(tmp_path)
    report = label_galaxies(naive, path, tmp_path / "labels.parquet")
    assert "posterior_disk" not in read_table(tmp_path / "labels.parquet").frame.columns
    assert "no-posterior" in codes(report)


def test_every_format_has_columns_units_descriptions_and_the_findings_of_the_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PART_ROWS", 4)  # two parts
    shared = Finding("flat-fractions-assumed", "caution", "p < 0.01 & \u03b1", "Give gold labels (`gold`).")
    other = Finding("family-rejected", "caution", "10 above the best")
    trained = {**transition_to_dict(T), "findings": [shared.to_dict()]}
    given = {**transition_to_dict(RayleighTransition(9.0)), "findings": [shared.to_dict(), other.to_dict()]}
    path, model = catalogue(tmp_path, radius=np.arange(6.0)), logistic_model([0.0, 1.0], [], trained)
    table = replace(read_table(path), units={"radius": "arcsec"}, descriptions={"radius": "Petrosian radius"})
    write_table(table, path)
    for extension in ("csv", "parquet", "fits", "ecsv", "vot"):
        out = tmp_path / f"labels.{extension}"
        report = label_galaxies(model, path, out, transition=given, copy=["radius"])
        assert codes(report) == ["flat-fractions-assumed", "family-rejected"]
        got = read_table(out)
        assert got.frame["object_id"].to_list() == list(range(6))
        assert got.frame.columns == [
            *("object_id", "radius", "p_smooth", "p_disk", "p_spread", "label", "relation", "observed_label", "alpha"),
            *("split", "posterior_smooth", "posterior_disk", "posterior_label", "label_quality", "model_hash"),
        ]
        if extension == "csv":
            continue
        assert got.units == {"radius": "arcsec"}
        assert set(got.descriptions) == set(got.frame.columns)
        assert got.descriptions["radius"] == "Petrosian radius"
        assert [Finding.from_dict(one) for one in got.metadata["findings"]] == [shared, other]
        assert got.metadata["transition"]["parameters"]["theta"] == 9.0
        assert got.metadata["trained_through"]["parameters"]["theta"] == 10.0
        assert got.metadata["trained_on"]["alpha"] == "radius / sigma_PSF"
        assert got.metadata["model_hash"] == "unsaved"
    assert codes(label_galaxies(model, path, tmp_path / "own.parquet")) == ["flat-fractions-assumed"]


def test_a_catalogue_with_a_column_of_bytes_is_not_a_table_of_images(tmp_path):
    label_galaxies(logistic_model([0.0], []), catalogue(tmp_path, note=[b"x"] * 6), tmp_path / "labels.parquet")
    assert read_table(tmp_path / "labels.parquet").frame["posterior_disk"].null_count() == 0


def test_alpha_must_have_the_unit_of_the_bias_curve(tmp_path):
    path, model = catalogue(tmp_path), logistic_model([0.0], [])
    write_table(CatalogTable(read_table(path).frame, metadata={"alpha_psf": "fwhm"}), path)
    with pytest.raises(InputError, match="fwhm"):
        label_galaxies(model, path, tmp_path / "labels.parquet")
    given = {**transition_to_dict(T), "alpha_psf": "fwhm"}
    label_galaxies(model, path, tmp_path / "labels.parquet", transition=given)


def test_the_output_is_checked_before_labelling(tmp_path):
    path, model = catalogue(tmp_path), logistic_model([0.0], [])
    for out, says in ((path, "would overwrite"), (tmp_path / "labels.txt", "unknown kind of table")):
        with pytest.raises(InputError, match=says):
            label_galaxies(model, path, out)


def test_a_fit_gives_posteriors_without_a_model(tmp_path):
    fit = {
        "family": "rayleigh", "parameters": {"theta": 10.0, "false_disk": 0.0}, "alpha_psf": "sigma",
        "class_fractions": {"smooth": 0.3, "disk": 0.7}, "galaxies": 9,
    }  # fmt: skip
    write_json(tmp_path / "fit.json", fit)
    path = catalogue(tmp_path, label=[0, 0, 1, 0, 0, 1])
    label_galaxies(tmp_path / "fit.json", path, tmp_path / "labels.parquet")
    got = read_table(tmp_path / "labels.parquet").frame
    assert got["p_disk"].to_list() == pytest.approx([0.7] * 6)
    flip = T.flip_probability(got["alpha"].to_numpy())
    expected = np.where(got["observed_label"] == 1, 1.0, 0.7 * flip / (0.3 + 0.7 * flip))
    assert got["posterior_disk"].to_list() == pytest.approx(expected)


def test_tables_in_memory_are_labelled_like_files(tmp_path):
    write_json(tmp_path / "fit.json", {**transition_to_dict(T), "class_fractions": {"smooth": 0.3, "disk": 0.7}})
    bare = pl.DataFrame({"label": [0, 1, 0], "alpha": [4.0, 20.0, 9.0]})
    bare.write_parquet(tmp_path / "bare.parquet")
    found = [
        label_galaxies(tmp_path / "fit.json", source, tmp_path / f"{name}.parquet")
        for name, source in (("file", tmp_path / "bare.parquet"), ("polars", bare), ("pandas", bare.to_pandas()))
    ]
    assert all(codes(one) == ["catalogue-completed"] for one in found)
    first, *others = (read_table(one.out).frame for one in found)
    assert first["object_id"].to_list() == [1, 2, 3]
    assert all(other.equals(first) for other in others)
    plain = pl.DataFrame({"id": [1, 2, 3], "n": [0.0, 0.1, 0.2], "image": ["a", "b", "c"]})
    joined = {"transition": T, "observed": bare, "id": "id", "copy": "n"}
    again = label_galaxies(logistic_model([0.0], []), plain, tmp_path / "new.parquet", **joined)
    assert read_table(again.out).frame["observed_label"].to_list() == [0, 1, 0]
