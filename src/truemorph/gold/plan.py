"""Which galaxies should get a gold label, and how many: stratified sampling with known probabilities.

Galaxies are put into strata of α, observed label and, where there is one, p(y | x). Within a stratum they are drawn at
random, so that every galaxy has a known probability of selection. For a question of a decision tree, galaxies are
drawn from all rows, also those to which it may not apply: whether volunteers were asked depends on the bias.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, Field
from scipy.spatial import KDTree

from truemorph.bias.binning import Bins, default_bins
from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.curves.transitions import DISK, UNKNOWN
from truemorph.bias.fitting import fit_transition
from truemorph.bias.regression.gold import GoldRegression, regression_terms
from truemorph.bias.regression.nested import NestedRegression
from truemorph.bias.result import FittedCurve
from truemorph.bias.sample import FEWEST
from truemorph.catalogs.catalogue import checksum, classes_of, find_images, object_ids
from truemorph.catalogs.paths import asked_of, given_labels, gold_column, majority_paths, root_of, votes_at_gates
from truemorph.catalogs.question_gold import gold_of_question
from truemorph.errors import InputError
from truemorph.findings import Finding, Findings
from truemorph.gold.choices import choices_of, choices_of_label
from truemorph.gold.strata import Strata, rank_among_equal
from truemorph.io import file_hash, plain, read_checked, save_figure, write_json
from truemorph.plotting import BLUE, GREY, legend
from truemorph.questions import Asked, Quantity, Tree
from truemorph.results import Result, quantity_table, text_facts, text_table
from truemorph.tables import CatalogTable, missing_in, numeric_columns, read_columns, write_table

PLAN, TABLE = "plan.json", "plan.parquet"
_COLUMNS = {  # of plan.parquet, that are read
    **dict.fromkeys(("object_id", "image"), pl.String),
    **dict.fromkeys(("alpha", "probability", "before"), pl.Float64),
    "position": pl.Int64,
}
# Part of the galaxies that are shown twice, to measure how consistent the answers are.
_REPEATED = 0.05
_UNDEFINED = "not stated: say what counts (`definition`); people who label see it"
_BUDGETS = (50, 100, 200, 300, 500, 1000, 2000, 5000)


class GoldPlan(Result):
    """How many gold labels are needed, and which galaxies should get them.

    Attributes
    ----------
    out : Path or None
        Folder with `plan.json` and `plan.parquet`.
    frame : polars.DataFrame
        A row a galaxy of the catalogue: `object_id`, `image`, `alpha`, `stratum`, `probability` of selection by this
        plan or earlier ones, `before` by earlier ones alone, `position` in the list of galaxies to label (null where
        not selected).
    edges : array, shape (B + 1,)
        Bins of α.
    predicted : array, shape (B,)
        Predicted standard error of the `quantity` in each bin.
    comparison : polars.DataFrame
        `labels`, `planned`, `random`: the largest of these errors for several numbers of labels.
    repeats : int
        Galaxies that are shown twice.
    about : dict
        Settings, and which catalogue the plan is for.
    findings : tuple of Finding
    """

    out: Path | None
    frame: pl.DataFrame
    edges: np.ndarray
    predicted: np.ndarray
    comparison: pl.DataFrame
    repeats: int
    about: dict[str, Any]
    findings: Findings = ()

    @property
    def quantity(self) -> str:
        """Name of the quantity whose error is predicted."""
        return str(self.about.get("quantity", f"{self.about['classes'][1]} fraction"))

    @property
    def selected(self) -> pl.DataFrame:
        """Galaxies to label, in the order of the list."""
        return self.frame.drop_nulls("position").sort("position")

    def summary(self) -> str:
        """Return numbers of labels and predicted errors as text."""
        n, probability = self.selected.height, self.selected["probability"].to_numpy()
        by = "α" if self.about["by"] == "alpha" else self.about["by"]
        what = f"at most, of the {self.quantity} in {self.predicted.size} bins of {by}"
        facts = [
            ("gold labels", f"{n:,} galaxies, {self.repeats:,} of them shown twice"),
            ("error", f"{self.predicted.max():.3f} {what} (predicted)"),
            ("probabilities", f"{probability.min():.2g} to {probability.max():.2g}"),
            ("definition", self.about.get("question_definition", self.about["definition"]) or _UNDEFINED),
        ]
        rows = [
            [f"{labels:,d}", f"{planned:.3f}", f"{random:.3f}"] for labels, planned, random in self.comparison.rows()
        ]
        header = ["gold labels", "largest error: planned", "random choice"]
        return "\n".join([*text_facts(facts), "", *text_table(header, rows, left=())])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return plain(
            {
                "version": 2 if "question" in self.about else 1,
                "out": self.out,
                **self.about,
                "labels": self.selected.height,
                "repeats": self.repeats,
                "edges": self.edges,
                "predicted": self.predicted,
                "comparison": self.comparison.to_dicts(),
                "findings": self.findings,
            }
        )

    def to_table(self) -> Any:
        """Return a table of one row a galaxy to label."""
        about = {
            "object_id": "identifier of the galaxy",
            "stratum": "group of similar galaxies",
            "probability": "probability of selection",
        }
        return quantity_table({name: (self.selected[name].to_list(), text) for name, text in about.items()})

    def draw(self, ax: Any) -> None:
        """Draw the largest error against the number of labels."""
        labels = self.comparison["labels"]
        ax.plot(labels, self.comparison["random"], "s--", color=GREY, label="random choice")
        ax.plot(labels, self.comparison["planned"], "D-", color=BLUE, label="planned choice")
        ax.axhline(self.predicted.max(), color="0.7", lw=1)
        ax.set(xscale="log", xlabel="number of gold labels", ylabel=f"largest predicted error of the {self.quantity}")
        ax.set_ylim(bottom=0)
        legend(ax)


def _by_curve(
    fractions: Sequence[float] | np.ndarray, curve: FittedCurve, catalogue: CatalogTable, names: Sequence[str]
) -> np.ndarray:
    """p(class | observed, α) of all galaxies, shape (N, K), from class fractions and T(α), which depends on `names`."""
    frame, source = catalogue.frame, catalogue.source
    p = given_labels(np.tile(fractions, (frame.height, 1)), frame, curve.transition, names, source)
    if not np.isfinite(p).all():
        raise InputError(f"{source}: some galaxies have no {' or '.join(names)}; select those that have (`where`)")
    return p


def _predict(gold: np.ndarray) -> bool:
    """Whether gold labels, shape (N,), -1 where unknown, are enough to predict the classes of other galaxies."""
    labels = gold[gold != UNKNOWN]
    return labels.size >= FEWEST and np.unique(labels).size > 1


@dataclass(frozen=True)
class _Prediction:
    """What is predicted of N galaxies before they are labelled, and what is wanted of their gold labels."""

    label: np.ndarray  # (N,): in the classes of the gold labels
    probabilities: np.ndarray  # (N, K)
    quantities: tuple[Quantity, ...]
    gold: np.ndarray  # (N,): of a pilot; -1 where unknown
    about: dict[str, Any]  # which question the plan is for

    def by_model(self, p: np.ndarray) -> _Prediction:
        """The same, with a model's probabilities, shape (N, K), of the galaxies that have them."""
        if p.shape != self.probabilities.shape:
            raise InputError("the labels (`labels`) and the estimate tell other answers apart; leave out one of them")
        has_p = np.isfinite(p).all(axis=1, keepdims=True)
        return replace(self, probabilities=np.where(has_p, p, self.probabilities))


