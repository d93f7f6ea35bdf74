"""Labels by an estimate alone: class fractions, posteriors through T(α), and the regression on gold labels."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import log_loss

import truemorph as tm
from conftest import codes
from truemorph.errors import InputError
from truemorph.simulate import simulate_survey


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A simulated catalogue, its estimate with 400 gold labels, and labels by it."""
    folder = tmp_path_factory.mktemp("estimated")
    galaxies = tm.simulate_catalogue(4_000, seed=1, gold=400)
    galaxies.write_parquet(folder / "cat.parquet")
    estimate = tm.estimate_transition(folder / "cat.parquet", gold="gold", compare=False, out=folder / "fit.json")
    found = tm.label_galaxies(folder / "fit.json", folder / "cat.parquet", folder / "labels.parquet")
    return folder, galaxies, estimate, pl.read_parquet(found.out)


def test_single_galaxies_have_the_probabilities_of_the_regression(labelled):
    _, galaxies, estimate, table = labelled
    p, truth, gold = table["regression_disk"].to_numpy(), galaxies["truth"].to_numpy(), galaxies["gold"].to_numpy()
    np.testing.assert_allclose(p, estimate.galaxies["probabilities"][:, 1])
    known = np.isfinite(gold)
    np.testing.assert_array_equal(p[known], gold[known])
    fraction = np.full(np.sum(~known), estimate.fit.class_fractions[1])
    assert log_loss(truth[~known], p[~known]) < 0.7 * log_loss(truth[~known], fraction)
    assert p.mean() == pytest.approx(estimate.fit.class_fractions[1], abs=1e-4)  # stored in single precision
    assert table["p_disk"].n_unique() == 1
    assert table["p_spread"].null_count() == table.height


def test_other_galaxies_have_posteriors_but_no_regression(labelled):
    folder, galaxies, estimate, before = labelled
    others = galaxies.head(3).with_columns(object_id=pl.lit("other") + pl.col("object_id").cast(pl.String))
    found = tm.label_galaxies(estimate, others, folder / "others.parquet")
    table = pl.read_parquet(found.out)
    assert table["regression_disk"].null_count() == 3
    assert "regression-missing" in codes(found)
    np.testing.assert_allclose(table["posterior_disk"], before["posterior_disk"][:3], rtol=1e-6)


def test_an_estimate_in_memory_labels_like_its_file(labelled):
    folder, galaxies, estimate, before = labelled
    table = pl.read_parquet(tm.label_galaxies(estimate, galaxies, folder / "memory.parquet").out)
    assert table.drop("model_hash").equals(before.drop("model_hash"))


def test_an_estimate_from_labels_alone_has_no_regression(tmp_path):
    galaxies = tm.simulate_catalogue(2_000)
    estimate = tm.estimate_transition(galaxies, compare=False)
    table = pl.read_parquet(tm.label_galaxies(estimate, galaxies, tmp_path / "labels.parquet").out)
    assert not any(name.startswith("regression") for name in table.columns)
    assert {"posterior_smooth", "posterior_disk"} <= set(table.columns)


@pytest.mark.slow
def test_answers_to_a_question_are_labelled_by_its_estimate(tmp_path):
    _, votes = simulate_survey(1_500, seed=2, confounded=False)
    known = pl.Series(np.random.default_rng(0).random(votes.height) < 0.3)
    votes = votes.with_columns(known=pl.when(known).then("truth_bar"))
    catalogue = tm.prepare_catalogue(votes, question="bar", out=tmp_path / "cat.parquet").catalogue
    tm.estimate_transition(tmp_path / "cat.parquet", question="bar", gold="known", out=tmp_path / "bar.json")
    table = pl.read_parquet(
        tm.label_galaxies(tmp_path / "bar.json", tmp_path / "cat.parquet", tmp_path / "labels.parquet").out
    )
    names = ["regression_does_not_apply", "regression_bar", "regression_no_bar"]
    np.testing.assert_allclose(table.select(names).to_numpy().sum(axis=1), 1, rtol=1e-6)
    truth = catalogue.frame["truth_bar"]
    bars = table["regression_bar"].filter(truth == "bar").mean()
    assert bars > 3 * table["regression_bar"].filter(truth != "bar").mean()
    assert "posterior_bar" in table.columns


def test_a_curve_without_class_fractions_labels_nothing(labelled):
    folder, galaxies, *_ = labelled
    (folder / "curve.json").write_text('{"family": "rayleigh", "parameters": {"theta": 9.0}}')
    with pytest.raises(InputError):
        tm.label_galaxies(folder / "curve.json", galaxies, folder / "no.parquet")


def test_other_galaxies_of_the_same_ids_have_no_probability_by_regression(labelled):
    folder, _, estimate, _ = labelled
    others = tm.simulate_catalogue(4_000, seed=2)
    found = tm.label_galaxies(estimate, others, folder / "same_ids.parquet")
    table = pl.read_parquet(found.out)
    assert table["regression_disk"].null_count() == table.height
    assert table["posterior_disk"].null_count() == 0
    assert "regression-missing" in codes(found)
