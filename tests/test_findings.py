"""docs/findings.md has exactly the findings of the package."""

import ast
import re
from functools import cache

import polars as pl
import pytest

import truemorph
from conftest import ROOT, codes
from truemorph import Finding


def findings_of(tree):
    """Yield code, severity and whether there is an action, for each finding in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == Finding.__name__:
            code, severity = (ast.literal_eval(one) for one in node.args[:2])
            action = node.args[3] if len(node.args) > 3 else ast.Constant("")
            yield code, severity, not (isinstance(action, ast.Constant) and not action.value)


@cache
def findings_made():
    """Code, severity and whether there is an action, of each finding that the package makes."""
    paths = sorted((ROOT / "src" / truemorph.__name__).rglob("*.py"))
    return [one for path in paths for one in findings_of(ast.parse(path.read_text(encoding="utf-8")))]


PAGE = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
ENTRIES = re.findall(r"^### (\S+)\n\*(\w+)\.\*", PAGE, re.MULTILINE)


def test_every_code_has_one_entry_with_its_severity():
    made = findings_made()
    assert len(made) > 50
    assert sorted({(code, severity) for code, severity, _ in made}) == sorted(ENTRIES)
    assert len(re.findall("^### ", PAGE, re.MULTILINE)) == len(dict(ENTRIES))


def test_codes_are_slugs_and_problems_and_cautions_have_an_action():
    for code, severity, acts in findings_made():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)
        assert severity in ("problem", "caution", "note"), code
        assert acts or severity == "note", code


@pytest.mark.slow
def test_results_report_values_treated_as_missing():
    size = pl.when(pl.int_range(pl.len()) < 7).then(-99.0).otherwise("covariate")
    frame = truemorph.simulate_catalogue(3000).with_columns(size=size)
    bias = truemorph.measure_bias(frame, intrinsic=["size"], bootstrap=0)
    assert bias.galaxies == 2993
    study = truemorph.estimate_transition(frame, intrinsic=["size"], compare=False)
    for result in (bias, study):
        assert codes(result).count("values-treated-as-missing") == 1
        assert any("7 of 3,000" in finding.message for finding in result.findings)
