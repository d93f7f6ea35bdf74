"""A report shows the estimate that it is given, a model was trained through, or it makes with the same function."""

import json

import numpy as np
import polars as pl
import pytest

import truemorph as tm
from conftest import codes
from truemorph import Estimate, simulate_catalogue

pytestmark = pytest.mark.slow

SHOWN = {"corrected": "fraction", "stderr": "stderr", "lowest": "low", "highest": "high", "labelled": "labelled"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Galaxies whose disk fraction rises with α, with random and with planned gold labels; and their catalogue."""
    table = simulate_catalogue(4000, 3, gold=400, drift=0.6).drop("sampling_weight")
    chance = np.clip(0.03 + 0.3 * (table["label"] == 0).to_numpy() * (table["alpha"] < 12).to_numpy(), 0, 1)
    chosen = np.random.default_rng(1).random(table.height) < chance
    planned = pl.when(pl.Series(chosen)).then(pl.col("truth"))
    tier = pl.when(pl.col("covariate") > 0.3).then(pl.lit("deep")).otherwise(pl.lit("wide"))
    table = table.with_columns(planned=planned, chance=pl.Series(chance), tier=tier)
    return table, tmp_path_factory.mktemp("world")


CASES = {
    "labels": {},
    "columns": {"intrinsic": ["covariate"]},
    "random gold": {"gold": "gold"},
    "planned gold": {"gold": "gold"},
    "all gold": {"gold": "gold"},
    "gold and observables": {"gold": "gold", "observables": ["covariate"]},
    "by a column": {"gold": "gold", "by": "covariate", "fraction_bins": 4},
    "by groups": {"gold": "gold", "by": "tier"},
}


@pytest.mark.parametrize("case", CASES)
def test_the_page_has_the_numbers_of_its_estimate(world, case):
    table, folder = world
    name = case.replace(" ", "_")
    if case == "planned gold":
        table = table.drop("gold").rename({"planned": "gold", "chance": "gold_probability"})
    catalogue, fit = folder / f"{name}.parquet", folder / f"{name}.json"
    table = table.with_columns(gold="truth") if case == "all gold" else table
    table.drop("truth").write_parquet(catalogue)
    estimate = tm.estimate_transition(catalogue, out=fit, compare=False, **CASES[case])
    options = tm.ReportOptions(catalogue=catalogue, maps=0, bootstrap=0)
    report = tm.write_report(fit, out=folder / f"{name}.html", options=options)
    content, written = report.content, json.loads(fit.read_text())
    quoted = written["fractions"]["quantities"]["disk fraction"]
    shown = {key: [row[key] for row in content["questions"][0]["bins"]] for key in SHOWN}
    assert shown == {key: quoted[of] for key, of in SHOWN.items()}
    page = (folder / f"{name}.html").read_text()
    assert all(f">{one:.3f}</td>" in page for one in quoted["fraction"])
    if case == "by groups":
        assert all(f">{name}<" in page for name in ("deep", "wide"))
    low, high = estimate.fraction_range["disk"]
    value, spans = f"{estimate.fit.class_fractions[1]:.3f}", f"{low:.3f} to {high:.3f}"
    from_gold = estimate.fractions.method == "gold"
    assert (f"{value} (range {spans})" in content["answer"]) == (from_gold and low < high)
    assert (f"{spans} ({value})" in content["answer"]) != from_gold
    assert value in content["answer"]
    if from_gold:
        ends = zip(*(quoted[f"population_{end}"] for end in ("low", "high")), strict=True)
        assert all(f">{low:.3f} to {high:.3f}</td>" in page for low, high in ends)
        *_, low, high = estimate.fractions.quoted["disk fraction"].total
        assert f"{low:.3f} to {high:.3f}" in content["answer"]
    # Equations of what was used alone: no network was trained.
    assert ("argmax" in page, "(eq. 5)" in page) == (not from_gold, estimate.transition.family == "rayleigh")
    assert "(eq. 3)" not in page
    assert ("<mtext>CV18" in page) == bool(options.intrinsic)
    assert {one["code"] for one in written["findings"]} <= {*codes(report)}
    assert {finding.code for finding in report.findings if finding.severity == "problem"} <= {
        finding.code for finding in estimate.findings if finding.severity == "problem"
    }
    assert content["questions"][0]["transition"]["values"] == written["values"]


def test_an_estimate_is_the_same_after_it_was_written(world):
    table, folder = world
    made = tm.estimate_transition(table.drop("truth"), gold="gold", out=folder / "again.json")
    read = Estimate.read(folder / "again.json")
    assert read.to_dict() == made.to_dict()
    assert str(read) == str(made)
    np.testing.assert_array_equal(read.fractions.draws(50), made.fractions.draws(50))
    (folder / "again.npz").unlink()
    with pytest.raises(tm.errors.InputError, match=r"again\.npz"):
        Estimate.read(folder / "again.json")


def test_without_an_estimate_one_is_made_with_the_gold_labels(world):
    table, folder = world
    table.drop("truth").write_parquet(folder / "own.parquet")
    options = tm.ReportOptions(catalogue=folder / "own.parquet", maps=0, bootstrap=0)
    content = tm.write_report(out=folder / "own.html", options=options).content
    own = tm.estimate_transition(folder / "own.parquet", gold="gold", fraction_bins=5)
    assert [row["corrected"] for row in content["questions"][0]["bins"]] == own.fractions.fractions[:, 1].tolist()


def test_a_page_on_selected_galaxies_counts_these(world, tmp_path):
    table, _ = world
    catalogue, fit = tmp_path / "all.parquet", tmp_path / "deep.json"
    table.drop("truth").write_parquet(catalogue)
    tm.estimate_transition(catalogue, out=fit, compare=False, gold="gold", where=["tier=deep", "split=train"])
    options = tm.ReportOptions(catalogue=catalogue, maps=0, bootstrap=0)
    report = tm.write_report(fit, out=tmp_path / "page.html", options=options)
    deep = (table["tier"] == "deep").sum()
    assert max(row["galaxies"] for row in report.content["questions"][0]["table"]) == deep < table.height
    assert "estimate-of-other-galaxies" not in codes(report)
