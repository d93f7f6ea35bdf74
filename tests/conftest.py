"""Small simulated data, made once per session."""

import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from truemorph import RayleighTransition
from truemorph import prepare_catalogue as prepare
from truemorph.catalogs.prepare import write_preparation
from truemorph.classifiers import engines
from truemorph.commands.demo import write_simulated
from truemorph.config import PRESETS, TrainingConfig

# The same examples on every machine, without time limits.
settings.register_profile("truemorph", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("truemorph")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def cache_of_tests(tmp_path_factory):
    """Keep converted networks out of the user's cache directory; processes of one run share them."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", matplotlib.get_cachedir())  # making its list of fonts takes seconds
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield


@pytest.fixture(scope="module", autouse=True)
def engine_torch():
    """Engine "auto" is torch, on the CPU: converting networks for OpenVINO takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "_uses_gpu", lambda device: True)
        yield


@pytest.fixture(scope="module")
def short_tuning():
    """Networks are tuned on gold labels for one epoch or two, which does not help, but takes little time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("truemorph.classifiers.tuning.EPOCHS", (1, 2))
        yield


@pytest.fixture(scope="session")
def shared_data():
    """Folder of real data; tests that need it are skipped if it is missing."""
    if not SHARED.is_dir():
        pytest.skip("real data (../shared/data) is not on this machine")
    return SHARED


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """votes.csv and images/ of 400 simulated galaxies, 32 pixels wide."""
    folder = tmp_path_factory.mktemp("simulated")
    write_simulated(folder, 400, seed=3, size=32)
    return folder


@pytest.fixture(scope="session")
def catalogue(simulated, tmp_path_factory):
    """Prepared catalogue of the simulated galaxies."""
    prepared = prepare(simulated / "votes.csv", images=simulated / "images", gold="truth")
    return write_preparation(prepared, tmp_path_factory.mktemp("catalogue") / "catalogue.parquet").out


@pytest.fixture
def demo_in_this_process(monkeypatch):
    """Let the demo train its models one after the other, without new processes."""
    monkeypatch.setattr("truemorph.commands.demo.worker_pool", lambda models: nullcontext(SimpleNamespace(map=map)))


@pytest.fixture
def small_worlds(monkeypatch):
    """Worlds of catalogues have few galaxies and are made in this process."""
    monkeypatch.setattr("truemorph.benchmark.worlds.GALAXIES", 900)
    monkeypatch.setattr("truemorph.benchmark.worlds.LOOKED_AT", 600)
    monkeypatch.setattr(
        "truemorph.benchmark.leaderboard.worker_pool", lambda jobs: nullcontext(SimpleNamespace(map=map))
    )


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """Simulated archives of 120 galaxies; read only."""
    from archives.simulated import write_archive

    return write_archive(tmp_path_factory.mktemp("archive"), 120, seed=3, size=48)


def labels_through(transition, n, seed, disk=0.7, median=16.8, width=0.45):
    """Labels drawn from T(α), with a class that does not depend on α: (labels, alpha, truth)."""
    rng = np.random.default_rng(seed)
    alpha = rng.lognormal(np.log(median), width, n)
    truth = (rng.random(n) < disk).astype(int)
    disk_label = transition.matrix(alpha)[np.arange(n), truth, 1]
    return (rng.random(n) < disk_label).astype(int), alpha, truth


def flipped_labels(n, seed, theta=11.25, smooth=0.25, median=7.5, width=0.45):
    """Labels biased by eq. 5, with class fractions that do not depend on α: (labels, alpha, truth)."""
    return labels_through(RayleighTransition(theta), n, seed, 1 - smooth, median, width)


def confounded_labels(n, seed, theta=11.25):
    """Labels with confounding: disks are fainter and larger: (labels, alpha, truth, columns M_r, log R/kpc, z)."""
    rng = np.random.default_rng(seed)
    magnitude = rng.normal(-21, 1, n)
    log_radius = 0.9 - 0.12 * (magnitude + 21) + rng.normal(0, 0.2, n)
    redshift = rng.uniform(0.02, 0.2, n)
    psf = rng.lognormal(np.log(1.3), 0.15, n)
    alpha = 10**log_radius / (20 * redshift) / (psf / 2.3548)
    p_disk = 1 / (1 + np.exp(-(0.6 - 0.8 * (magnitude + 21) + 1.5 * (log_radius - 0.9))))
    truth = (rng.random(n) < p_disk).astype(int)
    flipped = (truth == 1) & (rng.random(n) < RayleighTransition(theta).flip_probability(alpha))
    return np.where(flipped, 0, truth), alpha, truth, np.column_stack([magnitude, log_radius, redshift])


def some_known(truth, share, seed):
    """Gold labels of a random fraction of galaxies, -1 elsewhere."""
    return np.where(np.random.default_rng([seed, 1]).random(truth.size) < share, truth, -1)


def binned(values, column, bins=8, weights=None):
    """Return the weighted means of values in equal-count bins of a column."""
    weights = np.ones(values.size) if weights is None else weights
    parts = np.array_split(np.argsort(column, kind="stable"), bins)
    return np.array([np.average(values[part], weights=weights[part]) for part in parts])


TINY = {"image_size": 32, "crop": 1.0, "epochs": 2, "batch_size": 32, "hidden": 32, "precision": "32-true"}


def tiny(**changes):
    return TrainingConfig(**{**PRESETS["quick"].model_dump(), **TINY, "folds": 1, **changes})


def stripes(n, seed=0):
    """Galaxies that are easy to classify: vertical gradients are disks."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    ramp = np.linspace(0, 200, 16)
    images = np.where(truth[:, None, None] == 1, ramp[None, :, None], 100.0) + rng.normal(0, 20, (n, 16, 16))
    pixels = np.repeat(np.clip(images, 0, 255).astype(np.uint8)[..., None], 3, axis=3)
    alpha = rng.lognormal(np.log(9), 0.4, n)
    flipped = (truth == 1) & (rng.random(n) < RayleighTransition(11.25).flip_probability(alpha))
    split = np.array(["train"] * (n * 7 // 10) + ["validation"] * (n - n * 7 // 10))
    frame = pl.DataFrame(
        {"object_id": np.arange(n), "label": np.where(flipped, 0, truth), "alpha": alpha, "split": split}
    )
    from truemorph.classifiers.members import TrainingRows

    return TrainingRows(frame, pixels), truth


def json_values(other):
    """Strategy of nested JSON values, among them `other`."""
    return st.recursive(
        st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | other,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    )


def codes(result):
    """Return the codes of a result's findings."""
    return [finding.code for finding in result.findings]


def assert_represented(result):
    """Assert that a result has all its representations, and that the text is short."""
    assert len(repr(result)) < 2000
    shown = result._repr_html_()
    assert shown.startswith("<pre>")
    assert all(code in shown for code in codes(result))
    assert result.to_dict()
    assert len(result.to_table())
    assert result.plot() is not None


def run(capsys, *arguments):
    """Run a command; return exit status, stdout and stderr."""
    try:
        from truemorph.cli import main

        main([str(argument) for argument in arguments])
        status = 0
    except SystemExit as stop:
        status = stop.code or 0
    return status, *capsys.readouterr()


def done(capsys, *arguments):
    """Run a command that succeeds; return what it printed to stdout."""
    status, out, err = run(capsys, *arguments)
    assert status == 0, err
    return out


def refused(capsys, *arguments):
    """Run a command that ends with status 2, one line on stderr and nothing on stdout; return the line."""
    status, out, err = run(capsys, *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1), (arguments, err)
    return err


def pytest_collection_modifyitems(items):
    """Run the slowest tests first, so that no core is idle at the end."""
    items.sort(key=lambda item: (item.get_closest_marker("slow") is None, "test_readme" not in item.nodeid))


@pytest.fixture(scope="session")
def browser():
    """A real Chromium without a window."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: apt install chromium)")
    with sync_api.sync_playwright() as playwright:
        # A container's root may have no sandbox; the pages are our own.
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"], timeout=300_000)
        yield found
        found.close()
