"""The full analysis as in a notebook: public functions only, with tables in memory if possible."""

import polars as pl
import pytest

import truemorph as tm
from conftest import TINY, codes


@pytest.fixture(scope="module")
def prepared(simulated):
    votes = pl.read_csv(simulated / "votes.csv")
    return tm.prepare_catalogue(votes, images=simulated / "images", gold="truth")


@pytest.mark.slow
def test_a_catalogue_in_memory_is_measured_and_corrected(prepared):
    measured = tm.measure_bias(prepared, intrinsic=["M_r", "redshift"], bootstrap=0)
    assert measured.measure == "CV18"
    assert measured.to_table()["value"].shape == (2,)
    study = tm.estimate_transition(prepared, compare=False)
    assert "flat-fractions-tested" in codes(study)  # the truth of simulated galaxies is known
    assert all(code in repr(study) + study._repr_html_() for code in codes(study))
    with_gold = tm.estimate_transition(prepared, gold="gold", compare=False)
    assert "flat-fractions-tested" not in codes(with_gold)
    assert with_gold.plot().lines


@pytest.mark.slow
def test_the_full_analysis(prepared, simulated, tmp_path):
    study = tm.estimate_transition(prepared, compare=False, out=tmp_path / "transition.json")
    trained = tm.train_classifier(prepared, transition=study, out=tmp_path / "model", settings={**TINY, "folds": 2})
    assert trained.rows + trained.left_out <= 400
    assert set(codes(study)) <= set(codes(trained))
    model = tm.load(trained.out)
    images = simulated / "images"
    catalogue = tm.prepare_catalogue(simulated / "votes.csv", images=images, gold="truth", out=tmp_path / "cat.parquet")
    labelled = tm.label_galaxies(model, catalogue.out, tmp_path / "labels.parquet")
    assert (labelled.rows_in, labelled.labelled) == (400, 400)
    assert labelled.to_table()["p_disk"].shape == (400,)
    few = {"galaxies": 20, "draws": 0, "bootstrap": 10}
    explained = tm.explain_classifier(model, catalogue=catalogue.out, out=tmp_path / "explained", **few)
    options = tm.ReportOptions(catalogue=str(catalogue.out), labels=[labelled.out], maps=0, bootstrap=0)
    page = tm.write_report(trained.out, out=tmp_path / "report.html", options=options)
    for result in (study, trained, catalogue, labelled, explained, page):
        assert len(repr(result)) < 2000
        assert result._repr_html_().startswith("<pre>")
        assert result.to_dict()
        assert len(result.to_table())
        assert result.plot() is not None
