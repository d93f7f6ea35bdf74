"""The command line: exit statuses, one-line errors, JSON, help."""

import json
import os
import re
import signal
import subprocess
import sys
from functools import reduce
from operator import getitem

import pytest

import truemorph as tm
from conftest import ROOT, run
from truemorph.bias.curves.families import COMPARED
from truemorph.cli import COMMANDS, command_app


@pytest.mark.slow
@pytest.mark.parametrize("verb", COMMANDS)
def test_help_is_the_docstring_of_the_public_function(capsys, verb):
    status, out, _ = run(capsys, *verb.split(), "--help")
    assert status == 0
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
    out = run(capsys, "cite")[1]
    assert re.findall(r"^@(\w+)\{", out, re.MULTILINE) == ["article", "article", "software"]
    assert out.count("{") == out.count("}")
    assert json.loads(run(capsys, "cite", "--json")[1])["bibtex"] == out.rstrip("\n")
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
        *lines, last = run(capsys, *arguments)[1].splitlines()
        assert len(lines) < 24
        assert max(map(len, lines)) <= 100
        assert last.startswith(f"Next: truemorph {following}")
    assert "Next:" not in run(capsys, "bias", catalogue, "--bootstrap", 0, "--quiet")[1]
    assert "Next:" not in run(capsys, "transition", catalogue, "--no-compare")[1]  # nothing was written


def test_bias_with_and_without_intrinsic_columns(capsys, catalogue, tmp_path):
    out_file = tmp_path / "bias.json"
    status, out, _ = run(capsys, "bias", catalogue, "--bootstrap", 5, "--json", "--out", out_file)
    result = json.loads(out)
    assert status == 0
    assert result == json.loads(out_file.read_text())
    assert result["measure"] == "CV14"
    result = json.loads(run(capsys, "bias", catalogue, "--intrinsic", "M_r", "--bootstrap", 0, "--json")[1])
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
    assert "flat-fractions-tested" in found  # with the truth of these simulated galaxies
    assert sum(line.endswith("]") for line in err.splitlines()) == len(found)
    assert described["confounding"]["checked"]
    low, high = described["class_fraction_ranges"][1]
    assert low < described["class_fractions"]["disk"] < high
    assert described["drift"]["delta"] == 0.5
    assert len(described["drift"]["fractions"]) > 5
    binned = run(
        capsys, "transition", catalogue, "--method", "binned", "--bins", 40, "--no-compare", "--out", fit, "--json"
    )
    assert json.loads(binned[1])["method"] == "binned"


@pytest.mark.slow
def test_transition_compares_families_and_corrects_fractions(capsys, catalogue, tmp_path):
    fit = tmp_path / "t.json"
    options = ["--gold", "gold", "--intrinsic", "M_r,redshift", "--family", "best", "--by", "M_r"]
    status, out, _ = run(capsys, "transition", catalogue, "--out", fit, *options, "--fraction-bins", 3)
    assert status == 0
    described = json.loads(fit.read_text())
    assert described["method"] == "gold"
    assert {row["family"] for row in described["families"]} == set(COMPARED)
    assert described["family"] == described["families"][0]["family"]
    assert described["confounding"]["checked"]
    assert described["definition"] == "disk: truth is 1"
    assert described["fractions"]["by"] == "M_r"
    assert len(described["fractions"]["quantities"]["disk fraction"]["fraction"]) == 3
    assert described["fractions"]["gold"][0] is not None
    assert "disk fraction at M_r" in out
    assert "AIC above best" in out


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
        ("absent.csv", ["prepare", "absent.csv", "--out", out]),
        ("no column 'petroR'", ["prepare", votes, "--radius", "petroR", "--out", out]),
        ("split", ["prepare", votes, "--split", "half", "--out", out]),
        ("not true or false", ["prepare", votes, "--where", "redshift", "--out", out]),
        ("not a prepared catalogue", ["bias", votes]),
        ("'M_g'; nearest: M_r", ["bias", catalogue, "--intrinsic", "M_g"]),
        ("no galaxy meets", ["bias", catalogue, "--where", "split=nowhere"]),
        ("no column 'expert'", ["transition", catalogue, "--gold", "expert"]),
        ('give a rule such as "M_r>=1"', ["transition", catalogue, "--gold", "M_r"]),
        ("unknown family", ["transition", catalogue, "--family", "gauss"]),
        ("--false-disk", ["transition", catalogue, "--false-disk", "some"]),
        ("no column 'mass'", ["transition", catalogue, "--intrinsic", "mass"]),
        ("needs --gold", ["transition", catalogue, "--method", "gold"]),
        ("nested.json", ["train", catalogue, "--transition", tmp_path / "nested.json", "--out", tmp_path / "m"]),
        ("nested.toml", ["reproduce", "--data", tmp_path, "--config", tmp_path / "nested.toml"]),
        ("exclude each other", ["train", catalogue, "--labels", "naive", "--transition", fit, "--out", tmp_path / "m"]),
        ("--preset", ["train", catalogue, "--preset", "fast", "--out", tmp_path / "m"]),
        ("not a truemorph model", ["label", tmp_path, catalogue, "--out", out]),
        ("--seed", ["bias", catalogue, "--seed", "-1"]),
        ("such a name", ["transition", "absent.parquet", "--out", tmp_path / "fit.png"]),
        ("depth", ["bias", catalogue, "--intrinsic", "M_r", "--depth", "-1"]),
        ("depth", ["bias", catalogue, "--intrinsic", "M_r", "--depth", "60"]),
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
        status, stdout, err = run(capsys, *arguments)
        assert (status, stdout, err.count("\n")) == (2, "", 1), (arguments, err)
        assert says in err, (arguments, err)


@pytest.mark.slow
def test_training_ends_after_ctrl_c_with_a_state_to_resume_from(catalogue, tmp_path):
    # Background shells and test runners start processes with Ctrl-C ignored, so enable it again.
    code = "import signal, truemorph.cli as cli; signal.signal(signal.SIGINT, signal.default_int_handler); cli.main()"
    command = [sys.executable, "-c", code, "train", str(catalogue), "--out", str(tmp_path / "model")]
    command += ["--epochs", "5000", "--image-size", "32", "--folds", "1", "--batch-size", "32"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert "epoch" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().splitlines()[-1].endswith("ERROR truemorph: interrupted")
        assert process.wait() == 130
    assert [one.name for one in (tmp_path / "model").iterdir()] == ["unfinished"]
