"""Input that no honest user gives: each ends in one clear line, or is shown without harm."""

import resource
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch
from matplotlib.figure import Figure

import truemorph as tm
from conftest import codes, run
from truemorph import write_table
from truemorph.errors import InputError
from truemorph.io import save_figure, write_file
from truemorph.simulate.pictures import write_jpegs
from truemorph.simulate.population import simulate_galaxies
from truemorph.tables import CatalogTable

ALPHA = np.linspace(2, 40, 200)
LABELS = np.tile([0, 1], 100)
T = tm.RayleighTransition(11.25)
GALAXIES = tm.simulate_catalogue(400)
MODEL = GALAXIES.select("object_id", pl.col("label").cast(pl.Int64), p_smooth=pl.lit(0.4), p_disk=pl.lit(0.6))


@pytest.mark.parametrize(
    "call",
    [
        lambda: tm.cv14(np.tile([0, 7], 100), ALPHA, 4),
        lambda: tm.cv14(LABELS, np.full(200, 9.0), 4),
        lambda: tm.fit_transition(np.tile([0, 3], 100), ALPHA),
        lambda: tm.estimate_transition(GALAXIES, delta=-1),
        lambda: tm.estimate_transition(GALAXIES, weights="nonne"),
        lambda: tm.cv14(LABELS, np.full(200, np.datetime64("2020-01-01")), 4),
        lambda: tm.fit_transition(LABELS, np.full(200, np.timedelta64(3, "s"))),
        lambda: tm.posterior(np.array([[0.5, 0.9]]), np.array([0]), np.array([5.0]), T),
        lambda: tm.posterior(np.array([[0.5, 0.5]]), np.ma.array([0], mask=[True]), np.array([5.0]), T),
        lambda: tm.posterior(np.array([[0.5, 0.5]]), np.array([0]), np.ma.array([5.0], mask=[True]), T),
        lambda: tm.DebiasedLoss(T)(torch.zeros(1, 2), torch.tensor([1]), torch.tensor([-1.0])),
        lambda: tm.DebiasedLoss(T)(torch.zeros(1, 2), torch.tensor([1]), torch.tensor([float("nan")])),
        lambda: tm.DebiasedLoss("rayleigh"),
        lambda: tm.DebiasedLogisticRegression().fit(ALPHA[:, None], LABELS, alpha=np.arange(200).astype("M8[D]")),
        lambda: tm.confounding_check(LABELS, np.where(ALPHA > 30, np.inf, ALPHA), gold=LABELS),
        lambda: tm.cv14(LABELS, torch.tensor(ALPHA, requires_grad=True), 4),
        lambda: tm.measure_bias(GALAXIES, labels=MODEL.with_columns(label=pl.lit("disk"))),
        lambda: tm.measure_bias(GALAXIES, labels=MODEL.with_columns(p_disk=pl.lit("high"))),
        lambda: tm.measure_bias(GALAXIES, labels=MODEL.drop("p_disk")),
        lambda: tm.estimate_transition(
            tm.simulate_catalogue(600, gold=100).with_columns(gold_uncertain=pl.lit("x")), gold="gold"
        ),
        lambda: tm.measure_bias(GALAXIES.with_columns(pl.col("object_id").cast(pl.String) + "\0")),
    ],
)
def test_values_that_mean_nothing_are_refused(call):
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_labels_of_some_galaxies_are_counted_and_repeated_ones_refused():
    labels = MODEL[:200]
    found = tm.measure_bias(GALAXIES, labels=labels, bootstrap=0)
    assert "rows-left-out" in codes(found)
    assert any("200 of 400" in finding.message for finding in found.findings)
    with pytest.raises(InputError):
        tm.measure_bias(GALAXIES, labels=pl.concat([labels, labels[:1]]), bootstrap=0)


def test_text_that_spreadsheets_would_run_is_marked_in_csv(tmp_path):
    frame = pl.DataFrame({"object_id": ["=1+1", "@SUM(A1)", "-12.5", "NGC 1"], "dec": [-1.0, -2.0, -3.0, -4.0]})
    write_table(CatalogTable(frame), tmp_path / "t.csv")
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[1:] == ["'=1+1,-1.0", "'@SUM(A1),-2.0", "-12.5,-3.0", "NGC 1,-4.0"]
    write_table(CatalogTable(frame), tmp_path / "t.parquet")
    assert pl.read_parquet(tmp_path / "t.parquet").equals(frame)


def test_a_reader_that_ends_first_gives_no_error():
    command = [sys.executable, "-m", "truemorph", "cite"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.fixture
def full_disk(monkeypatch):
    """A limit on the size of files stops the writer as a full disk does."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # compiled modules would be cut off for later tests
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        *((name, lambda path: save_figure(Figure(), path)) for name in ("bias.pdf", "bias.png")),
        ("587700000000000017.jpg", lambda path: write_jpegs(simulate_galaxies(1, 0), path.parent)),
        ("000000.jpg", lambda path: write_file(path, bytes(1000))),
    ],
)
def test_a_full_disk_is_an_error_that_names_the_file_to_write(tmp_path, full_disk, name, write):
    with pytest.raises(OSError, match="File too large") as caught:
        write(tmp_path / name)
    assert caught.value.filename == str(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_gives_one_line_with_the_file_and_leaves_nothing_behind(capsys, catalogue, full_disk, tmp_path):
    status, _, err = run(capsys, "bias", catalogue, "--bootstrap", 0, "--out", tmp_path / "out.json")
    assert status == 1
    assert str(tmp_path / "out.json") in err.splitlines()[-1]
    assert not list(tmp_path.iterdir())
