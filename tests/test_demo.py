"""`make demo`, where it has been run, keeps its promise."""

import json

import numpy as np
import polars as pl
import pytest

from conftest import ROOT
from truemorph import run_demo
from truemorph.commands.demo import TRUE_THETA


def test_make_demo_keeps_its_promise():
    content = ROOT / "demo" / "report_files" / "report.json"
    if not content.is_file():
        pytest.skip("demo/report.html is not there; run `make demo` first")
    question = json.loads(content.read_text())["questions"][0]
    assert "docs/simulator.md" in (ROOT / "demo" / "report.html").read_text()  # says what the demo's galaxies are not
    rows = {row["labels"]: row for row in question["table"]}
    accuracy, rms = (f"{score}: disk: truth is 1" for score in ("balanced_accuracy", "fraction_rms"))
    naive, debiased = rows["naive: labels"], rows["debiased: labels"]
    assert debiased[accuracy] >= 0.90
    assert rows["debiased: p(disk)"][rms] <= 0.05
    assert 1 - naive[accuracy] > 2 * (1 - debiased[accuracy])
    assert rows["naive: p(disk)"][rms] >= 3 * rows["debiased: p(disk)"][rms]
    # Drift of the naive labels stands out of the sampling noise of the bins, measured by permutation.
    assert naive["value"] > debiased["value"] + 3 * debiased["floor_std"]
    curve = question["transition"]
    assert abs(curve["parameters"]["theta"] - TRUE_THETA) < 4 * curve["stderr"]["theta"]


@pytest.mark.slow
def test_a_small_demo_of_bars_quotes_its_labels(demo_in_this_process, short_tuning, tmp_path):
    said = run_demo(question="bar", out=tmp_path, galaxies=600, epochs=1).to_dict()
    rows = {row["labels"]: row for row in said["fractions"]}
    assert set(rows) == {"observed", "corrected", "with predictions", "naive", "debiased", "truth"}
    catalogue = pl.read_parquet(tmp_path / "catalogue.parquet")
    for name in ("naive", "debiased"):
        labels = pl.read_parquet(tmp_path / f"labels_{name}.parquet")
        of = "p" if name == "naive" else "posterior"  # given the votes, through T
        bar, other = (labels[f"{of}_{answer}"].sum() for answer in ("bar", "no_bar"))
        assert rows[name]["all"] == pytest.approx(bar / (bar + other))
    applies = catalogue["gold_bar"].is_in(["bar", "no bar"])
    assert rows["truth"]["all"] == pytest.approx((catalogue["gold_bar"] == "bar").sum() / applies.sum())
    assert catalogue["experts"].count() < 400 < catalogue["gold_bar"].count()
    low, high = rows["corrected"]["all_range"]
    assert low < rows["truth"]["all"] < high
    page = (tmp_path / "report.html").read_text()
    assert "simulated-galaxies" in [one["code"] for one in said["findings"]]
    assert "docs/simulator.md" in page
    shown = [rows[name][end] for name in ("naive", "debiased", "truth") for end in ("lowest", "highest")]
    assert all(f">{value:.3f}</td>" in page for value in shown)
    assert np.isfinite([row["all"] for row in rows.values()]).all()
    assert (tmp_path / "report_files" / "changed_bar.ecsv").is_file()
