"""Answers of other groups to a question: Zoobot's predictions and debiased votes, by the columns of their tables."""

import numpy as np
import polars as pl
import pytest

from conftest import codes
from truemorph import (
    ReportOptions,
    estimate_transition,
    label_galaxies,
    measure_bias,
    prepare_catalogue,
    simulate_catalogue,
    train_classifier,
    write_report,
)
from truemorph.errors import InputError

RULE = "applies: kind >= 1; bar: kind = 2"
GZ2 = {
    "smooth": ("smooth-or-featured-gz2_smooth", "smooth-or-featured-gz2_featured-or-disk"),
    "edge-on": ("disk-edge-on-gz2_yes", "disk-edge-on-gz2_no"),
    "bar": ("bar-gz2_no", "bar-gz2_yes"),
}


def galaxies(n=3_000, seed=0):
    """True kinds (0 does not apply, 1 no bar, 2 bar), α, and a network's fractions: it misses bars at low α."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, n, p=[0.4, 0.4, 0.2])
    alpha = rng.lognormal(2.6, 0.4, n)
    seen = 1 - np.exp(-((alpha / 12) ** 2))
    disk = np.clip(np.where(kind > 0, 0.25 + 0.6 * seen, 0.15) + 0.05 * rng.normal(size=n), 0.02, 0.98)
    bar = np.clip(np.where(kind == 2, 0.9 * seen, 0.08) + 0.05 * rng.normal(size=n), 0.02, 0.98)
    return kind, alpha, disk, bar


def zoobot(disk, bar, ending="_pred", scale=True):
    """A table in Zoobot's column names: concentrations of a Dirichlet distribution for each question."""
    rng = np.random.default_rng(1)
    size = rng.uniform(5, 100, (3, disk.size)) if scale else np.ones((3, disk.size))
    parts = {"smooth": (0.98 - 0.98 * disk, 0.98 * disk), "edge-on": (0 * disk + 0.1, 0 * disk + 0.9)}
    parts["bar"] = (1 - bar, bar)
    columns = {
        name + ending: n * part
        for n, (gate, some) in zip(size, parts.items(), strict=True)
        for name, part in zip(GZ2[gate], some, strict=True)
    }
    columns["smooth-or-featured-gz2_artifact" + ending] = 0.02 * size[0]
    return pl.DataFrame({"id_str": np.arange(disk.size).astype(str), **columns})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A catalogue with few, poor votes, and a network's predictions."""
    kind, alpha, disk, bar = galaxies()
    rng = np.random.default_rng(2)
    featured = rng.binomial(5, disk)
    face = rng.binomial(featured, 0.9)
    barred = rng.binomial(face, np.where(kind == 2, 0.35, 0.15))
    votes = {"smooth": (5 - featured, featured), "edge-on": (featured - face, face), "bar": (face - barred, barred)}
    named = {gate: zip(GZ2[gate], some, strict=True) for gate, some in votes.items()}
    table = pl.DataFrame({name: part for some in named.values() for name, part in some})
    known = pl.Series(np.where(rng.random(kind.size) < 0.2, kind, -1)).replace(-1, None)
    table = table.with_columns(pl.lit(0).alias("smooth-or-featured-gz2_artifact"), objid=np.arange(kind.size))
    table = table.with_columns(alpha=alpha, kind=known)
    path = tmp_path_factory.mktemp("others") / "cat.parquet"
    prepare_catalogue(table, question="bar", tree="gz2", alpha="alpha", id="objid", out=path)
    return path, kind, alpha, zoobot(disk, bar)


def kept(path, *columns):
    """Columns of the galaxies that are in the catalogue, in its order."""
    ids = pl.read_parquet(path)["object_id"].to_numpy()
    return [column[ids] for column in columns]


def test_predictions_drift_as_they_were_made_to(world):
    path, _, alpha, table = world
    measured = measure_bias(path, question="bar", labels=table, bootstrap=0)
    name = "labels 1"
    assert set(measured.results) == {"observed labels", name, f"{name}, fractions"}
    _, _, disk, bar = galaxies()
    disk, bar, alpha = kept(path, disk, bar, alpha)
    asked = (0.98 - 0.98 * disk < 0.98 * disk) & (0.98 * disk > 0.02)
    fifths = np.searchsorted(np.quantile(alpha, [0.2, 0.4, 0.6, 0.8]), alpha)
    for title, values in ((name, bar > 0.5), (f"{name}, fractions", bar)):
        expected = [values[asked & (fifths == k)].mean() for k in range(5)]
        np.testing.assert_allclose(measured.fractions_by_alpha[title], expected, atol=0.02)
        assert measured.results[title].n_objects == asked.sum()
        assert measured.results[title].value > measured.results[title].floor


