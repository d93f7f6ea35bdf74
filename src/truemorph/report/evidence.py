"""The galaxies of a report with all their label sets, joined galaxy by galaxy, and what is measured of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from truemorph.bias.diagnostics import ConfoundingCheck, confounding_check
from truemorph.bias.fractions import PopulationFractions, debiased_fractions
from truemorph.bias.likelihood import n_observables, posterior
from truemorph.bias.metrics import BiasResult, LeafMap
from truemorph.bias.study import TransitionStudy, study_transition
from truemorph.bias.transitions import CLASS_NAMES, COMPARED, DISK, SMOOTH, RayleighTransition, Transition
from truemorph.catalogs.catalogue import gold_classes, read_catalogue, rows_where
from truemorph.catalogs.sampling import TEST
from truemorph.catalogs.selected import from_same_images, select_rows
from truemorph.classifiers.checkpoint import Classifier, load
from truemorph.classifiers.fits import observables_of
from truemorph.errors import InputError, nearest
from truemorph.findings import Finding
from truemorph.io import read_toml
from truemorph.labelling.label import label_table
from truemorph.labelling.labeller import IN_SAMPLE
from truemorph.report.label_sets import AFTER, CHANGE, OURS, PICTURE, TRUE, LabelSet, changes
from truemorph.report.runs import Run, read_run
from truemorph.report.table1 import Tree, fractions_by, observed_probability, table_one
from truemorph.tables import CatalogTable, numeric_columns, read_table

if TYPE_CHECKING:
    from truemorph.report.writing import ReportOptions

OBSERVED = "volunteers' labels"
TRUTH = "truth"
_ENOUGH_TO_TEST = 1000
_UNSTATED = "column gold"
_FEWEST = 10
# Galaxies of each class that a statement about the dependence of classes on α needs.
_FEWEST_OF_A_CLASS = 20


@dataclass(frozen=True)
class Model:
    """A model in the report, with its labels of the galaxies that are measured.

    Attributes
    ----------
    name : str
    transition : Transition
        T(α) that it was trained through.
    probabilities, labels : LabelSet
    posterior : LabelSet or None
        None for a naive model, whose T treats the volunteers' labels as correct.
    naive : bool
    classifier : Classifier or None
    run : Run or None
        How it was trained, where that is known.
    observables : array, shape (N, J), or None
        What its T depends on beside α.
    """

    name: str
    transition: Transition
    probabilities: LabelSet
    labels: LabelSet
    posterior: LabelSet | None
    naive: bool
    classifier: Classifier | None = None
    run: Run | None = None
    observables: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        name: str,
        transition: Transition,
        disk: np.ndarray,
        posterior: np.ndarray | None = None,
        classifier: Classifier | None = None,
        run: Run | None = None,
        observables: np.ndarray | None = None,
    ) -> Model:
        """Label sets from a model's p(disk) and posteriors, shape (N,)."""
        naive = is_naive(transition)
        after = None if naive or posterior is None or not np.isfinite(posterior).any() else posterior
        hard = np.where(np.isfinite(disk), np.nan_to_num(disk) > 0.5, np.nan)
        return cls(
            name,
            transition,
            LabelSet(f"{name}: p(disk)", "probabilities", disk, name),
            LabelSet(f"{name}: labels", "labels", hard, name),
            None if after is None else LabelSet(f"{name}: posterior", "posterior", after, name),
            naive,
            classifier,
            run,
            observables,
        )

    @property
    def best(self) -> LabelSet:
        """The posterior, or the probabilities of a model without."""
        return self.posterior or self.probabilities

    @property
    def best_labels(self) -> LabelSet:
        """The posterior, or the labels of a model without."""
        return self.posterior or self.labels

    @property
    def sees_images(self) -> bool:
        """Whether its input is pixels."""
        return self.classifier is not None and self.classifier.uses_images

    def resolution(self, alpha: np.ndarray) -> np.ndarray:
        """What T depends on: of the galaxies that are measured, or along a curve in α at the mean of the rest."""
        if self.observables is None:
            return alpha
        same = len(alpha) == len(self.observables)
        others = self.observables if same else np.tile(np.nanmean(self.observables, axis=0), (alpha.size, 1))
        return np.column_stack([alpha, np.where(np.isfinite(others), others, np.nanmean(self.observables, axis=0))])


def is_naive(transition: Transition) -> bool:
    """Whether a T says that no label was ever flipped."""
    if n_observables(transition):
        return False
    matrix = np.asarray(transition.matrix(np.array([1.0, 10.0, 100.0])))
    return bool(np.allclose(matrix, np.eye(matrix.shape[-1])))


