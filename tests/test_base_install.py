"""`pip install truemorph` without extras: catalogues, statistics and DCV14 work, other parts name their extra."""

import json
import re
import subprocess
import sys
import tomllib

import pytest

from conftest import ROOT
from truemorph.errors import InputError, extras_named

# Simulates an environment without the extra networks: its packages can't be imported and are not listed.
WITHOUT_NETWORKS = """
import contextlib, io, json, sys
from importlib.machinery import PathFinder

ABSENT = {"torch", "torchvision", "lightning", "pytorch_lightning", "timm", "torchmetrics", "huggingface_hub"}

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in ABSENT else super().find_spec(name, path, target)

    @classmethod
    def find_distributions(cls, *context):
        return [one for one in super().find_distributions(*context) if one.name.replace("-", "_") not in ABSENT]

sys.meta_path[sys.meta_path.index(PathFinder)] = Without

import truemorph
from truemorph.cli import main

def run(*arguments):
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as stop:
            status = stop.code
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}

votes, cat, fit, model, labels, page = sys.argv[1:]
told = {
    "prepare": run("prepare", votes, "--out", cat),
    "bias": run("bias", cat, "--bootstrap", "0"),
    "transition": run("transition", cat, "--bootstrap", "0", "--out", fit),
    "train": run("train", cat, "--preset", "dcv14", "--features", "radius_kpc,M_r", "--out", model),
    "label": run("label", model, cat, "--out", labels),
    "report": run("report", model, "--bootstrap", "0", "--galaxies", "0", "--out", page),
    "network": run("train", cat, "--preset", "quick", "--out", model + "-network"),
    "explain": run("explain", model, "--catalogue", cat, "--out", model + "-maps"),
    "benchmark": run("benchmark", "--quick", "--out", model + "-leaderboard"),
    "reproduce": run("reproduce", "--dry-run", "--data", model),
    "demo": run("demo", "--out", model + "-demo"),
}
catalogue = truemorph.read_table(cat).frame
label, alpha = catalogue["label"].to_numpy(), catalogue["alpha"].to_numpy()
told["theta"] = truemorph.fit_transition(label, alpha).transition.theta
told["cv14"] = truemorph.cv14(label, alpha, bootstrap=0).value
try:
    truemorph.DebiasedLoss
except truemorph.errors.InputError as problem:
    told["name"] = str(problem)
print(json.dumps(told))
"""
COMMANDS = ("prepare", "bias", "transition", "train", "label", "report")


@pytest.fixture(scope="module")
def base(simulated, tmp_path_factory):
    """Results of commands and names without the extra networks, and their output folder."""
    folder = tmp_path_factory.mktemp("base")
    files = ("catalogue.parquet", "fit.json", "model", "labels.parquet", "report.html")
    places = [str(simulated / "votes.csv"), *(str(folder / name) for name in files)]
    done = subprocess.run([sys.executable, "-c", WITHOUT_NETWORKS, *places], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), folder


def test_catalogues_statistics_and_dcv14_work_without_torch(base):
    told, folder = base
    assert {name: told[name]["status"] for name in COMMANDS} == dict.fromkeys(COMMANDS, 0), told
    assert {one.name for one in folder.iterdir()} >= {"catalogue.parquet", "fit.json", "labels.parquet", "report.html"}
    assert told["theta"] == pytest.approx(json.loads((folder / "fit.json").read_text())["parameters"]["theta"])
    assert told["cv14"] > 0


@pytest.mark.parametrize("command", ["network", "explain", "benchmark", "reproduce", "demo"])
def test_commands_that_need_networks_raise_one_line_errors(base, command):
    told = base[0][command]
    assert told["status"] == 2
    assert told["out"] == ""
    assert told["err"].count("\n") == 1
    assert "truemorph[networks]" in told["err"]


def test_names_that_need_networks_raise_errors(base):
    assert "truemorph[networks]" in base[0]["name"]


EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
OPTIONAL = [
    (re.match(r"[\w-]+", one)[0], extra)
    for extra, needed in EXTRAS.items()
    for one in needed
    if extra not in ("test", "lint", "docs", "dev") and not one.startswith("truemorph")
]


@pytest.mark.parametrize(("package", "extra"), OPTIONAL)
def test_a_missing_package_is_reported_with_its_extra(package, extra):
    module = {"scikit-image": "skimage"}.get(package, package.replace("-", "_"))
    with pytest.raises(InputError, match=rf"{module}.*truemorph\[{extra}\]"), extras_named():
        raise ModuleNotFoundError(name=f"{module}.part")


def test_other_failed_imports_are_not_changed():
    with pytest.raises(ModuleNotFoundError), extras_named():
        raise ModuleNotFoundError(name="elsewhere")
