"""The command line: exit statuses, one-line errors, JSON, help."""

import json
import os
import re
import subprocess
import sys
from functools import reduce
from operator import getitem

import pytest

import truemorph as tm
from conftest import ROOT, done, refused, run
from truemorph.cli import COMMANDS, command_app


@pytest.mark.slow
@pytest.mark.parametrize("verb", COMMANDS)
def test_help_is_the_docstring_of_the_public_function(capsys, verb):
    out = done(capsys, *verb.split(), "--help")
    assert f"Example: truemorph {verb}" in " ".join(out.split())
    assert "--json" in out
    arguments = reduce(getitem, verb.split(), command_app(verb)).assemble_argument_collection(parse_docstring=True)
    without = [argument.name for argument in arguments if argument.show and not argument.parameter.help]
    assert without == []


def test_the_package_and_its_help_import_no_heavy_packages():
    """benchmarks/startup_speed.py measures how fast they are."""
    heavy = "{'torch', 'matplotlib', 'polars', 'scipy', 'astropy', 'pydantic', 'requests'}"
    code = "import sys, truemorph, truemorph.cli as cli; cli.main(['--help']);"
    code += f"print({heavy} & set(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "set()"


def test_bibtex_has_the_papers_and_this_version_of_the_software(capsys):
    out = done(capsys, "cite")
    assert re.findall(r"^@(\w+)\{", out, re.MULTILINE) == ["article", "article", "software"]
    assert out.count("{") == out.count("}")
    assert json.loads(done(capsys, "cite", "--json"))["bibtex"] == out.rstrip("\n")
    assert f"{{{tm.__version__}}}" in out
    cff = (ROOT / "CITATION.cff").read_text()
    title, eprint = (re.search(rf"{name} += {{+(.*?)}}", out)[1] for name in ("title", "eprint"))
    assert title in cff
    assert eprint in cff


@pytest.mark.slow
def test_summaries_fit_on_a_screen_and_name_the_next_command(capsys, catalogue, tmp_path):
    columns, fit = ["--intrinsic", "radius_kpc,M_r,redshift"], tmp_path / "my fit.json"
    for following, arguments in (
        (f"transition {catalogue} --out transition.json", ["bias", catalogue, "--bootstrap", 0, *columns]),
        (f"label '{fit}' {catalogue} --out labels.parquet", ["transition", catalogue, *columns, "--out", fit]),
    ):
        *lines, last = done(capsys, *arguments).splitlines()
        assert len(lines) < 24
        assert max(map(len, lines)) <= 100
        assert last.startswith(f"Next: truemorph {following}")
    assert "Next:" not in done(capsys, "bias", catalogue, "--bootstrap", 0, "--quiet")
    assert "Next:" not in done(capsys, "transition", catalogue, "--no-compare")  # nothing was written


def test_bias_with_and_without_intrinsic_columns(capsys, catalogue, tmp_path):
    out_file = tmp_path / "bias.json"
    result = json.loads(done(capsys, "bias", catalogue, "--bootstrap", 5, "--json", "--out", out_file))
    assert result == json.loads(out_file.read_text())
    assert result["measure"] == "CV14"
    result = json.loads(done(capsys, "bias", catalogue, "--intrinsic", "M_r", "--bootstrap", 0, "--json"))
    assert result["measure"] == "CV18"
    assert result["results"]["gold labels"]["bootstrap_mean"] is None


@pytest.mark.slow
def test_transition_from_labels_alone_writes_fit_and_figure(capsys, catalogue, tmp_path):
    fit = tmp_path / "t.json"
    status, out, err = run(capsys, "transition", catalogue, "--out", fit, "--bootstrap", 3, "--no-compare")
    assert status == 0
    assert out.startswith("disk fraction")
    assert fit.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    described = json.loads(fit.read_text())
    assert described["family"] == "rayleigh"
    assert described["alpha"] == "petroRad_r / sigma_PSF, sigma_PSF = psfWidth_r / 2.3548"
    assert described["bootstrap_std"]["theta"] > 0
    found = [one["code"] for one in described["findings"]]
    assert "flat-fractions-assumed" in found  # the truth of so few galaxies does not exclude a change
    assert sum(line.endswith("]") for line in err.splitlines()) == len(found)
    assert described["confounding"]["checked"]
    low, high = described["class_fraction_ranges"][1]
    assert low < described["class_fractions"]["disk"] < high
    assert described["drift"]["delta"] == 0.5
    assert len(described["drift"]["fractions"]) > 5
    binned = done(capsys, "transition", catalogue, "--method", "binned", "--bins", 40, "--no-compare", "--json")
    assert json.loads(binned)["method"] == "binned"


