"""docs/findings.md has exactly the findings of the package."""

import ast
import re

import numpy as np
import polars as pl
import pytest

import truemorph
from conftest import ROOT
from truemorph.findings import Finding

SEVERITIES = ("problem", "caution", "note")


def findings_of(tree):
    """Yield code, severity and whether there is an action, for each finding in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == Finding.__name__:
            code, severity = (ast.literal_eval(one) for one in node.args[:2])
            action = node.args[3] if len(node.args) > 3 else ast.Constant("")
            yield code, severity, not (isinstance(action, ast.Constant) and not action.value)


MADE = [
    one
    for path in sorted((ROOT / "src" / truemorph.__name__).rglob("*.py"))
    for one in findings_of(ast.parse(path.read_text(encoding="utf-8")))
]
PAGE = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
ENTRIES = re.findall(r"^### (\S+)\n\*(\w+)\.\*", PAGE, re.MULTILINE)


def test_every_code_has_one_entry_with_its_severity():
    assert len(MADE) > 50
    assert sorted({(code, severity) for code, severity, _ in MADE}) == sorted(ENTRIES)
    assert len(re.findall("^### ", PAGE, re.MULTILINE)) == len(dict(ENTRIES))


@pytest.mark.parametrize(("code", "severity", "acts"), sorted(set(MADE)))
def test_codes_are_slugs_and_problems_and_cautions_have_an_action(code, severity, acts):
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)
    assert severity in SEVERITIES
    assert acts or severity == "note"


def test_results_report_values_treated_as_missing():
    rng = np.random.default_rng(0)
    n = 3000
    alpha = rng.lognormal(2.5, 0.45, n)
    labels = (rng.random(n) < 0.7 * (1 - np.exp(-(alpha**2) / 200))).astype(int)
    size = np.where(np.arange(n) < 7, -99.0, rng.normal(0, 1, n))
    frame = pl.DataFrame({"object_id": range(n), "label": labels, "alpha": alpha, "split": "train", "size": size})
    bias = truemorph.measure_bias(frame, intrinsic=["size"], bootstrap=0)
    study = truemorph.estimate_transition(frame, intrinsic=["size"], compare=False)
    for result in (bias, study):
        assert [one.code for one in result.findings].count("values-treated-as-missing") == 1
        assert any("7 of 3,000" in one.message for one in result.findings)