def _of_question(
    catalogue: CatalogTable, asked: Asked, curve: FittedCurve | None, observables: Sequence[str]
) -> _Prediction:
    """Class probabilities of all galaxies for a question: by an estimate, a pilot's gold labels, or votes.

    The classes are "does not apply" and the answers; galaxies that were not asked have probabilities too. Votes alone
    would be too certain, as they are biased, so half of the probability is uniform.
    """
    frame, source, question = catalogue.frame, catalogue.source, asked.question
    if curve is not None:
        asked = _of_estimate(curve, asked)
    classes, of_paths = asked.answers, np.array(asked.answers_of_paths)
    votes, paths = votes_at_gates(frame, asked, source), majority_paths(frame, asked, source)
    alpha, label = frame["alpha"].to_numpy(), of_paths[paths]
    gold = np.full(label.size, UNKNOWN)
    if (column := gold_column(question)) in frame.columns:
        gold = np.maximum(gold_of_question(frame, asked, column, source).numbers, UNKNOWN)
    if curve is not None:
        of_classes = _by_curve(curve.class_fractions, curve, catalogue, observables)
        probabilities = of_classes @ np.eye(len(classes))[list(asked.answers_of_classes)]
    elif _predict(gold):
        bins = Bins.cut(alpha, default_bins(label.size))
        terms = regression_terms(paths, alpha, of_paths.size, [votes.log_odds])
        fit = NestedRegression.fit(terms, gold, bins, len(classes))
        probabilities = fit.joint(np.arange(label.size), gold)
    else:
        probabilities = votes.path_probabilities @ np.eye(len(classes))[of_paths]
        possible = np.isin(np.arange(len(classes)), of_paths)
        probabilities = 0.5 * probabilities + 0.5 * possible / possible.sum()
    shown = asked.quantities[: len(asked.shown)]
    name = shown[0].name if len(shown) == 1 else f"fractions of the answers to {question!r}"
    about = {"question": question, "tree": asked.to_dict()["tree"], "quantity": name, "classes": classes}
    return _Prediction(label, probabilities, shown, gold, about)


