"""`--config`: options of commands in a TOML file."""

import json
import shlex

import pytest

import truemorph as tm
from conftest import done, refused, run

SURVEY = """
[transition]
catalogue = "cat.parquet"
gold = "gold"
where = ["alpha > 3", "alpha < 60"]
fraction-bins = [3, 8, 20, 60]
out = "fractions.json"

[gold.plan]
catalogue = "cat.parquet"
budget = 40
seed = 3
out = "plan"

[prepare]
table = "votes.csv"
label = "kind"
psf_fwhm = 1.2
columns = { redshift = "z", magnitude = "mag" }
split = [0.5, 0.2, 0.3]
out = "prepared.parquet"
"""


@pytest.fixture
def survey(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "survey.toml").write_text(SURVEY)
    tm.simulate_catalogue(1500, gold=200, seed=4).write_parquet("cat.parquet")
    votes = "\n".join(f"{n},{n % 2},{5 + n / 100},0.1,{17 + n / 500}" for n in range(400))
    (tmp_path / "votes.csv").write_text(f"objid,kind,radius,z,mag\n{votes}\n")


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (
            "transition cat.parquet --out again.json",
            "--gold gold --where 'alpha > 3' --where 'alpha < 60' --fraction-bins 3,8,20,60",
        ),
        ("gold plan cat.parquet --out again", "--budget 40 --seed 3"),
        (
            "prepare votes.csv --out again.parquet",
            "--label kind --psf-fwhm 1.2 --columns.redshift z --columns.magnitude mag --split 0.5,0.2,0.3",
        ),
    ],
)
def test_a_file_of_options_gives_the_numbers_of_the_options(capsys, survey, command, options):
    verb = command[: command.index(" cat" if "cat" in command else " votes")]
    ways = f"{command} {options} --json", f"{verb} --config survey.toml --json"
    first, second = (json.loads(done(capsys, *shlex.split(way))) for way in ways)
    assert {name for name in first if first[name] != second[name]} <= {"out", "folder", "datasheet"}


def test_runs_of_a_report_are_in_the_file_or_given(capsys, survey, tmp_path):
    done(capsys, "transition", "--config", "survey.toml")
    (tmp_path / "page.toml").write_text('[report]\nruns = ["fractions.json"]\nout = "page.html"\n')
    shown = []
    for more in ((), ("fractions.json", "--out", "other.html")):
        shown.append(done(capsys, "report", "--config", "page.toml", *more).replace("other.html", "page.html"))
    assert shown[0] == shown[1]
    assert "disk fraction" in shown[0]
    assert "absent.json" in refused(capsys, "report", "absent.json", "--config", "page.toml")


def test_options_have_priority_and_a_file_of_one_command_needs_no_table(capsys, survey, tmp_path):
    (tmp_path / "one.toml").write_text('catalogue = "cat.parquet"\ngold = "gold"\nfraction_bins = 4\n')
    bins = []
    for more in ((), ("--fraction-bins", "2")):
        found = json.loads(done(capsys, "transition", "--config", "one.toml", *more, "--json"))
        bins.append(len(found["fractions"]["galaxies"]))
    assert bins == [4, 2]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('[transition]\ncatalogue = "cat.parquet"\ngolden = "gold"', "golden"),
        ("[gold]\nplan = 3", "[gold.plan]"),
        ("[transition", "TOML"),
        ("[transition]\ncatalogue = 'cat.parquet'\nfraction-bins = 'few'", "few"),
    ],
)
def test_a_mistake_in_a_file_gives_one_line(capsys, survey, tmp_path, content, says):
    (tmp_path / "bad.toml").write_text(content)
    verb = ("gold", "plan") if "gold]" in content else ("transition",)
    assert says in refused(capsys, *verb, "--config", "bad.toml")
    assert run(capsys, *verb, "--config", "absent.toml")[0] != 0
