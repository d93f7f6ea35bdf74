"""`make demo`, where it has been run, keeps its promise."""

import json

import pytest

from conftest import ROOT


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
