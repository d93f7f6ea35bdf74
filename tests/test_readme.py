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
from truemorph.cli import main
from truemorph.config import PRESETS

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


def as_commands(text):
    """Arguments of each command of a block that has only truemorph's; None of any other."""
    lines = text.replace("\\\n", " ").splitlines()
    if any(line and not line.startswith(("truemorph ", "#")) for line in lines):
        return None
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("truemorph ")]


@pytest.fixture
def run_block(tmp_path, monkeypatch, capsys):
    """Run a block in an empty folder; returns what it printed.

    In this process, where torch is loaded once; the block "votes", and those with other commands, as a user runs them.
    """
    monkeypatch.chdir(tmp_path)

    def block(name):
        kind, text = BLOCKS[name]
        if kind == "python":
            exec(text, {"__name__": "__main__"})
        elif name == "votes" or (commands := as_commands(text)) is None:
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            command = ["bash", "-euo", "pipefail", "-c", text]
            done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-2000:]
            return done.stdout
        else:
            for one in commands:
                main(one)
        return capsys.readouterr().out

    return block


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
def test_step_by_step_on_the_demos_files(run_block, tmp_path, monkeypatch, capsys):
    """On few and small galaxies, and a preset "quick" that is quicker."""
    small = PRESETS["quick"].model_copy(update={"epochs": 1, "folds": 2, "image_size": 32})
    monkeypatch.setitem(PRESETS, "quick", small)
    main(["demo", "--out", "demo", "--galaxies", "300", "--epochs", "1", "--folds", "1"])
    assert "open demo/report.html" in capsys.readouterr().out
    assert 'rotation = "any"' in run_block("training")
    out = run_block("labelling")
    assert "300 rows in, 300 labelled" in out
    assert "1 of 2 parts" not in out
    run_block("report")
    assert (tmp_path / "posterior.html").is_file()
    assert "predicted disk" in run_block("explain")
    out = run_block("gold")
    assert "of them shown twice" in out
    assert "gold labels  300" in out
    assert (tmp_path / "desk" / "subjects" / "manifest.csv").is_file()
    out = run_block("demo")
    assert "theta = " in out
    assert "300 rows in, 300 labelled" in out
    assert "open run/report.html" in out
    assert (tmp_path / "run" / "report.html").is_file()
    assert "flat-fractions-assumed" in run_block("notebook")
    assert (tmp_path / "work" / "report.html").is_file()


def test_the_first_example_prints_the_numbers_of_the_readme(run_block):
    out = run_block("first")
    printed = dict(PRINTED.findall((ROOT / "README.md").read_text()))["first"]
    ours, readme = ([float(one.replace(",", "")) for one in NUMBER.findall(text)] for text in (out, printed))
    assert ours == pytest.approx(readme, abs=0.002)
    low, high = readme[-2:]
    assert low < readme[1] < high  # the truth


def test_python_snippet(run_block):
    out = run_block("python")
    theta, error = (float(x) for x in out.split()[:2])
    assert abs(theta - 11.25) < 4 * error


@pytest.mark.slow
def test_ways_to_estimate(run_block):
    out = run_block("ways")
    for said in ("likelihood", "conditional", "gold", "at fixed intrinsic properties"):
        assert said in out


def test_catalogues_of_known_truth(run_block):
    assert "disk fraction" in run_block("worlds")


def test_a_family_of_ones_own(run_block):
    assert "exponential" in run_block("own_family")


@pytest.mark.slow
def test_simulated_galaxies(run_block):
    out = run_block("simulate")
    assert "α lowered by 1.5" in out


@pytest.mark.slow
def test_the_real_archives_on_simulated_ones(run_block, tmp_path, monkeypatch):
    with Observatory(small_archive()) as sky:
        monkeypatch.setenv("TRUEMORPH_ADDRESSES", str(sky.write_addresses(tmp_path / "addresses.toml")))
        out = run_block("archives")
    assert "CC BY 4.0" in out
    assert "rows in                                120" in out
    assert (tmp_path / "run" / "paper.datasheet.md").is_file()


@pytest.mark.slow
def test_any_survey_in_a_page_of_toml(run_block, tmp_path):
    n = 200
    rng = np.random.default_rng(0)
    table = Table({"id": np.arange(n), "round_votes": rng.integers(0, 20, n), "cigar_votes": rng.integers(0, 9, n)})
    table["disk_votes"], table["star"] = rng.integers(0, 30, n), rng.random(n) < 0.1
    table["r_petro"], table["z_spec"], table["b/a"] = rng.uniform(8, 40, n), rng.uniform(0, 0.1, n), rng.random(n)
    table.write(tmp_path / "mysurvey.fits")
    out = run_block("mysurvey")
    assert "well resolved" in out
    assert 'expression = "round_votes + cigar_votes"' in out
    assert "features_or_disk" in (tmp_path / "mine.toml").read_text()


@pytest.mark.slow
def test_tables_in_memory(run_block):
    out = run_block("crossmatch")
    assert "votes with redshifts on the sky within 1.5 arcsec: 400 of 400 rows matched" in out


@pytest.mark.slow
def test_leaderboard(run_block, tmp_path):
    out = run_block("leaderboard")
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("votes", ("4,689 rows in, 4,689 labelled", "theta = ")),
        ("experts", ("t_type >= -3", "gold labels are right")),
    ],
)
def test_on_votes_of_real_galaxies(run_block, tmp_path, shared_data, name, said):
    (tmp_path / "gz2_votes.csv").symlink_to(shared_data / "gz2_votes.csv")
    out = run_block(name)
    assert all(one in out for one in said)


@pytest.mark.slow
def test_on_challenge_images(run_block, tmp_path, shared_data):
    name = "gz2_challenge_images"
    (tmp_path / name).symlink_to(shared_data / name)
    # A third of the galaxies, for time.
    pl.read_csv(shared_data / f"{name}.csv", infer_schema_length=None)[::3].write_csv(tmp_path / f"{name}.csv")
    out = run_block("challenge")
    assert "635 rows in, 635 labelled" in out
    assert "theta = " in out
