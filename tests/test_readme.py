"""The README's commands, run as written."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from astropy.table import Table

from archives.server import Observatory, small_archive
from conftest import ROOT
from truemorph.benchmark.methods import TABLES, methods_of

BLOCK = re.compile(r"<!-- run: (\w+) -->\n```(\w+)\n(.*?)```", re.DOTALL)
PAGES = (
    "README.md",
    "docs/statistics.md",
    "docs/simulator.md",
    "docs/training.md",
    "docs/labelling.md",
    "docs/report.md",
    "docs/gold.md",
    "docs/explain.md",
    "docs/catalogues.md",
    "docs/galaxy_zoo.md",
    "docs/python.md",
    "docs/leaderboard.md",
)
PRINTED = re.compile(r"<!-- printed: (\w+) -->\n```\n(.*?)```", re.DOTALL)
NUMBER = re.compile(r"-?\d[\d,]*\.?\d*")
BLOCKS = {name: (kind, text) for page in PAGES for name, kind, text in BLOCK.findall((ROOT / page).read_text())}
ONE_PROCESS = "import json, sys; from truemorph.cli import main; [main(one) for one in json.loads(sys.argv[1])]"


def as_commands(text):
    """Arguments of each command of a block that has only truemorph's; None of any other."""
    lines = text.replace("\\\n", " ").splitlines()
    if any(line and not line.startswith(("truemorph ", "#")) for line in lines):
        return None
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("truemorph ")]


def run_block(name, folder):
    """Run a block in a folder, with the commands of this environment; returns what it printed.

    The block "votes" as a user runs it; others in one process, where they can be: torch is loaded once.
    """
    kind, text = BLOCKS[name]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if kind == "python":
        command = [sys.executable, "-c", text]
    elif name == "votes" or (commands := as_commands(text)) is None:
        command = ["bash", "-euo", "pipefail", "-c", text]
    else:
        command = [sys.executable, "-c", ONE_PROCESS, json.dumps(commands)]
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_every_command_of_the_readme_is_in_a_block_that_is_run():
    text = (ROOT / "README.md").read_text()
    outside = BLOCK.sub("", text)
    assert set(BLOCKS) == {
        "first",
        "demo",
        "votes",
        "experts",
        "challenge",
        "leaderboard",
        "notebook",
        "python",
        "ways",
        "own_family",
        "simulate",
        "worlds",
        "training",
        "labelling",
        "report",
        "gold",
        "explain",
        "archives",
        "mysurvey",
        "crossmatch",
    }
    assert not re.search(r"^truemorph ", outside, re.MULTILINE)


@pytest.mark.slow
def test_step_by_step_on_the_demos_files(tmp_path):
    small = ["truemorph", "demo", "--out", "demo", "--galaxies", "300", "--epochs", "1", "--folds", "2"]
    small[0] = str(Path(sys.executable).parent / "truemorph")
    subprocess.run(small, cwd=tmp_path, check=True, capture_output=True)
    out = run_block("training", tmp_path)
    assert 'rotation = "any"' in out
    out = run_block("labelling", tmp_path)
    assert "300 rows in, 300 labelled" in out
    assert "1 of 2 parts" not in out
    run_block("report", tmp_path)
    assert (tmp_path / "posterior.html").is_file()
    out = run_block("explain", tmp_path)
    assert "predicted disk" in out
    out = run_block("gold", tmp_path)
    assert "of them shown twice" in out
    assert "gold labels  300" in out
    assert (tmp_path / "desk" / "subjects" / "manifest.csv").is_file()
    out = run_block("demo", tmp_path)
    assert "theta = " in out
    assert "300 rows in, 300 labelled" in out
    assert "open run/report.html" in out
    assert (tmp_path / "run" / "report.html").is_file()
    assert "flat-fractions-assumed" in run_block("notebook", tmp_path)
    assert (tmp_path / "work" / "report.html").is_file()


def test_the_first_example_prints_the_numbers_of_the_readme(tmp_path):
    out = run_block("first", tmp_path)
    printed = dict(PRINTED.findall((ROOT / "README.md").read_text()))["first"]
    ours, readme = ([float(one.replace(",", "")) for one in NUMBER.findall(text)] for text in (out, printed))
    assert ours == pytest.approx(readme, abs=0.002)
    low, high = readme[-2:]
    assert low < readme[1] < high  # the truth


def test_python_snippet(tmp_path):
    out = run_block("python", tmp_path)
    theta, error = (float(x) for x in out.split()[:2])
    assert abs(theta - 11.25) < 4 * error


