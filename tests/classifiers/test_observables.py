"""T(α, observables) is fitted to gold labels and used in training, posteriors and files."""

import numpy as np
import polars as pl
import pytest
import torch
from scipy.special import expit

from conftest import codes
from truemorph import (
    DebiasedLogisticRegression,
    DebiasedLoss,
    LogisticTransition,
    RayleighTransition,
    estimate_transition,
    fit_transition,
    label_galaxies,
    posterior,
    read_table,
    simulate_catalogue,
    train_classifier,
    write_table,
)
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.errors import InputError
from truemorph.tables import CatalogTable

pytestmark = pytest.mark.slow

NAN = float("nan")
FEATURES = ("bulge_fraction", "x2", "x3")


def flips_with_bulge(slope):
    """Disks flip with log-odds -2.2 ln(α / 14) + slope × bulge fraction; smooth galaxies never flip."""
    flips = [[[0, 0, 0], [NAN] * 3], [[0, -2.2, slope], [0, 0, 0]]]
    return LogisticTransition(flips, center=(np.log(14), 0), scale=(1, 1))


def world(seed, slope=1.0):
    return simulate_catalogue(5_000, seed, transition=flips_with_bulge(slope), trend="features", gold=500)


def mean_error(seed, slope):
    """Mean |p̂ - p| over galaxies, of DCV14 trained through T(α, b) from 500 gold labels."""
    frame = world(seed, slope)
    X, labels, alpha = (frame[list(FEATURES)].to_numpy(), *(frame[name].to_numpy() for name in ("label", "alpha")))
    gold, bulge = frame["gold"].fill_null(-1).to_numpy(), X[:, 0]
    transition = fit_transition(labels, alpha, gold=gold, observables=bulge).transition
    model = DebiasedLogisticRegression(transition=transition).fit(X, labels, alpha=alpha, observables=bulge)
    p = expit(0.9 - 1.8 * bulge + 1.2 * X[:, 1] + 0.8 * X[:, 2])
    return np.abs(model.predict_proba(X)[:, 1] - p).mean()


@pytest.mark.parametrize("slope", [1.0, -1.0, 0.0])
def test_probabilities_are_correct_if_flips_depend_on_a_second_observable(slope):
    # 0.011 to 0.012 for these seeds; with T(α) only, it is 0.070, 0.081 and 0.017.
    assert np.mean([mean_error(seed, slope) for seed in range(5)]) < 0.02


def test_posterior_loss_and_regression_use_the_same_observables():
    rng = np.random.default_rng(0)
    transition, alpha, bulge = flips_with_bulge(1.0), rng.lognormal(2.8, 0.45, 50), rng.normal(size=50)
    labels, logits = rng.integers(0, 2, 50), rng.normal(size=(50, 2))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    flips = transition.matrix(np.column_stack([alpha, bulge]))[np.arange(50), :, labels]
    seen = (p * flips).sum(axis=1)
    after = posterior(p, labels, alpha, transition, observables=bulge)
    np.testing.assert_allclose(after, p * flips / seen[:, None])
    tensors = [torch.tensor(one) for one in (logits, labels, alpha)]
    losses = DebiasedLoss(transition, "none")(*tensors, observables=torch.tensor(bulge[:, None]))
    np.testing.assert_allclose(losses, -np.log(seen))
    for call in (
        lambda: posterior(p, labels, alpha, RayleighTransition(9.0), observables=bulge),
        lambda: DebiasedLoss(RayleighTransition(9.0))(*tensors, observables=torch.tensor(bulge)),
        lambda: posterior(p, labels, alpha, transition, observables=np.column_stack([bulge, bulge])),
    ):
        with pytest.raises(InputError, match="observables"):
            call()
    with pytest.raises(InputError, match="observables"):
        DebiasedLogisticRegression().fit(p, labels, alpha=alpha, observables=bulge)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A catalogue in which two galaxies lack the bulge fraction, a fit of T(α, b), and a model trained through it."""
    folder = tmp_path_factory.mktemp("observables")
    frame = world(0).with_columns(
        bulge_fraction=pl.when(pl.col("object_id") < 2).then(None).otherwise(pl.col("bulge_fraction"))
    )
    path = write_table(CatalogTable(frame, metadata={"alpha_psf": "sigma"}), folder / "cat.parquet")
    estimate_transition(path, family="fisk", gold="gold", observables=["bulge_fraction"], out=folder / "fit.json")
    trained = train_classifier(
        path, out=folder / "model", transition=folder / "fit.json", preset="dcv14", settings={"features": ["x2", "x3"]}
    )
    return folder, path, trained


def test_training_leaves_out_galaxies_without_an_observable_and_labelling_gives_them_no_posterior(files):
    folder, path, trained = files
    assert (trained.rows, trained.left_out) == (4_998, 2)
    assert "galaxies-left-out" in codes(trained)
    assert pl.read_csv(folder / "model" / "left_out.csv")["object_id"].to_list() == [0, 1]
    report = label_galaxies(folder / "model", path, folder / "labels.parquet")
    labels, given = read_table(folder / "labels.parquet"), read_catalogue(path).frame[2:]
    assert labels.frame["posterior_disk"].is_null().to_numpy().nonzero()[0].tolist() == [0, 1]
    assert labels.frame["p_disk"].null_count() == 0
    assert "posterior-missing" in codes(report)
    assert labels.metadata["transition"]["observables"] == ["bulge_fraction"]
    p = labels.frame["p_disk"][2:].to_numpy()
    label, alpha, bulge = (given[name].to_numpy() for name in ("label", "alpha", "bulge_fraction"))
    after = posterior(np.column_stack([1 - p, p]), label, alpha, trained.model.transition, observables=bulge)
    np.testing.assert_allclose(labels.frame["posterior_disk"][2:], after[:, 1])
    # The same if observed labels and observables come from another table.
    label_galaxies(folder / "model", path, folder / "joined.parquet", observed=path)
    joined = read_table(folder / "joined.parquet").frame
    assert joined["posterior_disk"].equals(labels.frame["posterior_disk"])


def test_a_catalogue_without_the_observable_raises_a_one_line_error(files, tmp_path):
    folder, path, _ = files
    table, out = read_table(path), tmp_path / "labels.parquet"
    lacking = CatalogTable(table.frame.drop("bulge_fraction"), metadata=table.metadata)
    lacking = write_table(lacking, tmp_path / "lacking.parquet")
    for call in (
        lambda: label_galaxies(folder / "model", lacking, out),
        lambda: label_galaxies(folder / "model", path, out, observed=lacking),
        lambda: train_classifier(lacking, out=tmp_path / "m", transition=folder / "fit.json", preset="dcv14"),
    ):
        with pytest.raises(InputError, match=r"lacking.parquet: no column 'bulge_fraction'[^\n]*$"):
            call()