@pytest.mark.slow
def test_predictions_beside_votes_make_corrected_fractions_better(world):
    path, kind, _, table = world
    [kind] = kept(path, kind)
    true = np.sum(kind == 2) / np.sum(kind > 0)
    alone, both = (
        estimate_transition(path, question="bar", gold=RULE, fraction_bins=4, labels=one) for one in ((), table)
    )
    _, fraction, stderr, low, high, *_ = both["bar fraction"].total
    assert abs(fraction - true) < 3 * stderr
    assert low < true < high
    assert stderr < 0.85 * alone["bar fraction"].total[2]
    assert both.about["other_labels"] == ["labels 1"]
    assert "other_labels" not in alone.about


@pytest.mark.parametrize("form", ["_pred", "_fraction", "_debiased", ""])
def test_all_kinds_of_columns_give_the_same(world, form):
    path, _, _, table = world
    measured = measure_bias(path, question="bar", labels=table, bootstrap=0)
    _, _, disk, bar = galaxies()
    same = measure_bias(path, question="bar", labels=zoobot(disk, bar, form, scale=form == ""), bootstrap=0)
    for name, values in measured.fractions_by_alpha.items():
        np.testing.assert_allclose(same.fractions_by_alpha[name], values, rtol=1e-9)


def test_debiased_fractions_come_before_votes(world):
    path, _, _, table = world
    both = table.with_columns(pl.lit(0.5).alias(f"{one}_fraction") for one in (*GZ2["bar"], *GZ2["edge-on"]))
    first, second = (measure_bias(path, question="bar", labels=one, bootstrap=0) for one in (table, both))
    assert first.fractions_by_alpha == second.fractions_by_alpha


def test_weak_and_strong_bars_of_another_survey_are_bars(world):
    path, _, _, table = world
    bar = pl.col("bar-gz2_yes_pred")
    other = table.with_columns((0.4 * bar).alias("bar-gz2_weak_pred"), (0.6 * bar).alias("bar-gz2_strong_pred"))
    other = other.drop("bar-gz2_yes_pred").rename(lambda name: name.replace("gz2", "dr8"))
    same, found = (measure_bias(path, question="bar", labels=one, bootstrap=0) for one in (table, other))
    name = "labels 1, fractions"
    np.testing.assert_allclose(found.fractions_by_alpha[name], same.fractions_by_alpha[name], rtol=0.02)


def test_missing_predictions_are_no_votes_and_galaxies_without_a_row_are_left_out(world):
    path, _, _, table = world
    asked = pl.col("smooth-or-featured-gz2_featured-or-disk_pred") > pl.col("smooth-or-featured-gz2_smooth_pred")
    hidden = [pl.when(asked).then(pl.col(f"{one}_pred")).alias(f"{one}_pred") for one in GZ2["bar"]]
    measured = measure_bias(path, question="bar", labels=table.with_columns(hidden).head(2_000), bootstrap=0)
    assert {"votes-missing", "rows-left-out"} <= set(codes(measured))
    whole = measure_bias(path, question="bar", labels=table.head(2_000), bootstrap=0)
    assert measured.fractions_by_alpha == whole.fractions_by_alpha
    found = estimate_transition(path, question="bar", gold=RULE, fraction_bins=2, labels=table.head(2_000))
    assert found.fractions.counts.sum() == measured.galaxies


def test_several_tables_have_names_of_their_own_and_may_be_files(world, tmp_path):
    path, _, _, table = world
    table.write_csv(tmp_path / "zoobot.csv")
    measured = measure_bias(path, question="bar", labels=[tmp_path / "zoobot.csv", table, path], bootstrap=0)
    names = ["observed labels"]
    names += [f"{one}{end}" for one in ("zoobot", "labels 2", "cat") for end in ("", ", fractions")]
    assert list(measured.results) == names


def test_tables_that_do_not_fit_are_refused(world):
    path, _, _, table = world
    odd = {column: column.replace("bar-gz2", "ring-gz2") for column in table.columns}
    for wrong in (
        lambda: measure_bias(path, question="bar", labels=table.rename(odd)),
        lambda: measure_bias(path, question="bar", labels=table.with_columns(id_str=pl.lit("galaxy"))),
        lambda: measure_bias(path, question="bar", labels=pl.concat([table, table])),
        lambda: measure_bias(path, question="bar", labels=table.drop("id_str")),
        lambda: estimate_transition(path, gold="kind", labels=table),
    ):
        with pytest.raises(InputError):
            wrong()


