"""A model on another survey: the comparison with training, class fractions, and old models without either."""

import json
import shutil

import numpy as np
import polars as pl
import pytest

import truemorph as tm
from conftest import codes
from truemorph import load, read_table
from truemorph.io import read_json
from truemorph.labelling import sources


def another(n, seed, disks=0.5, shift=0.0):
    """Galaxies with a feature that differs between the classes; labels are the true classes."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < disks).astype(int)
    columns = {"object_id": np.arange(n), "label": truth, "alpha": rng.lognormal(2.8, 0.3, n), "gold": truth}
    features = {"colour": truth * 2 + rng.normal(size=n) + shift, "size": rng.normal(size=n)}
    return pl.DataFrame(columns | features)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of 1,500 galaxies, half of them disks."""
    folder = tmp_path_factory.mktemp("elsewhere") / "model"
    settings = {"features": ["colour", "size"], "folds": 5}
    tm.train_classifier(another(1500, 1), out=folder, preset="dcv14", labels="gold", settings=settings)
    return folder


def test_galaxies_like_those_of_training_have_no_finding_and_others_have_one(folder, tmp_path):
    same = tm.label_galaxies(folder, another(1200, 2), tmp_path / "same.parquet")
    assert not {"unlike-training", "training-not-compared"} & set(codes(same))
    shifted = tm.label_galaxies(folder, another(1200, 2, shift=4.0), tmp_path / "shifted.parquet")
    assert "unlike-training" in codes(shifted)
    assert "unlike-training" in {one["code"] for one in read_table(shifted.out).metadata["findings"]}
    table = pl.read_parquet(shifted.out)
    assert table["unlike_training"].drop_nulls().mode()[0] == "colour high"
    assert table["unlike_training"].count() > 0.1 * table.height


def test_class_fractions_are_reestimated(folder, tmp_path):
    galaxies = another(4000, 3, disks=0.15)
    report = tm.label_galaxies(folder, galaxies, tmp_path / "labels.parquet")
    _, disk = report.fractions
    p = pl.read_parquet(report.out)["p_disk"].to_numpy()
    truth = galaxies["gold"].mean()
    assert disk["mean"] == pytest.approx(p.mean())
    assert "mean_stderr" not in disk
    assert disk["mean"] - truth > 5 * p.std() / np.sqrt(p.size)
    assert abs(disk["reestimated"] - truth) < 3 * disk["reestimated_stderr"] < 0.06
    stored = read_table(report.out).metadata
    assert stored["fractions"] == list(report.fractions)
    assert "p(x | y)" in stored["assumption_of_reestimated"]
    assert json.loads(json.dumps(report.to_dict()))["fractions"] == list(report.fractions)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["gold", "alone", "naive"])
def test_reestimated_fractions_have_an_error_only_if_training_fractions_rest_on_gold_labels(way, tmp_path):
    """A network that was trained on labels of volunteers gave ± 0.013 on a value that was off by 0.34."""
    ours, others = tm.simulate_catalogue(4000, gold=300), tm.simulate_catalogue(4000, disk_fraction=0.35, seed=1)
    how = {"labels": "naive"}
    if way != "naive":
        tm.estimate_transition(ours, gold="gold" if way == "gold" else None, out=tmp_path / "t.json", compare=False)
        how = {"transition": tmp_path / "t.json"}
    settings = {"features": ["covariate"], "folds": 5}
    tm.train_classifier(ours, out=tmp_path / "model", preset="dcv14", settings=settings, **how)
    report = tm.label_galaxies(tmp_path / "model", others, tmp_path / "labels.parquet")
    _, disk = report.fractions
    assert (disk["reestimated_stderr"] is None) == (way != "gold")
    assert disk["estimate"] is None  # of other galaxies
    if way == "gold":
        assert abs(disk["reestimated"] - others["truth"].mean()) < 3 * disk["reestimated_stderr"] < 0.2
    assert ("±" in report.summary()) == (way == "gold")


