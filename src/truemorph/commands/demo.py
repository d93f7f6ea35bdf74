"""truemorph demo: the whole sequence on simulated galaxies whose truth is known.

simulate → prepare → bias → transition → train naive and debiased on the same labels → label → compare with
the truth. Every number is measured on galaxies that no network trained on. Of a question of a decision tree, such as
bars, the same from votes along the tree and a few hundred gold labels.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from truemorph.arguments import AtLeastOne, Seed, validated
from truemorph.bias.curves.formulas import RayleighTransition
from truemorph.bias.estimate import Estimate
from truemorph.bias.metrics.scores import balanced_accuracy, fraction_error
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.catalogs.label_sets import join_labels
from truemorph.catalogs.sampling import TEST
from truemorph.commands.bias import BiasMeasurement, measure_bias
from truemorph.commands.label import label_galaxies
from truemorph.commands.prepare import prepare_catalogue
from truemorph.commands.train import train_classifier
from truemorph.commands.transition import estimate_transition
from truemorph.config import NAIVE, PRESETS
from truemorph.errors import InputError, require_extra
from truemorph.findings import Finding
from truemorph.io import plain, write_file, write_json
from truemorph.progress import tell
from truemorph.questions import slug
from truemorph.report.gallery import AFTER, CHANGE, choose
from truemorph.report.options import ReportOptions
from truemorph.report.writing import make_report
from truemorph.results import PlainResult, text_table
from truemorph.simulate.annotate import vote_fractions
from truemorph.simulate.pictures import CENTRAL_R90, write_jpegs
from truemorph.simulate.population import at_resolution, simulate_galaxies
from truemorph.simulate.survey import INTRINSIC, simulate_survey, survey_table
from truemorph.tables import CatalogTable, read_table, write_table
from truemorph.workers import worker_pool

TRUE_THETA = 11.25
_MARKER, _CATALOGUE, _CURVE = ".truemorph-demo", "catalogue.parquet", "transition.json"
_MODELS = ("naive", "debiased")
_SMALLEST = 300
# Galaxies with gold labels of a question, and bins of α.
_GOLD, _BINS = 400, 5
# Resolution and pixels of the better images.
_SHARP, _BETTER_SIZE = 80.0, 128
_SIMULATED = Finding(
    "simulated-galaxies",
    "note",
    "These galaxies are simulated (docs/simulator.md): labels flip by the family of curves that is fitted, and class "
    f"fractions do not depend on α, so the assumptions of the method hold by construction. The true θ is {TRUE_THETA}; "
    "disks are spirals and lenticulars.",
)
# Of tables whose gold labels are the truth.
_SIMULATED_TABLE = {"simulated": True}
_SIMULATED_SURVEY = Finding(
    "simulated-galaxies",
    "note",
    "These galaxies are simulated (docs/simulator.md): gold labels are true, and of a random part of the galaxies, and "
    "the true fractions do not depend on α.",
)


def write_simulated(out: Path, galaxies: int, seed: int, size: int = 64) -> Path:
    """Write `votes.csv` (Galaxy Zoo 2 column names, and the truth), which is returned, and `images/<id>.jpg`."""
    population = simulate_galaxies(galaxies, seed, confounded=False)
    smooth, disk = vote_fractions(population["truth"], population["alpha"], RayleighTransition(TRUE_THETA), seed)
    t01 = "t01_smooth_or_features_"
    votes = {
        f"{t01}a01_smooth_weighted_fraction": smooth,
        f"{t01}a02_features_or_disk_weighted_fraction": disk,
        f"{t01}a03_star_or_artifact_weighted_fraction": np.zeros(galaxies),
    }
    # What a central crop of a large JPEG, made smaller, looks like: no artefacts of its own.
    write_jpegs(population, out / "images", size, seed, field=CENTRAL_R90, quality=95)
    return write_table(CatalogTable(survey_table(population, votes)), out / "votes.csv")


def _summary(out: Path, content: dict[str, Any]) -> str:
    """Scores of both models against the truth, as text."""
    theta, rows = content["theta"], []
    for name, one in content["models"].items():
        scores = [one[score] for score in ("balanced_accuracy", "fraction_rms_hard", "fraction_rms_soft")]
        rows.append([name, *(f"{score:.3f}" for score in (*scores, one["cv18"]["excess"]))])
    header = ["trained on the same labels", "accuracy", "rms hard", "rms soft", "CV18 excess"]
    fit = f"theta {theta['estimate']:.2f} ± {theta['stderr']:.2f} (true {theta['true']:.2f})"
    return "\n".join([*text_table(header, rows), fit, f"open {out / 'report.html'}"])


@validated
def run_demo(
    *,
    out: Path = Path("demo"),
    question: Literal["bar", "spiral"] | None = None,
    galaxies: int = 9000,
    epochs: AtLeastOne = 15,
    folds: AtLeastOne = 2,
    seed: Seed = 0,
) -> PlainResult:
    """Show that it works, on simulated galaxies whose truth is known.

    Example: truemorph demo --out demo

    Scripts that call it need `if __name__ == "__main__":`, because each model is trained in a process of its own.

    Parameters
    ----------
    out : path
        Folder for report.html, summary.json and all intermediate files; an earlier demo there is replaced.
    question : str, optional
        A question of Galaxy Zoo 2's decision tree: bars, or spiral arms; default smooth or disk.
    galaxies : int
        Simulated galaxies, at least 300.
    epochs : int
        Largest number of epochs of training.
    folds : int
        Members of each model.
    seed : int
        Random seed.

    Returns
    -------
    PlainResult
        Its values are those of summary.json.

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
    require_extra("networks")
    if galaxies < _SMALLEST:
        raise InputError(f"the demo needs at least {_SMALLEST} galaxies; got {galaxies}")
    if out.exists() and any(out.iterdir()) and not (out / _MARKER).is_file():
        raise InputError(f"{out}: holds something else than a demo; choose another folder (`out`)")
    write_file(out / _MARKER, "This folder was made by `truemorph demo`, which replaces what is in it.\n")
    shutil.rmtree(out / "images", ignore_errors=True)
    # Fewer epochs and folds than preset "quick" has, for more galaxies: within minutes on two cores.
    settings = {"crop": 1.0, "epochs": epochs, "folds": folds, "seed": seed}
    if question is not None:
        return _demo_of_question(question, out, galaxies, settings)
    tell("demo: simulate")
    votes = write_simulated(out, galaxies, seed, PRESETS["quick"].image_size)
    tell("demo: prepare, measure the bias, estimate T(α)")
    path = out / _CATALOGUE
    table = replace(read_table(votes), metadata=_SIMULATED_TABLE)
    prepare_catalogue(table, images=out / "images", split=(0.6, 0.1, 0.3), gold="truth", out=path, seed=seed)
    measure_bias(path, intrinsic=INTRINSIC, bootstrap=20, out=out / "bias.json", seed=seed)
    estimate_transition(path, out=out / _CURVE, compare=False)
    estimate = Estimate.read(out / _CURVE)
    tell(f"demo: train {' and '.join(_MODELS)}, a process each, and label")
    _train_both(out, settings)
    models, measured = dict[str, dict[str, Any]](), dict[str, BiasMeasurement]()
    for name in _MODELS:
        models[name], measured[name] = _scores(path, out / f"labels_{name}.parquet", seed)
    drift = measured[_MODELS[0]]
    tell("demo: report")
    shown = ReportOptions(
        catalogue=path,
        labels=[out / f"labels_{name}.parquet" for name in models],
        intrinsic=INTRINSIC,
        better=out / "better",
        seed=seed,
    )
    _better_images(out, simulate_galaxies(galaxies, seed, confounded=False), seed, shown.galaxies)
    title = "truemorph demo: simulated galaxies of known truth"
    make_report(
        [out / "naive", out / "debiased", out / _CURVE], out / "report.html", shown, title=title, context=(_SIMULATED,)
    )
    theta = {"estimate": estimate.fit.values["theta"], "stderr": estimate.fit.stderr["theta"]}
    summary = {
        "models": models,
        "theta": {"true": TRUE_THETA, **theta},
        "cv18_of_labels": {"observed": _cv18(drift, "observed labels"), "truth": _cv18(drift, "gold labels")},
        "galaxies": {"all": galaxies, "test": drift.results["model labels"].n_objects},
        "cv18_bins": {"depth": drift.depth, "bins": drift.bins, "intrinsic": list(INTRINSIC)},
        "findings": [finding.to_dict() for finding in estimate.findings],
        "seed": seed,
    }
    write_json(out / "summary.json", summary)
    return PlainResult(_summary(out, summary), plain(summary), estimate.findings)


