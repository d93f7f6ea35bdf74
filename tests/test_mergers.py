"""Mergers instead of disks: each name and text comes from the catalogue's classes."""

import json
import re

import numpy as np
import polars as pl
import pytest

import truemorph as tm
from conftest import refused, run
from truemorph import RayleighTransition, load, read_table
from truemorph.catalogs.catalogue import read_catalogue

CLASSES = ("none", "merger")
DCV14 = {"preset": "dcv14", "settings": {"features": ["mass"], "folds": 2}}
OTHERS = re.compile("(?<!false_)disk|smooth", re.IGNORECASE)  # false_disk is a parameter of T(α)


def silent(*texts):
    """Whether no text names the classes that these galaxies do not have."""
    return not any(OTHERS.search(text) for text in texts)


def told(capsys, *arguments):
    """Run a command that succeeds and names no other classes; return what it printed."""
    status, out, err = run(capsys, *arguments)
    assert status == 0
    assert silent(out, err)
    return out


@pytest.fixture(scope="module")
def mergers(simulated, tmp_path_factory):
    """A catalogue of 400 galaxies with images, of which volunteers miss mergers, in a folder of its own."""
    folder = tmp_path_factory.mktemp("mergers")
    names = sorted(one.stem for one in (simulated / "images").glob("*.jpg"))
    rng = np.random.default_rng(0)
    alpha, truth = rng.lognormal(2.5, 0.5, len(names)), rng.random(len(names)) < 0.6
    seen = truth & (rng.random(len(names)) > RayleighTransition(9.0).flip_probability(alpha))
    table = pl.DataFrame({
        "object_id": names, "seen": seen.astype(int), "alpha": alpha, "mass": truth + rng.normal(0, 0.7, len(names)),
        "expert": truth.astype(int),
    })  # fmt: skip
    asked = {"classes": CLASSES, "definition": "two nuclei, or tails", "images": simulated / "images"}
    prepared = tm.prepare_catalogue(table, label="seen", alpha="alpha", **asked, out=folder / "cat.parquet")
    assert set(prepared.to_dict()["labels"]) == set(CLASSES)
    assert "| galaxies | none | merger |" in (folder / "cat.datasheet.md").read_text()
    return folder / "cat.parquet"


@pytest.fixture(scope="module")
def model(mergers):
    out = mergers.parent / "model"
    tm.train_classifier(mergers, out=out, **DCV14)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"gold": "expert"}, {"gold": "expert", "family": "matrix", "compare": False}])
def test_estimates_of_the_merger_fraction(mergers, options, tmp_path):
    estimate = tm.estimate_transition(mergers, out=tmp_path / "t.json", **options)
    described = json.loads((tmp_path / "t.json").read_text())
    assert described["class_fractions"].keys() == set(CLASSES)
    assert described["class_fraction_ranges"][1] == pytest.approx(list(estimate.fraction_range["merger"]))
    assert len(described["fractions"]["quantities"]["merger fraction"]["fraction"]) == len(estimate.fractions.counts)
    again = tm.Estimate.read(tmp_path / "t.json")
    assert again.fraction_range["merger"] == pytest.approx(estimate.fraction_range["merger"])
    assert again.fractions.classes == again.curve.classes == CLASSES
    assert silent(estimate.summary(), (tmp_path / "t.json").read_text(), str(estimate.findings))


@pytest.mark.slow
def test_a_report_of_mergers(mergers, tmp_path):
    tm.estimate_transition(mergers, gold="expert", out=tmp_path / "t.json")
    page, files = tmp_path / "page.html", tmp_path / "page_files"
    result = tm.write_report(tmp_path / "t.json", out=page, options=tm.ReportOptions(catalogue=mergers))
    rows = result.to_dict()["questions"][0]["table"]
    assert {"merger_fraction", "to_merger", "to_none"} <= rows[0].keys()
    changed = read_table(files / "changed.ecsv").frame
    assert {"posterior_none", "posterior_merger"} <= set(changed.columns)
    assert (set(changed["observed_label"]), set(changed["most_probable"])) == ({"none"}, {"merger"})
    assert silent(page.read_text(), (files / "report.json").read_text(), result.summary())


def test_a_model_of_other_classes_and_its_labels(capsys, mergers, model, tmp_path):
    assert load(model).classes == CLASSES
    assert silent((model / "README.md").read_text(), load(model).summary())
    told(capsys, "label", model, mergers, "--out", tmp_path / "labels.parquet")
    labels = read_table(tmp_path / "labels.parquet")
    for kind in ("p", "posterior"):
        assert {f"{kind}_none", f"{kind}_merger"} <= set(labels.frame.columns)
    np.testing.assert_allclose(labels.frame["p_none"] + labels.frame["p_merger"], 1)
    assert silent(json.dumps(labels.descriptions))
    found = tm.label_galaxies(model, mergers, tmp_path / "again.parquet")
    assert found.plot().get_xlabel() == "p(merger)"
    assert tm.plan_gold(mergers, budget=60, labels=found.out).quantity == "merger fraction"


def test_a_table_of_gold_labels_has_the_classes_or_numbers(capsys, mergers, tmp_path):
    """The words of other classes are mistakes, not synonyms."""
    ids = read_catalogue(mergers).frame["object_id"].to_list()
    table = pl.DataFrame({"object_id": ids[:40], "class": ["none", "Merger", "1", "0"] * 10})
    table.write_csv(tmp_path / "mine.csv")
    arguments = ["--catalogue", mergers, "--out", tmp_path / "out.parquet"]
    assert "20 none, 20 merger" in told(capsys, "gold", "import", tmp_path / "mine.csv", *arguments)
    table.with_columns(pl.lit("spiral").alias("class")).write_csv(tmp_path / "spirals.csv")
    err = refused(capsys, "gold", "import", tmp_path / "spirals.csv", *arguments)
    assert "none, merger" in err
    assert silent(err)


@pytest.mark.parametrize("names", ["merger,merger", "none,label", "no-merger,no merger", "?,merger"])
def test_names_that_would_be_one_column_or_none_are_refused(capsys, tmp_path, names):
    table = pl.DataFrame({"object_id": range(40), "seen": [0, 1] * 20, "alpha": 9.0})
    table.write_csv(tmp_path / "t.csv")
    columns = ["--label", "seen", "--alpha", "alpha", "--out", tmp_path / "cat.parquet"]
    assert "classes" in refused(capsys, "prepare", tmp_path / "t.csv", *columns, "--classes", names)