@pytest.mark.slow
def test_ways_to_estimate(tmp_path):
    out = run_block("ways", tmp_path)
    for said in ("likelihood", "conditional", "gold", "at fixed intrinsic properties"):
        assert said in out


def test_catalogues_of_known_truth(tmp_path):
    assert "disk fraction" in run_block("worlds", tmp_path)


def test_a_family_of_ones_own(tmp_path):
    assert "exponential" in run_block("own_family", tmp_path)


@pytest.mark.slow
def test_simulated_galaxies(tmp_path):
    out = run_block("simulate", tmp_path)
    assert "α lowered by 1.5" in out


@pytest.mark.slow
def test_the_real_archives_on_simulated_ones(tmp_path, monkeypatch):
    with Observatory(small_archive()) as sky:
        monkeypatch.setenv("TRUEMORPH_ADDRESSES", str(sky.write_addresses(tmp_path / "addresses.toml")))
        out = run_block("archives", tmp_path)
    assert "CC BY 4.0" in out
    assert "rows in                                120" in out
    assert (tmp_path / "run" / "paper.datasheet.md").is_file()


@pytest.mark.slow
def test_any_survey_in_a_page_of_toml(tmp_path):
    n = 200
    rng = np.random.default_rng(0)
    table = Table({"id": np.arange(n), "round_votes": rng.integers(0, 20, n), "cigar_votes": rng.integers(0, 9, n)})
    table["disk_votes"], table["star"] = rng.integers(0, 30, n), rng.random(n) < 0.1
    table["r_petro"], table["z_spec"], table["b/a"] = rng.uniform(8, 40, n), rng.uniform(0, 0.1, n), rng.random(n)
    table.write(tmp_path / "mysurvey.fits")
    out = run_block("mysurvey", tmp_path)
    assert "well resolved" in out
    assert 'expression = "round_votes + cigar_votes"' in out
    assert "features_or_disk" in (tmp_path / "mine.toml").read_text()


@pytest.mark.slow
def test_tables_in_memory(tmp_path):
    out = run_block("crossmatch", tmp_path)
    assert "votes with redshifts on the sky within 1.5 arcsec: 400 of 400 rows matched" in out


@pytest.mark.slow
def test_leaderboard(tmp_path):
    out = run_block("leaderboard", tmp_path)
    for said in ("plain", "confounded", "heavy-tailed", "image annotator", "vote-fraction matching", "DCV14"):
        assert said in out
    assert (tmp_path / "board" / "leaderboard.html").is_file()
    rows = json.loads((tmp_path / "board" / "leaderboard.json").read_text())["rows"]
    by = {(row["world"], row["method"]): row["means"] for row in rows}
    worlds = {"plain", "confounded", "heavy-tailed", "image annotator"}
    methods = [name for name, one in methods_of(TABLES).items() if not one.worlds]
    assert {*by} == {(world, method) for world in worlds for method in methods}
    plain = {method: by["plain", method] for method in methods}
    # Where the model holds, fractions from the posterior are right and the labels' are not.
    assert plain["labels"]["fraction_rms_hard"] > 0.25
    assert plain["dcv14-posterior"]["fraction_rms_soft"] < 0.03
    assert plain["dcv14-posterior"]["balanced_accuracy"] > plain["matching"]["balanced_accuracy"] + 0.05
    confounded = {method: by["confounded", method] for method in methods}
    assert confounded["conditional"]["fraction_rms_soft"] < confounded["likelihood"]["fraction_rms_soft"]


def on_real_galaxies(name, files, folder, shared_data):
    for file in files:
        (folder / file).symlink_to(shared_data / file)
    return run_block(name, folder)


@pytest.mark.slow
def test_on_votes(tmp_path, shared_data):
    out = on_real_galaxies("votes", ["gz2_votes.csv"], tmp_path, shared_data)
    assert "4,689 rows in, 4,689 labelled" in out
    assert "theta = " in out


@pytest.mark.slow
def test_votes_with_expert_types(tmp_path, shared_data):
    out = on_real_galaxies("experts", ["gz2_votes.csv"], tmp_path, shared_data)
    assert "t_type >= -3" in out
    assert "gold labels are right" in out


@pytest.mark.slow
def test_on_challenge_images(tmp_path, shared_data):
    name = "gz2_challenge_images"
    (tmp_path / name).symlink_to(shared_data / name)
    # A third of the galaxies, for time.
    pl.read_csv(shared_data / f"{name}.csv", infer_schema_length=None)[::3].write_csv(tmp_path / f"{name}.csv")
    out = run_block("challenge", tmp_path)
    assert "635 rows in, 635 labelled" in out
    assert "theta = " in out