@dataclass(frozen=True)
class Evidence:
    """The galaxies that a report measures, and all their label sets.

    Attributes
    ----------
    catalogue : CatalogTable
    frame : polars.DataFrame
        Rows that are measured.
    models : sequence of Model
    columns : sequence of LabelSet
        Further labels that the catalogue brings.
    truths : dict of LabelSet
        Gold labels by definition of a disk.
    intrinsic : sequence of str
        Columns of the intrinsic tree.
    tree : Tree
    study : TransitionStudy or None
        Fit of T(α) to the whole catalogue.
    which : str
        Which galaxies these are, in words: those that every model labels.
    everything : polars.DataFrame
        All galaxies of the catalogue, with ids as text, and under names that begin with `truemorph:` what each model
        says (`OURS` + "p0", "posterior0", "quality0", …), and gold labels by name.
    left_out : dict of int
        By model: galaxies that would be measured, but have no label of it.
    findings : sequence of Finding
        Of reading and joining; those of the fit of T(α) are in `study`.
    unfitted : sequence of Finding
        Why T(α) could not be fitted.
    """

    catalogue: CatalogTable
    frame: pl.DataFrame
    models: Sequence[Model]
    columns: Sequence[LabelSet]
    truths: Mapping[str, LabelSet]
    intrinsic: Sequence[str]
    tree: Tree
    study: TransitionStudy | None
    which: str
    everything: pl.DataFrame
    left_out: Mapping[str, int] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    unfitted: Sequence[Finding] = ()

    @property
    def path(self) -> Path:
        """Of the catalogue."""
        return Path(self.catalogue.path or "catalogue")

    @property
    def alpha(self) -> np.ndarray:
        """Resolution, shape (N,)."""
        return self.tree.alpha

    @property
    def with_images(self) -> dict[str, Classifier]:
        """Models that see pictures, by name."""
        return {one.name: one.classifier for one in self.models if one.classifier is not None and one.sees_images}

    @cached_property
    def observed(self) -> LabelSet:
        """The volunteers' labels."""
        return LabelSet(OBSERVED, "observed", self.frame["label"].to_numpy().astype(np.float64))

    @property
    def principal(self) -> Model | None:
        """The model that a report speaks of first: the last debiased one, if there is one."""
        debiased = [one for one in self.models if not one.naive]
        chosen = debiased or list(self.models)
        return chosen[-1] if chosen else None

    @property
    def sets(self) -> list[LabelSet]:
        """Every label set, in the order of tables."""
        own = [one for model in self.models for one in (model.labels, model.probabilities, model.posterior) if one]
        return [self.observed, *self.columns, *own, *self.truths.values()]

    @property
    def curves(self) -> list[LabelSet]:
        """Label sets that figures draw: of models, probabilities and posteriors, which are what populations need."""
        return [one for one in self.sets if one.kind != "labels"]

    @cached_property
    def bias(self) -> dict[str, BiasResult | None]:
        """CV18 (CV14) by label set; None where a set has too few galaxies."""
        return {one.name: self.tree.bias(one) for one in self.sets}

    @cached_property
    def table(self) -> pl.DataFrame:
        """Table 1 (see `table_one`)."""
        truths = {name: one.disk for name, one in self.truths.items()}
        return table_one(self.sets, self.alpha, self.bias, truths)

    def row(self, one: LabelSet) -> dict[str, float]:
        """Line of Table 1."""
        return self.table.row(by_predicate=pl.col("labels") == one.name, named=True)

    @cached_property
    def by_alpha(self) -> pl.DataFrame:
        """Disk fractions in fifths of α."""
        return fractions_by(self.alpha, self.curves)

    @property
    def corrector(self) -> Model | None:
        """The model whose disk fractions are the corrected ones: the principal one, unless it is naive."""
        return None if self.principal is None or self.principal.naive else self.principal

    @property
    def simulated(self) -> bool:
        """Whether gold labels are the truth, because the galaxies are simulated."""
        return any(one.name == TRUTH for one in self.truths.values())

    @property
    def gold_name(self) -> str:
        """What gold labels are called: the truth, where galaxies are simulated."""
        return TRUTH if self.simulated else "gold labels"

    @cached_property
    def by_gold(self) -> PopulationFractions | None:
        """Disk fractions in fifths of α from gold labels of some of the galaxies; None if there are none, or of all."""
        for truth in list(self.truths.values())[:1]:
            if not truth.known.all():
                bins = fractions_by(self.alpha, [self.observed]).height
                with suppress(InputError):  # too few of them
                    return debiased_fractions(
                        self.observed.labels, self.alpha, gold=truth.labels, bins=bins, **self._planned
                    )
        return None

    @cached_property
    def correction(self) -> pl.DataFrame:
        """Disk fractions in fifths of α: what the headline, its figure and its table show.

        `low`, `high`, `mean` (α), `galaxies`; `labelled`, `labelled_stderr`; `corrected`, `stderr`, `lowest`, `highest`
        by the principal model, else from gold labels, else through the fitted T(α), null if there is none of these;
        `gold`, `gold_stderr` by the first definition of a disk. The range spans the errors of the model and everything
        that the fit's range spans, or is that of the gold labels.
        """
        labels, alpha = self.observed.labels, self.alpha
        table = fractions_by(alpha, [self.observed]).select(
            "low", "high", "mean", "galaxies", labelled="disk_fraction", labelled_stderr="stderr"
        )
        value = error = low = high = gold = gold_error = np.full(table.height, np.nan)
        if self.study is not None and self.study.fit.alpha.ndim == 1:
            through = debiased_fractions(labels, alpha, self.study.fit, bins=table.height)
            value, error, low, high = (
                one[:, DISK] for one in (through.fractions, through.stderr, through.low, through.high)
            )
        if self.corrector is not None:
            own = fractions_by(alpha, [self.corrector.best])
            value, error = own["disk_fraction"].to_numpy(), own["stderr"].to_numpy()
            low, high = np.fmin(low, value - 1.96 * error), np.fmax(high, value + 1.96 * error)
        for truth in list(self.truths.values())[:1]:
            if truth.known.all():
                gold, gold_error = fractions_by(alpha, [truth])["disk_fraction"].to_numpy(), np.zeros(table.height)
        if self.by_gold is not None:
            gold, gold_error = self.by_gold.fractions[:, DISK], self.by_gold.stderr[:, DISK]
            if self.corrector is None:
                value, error = gold, gold_error
                low, high = self.by_gold.low[:, DISK], self.by_gold.high[:, DISK]
        columns = {"corrected": value, "stderr": error, "lowest": low.clip(0, 1), "highest": high.clip(0, 1)}
        columns |= {"gold": gold, "gold_stderr": gold_error}
        return table.with_columns(pl.Series(name, one).fill_nan(None) for name, one in columns.items())

    @property
    def _planned(self) -> dict[str, Any]:
        """Probability of selection and doubt of gold labels, where these are the catalogue's own."""
        names = [one for one in ("gold_probability", "gold_uncertain") if one in self.frame.columns]
        own = self.catalogue.metadata.get("gold_definition") in self.truths
        found = {name: self.frame[name].cast(pl.Float64).fill_null(0.0).to_numpy() for name in names if own}
        experts = self.catalogue.metadata.get("gold_experts") if own else None
        return found | ({"gold_transition": RayleighTransition(experts["upper"])} if experts else {})

    @property
    def range_spans(self) -> str:
        """What the range of the corrected disk fractions spans, in words."""
        if self.corrector is None and self.by_gold is not None:
            return "95 % of the estimate from gold labels"
        parts = [] if self.corrector is None else [f"the error of {self.corrector.name}"]
        if self.study is not None:
            spans = "trends of the true fraction with α up to δ" if self.study.fit.drift is not None else "all families"
            parts.append(f"the volunteers' labels corrected directly through T(α), with its error, over {spans}")
        return " and ".join(parts)

    @cached_property
    def leaves(self) -> dict[str, LeafMap]:
        """Drift in each intrinsic leaf; empty without intrinsic columns."""
        if self.tree.intrinsic is None or self.tree.depth == 0:
            return {}
        best = [] if self.principal is None else [self.principal.best]
        sets = [self.observed, *best, *list(self.truths.values())[:1]]
        found = {one.name: self.tree.leaves(one) for one in sets}
        return {name: one for name, one in found.items() if one is not None}

    def predicted_labels(self, model: Model) -> np.ndarray:
        """p(labelled disk | x, α) of a model, shape (N,): what can be compared with labels without any gold label."""
        return observed_probability(model.probabilities.disk, model.resolution(self.alpha), model.transition)

    @cached_property
    def confounding(self) -> dict[str, ConfoundingCheck]:
        """By definition: whether gold labels depend on α, where there are enough."""
        out = {}
        for definition, truth in self.truths.items():
            counts = np.bincount(truth.labels[truth.known], minlength=2)
            if counts.min() >= _FEWEST_OF_A_CLASS:
                try:
                    out[definition] = confounding_check(self.observed.labels, self.alpha, gold=truth.labels)
                except InputError:  # one α for all, say
                    continue
        return out

    @cached_property
    def flipped(self) -> dict[str, pl.DataFrame]:
        """By definition: fraction of gold disks that volunteers labelled smooth, in bins of α."""
        out = {}
        for definition, truth in self.truths.items():
            disks = truth.labels == DISK
            if disks.sum() >= _FEWEST_OF_A_CLASS:
                smooth = LabelSet("", "observed", (self.observed.labels[disks] == SMOOTH).astype(np.float64))
                found = fractions_by(self.alpha[disks], [smooth], min(12, int(disks.sum()) // _FEWEST_OF_A_CLASS))
                out[definition] = found.select(
                    "low", "high", "mean", "galaxies", pl.col("disk_fraction").alias("share"), "stderr"
                )
        return out


def gather(sources: Sequence[Path], options: ReportOptions, files: Path) -> Evidence:
    """Read runs and catalogue, label what isn't labelled, and join.

    Parameters
    ----------
    sources : sequence of Path
    options : ReportOptions
    files : Path
        Folder for labels that are made.

    Raises
    ------
    InputError
        If a source is not one, runs and catalogue don't go together, or a column is absent.
    """
    names = [source.resolve().name.removesuffix(".json") for source in sources]
    if len(set(names)) < len(names):
        names = [str(source) for source in sources]
    classifiers = {source: load(source) for source in sources}
    path = Path(options.catalogue or _trained_on(sources))
    catalogue = read_catalogue(path)
    frame = catalogue.frame.with_columns(pl.col("object_id").cast(pl.String))
    frame = frame.drop([name for name in frame.columns if name.startswith(OURS)])
    # Before hours of labelling, not after.
    truths, findings = _truths(frame, catalogue, options, str(path))
    columns = _columns(frame, options, str(path))
    rows, which = _measured(frame, options, str(path), bool(sources))
    if options.intrinsic or options.distributions:
        numeric_columns(frame, [*options.intrinsic, *options.distributions], str(path))
    if options.better is not None and not options.better.is_dir():
        raise InputError(
            f"{options.better}: no such folder of better images (files named <object id>.jpg, .png or .fits)"
        )
    every = [OBSERVED, "truth", *names, *(one.name for one in columns)]
    twice = next((name for name in every if every.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{twice!r} names two things in this report; rename a run's folder, or what `also` calls it")

    models, left_out = [], {}
    for number, (name, source) in enumerate(zip(names, sources, strict=True)):
        model = classifiers[source]
        frame = _joined(frame, _labels(name, model, path, frame, options, files), model, number)
        left_out[name] = int(np.isnan(_values(frame, f"p{number}")[rows]).sum())
        run = read_run(source) if (source / "history.csv").is_file() else None
        models.append((name, model, run))
    # Every label set on the same galaxies: those that all models label.
    known = np.all([np.isfinite(_values(frame, f"p{number}")[rows]) for number in range(len(models))], axis=0)
    rows = rows[np.broadcast_to(known, rows.shape)]
    if rows.size < _FEWEST:
        raise InputError(
            f"{path}: {rows.size} galaxies to measure on have a label by every model, at least {_FEWEST} are needed "
            "(galaxies that a model's only member was trained on have none: train with `folds` 2 or more)"
        )
    if any(left_out.values()):
        which = f"{rows.size:,} of {which}"
    intrinsic = numeric_columns(frame[rows], options.intrinsic, str(path)) if options.intrinsic else None
    study, unfitted = _study(catalogue, [model for _, model, _ in models], options)
    evidence = Evidence(
        catalogue=catalogue,
        frame=frame[rows],
        models=[
            Model.of(
                name,
                one.transition,
                _values(frame, f"p{k}")[rows],
                _values(frame, f"posterior{k}")[rows],
                one,
                run,
                _observables(frame[rows], one),
            )
            for k, (name, one, run) in enumerate(models)
        ],
        columns=[one.of(rows) for one in columns],
        truths={name: one.of(rows) for name, one in truths.items() if one.of(rows).known.any()},
        intrinsic=options.intrinsic,
        tree=Tree.fitting(frame["alpha"].to_numpy()[rows], intrinsic, options.bootstrap, options.seed),
        study=study,
        which=which,
        everything=frame,
        left_out=left_out,
        findings=findings,
        unfitted=unfitted,
    )
    return replace(evidence, everything=_with_changes(evidence, truths))


def _trained_on(sources: Sequence[Path]) -> Path:
    """The catalogue that the first run was trained on."""
    for source in sources:
        try:
            named = read_toml(source / "run.toml").get("catalogue")
        except InputError:
            continue
        if named is not None:
            if not Path(named).is_file():
                raise InputError(f"{named}: the catalogue of run {source} is not there; give `catalogue`")
            return Path(named)
    raise InputError("no run says which catalogue it was trained on; give one with `catalogue`")


def _study(
    catalogue: CatalogTable, models: Sequence[Classifier], options: ReportOptions
) -> tuple[TransitionStudy | None, list[Finding]]:
    """T(α) fitted to the catalogue, of the family that the last debiased model has; or why that can't be."""
    families = [one.transition.family for one in models if not is_naive(one.transition)]
    family = families[-1] if families and families[-1] in COMPARED else COMPARED[0]
    try:
        rows = select_rows(catalogue, options.where, options.intrinsic)
        # The report compares with gold labels; that this fit does without them is its purpose.
        rows = replace(rows, findings=tuple(one for one in rows.findings if one.code != "gold-unused"))
        return study_transition(rows.labels, rows.alpha, family, **rows.for_study(), seed=options.seed), []
    except InputError as problem:
        return None, [
            Finding(
                "fit-failed",
                "caution",
                f"T(α) could not be fitted to these labels, so nothing was checked with it: {problem}.",
                "Use more galaxies, or correct what this message names.",
            )
        ]


def _labels(
    name: str, model: Classifier, path: Path, frame: pl.DataFrame, options: ReportOptions, files: Path
) -> pl.DataFrame:
    """A model's labels of the catalogue: those given, those of an earlier report, or new ones."""
    kept = files / "labels" / f"{name.replace(os.sep, '_')}.parquet"
    fresh = [kept] if kept.is_file() and kept.stat().st_mtime > path.stat().st_mtime else []
    for candidate in (*options.labels, *fresh):
        table = read_table(candidate)
        if table.metadata.get("model_hash") != model.model_hash or "p_disk" not in table.frame.columns:
            continue
        if not table.frame["object_id"].cast(pl.String).is_in(frame["object_id"].implode()).any():
            raise InputError(f"{candidate}: labels none of the galaxies of {path}")
        return table.frame
    kept.parent.mkdir(parents=True, exist_ok=True)
    label_table(model, path, kept, max_bad=1.0)
    return read_table(kept).frame


def _joined(frame: pl.DataFrame, labels: pl.DataFrame, model: Classifier, number: int) -> pl.DataFrame:
    """With p(disk) of a model; and posterior and label quality from it, this catalogue's labels and the model's T(α).

    Empty where the model was trained on the galaxy's label.
    """
    p, relation = f"{OURS}p{number}", f"{OURS}relation{number}"
    wanted = {"p_disk": p, "relation": relation, "p_spread": f"{OURS}spread{number}"}
    said = labels.select(
        pl.col("object_id").cast(pl.String),
        *(pl.col(name).alias(to) for name, to in wanted.items() if name in labels.columns),
    )
    joined = frame.join(said, on="object_id", how="left", maintain_order="left")
    if relation in joined.columns:
        joined = joined.with_columns(pl.when(pl.col(relation) == IN_SAMPLE).then(None).otherwise(pl.col(p)).alias(p))
    disk, observed = _values(joined, f"p{number}"), joined["label"].to_numpy()
    known, more = np.isfinite(disk), _observables(joined, model)
    if more is not None:
        known &= np.isfinite(more).all(axis=1)
    after, quality = np.full(disk.size, np.nan), np.full(disk.size, np.nan)
    if known.any():
        given = np.column_stack([1 - disk[known], disk[known]])
        alpha = joined["alpha"].to_numpy()[known]
        observables = None if more is None else more[known]
        found = posterior(given, observed[known], alpha, model.transition, observables=observables)
        after[known], quality[known] = found[:, DISK], found[np.arange(len(found)), observed[known]]
    return joined.with_columns(
        pl.Series(f"{OURS}posterior{number}", after).fill_nan(None),
        pl.Series(f"{OURS}quality{number}", quality).fill_nan(None),
    )


def _observables(frame: pl.DataFrame, model: Classifier) -> np.ndarray | None:
    """What a model's T depends on beside α, shape (N, J)."""
    names = observables_of(model.described["transition"], model.transition)
    return numeric_columns(frame, names, "the catalogue") if names else None


def _values(frame: pl.DataFrame, name: str) -> np.ndarray:
    """A column of ours as floats, NaN where empty."""
    return frame[OURS + name].cast(pl.Float64).fill_null(np.nan).to_numpy()


def _measured(frame: pl.DataFrame, options: ReportOptions, source: str, models: bool) -> tuple[np.ndarray, str]:
    """Rows to measure on, and what they are called."""
    chosen = rows_where(frame, options.where, source)
    if not chosen.any():
        raise InputError(f"{source}: no galaxy meets {' and '.join(options.where)}")
    test = chosen & (frame["split"] == TEST).to_numpy()
    on_test = options.rows == "test" or (options.rows == "auto" and models and test.sum() >= _ENOUGH_TO_TEST)
    rows = np.flatnonzero(test if on_test else chosen)
    if rows.size == 0:
        raise InputError(f"{source}: no test galaxies to measure on; use `rows` all")
    which = f"{rows.size:,} {'test galaxies' if on_test else 'galaxies'}"
    return rows, which + (f" ({' and '.join(options.where)})" if options.where else "")


def _truths(
    frame: pl.DataFrame, catalogue: CatalogTable, options: ReportOptions, source: str
) -> tuple[dict[str, LabelSet], list[Finding]]:
    """Return gold classes by definition of a disk, and findings about them."""
    out, findings = {}, []
    if not options.gold:
        findings += from_same_images(catalogue.metadata)
    for rule in options.gold or (["gold"] if "gold" in frame.columns else []):
        classes, definition = gold_classes(frame, rule, source)
        if rule == "gold":
            definition = str(catalogue.metadata.get("gold_definition") or _UNSTATED)
            definition = _UNSTATED if definition.startswith("not stated") else definition
        if not (classes >= 0).any():
            findings.append(
                Finding(
                    "gold-empty",
                    "caution",
                    f"No galaxy has a gold label by {rule}, so nothing is compared with it.",
                    "Check the column or rule (`gold`).",
                )
            )
            continue
        # Simulations keep the true class in a column of this name.
        simulated = definition.startswith(f"disk: {TRUTH} ")
        name = TRUTH if simulated else "gold labels" if definition == _UNSTATED else f"gold labels, {definition}"
        out[definition] = LabelSet(name, "truth", np.where(classes < 0, np.nan, classes).astype(np.float64))
    return out, findings


def _columns(frame: pl.DataFrame, options: ReportOptions, source: str) -> list[LabelSet]:
    """Labels that the catalogue brings."""
    out = []
    for given in options.also:
        name, equals, column = (part.strip() for part in given.partition("="))
        if not equals or not name or not column:
            raise InputError(f"`also` takes NAME=COLUMN, such as Hart2016=debiased_disk_fraction; got {given!r}")
        if column not in frame.columns:
            raise InputError(f"{source}: no column {column!r} for `also`; {nearest(column, frame.columns)}")
        values = numeric_columns(frame, [column], source)[:, 0]
        if np.any((values < 0) | (values > 1)):
            raise InputError(f"{source}: `also` takes labels or disk fractions, 0 to 1; {column} has others")
        out.append(LabelSet(name, "column", values))
    return out


def _with_changes(evidence: Evidence, truths: Mapping[str, LabelSet]) -> pl.DataFrame:
    """All galaxies, with what the principal model makes of each, and gold labels in words."""
    frame, principal = evidence.everything, evidence.principal
    after = np.full(frame.height, np.nan)
    if principal is not None:
        number = next(k for k, one in enumerate(evidence.models) if one is principal)
        p = _values(frame, f"p{number}")
        after = p if principal.naive else _values(frame, f"posterior{number}")
        frame = frame.with_columns(pl.Series(PICTURE, p).fill_nan(None))
    changed = changes(frame["label"].to_numpy(), after)
    frame = frame.with_columns(pl.Series(AFTER, after), pl.Series(CHANGE, changed, dtype=pl.String))
    for number, one in enumerate(truths.values()):
        if number == 0:
            frame = frame.with_columns(pl.Series(TRUE, one.labels).replace(-1, None))
        words = [None if k < 0 else CLASS_NAMES[k] for k in one.labels]
        frame = frame.with_columns(pl.Series(OURS + one.name, words, dtype=pl.String))
    return frame
