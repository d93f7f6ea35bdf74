"""Names of classes come from the catalogue, through all commands that read it."""

import json

import polars as pl
import pytest

import truemorph as tm
from truemorph import ReportOptions

CLASSES = ("none", "merger")
# Arguments of `prepare`, a parameter of two-class families, and columns of votes keep their names.
ALLOWED = ("false_disk", "smooth_fraction", "disk_fraction")


@pytest.fixture(scope="module")
def mergers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mergers")
    galaxies = tm.simulate_catalogue(2000, gold=300, seed=5).select("object_id", "label", "alpha", "gold")
    prepared = tm.prepare_catalogue(
        galaxies, id="object_id", label="label", alpha="alpha", gold="gold", classes=",".join(CLASSES),
        definition="two nuclei or tidal tails", out=folder / "catalogue.parquet",
    )  # fmt: skip
    assert set(prepared.to_dict()["labels"]) == set(CLASSES)
    return folder / "catalogue.parquet"


def has_no_other_names(*texts):
    for text in texts:
        for one in ALLOWED:
            text = text.replace(one, "")
        assert "disk" not in text.lower()
        assert "smooth" not in text.lower()


def test_drift(mergers):
    found = tm.measure_bias(mergers, bootstrap=5)
    assert found.quantity == "merger fraction"
    assert found.plot().get_ylabel() == "merger fraction"
    has_no_other_names(found.summary(), json.dumps(found.to_dict()))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"gold": "gold"}, {"gold": "gold", "family": "matrix", "compare": False}])
def test_estimates(mergers, options, tmp_path):
    estimate = tm.estimate_transition(mergers, out=tmp_path / "t.json", **options)
    described = json.loads((tmp_path / "t.json").read_text())
    assert described["class_fractions"].keys() == set(CLASSES)
    assert described["class_fraction_ranges"][1] == pytest.approx(list(estimate.fraction_range["merger"]))
    assert len(described["fractions"]["quantities"]["merger fraction"]["fraction"]) == len(estimate.fractions.counts)
    again = type(estimate).read(tmp_path / "t.json")
    assert again.fraction_range["merger"] == pytest.approx(estimate.fraction_range["merger"])
    assert again.fractions.classes == CLASSES
    has_no_other_names(estimate.summary(), (tmp_path / "t.json").read_text(), str(estimate.findings))


@pytest.mark.slow
def test_report(mergers, tmp_path):
    estimate = tm.estimate_transition(mergers, gold="gold", out=tmp_path / "t.json")
    page = tmp_path / "page.html"
    result = tm.write_report(tmp_path / "t.json", out=page, options=ReportOptions(catalogue=mergers))
    rows = result.to_dict()["questions"][0]["table"]
    assert {"merger_fraction", "to_merger", "to_none"} <= rows[0].keys()
    changed = pl.read_csv(tmp_path / "page_files" / "changed.ecsv", comment_prefix="#", separator=" ")
    assert {"posterior_none", "posterior_merger"} <= set(changed.columns)
    assert set(changed["observed_label"]) == {"none"}
    assert set(changed["most_probable"]) == {"merger"}
    assert estimate.curve.classes == CLASSES
    has_no_other_names(page.read_text(), (tmp_path / "page_files" / "report.json").read_text(), result.summary())
