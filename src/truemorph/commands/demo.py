"""truemorph demo: the whole sequence on simulated galaxies whose truth is known.

simulate → prepare → bias → transition → train naive and debiased on the same labels → label → compare with
the truth. Every number is measured on galaxies that no network trained on.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.arguments import AtLeastOne, Seed
from truemorph.bias.binning import choose_bins
from truemorph.bias.metrics import cv18
from truemorph.bias.scores import balanced_accuracy, fraction_error
from truemorph.bias.transitions import RayleighTransition
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.catalogs.sampling import TEST
from truemorph.classifiers.fits import fit_catalogue, write_fit
from truemorph.classifiers.train import train_on_catalogue
from truemorph.commands.bias import measure_bias
from truemorph.commands.label import label_galaxies
from truemorph.commands.prepare import prepare_catalogue
from truemorph.config import RunConfig, training_config
from truemorph.errors import InputError, require_extra
from truemorph.findings import Finding
from truemorph.io import plain, write_json
from truemorph.plotting import axes_or_new
from truemorph.progress import tell
from truemorph.report.gallery import choose
from truemorph.report.label_sets import AFTER, CHANGE, changes, join_labels
from truemorph.report.writing import ReportOptions, make_report
from truemorph.results import Result, quantity_table
from truemorph.simulate.annotate import vote_fractions
from truemorph.simulate.pictures import CENTRAL_R90, write_jpegs
from truemorph.simulate.population import at_resolution, simulate_galaxies
from truemorph.tables import CatalogTable, write_table

TRUE_THETA = 11.25
INTRINSIC = ("radius_kpc", "M_r", "redshift")
_SPLIT = (0.6, 0.1, 0.3)
_SMALLEST = 300
_MARKER = ".truemorph-demo"
# Less than preset "quick" does, on more galaxies: within minutes on two cores.
_EPOCHS, _FOLDS = 15, 2
# Resolution and pixels of the better images.
_SHARP, _BETTER_SIZE = 80.0, 128
_SIMULATED = Finding(
    "simulated-galaxies",
    "note",
    "These galaxies are simulated (docs/simulator.md): labels flip by the family of curves that is fitted, and class "
    f"fractions do not depend on α, so the assumptions of the method hold by construction. The true θ is {TRUE_THETA}; "
    "disks are spirals and lenticulars.",
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
    alpha = frame["alpha"].to_numpy()
    bias = cv18(labels, alpha, frame.select(INTRINSIC).to_numpy(), depth, bins, bootstrap=0, seed=seed)
    return {
        "balanced_accuracy": balanced_accuracy(truth, labels),
        "fraction_rms_hard": fraction_error(truth, labels, alpha),
        "fraction_rms_soft": fraction_error(truth, frame["p_disk"].to_numpy(), alpha),
        "cv18": {name: getattr(bias, name) for name in ("value", "floor", "floor_std", "excess")},
    }


@dataclass(frozen=True, repr=False)
class DemoResult(Result):
    """What the demo found.

    Attributes
    ----------
    out : Path
        Folder with report.html, summary.json and every intermediate file.
    content : dict
        The content of summary.json.
    findings : tuple of Finding
        Those of the fit of T(α).
    """

    out: Path
    content: dict[str, Any]
    findings: tuple[Finding, ...]

    def summary(self) -> str:
        """Return the scores of both models against the truth as text."""
        lines = [
            f"{'trained on the same labels':28s} {'accuracy':>9s} {'rms hard':>9s} {'rms soft':>9s} "
            f"{'CV18 excess':>12s}"
        ]
        for name, one in self.content["models"].items():
            lines.append(
                f"{name:28s} {one['balanced_accuracy']:9.3f} {one['fraction_rms_hard']:9.3f} "
                f"{one['fraction_rms_soft']:9.3f} {one['cv18']['excess']:12.3f}"
            )
        theta = self.content["theta"]
        lines.append(f"theta {theta['estimate']:.2f} ± {theta['stderr']:.2f} (true {theta['true']:.2f})")
        return "\n".join([*lines, f"open {self.out / 'report.html'}"])

    def to_dict(self) -> dict[str, Any]:
        """Return the content of summary.json."""
        return self.content

    def to_table(self) -> Any:
        """Return the scores as a table of one row a model."""
        models = self.content["models"]
        columns = {
            "balanced_accuracy": "balanced accuracy vs truth",
            "fraction_rms_hard": "error of the disk fraction over α, from labels",
            "fraction_rms_soft": "error of the disk fraction over α, from probabilities",
        }
        scores = {name: ([one[name] for one in models.values()], "", about) for name, about in columns.items()}
        return quantity_table({"model": (list(models), "", "how it was trained"), **scores})

    def plot(self, ax: Any = None) -> Any:
        """Draw the balanced accuracy of both models; returns matplotlib axes."""
        ax = axes_or_new(ax)
        models = self.content["models"]
        ax.bar(list(models), [one["balanced_accuracy"] for one in models.values()])
        ax.set(ylabel="balanced accuracy vs truth", ylim=(0.5, 1))
        return ax


def run_demo(
    *,
    out: Path = Path("demo"),
    galaxies: int = 9000,
    epochs: AtLeastOne | None = None,
    folds: AtLeastOne | None = None,
    seed: Seed = 0,
) -> DemoResult:
    """Show that it works, on simulated galaxies whose truth is known.

    Example: truemorph demo --out demo

    Parameters
    ----------
    out : path
        Folder for report.html, summary.json and all intermediate files; an earlier demo there is replaced.
    galaxies : int
        Simulated galaxies, at least 300.
    epochs : int, optional
        Most epochs of training; default 15.
    folds : int, optional
        Members of each model; default 2.
    seed : int
        Random seed.

    Returns
    -------
    DemoResult

    Raises
    ------
    InputError
        If there are too few galaxies, `out` holds something else than a demo, or torch is not installed.

    Examples
    --------
    >>> run_demo(galaxies=10)
    Traceback (most recent call last):
        ...
    truemorph.errors.InputError: the demo needs at least 300 galaxies; got 10
    """
    out = Path(out)
    require_extra("networks")
    if galaxies < _SMALLEST:
        raise InputError(f"the demo needs at least {_SMALLEST} galaxies; got {galaxies}")
    if out.exists() and any(out.iterdir()) and not (out / _MARKER).is_file():
        raise InputError(f"{out}: holds something else than a demo; choose another folder (`out`)")
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARKER).write_text("This folder was made by `truemorph demo`, which replaces what is in it.\n")
    seconds: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        tell(f"demo: {name}")
        began = time.perf_counter()
        yield
        seconds[name] = round(time.perf_counter() - began, 2)

    shutil.rmtree(out / "images", ignore_errors=True)
    config = training_config("quick", crop=1.0, epochs=epochs or _EPOCHS, folds=folds or _FOLDS, seed=seed)
    with stage("simulate"):
        votes = write_simulated(out, galaxies, seed, config.image_size)
    with stage("prepare"):
        catalogue_path = out / "catalogue.parquet"
        prepare_catalogue(votes, images=out / "images", split=_SPLIT, gold="truth", out=catalogue_path, seed=seed)
        catalogue = read_catalogue(catalogue_path)
    with stage("bias"):
        measure_bias(catalogue_path, intrinsic=INTRINSIC, bootstrap=20, out=out / "bias.json", seed=seed)
    with stage("transition"):
        fit, described = fit_catalogue(catalogue)
        write_fit(described, fit.plot().figure, out / "transition.json")
    labelled = {}
    for name in ("naive", "debiased"):
        with stage(f"train {name}"):
            naive = name == "naive"
            train_on_catalogue(
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
            label_galaxies(out / name, catalogue_path, path)
            labelled[name] = join_labels(catalogue, path)[0]
    with stage("report"):
        held_out = {name: frame.filter(pl.col("split") == TEST) for name, frame in labelled.items()}
        n_test = held_out["naive"].height
        depth, bins = choose_bins(n_test, True)
        models = {name: _score(frame, depth, bins, seed) for name, frame in held_out.items()}
        references = {
            name: _score(held_out["naive"].with_columns(model_label=pl.col(column)), depth, bins, seed)["cv18"]
            for name, column in (("observed", "label"), ("truth", "gold"))
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
            "findings": described["findings"],
            "seed": seed,
        }
        options = ReportOptions(
            catalogue=catalogue_path,
            labels=[out / f"labels_{name}.parquet" for name in labelled],
            intrinsic=INTRINSIC,
            better=out / "better",
            seed=seed,
        )
        _better_images(out, galaxies, seed, _shown(labelled["debiased"], options.galaxies))
        make_report(
            [out / "naive", out / "debiased"],
            out / "report.html",
            options,
            title="truemorph demo: simulated galaxies of known truth",
            known=(_SIMULATED,),
        )
    write_json(out / "summary.json", summary)
    return DemoResult(out, plain(summary), tuple(map(Finding.from_dict, described["findings"])))


def _shown(frame: pl.DataFrame, most: int) -> list[str]:
    """Return the ids of the galaxies that the report's gallery shows."""
    after = frame["posterior_disk"].cast(pl.Float64).fill_null(float("nan"))
    changed = frame.with_columns(
        pl.Series(CHANGE, changes(frame["label"].to_numpy(), after.to_numpy())), after.alias(AFTER)
    )
    return choose(changed, most)["object_id"].cast(pl.String).to_list()


def _better_images(out: Path, galaxies: int, seed: int, ids: Sequence[str]) -> None:
    """Draw some of the galaxies again, as a telescope without an atmosphere would see them."""
    shutil.rmtree(out / "better", ignore_errors=True)
    population = simulate_galaxies(galaxies, seed, confounded=False)
    chosen = population.filter(pl.col("object_id").cast(pl.String).is_in(list(ids)))
    sharp = at_resolution(chosen, np.maximum(chosen["alpha"].to_numpy(), _SHARP))
    write_jpegs(sharp, out / "better", _BETTER_SIZE, seed, field=CENTRAL_R90, quality=90)
