"""Training and labelling with a known T(α), and training on gold labels."""

import json

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from conftest import codes, run
from truemorph.bias.transitions import FiskTransition, MatrixTransition, RayleighTransition, WeibullTransition
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.classifiers.checkpoint import load
from truemorph.classifiers.fits import KnownCurve
from truemorph.commands.label import label_galaxies
from truemorph.commands.train import train_classifier
from truemorph.config import run_config, run_toml
from truemorph.errors import InputError
from truemorph.simulate.catalogues import simulate_catalogue
from truemorph.tables import CatalogTable, read_table, write_table

FEATURES = ("bulge_fraction", "x2", "x3")
DCV14 = {"preset": "dcv14", "settings": {"features": FEATURES, "folds": 2}}
KNOWN = ("--family", "rayleigh", "--theta", "11.25", "--psf", "sigma")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A catalogue with labels biased by θ = 11.25, and gold labels for 400 of 3,000 galaxies."""
    frame = simulate_catalogue(3_000, seed=1, trend="features", gold=400)
    metadata = {"alpha_psf": "sigma", "gold_definition": "disk: t_type >= 0"}
    return write_table(CatalogTable(frame, metadata=metadata), tmp_path_factory.mktemp("known") / "cat.parquet")


def test_a_known_curve_is_given_by_family_and_parameters(capsys, prepared, tmp_path):
    options = ("--preset", "dcv14", "--features", "x2,x3", "--out", tmp_path / "known")
    status, _, err = run(capsys, "train", prepared, *options, *KNOWN)
    assert status == 0, err
    model = load(tmp_path / "known")
    assert model.transition == RayleighTransition(11.25)
    assert model.described["transition"]["alpha_psf"] == "sigma"
    status, _, err = run(capsys, "train", tmp_path / "known" / "run.toml", "--out", tmp_path / "again")
    assert status == 0, err
    for name, value in model.members[0].items():
        np.testing.assert_array_equal(load(tmp_path / "again").members[0][name], value)


def test_labelling_uses_a_known_curve_for_the_posterior(capsys, prepared, tmp_path):
    train_classifier(prepared, out=tmp_path / "naive", naive=True, **DCV14)
    status, _, err = run(capsys, "label", tmp_path / "naive", prepared, "--out", tmp_path / "a.parquet", *KNOWN)
    assert status == 0, err
    label_galaxies(tmp_path / "naive", prepared, tmp_path / "b.parquet", transition=RayleighTransition(11.25))
    given, own = (read_table(tmp_path / f"{name}.parquet").frame for name in "ab")
    assert given["posterior_disk"].null_count() == 0
    assert given["posterior_disk"].equals(own["posterior_disk"])
    with pytest.raises(InputError, match="units of the PSF's fwhm"):
        label_galaxies(
            tmp_path / "naive", prepared, tmp_path / "c.parquet", curve=KnownCurve("fisk", None, 15, 2, "fwhm")
        )


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ({"family": "weibull", "scale": 15.9, "shape": 2.0}, WeibullTransition(15.9, 2.0)),
        ({"family": "fisk", "scale": 14.0, "shape": 2.2}, FiskTransition(14.0, 2.2)),
    ],
)
def test_known_curves_of_other_families(prepared, tmp_path, curve, expected):
    train_classifier(prepared, out=tmp_path / "m", curve=KnownCurve(**curve), **DCV14)
    assert load(tmp_path / "m").transition == expected


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"family": "rayleigh", "theta": 11.25, "psf": "fwhm"}, "units of the PSF's fwhm"),
        ({"family": "weibull", "theta": 11.25}, "needs `scale` and `shape`; got `theta`"),
        ({"family": "rayleigh"}, "needs `theta`; got nothing"),
        ({"theta": 11.25}, "give its `family` too"),
        ({"psf": "sigma"}, "give its `family` too"),
        ({"family": "rayleigh", "theta": -1.0}, "theta must be a positive number"),
        ({"family": "rayleigh", "theta": 11.25, "naive": True}, "`family` and `naive` exclude each other"),
        ({"labels": "gold", "transition": RayleighTransition(9.0)}, "`transition` and `labels` exclude each other"),
    ],
)
def test_invalid_known_curves_raise_errors(prepared, tmp_path, given, says):
    others = {name: given[name] for name in ("naive", "labels", "transition") if name in given}
    curve = KnownCurve(**{name: value for name, value in given.items() if name not in others})
    with pytest.raises(InputError, match=says):
        train_classifier(prepared, out=tmp_path / "m", curve=curve, **others, **DCV14)


def test_explicit_settings_of_the_curve_replace_those_of_a_run_file(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(run_toml(run_config("cat.parquet", out="m", family="rayleigh", theta=11.25, psf="sigma")))

    def again(**given):
        one = run_config(file, **given)
        return one.family, one.theta, one.scale, one.psf, one.transition, one.labels

    assert again(theta=9.0) == ("rayleigh", 9.0, None, "sigma", None, None)
    assert again(family="fisk", scale=14.0, shape=2.0) == ("fisk", None, 14.0, None, None, None)
    assert again(transition="fit.json") == (None, None, None, None, "fit.json", None)
    assert again(labels="gold") == (None, None, None, None, None, "gold")


def test_training_on_gold_labels_uses_only_these_and_treats_them_as_correct(capsys, prepared, tmp_path):
    trained = train_classifier(prepared, out=tmp_path / "m", labels="gold", **DCV14)
    assert (trained.rows, trained.left_out) == (400, 2_600)
    assert "galaxies-left-out" in codes(trained)
    model, frame = load(tmp_path / "m"), read_catalogue(prepared).frame
    assert model.transition == MatrixTransition.identity()
    assert model.described["catalogue"]["gold_definition"] == "disk: t_type >= 0"
    known = frame.filter(pl.col("gold").is_not_null())
    assert set(model.seen["object_id"]) == set(known["object_id"])
    listed = pl.read_csv(tmp_path / "m" / "left_out.csv")
    assert listed["reason"].unique().to_list() == ["no gold label"]
    # With all gold labels in one member, this is scikit-learn's regression.
    settings = {"features": FEATURES, "folds": 1}
    train_classifier(prepared, out=tmp_path / "one", labels="gold", preset="dcv14", settings=settings)
    X = known[list(FEATURES)].to_numpy()
    plain = LogisticRegression(C=100).fit(X, known["gold"])
    p = load(tmp_path / "one").probabilities(X)
    np.testing.assert_allclose(p, plain.predict_proba(X), atol=0.01)
    # A rule gives gold labels, as in `transition`.
    status, out, err = run(
        capsys, "train", prepared, "--labels", "truth=1", "--preset", "dcv14", "--out", tmp_path / "rule", "--json"
    )
    assert status == 0, err
    assert json.loads(out)["left_out"] == 0
    with pytest.raises(InputError, match="votes = counts needs T"):
        train_classifier(prepared, out=tmp_path / "n", labels="gold", votes="counts", vote_count=40)


def test_a_network_trains_on_gold_labels(catalogue, tmp_path):
    table = read_catalogue(catalogue)
    some = pl.when(pl.arange(pl.len()) % 2 == 0).then("gold")
    path = write_table(
        CatalogTable(table.frame.with_columns(gold=some), table.units, table.metadata), tmp_path / "cat.parquet"
    )
    settings = {"image_size": 32, "crop": 1, "epochs": 1, "folds": 1, "batch_size": 16, "hidden": 32}
    trained = train_classifier(path, out=tmp_path / "m", labels="gold", settings=settings)
    used = table.frame.filter(pl.col("split").is_in(["train", "validation"])).height
    assert trained.rows + trained.left_out == used
    assert trained.left_out > 0
    assert load(tmp_path / "m").transition == MatrixTransition.identity()
    # Without a bias curve there is no posterior; a known one gives it.
    assert "no-posterior" in codes(label_galaxies(tmp_path / "m", path, tmp_path / "a.parquet"))
    label_galaxies(tmp_path / "m", path, tmp_path / "b.parquet", curve=KnownCurve("rayleigh", 11.25))
    assert "posterior_disk" in read_table(tmp_path / "b.parquet").frame.columns


def test_a_known_curve_in_another_unit_gives_a_finding(prepared, tmp_path):
    found = {}
    for theta in (11.25, 11.25 * 2.3548):
        curve = KnownCurve("rayleigh", theta)
        found[theta] = codes(train_classifier(prepared, out=tmp_path / str(theta), curve=curve, **DCV14))
    assert [("transition-unlike-labels" in one) for one in found.values()] == [False, True]


def test_gold_labels_that_were_selected_by_label_have_inverse_probability_weights(prepared, tmp_path):
    frame = read_catalogue(prepared).frame
    rng = np.random.default_rng(2)
    probability = np.where(frame["label"] == 0, 0.6, 0.1)  # missed disks are among the galaxies labelled smooth
    chosen = pl.Series(rng.random(frame.height) < probability)
    frame = frame.with_columns(gold=pl.when(chosen).then(pl.col("truth")), gold_probability=probability)
    mean = {}
    for name, columns in {"known": [], "ignored": ["gold_probability"]}.items():
        path = write_table(
            CatalogTable(frame.drop(columns), metadata={"alpha_psf": "sigma"}), tmp_path / f"{name}.parquet"
        )
        train_classifier(
            path, out=tmp_path / name, labels="gold", preset="dcv14", settings={"features": ("x2",), "folds": 1}
        )
        mean[name] = load(tmp_path / name).probabilities(frame[["x2"]].to_numpy())[:, 1].mean()
    truth, error = frame["truth"].mean(), 0.5 / np.sqrt(chosen.sum() / 4)  # weighted rows count as fewer
    assert abs(mean["known"] - truth) < 3 * error
    assert abs(mean["ignored"] - truth) > 5 * error