def _of_estimate(curve: FittedCurve, asked: Asked) -> Asked:
    """Return the question of an estimate, which must be the one that is asked; its answers may be merged."""
    if isinstance(curve.transition, TreeTransition) and curve.transition.asked.paths == asked.paths:
        return curve.transition.asked
    raise InputError(f"the estimate is of another question (`estimate`) than the plan, {asked.question!r}")


def _of_label(catalogue: CatalogTable, curve: FittedCurve | None, observables: Sequence[str]) -> _Prediction:
    """Probabilities of the two classes of all galaxies: by an estimate, or a pilot's gold labels.

    By an estimate (from the labels, if none is given) it is the value nearest to one half that the range of its
    fraction allows: a plan should not rest on the assumption that gold labels are to test.
    """
    if curve is not None and len(curve.classes) != 2:
        raise InputError("the estimate is of a question (`estimate`); name the question (`question`)")
    frame = catalogue.frame
    label, alpha, rows = frame["label"].to_numpy(), frame["alpha"].to_numpy(), np.arange(frame.height)
    gold = frame["gold"].fill_null(UNKNOWN).to_numpy() if "gold" in frame.columns else np.full(label.size, UNKNOWN)
    if curve is None and _predict(gold):
        bins = Bins.cut(alpha, default_bins(label.size))
        probabilities = GoldRegression.fit(regression_terms(label, alpha), gold, bins).predicted(rows)
    else:
        fit = fit_transition(label, alpha).curve if curve is None else curve
        low, high = fit.fraction_range[fit.classes[DISK]]
        fractions = low, fit.class_fractions[DISK], high
        allowed = np.array([_by_curve([1 - fraction, fraction], fit, catalogue, observables) for fraction in fractions])
        probabilities = allowed[np.abs(allowed[:, :, DISK] - 0.5).argmin(axis=0), rows]
    classes = classes_of(catalogue)
    counted = Quantity(f"{classes[1]} fraction", (0.0, 1.0))
    return _Prediction(label, probabilities, (counted,), gold, {"classes": classes})


@dataclass(frozen=True)
class PlanOptions:
    """What is wanted of a plan; see `plan_gold`."""

    error: float = 0.03
    budget: int | None = None
    bins: int = 8
    seed: int = 0
    by: str = "alpha"
    question: str | None = None
    definition: str | None = None

    @property
    def names(self) -> list[str]:
        """Columns in whose bins the fraction is wanted."""
        names = [name.strip() for name in self.by.split(",")]
        if len(names) > 2:
            raise InputError(f"fractions are wanted in bins of one column, or of two (`by`); got {self.by!r}")
        return names


@dataclass(frozen=True)
class _Candidates:
    """Which galaxies of a catalogue can be chosen, and what they are binned by."""

    image: pl.Series  # (N,): names of images
    able: np.ndarray  # (N,): whether they can be shown; all, if images are named after the ids
    before: np.ndarray  # (N,): probability of selection by earlier plans
    rows: np.ndarray  # of those that can be chosen
    pilot: np.ndarray  # rows of those that have a gold label
    column: np.ndarray  # (N,) or (N, 2)


