"""Training and labelling with a known T(α), and training on gold labels."""

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from conftest import codes, run
from truemorph import (
    MatrixTransition,
    RayleighTransition,
    WeibullTransition,
    label_galaxies,
    load,
    read_table,
    simulate_catalogue,
    train_classifier,
    write_table,
)
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.errors import InputError
from truemorph.tables import CatalogTable

FEATURES = ("bulge_fraction", "x2", "x3")
DCV14 = {"preset": "dcv14", "settings": {"features": FEATURES, "folds": 2}}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A catalogue with labels biased by θ = 11.25, and gold labels for 400 of 3,000 galaxies."""
    frame = simulate_catalogue(3_000, seed=1, trend="features", gold=400)
    metadata = {"alpha_psf": "sigma", "gold_definition": "disk: t_type >= 0"}
    return write_table(CatalogTable(frame, metadata=metadata), tmp_path_factory.mktemp("known") / "cat.parquet")


@pytest.mark.parametrize(
    ("known", "expected", "differs"),
    [
        ("rayleigh:26.49:sigma", RayleighTransition(26.49), True),  # in units of the FWHM
        ("weibull:15.9,2", WeibullTransition(15.9, 2.0), False),
        (RayleighTransition(11.25), RayleighTransition(11.25), False),
    ],
)
def test_a_known_curve_that_differs_from_the_labels_gives_a_finding(prepared, tmp_path, known, expected, differs):
    trained = train_classifier(prepared, out=tmp_path / "m", transition=known, **DCV14)
    assert load(tmp_path / "m").transition == expected
    assert ("transition-unlike-labels" in codes(trained)) == differs


def test_a_run_and_its_labels_use_a_known_curve(capsys, prepared, tmp_path):
    known = ("--transition", "rayleigh:11.25:sigma")
    options = ("--preset", "dcv14", "--features", "x2,x3")
    assert run(capsys, "train", prepared, *options, "--out", tmp_path / "known", *known)[0] == 0
    assert run(capsys, "train", "--config", tmp_path / "known" / "run.toml", "--out", tmp_path / "again")[0] == 0
    for name, value in load(tmp_path / "known").members[0].items():
        np.testing.assert_array_equal(load(tmp_path / "again").members[0][name], value)
    train_classifier(prepared, out=tmp_path / "naive", labels="naive", **DCV14)
    assert run(capsys, "label", tmp_path / "naive", prepared, "--out", tmp_path / "a.parquet", *known)[0] == 0
    label_galaxies(tmp_path / "naive", prepared, tmp_path / "b.parquet", transition=RayleighTransition(11.25))
    given, own = (read_table(tmp_path / f"{name}.parquet").frame for name in "ab")
    assert given["posterior_disk"].null_count() == 0
    assert given["posterior_disk"].equals(own["posterior_disk"])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"transition": "weibull:11.25"}, "must be weibull:SCALE,SHAPE"),
        ({"transition": "rayleigh:11.25", "labels": "naive"}, "`transition` and `labels` naive exclude each other"),
    ],
)
def test_invalid_curves_raise_errors(prepared, tmp_path, given, says):
    with pytest.raises(InputError, match=says):
        train_classifier(prepared, out=tmp_path / "m", **given, **DCV14)


def test_a_classifier_that_calls_nearly_all_galaxies_the_same_says_so_unless_its_labels_do(prepared, tmp_path):
    frame, rng = read_catalogue(prepared).frame, np.random.default_rng(3)
    noise, rare = pl.Series(rng.normal(size=frame.height)), pl.Series((rng.random(frame.height) < 0.01).astype(int))
    told = {}
    for name, table in {
        "informed": frame,
        "noise": frame.with_columns(x2=noise, x3=noise**2, bulge_fraction=noise**3),
        "rare": frame.with_columns(label=rare),
    }.items():
        told[name] = "nearly-one-class" in codes(train_classifier(table, out=tmp_path / name, labels="naive", **DCV14))
    assert told == {"informed": False, "noise": True, "rare": False}


def test_training_on_gold_labels_uses_only_these_and_treats_them_as_correct(prepared, tmp_path):
    settings = {"features": FEATURES, "folds": 1}
    trained = train_classifier(prepared, out=tmp_path / "m", labels="gold", preset="dcv14", settings=settings)
    assert (trained.rows, trained.left_out) == (400, 2_600)
    assert "galaxies-left-out" in codes(trained)
    model, frame = trained.model, read_catalogue(prepared).frame
    assert model.transition == MatrixTransition.identity()
    assert model.described["catalogue"]["gold_definition"] == "disk: t_type >= 0"
    known = frame.filter(pl.col("gold").is_not_null())
    assert set(model.seen["object_id"]) == set(known["object_id"])
    # With all gold labels in one member, this is scikit-learn's regression.
    X = known[list(FEATURES)].to_numpy()
    plain = LogisticRegression(C=100).fit(X, known["gold"])
    np.testing.assert_allclose(model.probabilities(X), plain.predict_proba(X), atol=0.01)


def test_gold_labels_that_were_selected_by_label_have_inverse_probability_weights(prepared, tmp_path):
    frame = read_catalogue(prepared).frame
    rng = np.random.default_rng(2)
    probability = np.where(frame["label"] == 0, 0.6, 0.1)  # missed disks are among the galaxies labelled smooth
    chosen = pl.Series(rng.random(frame.height) < probability)
    frame = frame.with_columns(gold=pl.when(chosen).then(pl.col("truth")), gold_probability=probability)
    mean = {}
    for name, columns in {"known": [], "ignored": ["gold_probability"]}.items():
        settings = {"features": ("x2",), "folds": 1}
        trained = train_classifier(
            frame.drop(columns), out=tmp_path / name, labels="gold", preset="dcv14", settings=settings
        )
        mean[name] = trained.model.probabilities(frame[["x2"]].to_numpy())[:, 1].mean()
    truth, error = frame["truth"].mean(), 0.5 / np.sqrt(chosen.sum() / 4)  # weighted rows count as fewer
    assert abs(mean["known"] - truth) < 3 * error
    assert abs(mean["ignored"] - truth) > 5 * error
