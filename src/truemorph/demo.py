"""The demo: the whole sequence on simulated galaxies whose truth is known.

simulate → prepare → bias → transition → train naive and debiased on the same labels → label → compare with
the truth. Every number is measured on galaxies that no network trained on.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph import workflow
from truemorph.bias.binning import choose_bins
from truemorph.bias.metrics import cv18
from truemorph.bias.scores import balanced_accuracy
from truemorph.bias.transitions import RayleighTransition
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.catalogs.prepare import prepare_catalogue, write_preparation
from truemorph.catalogs.sampling import TEST
from truemorph.classifiers.checkpoint import load
from truemorph.config import RunConfig, training_config
from truemorph.errors import InputError, require_extra
from truemorph.io import plain, write_json
from truemorph.labelling.predict import label_table
from truemorph.simulate.annotate import vote_fractions
from truemorph.simulate.galaxies import simulate_galaxies
from truemorph.simulate.jpegs import write_jpegs
from truemorph.simulate.observe import CENTRAL_R90
from truemorph.simulate.twins import at_resolution
from truemorph.tables import CatalogTable, write_table
from truemorph.workflow.reporting import ReportOptions, make_report

TRUE_THETA = 11.25
INTRINSIC = ("radius_kpc", "M_r", "redshift")
_SPLIT = (0.6, 0.1, 0.3)
_SMALLEST = 300
_MARKER = ".truemorph-demo"
# Less than preset "quick" does, on more galaxies: within minutes on two cores.
_EPOCHS, _FOLDS = 15, 2
# Resolution and pixels of the better images.
_SHARP, _BETTER_SIZE = 80.0, 128
_NOTES = (
    "Labels were flipped by the same family of curves that was fitted, and true class fractions do not depend on "
    "resolution: the method's assumption holds here by construction. On real galaxies it must be checked.",
    f"The galaxies are simulated (docs/simulator.md says what still tells them from real ones); θ is {TRUE_THETA} in "
    "truth, and disk means spirals and lenticulars.",
)


def write_simulated(out: Path, galaxies: int, seed: int, size: int = 64) -> Path:
    """Write `votes.csv` (Galaxy Zoo 2 column names, and the truth) and `images/<id>.jpg`.

    Returns
    -------
    Path
        The table.
    """
    population = simulate_galaxies(galaxies, seed, confounded=False)
    smooth, disk = vote_fractions(population["truth"], population["alpha"], RayleighTransition(TRUE_THETA), seed)
    t01 = "t01_smooth_or_features_"
    table = pl.DataFrame(
        {
            "dr7objid": population["object_id"],
            f"{t01}a01_smooth_weighted_fraction": smooth,
            f"{t01}a02_features_or_disk_weighted_fraction": disk,
            f"{t01}a03_star_or_artifact_weighted_fraction": np.zeros(galaxies),
            "petroRad_r": population["radius"],
            "psfWidth_r": population["psf_fwhm"],
            **{name: population[name] for name in INTRINSIC},
            "truth": population["truth"],
        }
    )
    # What a central crop of a large JPEG, made smaller, looks like: no artefacts of its own.
    write_jpegs(population, out / "images", size, seed, field=CENTRAL_R90, quality=95)
    return write_table(CatalogTable(table), out / "votes.csv")


def _score(frame: pl.DataFrame, depth: int, bins: int, seed: int) -> dict[str, Any]:
    """Compare one model's labels with the truth, on the galaxies of `frame`."""
    truth, labels = frame["gold"].to_numpy(), frame["model_label"].to_numpy()
    fractions = workflow.fractions_by_alpha(frame)

    def rms(name: str) -> float:
        return float(np.sqrt(np.mean((np.array(fractions[name]) - fractions["gold labels"]) ** 2)))

    bias = cv18(
        labels,
        frame["alpha"].to_numpy(),
        frame.select(INTRINSIC).to_numpy(),
        depth,
        bins,
        bootstrap=0,
        seed=seed,
    )
    return {
        "balanced_accuracy": balanced_accuracy(truth, labels),
        "fraction_rms_hard": rms("model labels"),
        "fraction_rms_soft": rms("model probabilities"),
        "cv18": {
            "value": bias.value,
            "floor": bias.floor,
            "floor_std": bias.floor_std,
            "excess": bias.excess,
        },
    }