def _scores(path: Path, labels: Path, seed: int) -> tuple[dict[str, Any], BiasMeasurement]:
    """Return scores of a model's labels of test galaxies, against the truth, and their drift with resolution."""
    everything, _ = join_labels(read_catalogue(path), labels)
    tested = everything.filter(pl.col("split") == TEST)
    measured = measure_bias(path, labels=labels, intrinsic=INTRINSIC, where=[f"split={TEST}"], bootstrap=0, seed=seed)
    truth, alpha = tested["gold"].to_numpy(), tested["alpha"].to_numpy()
    scores = {
        "balanced_accuracy": balanced_accuracy(truth, tested["model_label"].to_numpy()),
        "fraction_rms_hard": fraction_error(truth, tested["model_label"].to_numpy(), alpha),
        "fraction_rms_soft": fraction_error(truth, tested["p_disk"].to_numpy(), alpha),
        "cv18": _cv18(measured, "model labels"),
    }
    return scores, measured


def _cv18(measured: BiasMeasurement, labels: str) -> dict[str, float]:
    result = measured.results[labels]
    return {score: getattr(result, score) for score in ("value", "floor", "floor_std", "excess")}


def _demo_of_question(question: str, out: Path, galaxies: int, settings: dict[str, Any]) -> PlainResult:
    """The same for a question: T(α) of the paths to its answers from gold labels, networks, labels and the report."""
    seed, path, curve, truth = settings["seed"], out / _CATALOGUE, out / _CURVE, f"truth_{slug(question)}"
    tell("demo: simulate")
    population, votes = simulate_survey(galaxies, seed, confounded=False)
    write_jpegs(population, out / "images", PRESETS["quick"].image_size, seed, field=CENTRAL_R90, quality=95)
    known = pl.Series(np.random.default_rng([seed, 1]).permutation(galaxies) < _GOLD)
    table = CatalogTable(votes.with_columns(experts=pl.when(known).then(truth)))
    tell("demo: prepare, estimate fractions and T(α) of the paths")
    options: dict[str, Any] = {"split": (0.6, 0.1, 0.3), "gold": truth, "seed": seed}
    table = replace(read_table(write_table(table, out / "votes.csv")), metadata=_SIMULATED_TABLE)
    prepare_catalogue(table, question=(question,), images=out / "images", out=path, **options)
    estimate = estimate_transition(path, question=question, gold="experts", fraction_bins=_BINS, out=curve, seed=seed)
    tell(f"demo: train {' and '.join(_MODELS)}, a process each, and label")
    _train_both(out, settings, question)
    tell("demo: report")
    labels = [out / f"labels_{name}.parquet" for name in _MODELS]
    shown = ReportOptions(catalogue=path, labels=labels, better=out / "better", seed=seed)
    _better_images(out, population, seed, shown.galaxies, f"_{slug(question)}")
    title = f"truemorph demo: {question}s of simulated galaxies"
    sources = [*(out / name for name in _MODELS), estimate]
    report = make_report(sources, out / "report.html", shown, title=title, context=(_SIMULATED_SURVEY,))
    summary = {"fractions": report.content["fractions"], "question": question, "galaxies": galaxies, "seed": seed}
    summary["findings"] = [finding.to_dict() for finding in report.findings]
    write_json(out / "summary.json", summary)
    return PlainResult(report.summary(), plain(summary), report.findings)


