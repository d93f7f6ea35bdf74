"""The demo: the whole sequence on simulated galaxies whose truth is known.

simulate → prepare → bias → transition → train naive and debiased on the same labels → label → compare with
the truth. Every number is measured on galaxies that no network trained on.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph import workflow
from truemorph.benchmark.scores import balanced_accuracy
from truemorph.bias.binning import choose_bins
from truemorph.bias.families import transition_from_dict
from truemorph.bias.metrics import cv18
from truemorph.bias.transitions import RayleighTransition
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.catalogs.prepare import prepare_catalogue, write_preparation
from truemorph.catalogs.sampling import TEST
from truemorph.catalogs.tables import CatalogTable, write_table
from truemorph.classifiers.checkpoint import load
from truemorph.config import RunConfig, training_config
from truemorph.errors import InputError
from truemorph.images.decode import load_image
from truemorph.labelling.predict import label_table
from truemorph.report.figures import accuracy_figure, flip_figure, fraction_figure
from truemorph.report.page import Page, Thumbnail, jpeg_source, picture, write_page
from truemorph.simulate.annotate import vote_fractions
from truemorph.simulate.galaxies import simulate_galaxies
from truemorph.simulate.jpegs import write_jpegs
from truemorph.simulate.observe import CENTRAL_R90

TRUE_THETA = 11.25
INTRINSIC = ("radius_kpc", "M_r", "redshift")
_SPLIT = (0.6, 0.1, 0.3)
_SMALLEST = 300
_MARKER = ".truemorph-demo"
# Less than preset "quick" does, on more galaxies: within minutes on two cores.
_EPOCHS, _FOLDS = 15, 2


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
            **{name: population[name] for name in (*INTRINSIC, "truth")},
        }
    )
    # What a central crop of a large JPEG, made smaller, looks like: no artefacts of its own.
    write_jpegs(population, out / "images", size, seed, field=CENTRAL_R90, quality=95)
    return write_table(CatalogTable(table), out / "votes.csv")


def _score(frame: pl.DataFrame, depth: int, bins: int, seed: int) -> dict[str, Any]:
    """Compare one model's labels with the truth, on the galaxies of `frame`."""
    truth, labels = frame["truth"].to_numpy(), frame["model_label"].to_numpy()
    fractions = workflow.fractions_by_alpha(frame)

    def rms(name: str) -> float:
        return float(np.sqrt(np.mean((np.array(fractions[name]) - fractions["truth"]) ** 2)))

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
        If there are too few galaxies, or `out` is something else than a demo's folder.
    """
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
        prepared = prepare_catalogue(votes, images=out / "images", split=_SPLIT, seed=seed)
        catalogue_path = write_preparation(prepared, out / "catalogue.parquet")
        catalogue = read_catalogue(catalogue_path)
    with stage("bias"):
        crowd = workflow.measure_bias(catalogue_path, intrinsic=INTRINSIC, bootstrap=20, seed=seed)
        workflow.write_json(out / "bias.json", crowd)
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
            for name, column in (("crowd", "label"), ("truth", "truth"))
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
        page = _page(summary, held_out, labelled["debiased"], described, out, config.model_dump())
        write_page(page, out / "report.html")
    workflow.write_json(out / "summary.json", summary)
    return workflow.plain(summary)


def _page(
    summary: dict[str, Any],
    held_out: dict[str, pl.DataFrame],
    relabelled: pl.DataFrame,
    described: dict[str, Any],
    out: Path,
    settings: dict[str, Any],
) -> Page:
    models, theta, n_test = summary["models"], summary["theta"], summary["galaxies"]["test"]
    naive, debiased = models["naive"], models["debiased"]
    curves = {name: workflow.fractions_by_alpha(frame) for name, frame in held_out.items()}
    alpha = curves["naive"]["alpha"]
    pulls = abs(theta["estimate"] - theta["true"]) / theta["stderr"]
    disks = relabelled.filter(pl.col("truth") == 1)
    by_bin = {name: _accuracy_by_alpha(frame) for name, frame in held_out.items()}
    references = summary["cv18_of_labels"]

    def row(name: str, cv: dict[str, float], model: dict[str, Any] | None = None) -> list[str]:
        keys = ("balanced_accuracy", "fraction_rms_hard", "fraction_rms_soft")
        numbers = [f"{model[key]:.3f}" for key in keys] if model else ["", "", ""]
        return [
            name,
            *numbers,
            f"{cv['value']:.3f}",
            f"{cv['floor']:.3f} ± {cv['floor_std']:.3f}",
            f"{cv['excess']:.3f}",
        ]

    switched = relabelled.filter((pl.col("label") == 0) & (pl.col("posterior_disk") > 0.5))
    right = switched.filter(pl.col("truth") == 1).height
    share = right / max(switched.height, 1)
    shown = switched.sort("posterior_disk", descending=True).gather_every(max(1, switched.height // 24))[:24]
    return Page(
        title="truemorph demo: simulated galaxies of known truth",
        answer=(
            f"On {n_test:,} galaxies that no network trained on, training on the labels as given reaches a balanced "
            f"accuracy of {naive['balanced_accuracy']:.2f} and gets the disk fraction wrong by "
            f"{naive['fraction_rms_soft']:.2f} (rms over resolution); training through the flip model, on the "
            f"same labels, reaches {debiased['balanced_accuracy']:.2f} and {debiased['fraction_rms_soft']:.3f}."
        ),
        trust=[
            f"θ learned from the labels alone is {theta['estimate']:.2f} ± {theta['stderr']:.2f}; the truth is "
            f"{theta['true']:.2f} ({pulls:.1f} standard errors away).",
            *(f"Warning: {note}." for note in summary["warnings"]),
            "Labels were flipped by the same family of curves that was fitted, and true class fractions do not "
            "depend on resolution: the method's assumption holds here by construction. On real galaxies it must "
            "be checked.",
            "The galaxies are simulated (docs/simulator.md says what still tells them from real ones) and their "
            "distances "
            "are such that class and resolution are independent. Here disk means spirals and lenticulars.",
        ],
        table_head=[
            "",
            "balanced accuracy",
            "fraction rms, hard",
            "fraction rms, soft",
            "CV18",
            "floor",
            "excess",
        ],
        table=[
            row("crowd labels", references["crowd"]),
            row("trained naively", naive["cv18"], naive),
            row("trained through T(α)", debiased["cv18"], debiased),
            row("truth", references["truth"]),
        ],
        table_note=(
            "Accuracy against the truth. Fraction rms: error of the disk fraction over five equal-count bins of α, "
            "from labels (hard) and probabilities (soft). CV18 of labels with "
            f"{2 ** summary['cv18_bins']['depth']} intrinsic leaves × {summary['cv18_bins']['bins']} bins of α; "
            "unbiased labels give the floor, not zero; excess is what lies above it."
        ),
        pictures=[
            picture(
                fraction_figure(
                    alpha,
                    {
                        "truth": curves["naive"]["truth"],
                        "crowd": curves["naive"]["crowd labels"],
                        "naive": curves["naive"]["model probabilities"],
                        "debiased": curves["debiased"]["model probabilities"],
                    },
                    n_test // 5,
                ),
                "Disk fraction in five bins of resolution. "
                + "; ".join(
                    f"{name}: {', '.join(f'{value:.2f}' for value in values)}"
                    for name, values in (
                        ("truth", curves["naive"]["truth"]),
                        ("naive", curves["naive"]["model probabilities"]),
                        ("debiased", curves["debiased"]["model probabilities"]),
                    )
                ),
                "Disk fraction in five equal-count bins of resolution. The band is the binomial error of the truth.",
            ),
            picture(
                flip_figure(
                    transition_from_dict(described),
                    theta["estimate"],
                    theta["stderr"],
                    RayleighTransition(theta["true"]),
                    disks["alpha"].to_numpy(),
                    disks["label"].to_numpy() == 0,
                ),
                "Probability that a disk is labelled smooth against resolution: a Rayleigh curve of "
                f"θ {theta['true']:.2f} (true) and one of {theta['estimate']:.2f} (learned).",
                "How disks were mislabelled, and what was learned about it without seeing the truth (band: ± 1 σ).",
            ),
            picture(
                accuracy_figure(alpha, by_bin),
                "Balanced accuracy in five bins of resolution. "
                + "; ".join(f"{name}: {', '.join(f'{v:.2f}' for v in values)}" for name, values in by_bin.items()),
                "Accuracy against the truth where galaxies are poorly and well resolved.",
            ),
        ],
        gallery_title=(
            f"{switched.height:,} galaxies the crowd called smooth and truemorph calls disk "
            f"({share:.0%} of them are); {shown.height} shown"
        ),
        gallery=[
            Thumbnail(
                jpeg_source(load_image(out / "images" / one["image"], settings["image_size"], settings["crop"])),
                f"simulated galaxy {one['object_id']}",
                (
                    f"α {one['alpha']:.1f}, p(disk) {one['posterior_disk']:.2f}",
                    f"truth: {'disk' if one['truth'] else 'smooth'}",
                ),
            )
            for one in shown.iter_rows(named=True)
        ],
        methods=[
            "Observed labels: p(smooth | disk, α) = exp(−α² / 2θ²), p(disk | smooth, α) = 0 (eqs 5-6).",
            "Loss: −log Σ over y of p(label | y, α) p(y | image) (eqs 3-4); α and θ enter training only, images are "
            "labelled from their pixels.",
            f"θ by unbinned maximum likelihood, assuming that {described['assumption']}.",
            "Relabelling is out of fold: each galaxy's p(y | image) comes from networks that never saw its label; the "
            "posterior then adds the crowd's label.",
        ],
        settings={
            "galaxies": summary["galaxies"]["all"],
            "split (train, validation, test)": ", ".join(map(str, _SPLIT)),
            **{key: settings[key] for key in ("backbone", "image_size", "epochs", "folds", "batch_size", "seed")},
            "seconds": ", ".join(f"{name} {value:.0f}" for name, value in summary["seconds"].items()),
        },
    )


def _accuracy_by_alpha(frame: pl.DataFrame, quantiles: int = 5) -> list[float]:
    order = np.argsort(frame["alpha"].to_numpy(), kind="stable")
    truth, labels = frame["truth"].to_numpy(), frame["model_label"].to_numpy()
    return [balanced_accuracy(truth[part], labels[part]) for part in np.array_split(order, quantiles)]