def run_demo(
    out: Path, *, galaxies: int = 9000, epochs: int | None = None, folds: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Run the demo; writes `report.html`, `summary.json` and every intermediate file to `out`.

    Parameters
    ----------
    out : Path
        A folder; what an earlier demo left there is replaced.
    galaxies : int
        At least 300.
    epochs, folds : int, optional
        Default 15 and 2.
    seed : int

    Returns
    -------
    dict
        The content of `summary.json`.

    Raises
    ------
    InputError
        If there are too few galaxies, `out` is something else than a demo's folder, or torch is not installed.
    """
    require_extra("networks")
    if galaxies < _SMALLEST:
        raise InputError(f"the demo needs at least {_SMALLEST} galaxies; got {galaxies}")
    if out.exists() and any(out.iterdir()) and not (out / _MARKER).is_file():
        raise InputError(f"{out}: holds something else than a demo; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARKER).write_text("This folder was made by `truemorph demo`, which replaces what is in it.\n")
    seconds: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        print(f"demo: {name}", file=sys.stderr)
        began = time.perf_counter()
        yield
        seconds[name] = round(time.perf_counter() - began, 2)

    shutil.rmtree(out / "images", ignore_errors=True)
    config = training_config("quick", crop=1.0, epochs=epochs or _EPOCHS, folds=folds or _FOLDS, seed=seed)
    with stage("simulate"):
        votes = write_simulated(out, galaxies, seed, config.image_size)
    with stage("prepare"):
        prepared = prepare_catalogue(votes, images=out / "images", split=_SPLIT, gold="truth", seed=seed)
        catalogue_path = write_preparation(prepared, out / "catalogue.parquet")
        catalogue = read_catalogue(catalogue_path)
    with stage("bias"):
        crowd = workflow.measure_bias(catalogue_path, intrinsic=INTRINSIC, bootstrap=20, seed=seed)
        write_json(out / "bias.json", crowd)
    with stage("transition"):
        fit, described = workflow.fit_catalogue(catalogue)
        workflow.write_fit(fit, described, out / "transition.json")
    labelled = {}
    for name in ("naive", "debiased"):
        with stage(f"train {name}"):
            naive = name == "naive"
            workflow.train_on_catalogue(
                RunConfig(
                    catalogue=str(catalogue_path),
                    out=str(out / name),
                    transition=None if naive else str(out / "transition.json"),
                    naive=naive,
                    intrinsic=INTRINSIC,
                    training=config,
                )
            )
        with stage(f"label {name}"):
            path = out / f"labels_{name}.parquet"
            label_table(load(out / name), catalogue_path, path)
            labelled[name] = workflow.join_labels(catalogue, path)
    with stage("report"):
        held_out = {name: frame.filter(pl.col("split") == TEST) for name, frame in labelled.items()}
        n_test = held_out["naive"].height
        depth, bins = choose_bins(n_test, True)
        models = {name: _score(frame, depth, bins, seed) for name, frame in held_out.items()}
        references = {
            name: _score(held_out["naive"].with_columns(model_label=pl.col(column)), depth, bins, seed)["cv18"]
            for name, column in (("crowd", "label"), ("truth", "gold"))
        }
        summary: dict[str, Any] = {
            "models": models,
            "theta": {
                "true": TRUE_THETA,
                "estimate": described["parameters"]["theta"],
                "stderr": described["stderr"]["theta"],
            },
            "seconds": seconds,
            "cv18_of_labels": references,
            "galaxies": {"all": galaxies, "test": n_test},
            "cv18_bins": {"depth": depth, "bins": bins, "intrinsic": list(INTRINSIC)},
            "warnings": described["warnings"],
            "seed": seed,
        }
        _better_images(out, galaxies, seed, _changed(labelled["debiased"]))
        make_report(
            [out / "naive", out / "debiased"],
            out / "report.html",
            ReportOptions(
                catalogue=catalogue_path,
                labels=[out / f"labels_{name}.parquet" for name in labelled],
                intrinsic=INTRINSIC,
                better=out / "better",
                seed=seed,
                title="truemorph demo: simulated galaxies of known truth",
                notes=_NOTES,
            ),
        )
    write_json(out / "summary.json", summary)
    return plain(summary)


def _changed(frame: pl.DataFrame) -> list[str]:
    """Ids of galaxies that the crowd called smooth and that are now called disk."""
    changed = frame.filter((pl.col("label") == 0) & (pl.col("posterior_disk") > 0.5))
    return changed["object_id"].cast(pl.String).to_list()


def _better_images(out: Path, galaxies: int, seed: int, ids: Sequence[str]) -> None:
    """Draw some of the galaxies again, as a telescope without an atmosphere would see them."""
    shutil.rmtree(out / "better", ignore_errors=True)
    population = simulate_galaxies(galaxies, seed, confounded=False)
    chosen = population.filter(pl.col("object_id").cast(pl.String).is_in(list(ids)))
    sharp = at_resolution(chosen, np.maximum(chosen["alpha"].to_numpy(), _SHARP))
    write_jpegs(sharp, out / "better", _BETTER_SIZE, seed, field=CENTRAL_R90, quality=90)
