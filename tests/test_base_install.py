"""`pip install truemorph` without extras: catalogues, statistics and DCV14 work, other parts name their extra."""

import json
import re
import subprocess
import sys
import tomllib

import pytest

from conftest import ROOT
from truemorph.errors import InputError, extras_named

# Simulates an environment without the extra networks: its packages can't be imported.
WITHOUT_NETWORKS = """
import contextlib, io, json, sys
from importlib.machinery import PathFinder

ABSENT = {"torch", "torchvision", "lightning", "pytorch_lightning", "timm", "torchmetrics", "huggingface_hub"}

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in ABSENT else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without

import truemorph
from truemorph.cli import main

told = {}
for command in sys.argv[1:]:
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(command.split())
        except SystemExit as stop:
            status = stop.code
    told[command] = [status, out.getvalue(), err.getvalue()]
try:
    truemorph.DebiasedLoss
except truemorph.errors.InputError as problem:
    told["name"] = str(problem)
print(json.dumps(told))
"""
WORK = (
    "prepare votes.csv --out cat.parquet",
    "bias cat.parquet --bootstrap 0",
    "transition cat.parquet --bootstrap 0 --out fit.json",
    "train cat.parquet --preset dcv14 --features radius_kpc,M_r --out model",
    "label model cat.parquet --out labels.parquet",
    "report model --bootstrap 0 --galaxies 0 --out report.html",
)
NEED_NETWORKS = (
    "train cat.parquet --preset quick --out network",
    "explain model --catalogue cat.parquet --out maps",
    "benchmark --quick --out board",
    "reproduce --dry-run --data model",
    "demo --out demo",
)


@pytest.mark.slow
def test_catalogues_statistics_and_dcv14_work_without_torch(simulated, tmp_path):
    (tmp_path / "votes.csv").symlink_to(simulated / "votes.csv")
    command = [sys.executable, "-c", WITHOUT_NETWORKS, *WORK, *NEED_NETWORKS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [told[one][0] for one in WORK] == [0] * len(WORK), told
    assert {one.name for one in tmp_path.iterdir()} >= {"cat.parquet", "fit.json", "labels.parquet", "report.html"}
    for need_network in NEED_NETWORKS:
        status, out, err = told[need_network]
        assert (status, out, err.count("\n")) == (2, "", 1), (need_network, err)
        assert "truemorph[networks]" in err
    assert "truemorph[networks]" in told["name"]


EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
OPTIONAL = [
    (re.match(r"[\w-]+", one)[0], extra)
    for extra, needed in EXTRAS.items()
    for one in needed
    if extra not in ("test", "lint", "docs", "dev") and not one.startswith("truemorph")
]


@pytest.mark.parametrize(("package", "extra"), OPTIONAL)
def test_a_missing_package_is_reported_with_its_extra(package, extra):
    module = package.replace("-", "_")
    with pytest.raises(InputError, match=rf"{module}.*truemorph\[{extra}\]"), extras_named():
        raise ModuleNotFoundError(name=f"{module}.part")


def test_other_failed_imports_are_not_changed():
    with pytest.raises(ModuleNotFoundError), extras_named():
        raise ModuleNotFoundError(name="elsewhere")