def test_answers_of_others_to_the_first_question_are_label_sets_like_a_models(world):
    path, _, alpha, table = world
    _, _, disk, _ = galaxies()
    measured = measure_bias(path, labels=table, bins=4, bootstrap=0)
    assert list(measured.results) == ["observed labels", "labels 1", "labels 1, fractions"]
    fifths = np.array_split(np.argsort(alpha, kind="stable"), 5)
    by_alpha = measured.fractions_by_alpha["labels 1, fractions"]
    np.testing.assert_allclose(by_alpha, [disk[rows].mean() for rows in fifths], atol=1e-6)
    hard = measured.fractions_by_alpha["labels 1"]
    np.testing.assert_allclose(hard, [(disk[rows] > 0.5).mean() for rows in fifths], atol=0.02)


def test_a_catalogue_can_be_made_of_predictions_alone(world, tmp_path):
    _, kind, alpha, _ = world
    _, _, disk, bar = galaxies()
    known = pl.Series(np.where(np.arange(kind.size) % 5 == 0, kind, -1)).replace(-1, None)
    table = zoobot(disk, bar, "_fraction", scale=False).with_columns(alpha=alpha, kind=known)
    named = {"id": "id_str", "alpha": "alpha", "columns": {"vote_count": "40"}}
    prepare_catalogue(table, question="bar", tree="gz2", **named, out=tmp_path / "zoo.parquet")
    found = estimate_transition(tmp_path / "zoo.parquet", question="bar", gold=RULE, fraction_bins=4)
    _, fraction, stderr, *_ = found["bar fraction"].total
    assert abs(fraction - np.sum(kind == 2) / np.sum(kind > 0)) < 3 * stderr


def logits(truth, seed, apart=1.466):
    """Calibrated logits of a network with AUC 0.85 for a prior of one half."""
    x = np.random.default_rng([seed, 3]).normal(size=truth.size) + apart * truth
    return apart * x - apart**2 / 2


def labels_of_a_network(table, seed, **columns):
    p = 1 / (1 + np.exp(-logits(table["truth"].to_numpy(), seed)))
    return table.select("object_id", label=pl.Series(p > 0.5).cast(pl.Int64), p_smooth=1 - p, p_disk=p, **columns)


def test_galaxies_whose_label_a_network_has_seen_are_left_out():
    table = simulate_catalogue(1_500, 0, gold=300)
    labels = labels_of_a_network(table, 0, relation=pl.lit("out_of_fold"))
    seen = labels.with_columns(relation=pl.Series(["in_sample"] * 500 + ["out_of_fold"] * 1_000))
    estimate = estimate_transition(table, gold="gold", labels=seen, compare=False)
    assert estimate.curve.galaxies == 1_000
    assert {"rows-left-out", "predictions-missing"} <= set(codes(estimate))
    whole = estimate_transition(table, gold="gold", compare=False)
    assert estimate.about["rows_sha256"] == whole.about["rows_sha256"]
    assert estimate.about["other_labels"] == ["labels 1"]
    with pytest.raises(InputError, match="folds"):
        estimate_transition(table, gold="gold", labels=labels.with_columns(relation=pl.lit("in_sample")))
    with pytest.raises(InputError, match="gold"):
        estimate_transition(table, labels=labels)
    with pytest.raises(InputError, match="probabilities"):
        estimate_transition(table, gold="gold", labels=labels.with_columns(pl.col("p_disk") * 100))


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_run_gives_the_labels_that_it_would_write(ending, tmp_path):
    table = simulate_catalogue(2_000, 1, gold=200)
    table.write_parquet(tmp_path / "cat.parquet")
    settings = {"features": ["covariate"], "folds": 3}
    train_classifier(tmp_path / "cat.parquet", preset="dcv14", settings=settings, out=tmp_path / "run")
    written = label_galaxies(tmp_path / "run", tmp_path / "cat.parquet", tmp_path / f"labels.{ending}").out
    options = {"gold": "gold", "compare": False}
    by_run, by_labels = (
        estimate_transition(tmp_path / "cat.parquet", labels=one, **options) for one in (tmp_path / "run", written)
    )
    np.testing.assert_array_equal(by_run.fractions.fractions, by_labels.fractions.fractions)
    by_run.write(tmp_path / "fit.json")
    quoted = label_galaxies(tmp_path / "run", table, tmp_path / "again.parquet", transition=tmp_path / "fit.json")
    disk = next(row for row in quoted.fractions if row["class"] == "disk")
    assert disk["estimate"] == pytest.approx(by_run.fit.class_fractions[1])
    options = ReportOptions(catalogue=tmp_path / "cat.parquet", labels=[written], bootstrap=0, maps=0)
    estimate = estimate_transition(tmp_path / "cat.parquet", gold="gold", compare=False)
    report = write_report(tmp_path / "run", estimate, out=tmp_path / "page.html", options=options)
    row = next(row for row in report.content["fractions"] if row["labels"] == "with predictions")
    assert row["all"] == pytest.approx(by_run.fractions["disk fraction"].total[1])
