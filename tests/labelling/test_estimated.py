"""Labels by an estimate alone: class fractions, posteriors through T(α), and the regression on gold labels."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import log_loss

import truemorph as tm
from conftest import codes
from truemorph.errors import InputError


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


@pytest.mark.parametrize("same_ids", [False, True])
def test_other_galaxies_have_posteriors_but_no_regression(labelled, tmp_path, same_ids):
    _, galaxies, estimate, before = labelled
    renamed = galaxies.with_columns(object_id=pl.format("other {}", "object_id"))
    others = tm.simulate_catalogue(4_000, seed=2) if same_ids else renamed
    found = tm.label_galaxies(estimate, others, tmp_path / "labels.parquet")
    table = pl.read_parquet(found.out)
    assert table["regression_disk"].null_count() == table.height
    assert table["posterior_disk"].null_count() == 0
    assert "regression-missing" in codes(found)
    assert table["posterior_disk"].equals(before["posterior_disk"]) != same_ids


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


def test_a_curve_without_class_fractions_labels_nothing(labelled):
    folder, galaxies, *_ = labelled
    (folder / "curve.json").write_text('{"family": "rayleigh", "parameters": {"theta": 9.0}}')
    with pytest.raises(InputError):
        tm.label_galaxies(folder / "curve.json", galaxies, folder / "no.parquet")
