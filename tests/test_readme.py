"""The commands of README and docs, run as written."""

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

from archives.server import Observatory
from conftest import ROOT, assert_represented, codes
from follow_wheel import PRINTED, numbers
from truemorph.cli import main
from truemorph.config import PRESETS
from truemorph.results import Result
from truemorph.simulate import CENTRAL_R90, simulate_survey, write_jpegs

BLOCK = re.compile(r"<!-- run: (\w+) -->\n```(\w+)\n(.*?)```", re.DOTALL)
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
BLOCKS = {name: (kind, text) for page in PAGES for name, kind, text in BLOCK.findall(page.read_text())}


def by_bash(text):
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", text], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture
def quicker(monkeypatch):
    """The preset "quick" takes one epoch, of small images."""
    monkeypatch.setitem(PRESETS, "quick", PRESETS["quick"].model_copy(update={"epochs": 1, "image_size": 32}))


@pytest.fixture
def run_block(tmp_path, monkeypatch, capsys):
    """Run a block in an empty folder, and assert that it prints some words; returns all that it printed.

    In this process, where torch is loaded once; what `make` would run, too. Two blocks as a user runs them.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)

    def block(name, *shown, namespace=None):
        kind, text = BLOCKS[name]
        if kind == "python":
            exec(text, {} if namespace is None else namespace)
        elif name in ("votes", "mysurvey"):
            print(by_bash(text))
        else:
            text = by_bash(text.replace("make ", "make -n ")) if "make " in text else text
            for line in text.replace("\\\n", " ").splitlines():
                if line.startswith("truemorph "):
                    main(shlex.split(line, comments=True)[1:])
        out = capsys.readouterr().out
        assert all(one in out for one in shown), name
        return out

    return block


def test_every_command_of_the_readme_is_in_a_block_that_is_run():
    assert not re.search(r"^truemorph ", BLOCK.sub("", (ROOT / "README.md").read_text()), re.MULTILINE)
    tests = Path(__file__).read_text()
    assert [name for name in BLOCKS if f'"{name}"' not in tests] == []


@pytest.mark.slow
def test_step_by_step_on_the_demos_files(run_block, demo_in_this_process, short_tuning, quicker, tmp_path, capsys):
    """On few and small galaxies."""
    main(["demo", "--out", "demo", "--galaxies", "300", "--epochs", "1", "--folds", "1"])
    assert "open demo/report.html" in capsys.readouterr().out
    for name, *shown in (
        ("two", "errors above", "range spans"),
        ("training", 'rotation = "any"'),
        ("labelling", "300 rows in, 300 labelled"),
        ("files", "300 rows in, 300 labelled"),
        ("report",),
        ("explain", "predicted disk"),
        ("gold", "of them shown twice", "gold labels  300"),
        ("demo", "theta = ", "300 rows in, 300 labelled", "open run/report.html"),
    ):
        assert "1 of 2 parts" not in run_block(name, *shown)
    namespace = {}
    run_block("notebook", "flat-fractions-assumed", namespace=namespace)
    results = [value for value in namespace.values() if isinstance(value, Result)]
    assert len(results) == 7
    for result in results:
        assert_represented(result)
    assert set(codes(namespace["study"])) <= set(codes(namespace["trained"]))
    assert by_bash("make -q -f survey.mk") == ""  # nothing is left to make
    for made in ("posterior.html", "desk/subjects/manifest.csv", "run/report.html", "work/report.html"):
        assert (tmp_path / made).is_file()


def of_zoobot(votes):
    """Concentrations as Zoobot would predict them, from the volunteers' votes."""
    rng, total = np.random.default_rng(1), pl.col("t03_bar_a06_bar_count") + pl.col("t03_bar_a07_no_bar_count")
    table = votes.select(
        id_str=pl.col("dr7objid").cast(pl.String),
        disk="t01_smooth_or_features_a02_features_or_disk_weighted_fraction",
        edge=1 / (1 + ((pl.col("axis_ratio") - 0.3) / 0.05).exp()),
        bar=(pl.col("t03_bar_a06_bar_count") / total).fill_nan(0.3),
    )
    p = {name: np.clip(0.9 * table[name].to_numpy() + 0.05 * rng.normal(size=table.height), 0.02, 0.95) + 0.02
         for name in ("disk", "edge", "bar")}  # fmt: skip
    answers = {
        "smooth-or-featured-gz2": {"smooth": 1 - p["disk"], "featured-or-disk": p["disk"], "artifact": 0.01},
        "disk-edge-on-gz2": {"yes": p["edge"], "no": 1 - p["edge"]},
        "bar-gz2": {"yes": p["bar"], "no": 1 - p["bar"]},
    }
    columns = {f"{q}_{name}_pred": 40 * part for q, parts in answers.items() for name, part in parts.items()}
    return table.select("id_str").with_columns(**columns)


