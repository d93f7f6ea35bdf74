"""`make demo`, where it has been run, keeps its promise."""

import json

import numpy as np
import polars as pl
import pytest

from conftest import ROOT
from truemorph.commands.demo import run_demo


def test_make_demo_keeps_its_promise():
    summary_file = ROOT / "demo" / "summary.json"
    if not summary_file.is_file():
        pytest.skip("demo/summary.json is not there; run `make demo` first")
    summary = json.loads(summary_file.read_text())
    page = (ROOT / "demo" / "report.html").read_text()
    assert "docs/simulator.md" in page  # says what the demo's galaxies are not
    naive, debiased, theta = summary["models"]["naive"], summary["models"]["debiased"], summary["theta"]
    assert debiased["balanced_accuracy"] >= 0.90
    assert debiased["fraction_rms_soft"] <= 0.05
    assert 1 - naive["balanced_accuracy"] > 2 * (1 - debiased["balanced_accuracy"])
    assert naive["fraction_rms_soft"] >= 3 * debiased["fraction_rms_soft"]
    # Drift of the naive labels stands out of the sampling noise of the bins, measured by permutation.
    assert naive["cv18"]["value"] > debiased["cv18"]["value"] + 3 * debiased["cv18"]["floor_std"]
    assert abs(theta["estimate"] - theta["true"]) < 4 * theta["stderr"]


@pytest.mark.slow
def test_a_small_demo_of_bars_quotes_its_labels(tmp_path):
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
    assert "docs/simulator.md" in page
    shown = [rows[name][end] for name in ("naive", "debiased", "truth") for end in ("lowest", "highest")]
    assert all(f"<td>{value:.3f}</td>" in page for value in shown)
    assert np.isfinite([row["all"] for row in rows.values()]).all()
    assert (tmp_path / "report_files" / "changed_bar.ecsv").is_file()
