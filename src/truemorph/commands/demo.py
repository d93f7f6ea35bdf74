"""truemorph demo: the whole sequence on simulated galaxies whose truth is known.

simulate → prepare → transition → train naive and debiased on the same labels → label → report. Every number is measured
on galaxies that no network trained on. Of a question of a decision tree, such as bars, the same from votes along the
tree and a few hundred gold labels.
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
from truemorph.commands.label import label_galaxies
from truemorph.commands.prepare import prepare_catalogue
from truemorph.commands.train import train_classifier
from truemorph.commands.transition import estimate_transition
from truemorph.config import NAIVE, PRESETS
from truemorph.errors import InputError, require_extra
from truemorph.findings import Finding
from truemorph.io import write_file
from truemorph.progress import tell
from truemorph.questions import slug
from truemorph.report.gallery import AFTER, CHANGE, choose
from truemorph.report.options import ReportOptions
from truemorph.report.writing import ReportResult, make_report
from truemorph.simulate.annotate import vote_fractions
from truemorph.simulate.pictures import CENTRAL_R90, write_jpegs
from truemorph.simulate.population import at_resolution, simulate_galaxies
from truemorph.simulate.survey import INTRINSIC, simulate_survey, survey_table
from truemorph.tables import read_table, write_table
from truemorph.workers import worker_pool

TRUE_THETA = 11.25
_MARKER, _CATALOGUE, _CURVE = ".truemorph-demo", "catalogue.parquet", "transition.json"
_MODELS = ("naive", "debiased")
_SMALLEST = 300
# Galaxies with gold labels of a question, and bins of α.
_GOLD, _BINS = 400, 5
# Resolution and pixels of the better images.
_SHARP, _BETTER_SIZE = 80.0, 128
_ABOUT = (
    "These galaxies are simulated (docs/simulator.md): labels flip by the family of curves that is fitted, and class "
    f"fractions do not depend on α, so the assumptions of the method hold by construction. The true θ is {TRUE_THETA}; "
    "disks are spirals and lenticulars."
)
_ABOUT_SURVEY = (
    "These galaxies are simulated (docs/simulator.md): gold labels are true, and of a random part of the galaxies, and "
    "the true fractions do not depend on α."
)


def write_simulated(
    out: Path, galaxies: int, seed: int, size: int, question: str | None = None
) -> tuple[Path, pl.DataFrame]:
    """Write `images/<id>.jpg` and `votes.csv`, as Galaxy Zoo 2's and with the truth; return its path, and all galaxies.

    Votes for a question are along its tree, with gold labels of some galaxies; without one they are for smooth or disk.
    """
    if question is not None:
        population, votes = simulate_survey(galaxies, seed, confounded=False)
        has_gold = pl.Series(np.random.default_rng([seed, 1]).permutation(galaxies) < _GOLD)
        votes = votes.with_columns(experts=pl.when(has_gold).then(f"truth_{slug(question)}"))
    else:
        population = simulate_galaxies(galaxies, seed, confounded=False)
        smooth, disk = vote_fractions(population["truth"], population["alpha"], RayleighTransition(TRUE_THETA), seed)
        answers = {"a01_smooth": smooth, "a02_features_or_disk": disk, "a03_star_or_artifact": np.zeros(galaxies)}
        fractions = {f"t01_smooth_or_features_{answer}_weighted_fraction": votes for answer, votes in answers.items()}
        votes = survey_table(population, fractions)
    # What a central crop of a large JPEG, made smaller, looks like: no artefacts of its own.
    write_jpegs(population, out / "images", size, seed, field=CENTRAL_R90, quality=95)
    return write_table(votes, out / "votes.csv"), population


@validated
def run_demo(
    *,
    out: Path = Path("demo"),
    question: Literal["bar", "spiral"] | None = None,
    galaxies: int = 9000,
    epochs: AtLeastOne = 15,
    folds: AtLeastOne = 2,
    seed: Seed = 0,
) -> ReportResult:
    """Show that it works, on simulated galaxies whose truth is known.

    Example: truemorph demo --out demo

    Scripts that call it need `if __name__ == "__main__":`, because each model is trained in a process of its own.

    Parameters
    ----------
    out : path
        Folder for report.html and all intermediate files; an earlier demo there is replaced.
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
    ReportResult
        That of the page.

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
    tell("demo: simulate")
    votes, population = write_simulated(out, galaxies, seed, PRESETS["quick"].image_size, question)
    tell("demo: prepare, estimate fractions and T(α)")
    catalogue = out / _CATALOGUE
    suffix = "" if question is None else f"_{slug(question)}"
    questions = () if question is None else (question,)
    options: dict[str, Any] = {"compare": False}
    if questions:
        options = {"question": question, "gold": "experts", "fraction_bins": _BINS, "seed": seed}
    table = replace(read_table(votes), metadata={"simulated": True})
    prepare_catalogue(
        table,
        question=questions,
        images=out / "images",
        out=catalogue,
        split=(0.6, 0.1, 0.3),
        gold=f"truth{suffix}",
        seed=seed,
    )
    estimate_transition(catalogue, out=out / _CURVE, **options)
    tell(f"demo: train {' and '.join(_MODELS)}, a process each, and label")
    with worker_pool(len(_MODELS)) as pool:
        list(pool.map(_train, _MODELS, repeat(out), repeat(settings), repeat(questions)))
    tell("demo: report")
    labels = [out / f"labels_{name}.parquet" for name in _MODELS]
    intrinsic = () if questions else INTRINSIC
    shown = ReportOptions(catalogue=catalogue, labels=labels, intrinsic=intrinsic, better=out / "better", seed=seed)
    _better_images(out, population, seed, shown.galaxies, suffix)
    title = f"truemorph demo: {question or 'disk'}s among simulated galaxies of known truth"
    sources = [*(out / name for name in _MODELS), out / _CURVE]
    about = Finding("simulated-galaxies", "note", _ABOUT if question is None else _ABOUT_SURVEY)
    return make_report(sources, out / "report.html", shown, title=title, context=(about,))


def _train(name: str, out: Path, settings: dict[str, Any], questions: tuple[str, ...]) -> None:
    """Train a model on the demo's catalogue, and label all galaxies."""
    naive = name == "naive"
    train_classifier(
        out / _CATALOGUE,
        out=out / name,
        transition=None if naive else out / _CURVE,
        question=questions if naive else (),
        labels=NAIVE if naive else None,
        preset="quick",
        settings=settings,
        overwrite=True,
    )
    label_galaxies(out / name, out / _CATALOGUE, out / f"labels_{name}.parquet")


def _better_images(out: Path, population: pl.DataFrame, seed: int, most: int, of: str) -> None:
    """Draw galaxies that the report shows again, as a telescope without an atmosphere would see them."""
    labels = pl.read_parquet(out / f"labels_{_MODELS[-1]}.parquet")
    changed = labels[f"observed_label{of}"] != labels[f"posterior_label{of}"]
    kinds = pl.selectors.starts_with("posterior_") & ~pl.selectors.starts_with("posterior_label")
    labels = labels.with_columns(
        pl.max_horizontal(kinds).alias(AFTER), changed.cast(pl.String).replace("false", "").alias(CHANGE)
    )
    ids = choose(labels, most)["object_id"]
    shutil.rmtree(out / "better", ignore_errors=True)
    chosen = population.filter(pl.col("object_id").is_in(ids.cast(pl.Int64).implode()))
    sharp = at_resolution(chosen, np.maximum(chosen["alpha"].to_numpy(), _SHARP))
    write_jpegs(sharp, out / "better", _BETTER_SIZE, seed, field=CENTRAL_R90, quality=90)