@pytest.fixture
def files(tmp_path):
    """What the sections of the first page for newcomers start from."""
    galaxies, votes = simulate_survey(900, seed=3, confounded=False)
    write_jpegs(galaxies, tmp_path / "cutouts", 32, 3, field=CENTRAL_R90)
    votes.drop("truth", "truth_edge_on", "truth_bar", "truth_spiral").write_parquet(tmp_path / "votes.parquet")
    votes.sample(250, seed=1).select("dr7objid", bar="truth_bar").write_csv(tmp_path / "experts.csv")
    of_zoobot(votes).write_csv(tmp_path / "zoobot.csv")
    rng, n = np.random.default_rng(5), votes.height
    alpha, names = (votes["petroRad_r"] / votes["psfWidth_r"] * 2.3548).to_numpy(), np.array(["none", "minor", "major"])
    kind = rng.choice(3, n, p=(0.7, 0.2, 0.1))
    sheet = {"name": votes["dr7objid"], "r_petro": votes["petroRad_r"], "seeing": votes["psfWidth_r"]}
    for expert in ("anna", "ben", "carla"):
        said = names[np.where(rng.random(n) < 1 - np.exp(-((alpha / 12) ** 2)), kind, 0)]
        sheet[expert] = pl.Series(said).scatter(np.flatnonzero(rng.random(n) < 0.1), None)
    pl.DataFrame(sheet).write_csv(tmp_path / "sheet.csv")
    known = rng.permutation(n)[:200]
    pl.DataFrame({"name": votes["dr7objid"].gather(known), "class": names[kind[known]]}).write_csv(
        tmp_path / "hubble.csv"
    )


@pytest.mark.slow
def test_the_first_ten_minutes_of_newcomers(run_block, quicker, files):
    run_block("start_votes", "bar fraction at redshift", "Corrected with gold labels", "open bars.html")
    run_block("start_zoobot", "zoobot, fractions", "bar if bar applies", "open page.html")
    run_block("start_experts", "merger stage", "minor: mass ratio below 1:4", "open stages.html")


@pytest.mark.slow
def test_the_first_example_prints_the_numbers_of_the_readme(run_block):
    promised, printed = numbers(PRINTED), run_block("first")
    assert numbers(printed) == pytest.approx(promised, abs=0.002)
    assert re.findall(r"'(.+?)'", printed) == re.findall(r"'(.+?)'", PRINTED)  # codes of findings
    low, high = promised[-4:-2]
    assert low < promised[1] < high  # the truth


@pytest.mark.slow
def test_python_snippet(run_block):
    theta, error = (float(x) for x in run_block("python").split()[:2])
    assert abs(theta - 11.25) < 4 * error


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("worlds", ["disk fraction"]),
        ("survey", ["bar fraction"]),
        ("own_family", ["exponential"]),
        pytest.param("simulate", ["α lowered by 1.5"], marks=pytest.mark.slow),
        pytest.param("ways", ["likelihood", "gold", "at fixed intrinsic columns"], marks=pytest.mark.slow),
        pytest.param("leaderboard", ["heavy-tailed", "vote-fraction matching", "DCV14"], marks=pytest.mark.slow),
        pytest.param("crossmatch", ["within 1.5 arcsec: 400 of 400 rows matched"], marks=pytest.mark.slow),
    ],
)
def test_examples_that_need_no_files(run_block, small_worlds, name, shown):
    run_block(name, *shown)


@pytest.mark.slow
def test_the_real_archives_on_simulated_ones(run_block, archive, tmp_path, monkeypatch):
    with Observatory(archive) as sky:
        monkeypatch.setenv("TRUEMORPH_ADDRESSES", str(sky.write_addresses(tmp_path / "addresses.toml")))
        assert re.search(r"rows in +120", run_block("archives", "CC BY 4.0"))


@pytest.mark.slow
def test_any_survey_in_a_page_of_toml(run_block, tmp_path):
    n = 200
    rng = np.random.default_rng(0)
    table = Table({"id": np.arange(n), "round_votes": rng.integers(0, 20, n), "cigar_votes": rng.integers(0, 9, n)})
    table["disk_votes"], table["star"] = rng.integers(0, 30, n), rng.random(n) < 0.1
    table["r_petro"], table["z_spec"], table["b/a"] = rng.uniform(8, 40, n), rng.uniform(0, 0.1, n), rng.random(n)
    table.write(tmp_path / "mysurvey.fits")
    run_block("mysurvey", "well resolved", 'expression = "round_votes + cigar_votes"')


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("votes", ["4,689 rows in, 4,689 labelled", "theta = "]),
        ("experts", ["t_type >= -3", "gold labels are right"]),
        ("challenge", ["635 rows in, 635 labelled", "theta = "]),
    ],
)
def test_on_real_galaxies(run_block, quicker, tmp_path, shared_data, name, shown):
    images = "gz2_challenge_images"
    for one in ("gz2_votes.csv", images):
        (tmp_path / one).symlink_to(shared_data / one)
    # A third of the galaxies, for time.
    pl.read_csv(shared_data / f"{images}.csv", infer_schema_length=None)[::3].write_csv(tmp_path / f"{images}.csv")
    run_block(name, *shown)