def _candidates(catalogue: CatalogTable, asked: Asked | None, options: PlanOptions) -> _Candidates:
    """Return the galaxies that can be chosen, once what is wanted of the plan suits them."""
    frame, source, names = catalogue.frame, catalogue.source, options.names
    image = frame["image"] if "image" in frame.columns else pl.repeat(None, frame.height, dtype=pl.String, eager=True)
    able = image.is_not_null().to_numpy() | (image.count() == 0)
    before, labelled = _earlier(frame, None if asked is None else asked.question)
    columns = numeric_columns(frame, names, source)
    rows = np.flatnonzero(able & ~labelled)
    _check_wanted(source, options, columns[rows])
    column = columns[:, 0] if len(names) == 1 else columns
    return _Candidates(image, able, before, rows, np.flatnonzero(able & labelled), column)


def make_plan(
    catalogue: CatalogTable,
    options: PlanOptions,
    *,
    p: np.ndarray | None = None,
    curve: FittedCurve | None = None,
    observables: Sequence[str] = (),
) -> GoldPlan:
    """Choose the galaxies that should get a gold label.

    `p` is a model's: of both classes, or of "does not apply" and the answers to a question, (N, K); NaN if unknown.
    `observables` are columns on which the curve depends beside α.

    Gold labels in the catalogue (of a pilot) predict how uncertain the classes of the others are; their galaxies are
    not chosen again, and their probability of selection (`gold_probability`) is combined with the new one.
    """
    frame, source = catalogue.frame, catalogue.source
    asked = asked_of(catalogue, options.question)
    if asked is None:
        prediction = _of_label(catalogue, curve, observables)
    else:
        prediction = _of_question(catalogue, asked, curve, observables)
    if p is not None:
        prediction = prediction.by_model(p)
    label, predicted = prediction.label, prediction.probabilities
    galaxies = _candidates(catalogue, asked, options)
    rows, pilot = galaxies.rows, galaxies.pilot
    cut = Bins.cut(galaxies.column[rows], min(options.bins, rows.size // 50))
    strata = Strata.of(label[rows], cut, predicted[rows], prediction.quantities, 1 if p is None else 3)
    if pilot.size:
        strata = strata.with_labels(label[pilot], cut.find(galaxies.column[pilot]), label[rows])
    if options.budget is None:
        drawn = strata.rounded(strata.allocation(options.error))
    else:
        drawn = strata.for_budget(options.budget)
    table = _planned(frame, galaxies, prediction, strata, drawn, cut, options.seed)
    about = {
        "by": options.by,
        "catalogue": source if catalogue.path is None else str(catalogue.path.resolve()),
        "sha256": checksum(frame),
        "image_root": catalogue.metadata.get("image_root"),
        **prediction.about,
        **_meant(catalogue, options.definition, asked),
        "error": options.error if options.budget is None else None,
        "budget": options.budget,
        "seed": options.seed,
        "pilot": int((prediction.gold != UNKNOWN).sum()),
    }
    repeats = int(np.ceil(_REPEATED * table["position"].count()))
    left_out = _who_is_left_out(frame, asked, galaxies.able, pilot)
    findings = (*catalogue.findings, *missing_in(frame, options.names, source), *left_out)
    return GoldPlan(None, table, cut.edges, strata.errors(drawn), _compared(strata), repeats, about, findings)


def _meant(catalogue: CatalogTable, text: str | None, asked: Asked | None) -> dict[str, str]:
    """Return what counts as the second class, and as the answers to a question: as given, or by the catalogue."""
    own = catalogue.metadata.get("definition", "")
    if asked is None:
        return {"definition": own if text is None else text.removeprefix(f"{classes_of(catalogue)[1]}:").strip()}
    of_question = own if asked.question == root_of(catalogue).question else ""
    return {"definition": own, "question_definition": of_question if text is None else text}


def _planned(
    frame: pl.DataFrame,
    galaxies: _Candidates,
    prediction: _Prediction,
    strata: Strata,
    drawn: np.ndarray,
    cut: Bins,
    seed: int,
) -> pl.DataFrame:
    """Return the table of a plan, with so many galaxies drawn from each stratum; see `GoldPlan`."""
    rows, pilot, before = galaxies.rows, galaxies.pilot, galaxies.before
    probability, now = before.copy(), (drawn / strata.sizes)[strata.index]
    probability[rows] += (1 - before[rows]) * now
    if pilot.size:  # as the galaxy of the same bin and label with the nearest probabilities; 0 if there is none
        cell = prediction.label + prediction.probabilities.shape[1] * cut.find(galaxies.column)
        place = np.column_stack([10 * cell, prediction.probabilities[:, 1:]])
        _, nearest = KDTree(place[rows]).query(place[pilot], distance_upper_bound=2)
        probability[pilot] += (1 - before[pilot]) * np.append(now, 0)[nearest]
    chosen = rows[_first_of_each(strata.index, drawn, seed)]
    position, stratum = np.full((2, frame.height), -1)
    position[chosen], stratum[rows] = np.arange(chosen.size), strata.index
    return pl.DataFrame(
        {
            "object_id": frame["object_id"].cast(pl.String),
            "image": galaxies.image,
            "alpha": frame["alpha"].cast(pl.Float64),
            "stratum": pl.Series(stratum).replace(-1, None),
            "probability": probability,
            "before": before,
            "position": pl.Series(position).replace(-1, None),
        }
    )


def _first_of_each(stratum: np.ndarray, drawn: np.ndarray, seed: int) -> np.ndarray:
    """Return rows of so many galaxies of each stratum, shape (S,), in a random order."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(stratum.size)
    shuffled = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    return rng.permutation(shuffled[rank_among_equal(stratum[shuffled]) < drawn[stratum[shuffled]]])


def _compared(strata: Strata) -> pl.DataFrame:
    """Return the largest errors of planned and random choices of the same size; a random one uses label and α, too."""
    n = strata.sizes.sum()
    rows = [
        (budget, strata.errors(strata.for_budget(budget)).max(), strata.errors(budget * strata.sizes / n).max())
        for budget in _BUDGETS
        if strata.fewest(0).sum() <= budget < n
    ]
    return pl.DataFrame(rows, schema={"labels": pl.Int64, "planned": pl.Float64, "random": pl.Float64}, orient="row")


def _who_is_left_out(
    frame: pl.DataFrame, asked: Asked | None, able: np.ndarray, pilot: np.ndarray
) -> Iterator[Finding]:
    """Return findings about galaxies without an image, and gold labels in hand without a probability of selection."""
    if not able.all():
        lacking = f"{int((~able).sum()):,} of {able.size:,} galaxies have no image and cannot get a gold label"
        message = f"{lacking}, so results hold for the others only."
        yield Finding("galaxies-left-out", "note", message, "Check why their images are missing.")
    column = gold_column(None if asked is None else asked.question, "gold_probability")
    if pilot.size and column not in frame.columns:
        message = (
            f"{pilot.size:,} galaxies have gold labels without a probability of selection. They are taken as a random "
            "part of all galaxies, and count as labels in hand."
        )
        yield Finding("gold-taken-as-random", "note", message)


def _check_wanted(source: str, options: PlanOptions, column: np.ndarray) -> None:
    """Check what is asked of a plan against the galaxies that can be labelled; `column` is theirs, to bin by."""
    if column.size < FEWEST:
        raise InputError(f"{source}: {column.size} galaxies can be labelled, at least {FEWEST} are needed")
    if options.budget is not None and not FEWEST <= options.budget <= column.size:
        able = f"from {FEWEST} to {column.size:,}, the galaxies that can be labelled"
        raise InputError(f"a budget is {able}; got {options.budget}")
    if options.budget is None and not 0 < options.error < 0.5:
        raise InputError(f"the error is that of a fraction, above 0 and below 0.5; got {options.error}")
    if not np.isfinite(column).all():
        raise InputError(
            f"{source}: {options.by} is missing for some galaxies that can be labelled; choose another column (`by`)"
        )


def _earlier(frame: pl.DataFrame, question: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Probability of selection before this plan, and which galaxies have a gold label in hand; shapes (N,)."""
    kinds = ("gold", "gold_probability", "gold_uncertain")
    gold, probability, uncertain = (gold_column(question, kind) for kind in kinds)
    if gold not in frame.columns:
        return np.zeros(frame.height), np.zeros(frame.height, bool)
    labelled = frame[gold].is_not_null()
    if uncertain in frame.columns:  # also known where people could not tell the class
        labelled |= frame[uncertain].is_not_null()
    if probability not in frame.columns:  # taken as a random part; if all have one, the plan is a rehearsal
        in_hand = labelled.to_numpy() & (not labelled.all())
        return np.full(frame.height, in_hand.mean()), in_hand
    return frame[probability].fill_null(0.0).to_numpy(), labelled.to_numpy()


def write_plan(plan: GoldPlan, out: Path) -> GoldPlan:
    """Write `plan.json`, its table and its figure to a folder; not over another plan, whose answers would be lost."""
    if (out / PLAN).exists():
        raise InputError(f"{out}: holds a plan already; choose another folder (`out`), or label its galaxies")
    written = replace(plan, out=out)
    write_table(written.frame, out / TABLE)
    save_figure(written.plot().figure, out / "plan.png")
    content = written.to_dict() | {"table_sha256": file_hash(out / TABLE)}
    write_json(out / PLAN, content)  # last, because without this file the folder holds no plan
    return written


class PlanFile(BaseModel):
    """What is read from plan.json."""

    version: Literal[1, 2]  # raised whenever a folder means something else than before; 2 has a question
    seed: int = Field(ge=0)
    repeats: int = Field(ge=0)
    predicted: list[float] = Field(min_length=1)
    catalogue: str
    sha256: str  # of the catalogue's ids, labels and α
    table_sha256: str  # of plan.parquet
    image_root: str | None
    classes: tuple[str, ...]
    definition: str
    question: str | None = None
    question_definition: str = ""  # what counts as its answers
    tree: Tree | None = None  # of the question

    @property
    def target(self) -> tuple[Tree, str] | None:
        """The tree and the question; None for the label."""
        return (self.tree, self.question) if self.tree and self.question else None

    @property
    def choices(self) -> tuple[str, ...]:
        """What people can answer about a galaxy."""
        return tuple(choices_of(*self.target)) if self.target else choices_of_label(self.classes)


def read_about(folder: Path) -> PlanFile:
    """Read `plan.json` of a plan folder."""
    if not (folder / PLAN).is_file():
        raise InputError(f"{folder}: is not the folder of a plan (no {PLAN}); make one with truemorph gold plan")
    return read_checked(PlanFile, folder / PLAN)


def read_plan(folder: Path) -> tuple[PlanFile, pl.DataFrame]:
    """Read a plan folder: the content of `plan.json`, and the galaxies to label in the order of the list."""
    chosen = read_chosen(folder).drop_nulls("position").sort("position")
    return read_about(folder), chosen


def read_chosen(folder: Path) -> pl.DataFrame:
    """Read how the galaxies of a catalogue were chosen, a row each; null `position` where they were not."""
    source = str(folder / TABLE)
    if read_about(folder).table_sha256 != file_hash(folder / TABLE):
        raise InputError(f"{source}: has changed since the plan was made; restore a copy")
    frame = read_columns(folder / TABLE, _COLUMNS, nulls=True)
    object_ids(frame["object_id"], source)
    valid = pl.col("probability", "before").fill_null(-1).is_between(0, 1)
    if not frame.select(pl.all_horizontal(valid.all(), pl.col("position").count() > 0)).item():
        raise InputError(f"{source}: no galaxy is chosen, or a probability is not from 0 to 1; restore a copy")
    return frame


def images_of(galaxies: pl.DataFrame, root: Path) -> dict[str, Path]:
    """Find images of a plan's galaxies in a folder, by id: under the names of the catalogue, or else named after it.

    Names that lead out of the folder are those of other files, which a stranger's catalogue must not show or copy.
    """
    if not root.is_dir():
        raise InputError(f"{root}: is not a folder of images")
    ids = galaxies["object_id"]
    inside = Path(os.path.abspath(root))
    both = zip(find_images(ids, galaxies["image"], root), find_images(ids, None, root), strict=True)
    names = zip(ids, (named or after for named, after in both), strict=True)
    paths = {galaxy: Path(os.path.abspath(root / name)) for galaxy, name in names if name is not None}
    return {galaxy: path for galaxy, path in paths.items() if path.is_relative_to(inside)}