@pytest.mark.slow
def test_transition_of_the_best_family_and_fractions_by_a_column(capsys, catalogue):
    options = ["--gold", "gold", "--family", "best", "--by", "M_r", "--fraction-bins", 3, "--json"]
    described = json.loads(done(capsys, "transition", catalogue, *options))
    assert described["family"] == described["families"][0]["family"]
    assert (described["method"], described["definition"]) == ("gold", "disk: truth is 1")
    assert described["fractions"]["by"] == "M_r"
    assert len(described["fractions"]["quantities"]["disk fraction"]["fraction"]) == 3
    assert described["fractions"]["gold"][0] is not None


@pytest.mark.slow
def test_mistakes_give_one_line_and_exit_status_2(capsys, catalogue, simulated, tmp_path):
    votes, out = simulated / "votes.csv", tmp_path / "x.parquet"
    nested = 100_000 * "[" + 100_000 * "]"
    (tmp_path / "nested.json").write_text(f'{{"family": "rayleigh", "parameters": {nested}}}')
    (tmp_path / "nested.toml").write_text(f"seed = {nested}")
    os.mkfifo(tmp_path / "pipe.json")
    fit = tmp_path / "fit.json"
    known = {"alpha_psf": "sigma", "class_fractions": {"smooth": 0.3, "disk": 0.7}, "galaxies": 9}
    fit.write_text(json.dumps({"family": "rayleigh", "parameters": {"theta": 9.0}, **known}))
    (tmp_path / "half.json").write_text(fit.read_text().replace("0.7", "0.2"))
    cases = [
        ("class_fractions", ["label", tmp_path / "half.json", catalogue, "--out", out]),
        ("ends in .json", ["bias", catalogue, "--out", tmp_path / "bias.csv"]),
        ("split", ["prepare", votes, "--split", "half", "--out", out]),
        ("'M_g'; nearest: M_r", ["bias", catalogue, "--intrinsic", "M_g"]),
        ("no column 'expert'", ["transition", catalogue, "--gold", "expert"]),
        ("unknown family", ["transition", catalogue, "--family", "gauss"]),
        ("--false-disk", ["transition", catalogue, "--false-disk", "some"]),
        ("nested.json", ["train", catalogue, "--transition", tmp_path / "nested.json", "--out", tmp_path / "m"]),
        ("nested.toml", ["reproduce", "--data", tmp_path, "--config", tmp_path / "nested.toml"]),
        ("--preset", ["train", catalogue, "--preset", "fast", "--out", tmp_path / "m"]),
        ("--seed", ["bias", catalogue, "--seed", "-1"]),
        ("such a name", ["transition", "absent.parquet", "--out", tmp_path / "fit.png"]),
        ("depth", ["bias", catalogue, "--intrinsic", "M_r", "--depth", "-1"]),
        ("--intrinsic", ["bias", catalogue, "--intrinsic", "alpha"]),
        ("(--intrinsic)", ["bias", catalogue, "--depth", "3"]),
        ("--out", ["bias", catalogue, "--out", ""]),
        ("a device", ["bias", catalogue, "--bootstrap", 0, "--out", tmp_path / "pipe.json"]),  # would be replaced
        ("kind of table", ["prepare", votes, "--out", "/"]),
        ("name of a table", ["label", ROOT / "tests/versions/0.1/model", catalogue, "--out", "/"]),
        ("x1b[2J.csv", ["bias", tmp_path / f"votes{chr(27)}[2J.csv"]),  # does not reach the terminal
        ("at least 300", ["demo", "--galaxies", "10", "--out", tmp_path / "demo"]),
        ("something else", ["demo", "--out", simulated]),
        ("caf\\xe9", ["label", fit, catalogue, "--out", tmp_path / os.fsdecode(b"caf\xe9.parquet")]),
        (", ".join(COMMANDS), ["fly"]),
    ]
    for says, arguments in cases:
        assert says in refused(capsys, *arguments), arguments


@pytest.mark.slow
def test_training_ends_after_ctrl_c_with_a_state_to_resume_from(capsys, catalogue, tmp_path, monkeypatch):
    def interrupt(module):
        if module.current_epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("truemorph.classifiers.module.DebiasedModule.on_train_epoch_start", interrupt)
    options = ["--image-size", 32, "--folds", 1, "--batch-size", 32, "--out", tmp_path / "model"]
    status, _, err = run(capsys, "train", catalogue, *options)
    assert status == 130
    assert err.splitlines()[-1].endswith("ERROR truemorph: interrupted")
    assert [one.name for one in (tmp_path / "model").iterdir()] == ["unfinished"]