def _train_both(out: Path, settings: dict[str, Any], question: str | None = None) -> None:
    with worker_pool(len(_MODELS)) as pool:
        list(pool.map(_train, _MODELS, repeat(out), repeat(settings), repeat(question)))


def _train(name: str, out: Path, settings: dict[str, Any], question: str | None) -> None:
    """Train a model on the demo's catalogue, and label all galaxies."""
    naive = name == "naive"
    train_classifier(
        out / _CATALOGUE,
        out=out / name,
        transition=None if naive else out / _CURVE,
        question=(question,) if naive and question is not None else (),
        labels=NAIVE if naive else None,
        preset="quick",
        intrinsic=INTRINSIC,
        settings=settings,
        overwrite=True,
    )
    label_galaxies(out / name, out / _CATALOGUE, out / f"labels_{name}.parquet")


def _better_images(out: Path, population: pl.DataFrame, seed: int, most: int, of: str = "") -> None:
    """Draw galaxies that the report shows again, as a telescope without an atmosphere would see them."""
    labels = pl.read_parquet(out / f"labels_{_MODELS[-1]}.parquet")
    changed = labels[f"observed_label{of}"] != labels[f"posterior_label{of}"]
    kinds = pl.selectors.starts_with("posterior_") & ~pl.selectors.starts_with("posterior_label")
    labels = labels.with_columns(
        pl.max_horizontal(kinds).alias(AFTER), changed.cast(pl.String).replace("false", "").alias(CHANGE)
    )
    ids = choose(labels, most)["object_id"]
    shutil.rmtree(out / "better", ignore_errors=True)
    chosen = population.filter(pl.col("object_id").cast(pl.String).is_in(ids.cast(pl.String).implode()))
    sharp = at_resolution(chosen, np.maximum(chosen["alpha"].to_numpy(), _SHARP))
    write_jpegs(sharp, out / "better", _BETTER_SIZE, seed, field=CENTRAL_R90, quality=90)