def test_shards_and_parts_give_the_result_of_one_process(folder, tmp_path, monkeypatch):
    galaxies = another(1000, 4, disks=0.3, shift=1.5)
    whole = tm.label_galaxies(folder, galaxies, tmp_path / "whole.parquet")
    monkeypatch.setattr(sources, "PART_ROWS", 150)
    reports = [tm.label_galaxies(folder, galaxies, tmp_path / "parts", shard=(k, 3)) for k in (2, 1, 3)]
    assert [report.complete for report in reports] == [False, False, True]
    for fraction, other in zip(reports[-1].fractions, whole.fractions, strict=True):
        assert fraction.pop("class") == other.pop("class")
        assert fraction == pytest.approx(other)
    message = [
        [finding for finding in report.findings if finding.code == "unlike-training"] for report in (whole, reports[-1])
    ]
    assert message[0] == message[1] != []
    parts = pl.concat([pl.read_parquet(one) for one in sorted((tmp_path / "parts").glob("*.parquet"))])
    assert parts["unlike_training"].equals(pl.read_parquet(whole.out)["unlike_training"])
    summary = read_json(tmp_path / "parts" / "summary.json")
    assert [one["mean"] for one in summary["fractions"]] == [fraction["mean"] for fraction in reports[-1].fractions]
    assert "unlike-training" in {one["code"] for one in summary["findings"]}


def test_models_without_held_out_galaxies_label_as_before(folder, tmp_path):
    old = shutil.copytree(folder, tmp_path / "old")
    (old / "held_out.parquet").unlink()
    described = read_json(old / "config.json")
    del described["sha256"]  # as in version 0.1
    (old / "config.json").write_text(json.dumps(described))
    assert load(old).held_out is None
    galaxies = another(300, 5)
    reports = [tm.label_galaxies(one, galaxies, tmp_path / f"{one.name}.parquet") for one in (folder, old)]
    new, before = (pl.read_parquet(report.out) for report in reports)
    assert before.drop("model_hash").equals(new.drop("unlike_training", "model_hash"))
    assert reports[1].fractions == ()
    assert "training-not-compared" in codes(reports[1])


@pytest.mark.slow
def test_predictions_and_gold_labels_give_fractions_of_another_survey(folder, tmp_path):
    """The ways of docs/elsewhere.md: predictions as labels, beside volunteers' labels, and from arrays."""
    new = another(3000, 6, disks=0.3, shift=-0.7)
    truth, known = new["gold"].mean(), pl.when(pl.int_range(pl.len()) < 200).then("gold")
    flipped = pl.Series(np.random.default_rng(1).random(3000) < 0.2)
    mine = new.with_columns(gold=known, volunteers=pl.when(flipped).then(0.3).otherwise(0.2 + 0.6 * pl.col("label")))
    unlabelled = mine.with_columns(label=pl.lit(None, pl.Int64))
    labels = tm.label_galaxies(folder, unlabelled, tmp_path / "labels.parquet")
    options = {"join": [labels.out], "alpha": "alpha", "gold": "gold"}
    ours = tm.prepare_catalogue(mine.drop("label"), smooth="p_smooth", disk="p_disk", **options).catalogue
    theirs = tm.prepare_catalogue(mine.drop("label"), disk="volunteers", smooth="1 - volunteers", **options).catalogue
    predicted = pl.read_parquet(labels.out)
    found = [
        tm.estimate_transition(ours, gold="gold", compare=False).fractions,
        tm.estimate_transition(theirs, gold="gold", intrinsic=["p_disk_input"], compare=False).fractions,
        tm.debiased_fractions(
            predicted["label"], mine["alpha"], gold=mine["gold"].fill_null(-1), covariates=predicted["p_disk"]
        ),
    ]
    for one in found:
        total = one.bin_weights @ one.fractions[:, 1] / one.bin_weights.sum()
        low, high = one.of_total[0, 1:, 1]
        assert low < truth < high
        assert abs(total - truth) < abs(labels.fractions[1]["mean"] - truth)
        assert (high - low) / 3.92 < 0.9 * np.sqrt(truth * (1 - truth) / 200)  # of the gold labels alone
