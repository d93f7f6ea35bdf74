"""Gather the evidence of a report: read runs, estimates and a catalogue, label what is not labelled, and join."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.curves.families import transition_from_dict
from truemorph.bias.curves.formulas import MatrixTransition
from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.estimate import Estimate, make_estimate
from truemorph.bias.likelihood import observables_of
from truemorph.bias.population import PopulationFractions
from truemorph.bias.result import Settings
from truemorph.catalogs.catalogue import TEXT_ID, classes_of, read_catalogue, rows_where
from truemorph.catalogs.label_sets import FIFTHS, LabelSet, sets_of_others
from truemorph.catalogs.other_labels import hash_of_model, is_of_model, with_other_labels
from truemorph.catalogs.paths import asked_in, asked_of, given_labels, gold_column, majority_paths, root_of
from truemorph.catalogs.question_gold import class_of_gold
from truemorph.catalogs.sampling import TEST
from truemorph.catalogs.selected import SampleOptions, filtered, from_same_images, gold_labels, rows_hash, rows_of
from truemorph.classifiers.classifier import Classifier
from truemorph.config import options_in
from truemorph.errors import InputError
from truemorph.explain.catalogue import named_models
from truemorph.findings import Finding
from truemorph.labelling.label import label_table
from truemorph.labelling.labeller import IN_SAMPLE
from truemorph.labelling.run import LabelOptions
from truemorph.questions import Asked, Quantity, columns_of
from truemorph.report.evidence import GOLD_LABELS, OBSERVED, TRUTH, Evidence, Model
from truemorph.report.options import ReportOptions
from truemorph.tables import CatalogTable, left_join, missing_in, numeric_columns, read_table

_ENOUGH_TO_TEST = 1000
_FEWEST = 10


@dataclass(frozen=True)
class _Shown:
    """The estimate of a question that a report shows, and where it is from, in words."""

    estimate: Estimate
    origin: str
    findings: Sequence[Finding] = ()  # why there is none, or none with gold labels, or one of other galaxies


def gather(sources: Sequence[Any], options: ReportOptions, files: Path) -> list[Evidence]:
    """Read runs, estimates and a catalogue, label what is not labelled (into the folder `files`), and join all.

    There is one evidence for each question: of the estimates in their order, then of the runs.
    """
    estimates, runs = dict[str | None, _Shown](), list[Any]()
    for source in sources:
        if isinstance(source, Estimate):
            shown = _Shown(source, "the given estimate")
        elif isinstance(source, str | Path) and Path(source).suffix == ".json":
            shown = _Shown(Estimate.read(source), Path(source).name)
        elif isinstance(source, str | Path | Classifier):
            runs.append(source)
            continue
        else:
            raise InputError(f"{type(source).__name__}: a report takes run folders, classifiers and estimates")
        if (question := shown.estimate.about.get("question")) in estimates:
            raise InputError("these are several estimates of one question; write a page for each")
        estimates[question] = shown
    classifiers = named_models(runs)
    path = options.catalogue or (trained_on(runs) if runs else None)
    if path is None:
        if options.labels:
            raise InputError("labels (`labels`) are shown for the galaxies of a catalogue; give it, too (`catalogue`)")
        return [_alone(question, shown, options) for question, shown in estimates.items()]
    catalogue = read_catalogue(path)
    for name, model in classifiers.items():
        for head, curve in zip(model.heads, model.curves, strict=True):
            if head.question not in estimates and "fractions" in curve:
                through = Estimate.from_dict(curve)
                if head.question is not None or not _rests_on(through, catalogue):
                    estimates[head.question] = _Shown(through, f"the estimate that {name} was trained through")
    questions = {head.question for model in classifiers.values() for head in model.heads}
    if lacking := questions - {None, *estimates}:
        raise InputError(f"give an estimate of {lacking.pop()!r}, too (truemorph transition with `question`)")
    if not estimates and asked_of(catalogue, None) is not None:
        raise InputError(
            f"{path}: a report of {root_of(catalogue).question!r} needs its estimate, from gold labels (truemorph "
            "transition); truemorph bias measures how its answers drift"
        )
    if options.better is not None and not options.better.is_dir():
        raise InputError(f"{options.better}: no such folder of better images (files named <object id>.jpg)")
    if None not in estimates and (None in questions or not estimates):
        estimates[None] = _made_here(catalogue, options)
    own, others = list[CatalogTable](), list[CatalogTable]()
    for file in options.labels:
        table = read_table(file)
        if is_of_model(table) and hash_of_model(table) not in {None, *(run.model_hash for run in classifiers.values())}:
            raise InputError(
                f"{file}: was not made by a model of this report; give the folder of the model that made these labels"
            )
        (own if is_of_model(table) else others).append(table)
    rules = _rules_for(catalogue, options.gold, list(estimates))
    # Before hours of labelling, not after.
    begun = [_begin(question, shown, catalogue, classifiers, others, rules[question], options)
             for question, shown in estimates.items()]  # fmt: skip
    labels = {name: _labels_by(name, model, Path(path), own, files) for name, model in classifiers.items()}
    return [_finish(evidence, classifiers, labels) for evidence in begun]


def _alone(question: str | None, shown: _Shown, options: ReportOptions) -> Evidence:
    """Evidence without galaxies."""
    fractions = shown.estimate.fractions
    return Evidence(
        question=question,
        classes=fractions.classes,
        quantity=_named_first(shown.estimate),
        catalogue=CatalogTable(pl.DataFrame()),
        rows=np.empty(0, int),
        which="",
        observed=LabelSet(OBSERVED, "observed", np.empty((0, len(fractions.classes))), fractions.classes),
        options=options,
        estimate=shown.estimate,
        origin=shown.origin,
    )


def _named_first(estimate: Estimate) -> Quantity:
    """The fraction that a report opens with: the first that its tree shows, or that of the second commonest answer.

    Of labels that of the second class, under the name that estimates give it.
    """
    if not isinstance(estimate.transition, TreeTransition):
        return Quantity(next(iter(estimate.fractions.quoted)), (0.0, 1.0))
    asked = estimate.transition.asked
    totals = {name: of.total[1] for name, of in estimate.fractions.quoted.items()}
    if asked.asked.shown:
        return asked.quantities[0]
    return sorted(asked.quantities[: len(asked.shown)], key=lambda quantity: -totals[quantity.name])[:2][-1]


def _begin(
    question: str | None,
    shown: _Shown,
    catalogue: CatalogTable,
    classifiers: Mapping[str, Classifier],
    tables: Sequence[CatalogTable],
    rules: Sequence[str],
    options: ReportOptions,
) -> Evidence:
    """Join what a catalogue, gold labels and other groups say of a question; models are added later."""
    source, estimate = catalogue.source, shown.estimate
    asked = None
    by = [column for column in estimate.fractions.columns if column != "alpha"]
    if question is not None:
        assert isinstance(estimate.transition, TreeTransition)
        asked = replace(estimate.transition.asked, tree=asked_in(catalogue, question).tree)
    frame = catalogue.frame.with_columns(TEXT_ID)
    findings = missing_in(frame, options.intrinsic, source)
    numeric_columns(frame, options.intrinsic, source)
    of_estimate = _rests_on(estimate, catalogue)
    # The page is on the estimate's galaxies, and on those of all splits.
    chosen = [] if of_estimate else [rule for rule in estimate.about.get("where", ()) if "split" not in rule]
    frame, more = filtered(frame, chosen, by, source)
    findings += [finding for finding in more if finding not in estimate.findings]
    if asked is None:
        classes: tuple[str, ...] = classes_of(catalogue)
        hard = frame["label"].to_numpy()
    else:
        classes = asked.answers
        hard = np.array(asked.answers_of_paths)[majority_paths(frame, asked, source)]
    for name, model in classifiers.items():
        for head in model.heads:
            same = head.classes == classes if head.asked is None or asked is None else head.asked.paths == asked.paths
            if head.question == question and not same:
                raise InputError(
                    f"{name}: its classes are not those of the catalogue and the estimate ({', '.join(classes)}); give "
                    "those with which it was trained"
                )
    truths, gold, of_gold = _gold(catalogue, frame, asked, estimate, rules)
    rows, which = _measured_rows(frame, options, source, bool(classifiers))
    others, of_others = _others(catalogue, frame, asked, classes, tables)
    names = [OBSERVED, TRUTH, *classifiers, *(other.name for other in others)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{twice!r} names two things in this report; rename a run's folder, or a file of labels")
    return Evidence(
        question=question,
        classes=classes,
        quantity=_named_first(estimate),
        catalogue=replace(catalogue, frame=frame),
        rows=rows,
        which=which,
        observed=LabelSet(OBSERVED, "observed", np.eye(len(classes))[hard], classes),
        options=options,
        others=others,
        truths={name: truth for name, truth in truths.items() if truth.known[rows].any()},
        asked=asked,
        known=gold,
        estimate=estimate,
        origin=shown.origin,
        names=list(classifiers),
        findings=[*findings, *of_gold, *of_others],
        of_estimate=[*of_estimate, *shown.findings],
    )


def _finish(evidence: Evidence, classifiers: Mapping[str, Classifier], labels: Mapping[str, pl.DataFrame]) -> Evidence:
    """Add models; measure on the galaxies that all of them label."""
    models = [
        _model(name, model, number, evidence, labels[name])
        for name, model in classifiers.items()
        for number, head in enumerate(model.heads)
        if head.question == evidence.question
    ]
    rows, which = evidence.rows, evidence.which
    has_label = {model.name: np.isfinite(model.p[rows]).all(axis=1) for model in models}
    if models:
        rows = rows[np.all(list(has_label.values()), axis=0)]
        which = f"{rows.size:,} of {which}" if rows.size < evidence.rows.size else which
    if rows.size < _FEWEST:
        raise InputError(
            f"{evidence.source}: {rows.size} galaxies to measure on have a label by every model, at least {_FEWEST} "
            "are needed (galaxies that a model's only member was trained on have none: train with `folds` 2 or more)"
        )
    return replace(
        evidence,
        models=models,
        rows=rows,
        which=which,
        left_out={name: int(np.count_nonzero(~labelled)) for name, labelled in has_label.items()},
        with_predictions=_with_predictions(evidence, {model.name: labels[model.name] for model in models}),
    )


def _with_predictions(evidence: Evidence, labels: Mapping[str, pl.DataFrame]) -> PopulationFractions | None:
    """Fractions by the estimate's gold labels with the predictions of models beside votes; None without either.

    Also None if they are not of the same galaxies.
    """
    estimate, catalogue = evidence.estimate, evidence.catalogue
    about, fractions = estimate.about, estimate.fractions
    if not labels or "gold_rule" not in about or "other_labels" in about or _rests_on(estimate, catalogue):
        return None
    tables = [CatalogTable(frame, metadata={"model_hash": name}, path=Path(name)) for name, frame in labels.items()]
    named = {name: about[name] for name in ("where", "intrinsic", "observables", "weights") if name in about}
    try:
        asked = asked_of(catalogue, about.get("question"))
        catalogue, others = with_other_labels(catalogue, asked, tables)
        sample, context = rows_of(
            catalogue, SampleOptions(about.get("question"), about["gold_rule"], by=fractions.by, others=others, **named)
        )
        if sample.labels.size != estimate.curve.galaxies:  # a model has no predictions of some
            return None
        return make_estimate(sample, context=context, fraction_bins=fractions.counts.size, compare=False).fractions
    except InputError:  # its columns or galaxies are not there
        return None


def trained_on(sources: Sequence[Path]) -> Path:
    """Return the catalogue that the first run was trained on."""
    for source in sources:
        if not isinstance(source, Classifier) and (settings := Path(source) / "run.toml").is_file():
            named = Path(str(options_in(settings).get("catalogue") or ""))
            if not named.is_file():
                raise InputError(f"{named}: the catalogue of run {source} is not there; give `catalogue`")
            return named
    raise InputError("no run says which catalogue it was trained on; give one with `catalogue`")


def _made_here(catalogue: CatalogTable, options: ReportOptions) -> _Shown:
    """Estimate from all that the catalogue offers: with its gold labels, unless they are the truth of simulations."""
    gold = options.gold[0] if options.gold else "gold"
    is_empty = gold == "gold" and ("gold" not in catalogue.frame.columns or not catalogue.frame["gold"].count())
    findings = list[Finding]()

    def made(gold: str | None) -> Estimate:
        sample, context = rows_of(catalogue, SampleOptions(gold=gold, where=options.where, intrinsic=options.intrinsic))
        return make_estimate(sample, Settings(seed=options.seed), context=context, fraction_bins=FIFTHS)

    if not (is_empty or catalogue.metadata.get("simulated")):
        try:
            return _Shown(made(gold), "made by this report with the gold labels")
        except InputError as problem:
            text = f"T(α) could not be estimated with the gold labels: {problem}."
            action = "Use more galaxies, or correct what this message names."
            findings.append(Finding("fit-failed", "caution", text, action))
    return _Shown(made(None), "made by this report", findings)


def _rests_on(estimate: Estimate, catalogue: CatalogTable) -> list[Finding]:
    """Warn if an estimate rests on other galaxies than those of this catalogue."""
    if estimate.about.get("rows_sha256") == rows_hash(catalogue, estimate.about.get("where", ())):
        return []
    message = (
        f"The estimate rests on {estimate.curve.galaxies:,} galaxies, labels and α that are not those of this "
        "catalogue, so its class fractions need not hold here."
    )
    action = "Estimate T(α) with this catalogue (`truemorph transition`)."
    return [Finding("estimate-of-other-galaxies", "caution", message, action)]


def _labels_by(name: str, model: Classifier, path: Path, tables: Sequence[CatalogTable], files: Path) -> pl.DataFrame:
    """A model's labels of the catalogue: those given, those of an earlier report, or new ones."""
    kept = files / "labels" / f"{name.replace(os.sep, '_')}.parquet"
    is_fresh = kept.is_file() and kept.stat().st_mtime > path.stat().st_mtime
    column = columns_of("p", model.classes)[1]
    for table in (*tables, *([read_table(kept)] if is_fresh else [])):
        if hash_of_model(table) == model.model_hash and column in table.frame.columns:
            return table.frame
    kept.parent.mkdir(parents=True, exist_ok=True)
    label_table(model, LabelOptions(source=path, out=kept))
    return read_table(kept).frame


def _model(name: str, model: Classifier, number: int, evidence: Evidence, labels: pl.DataFrame) -> Model:
    """What a model says of all galaxies, NaN where it was trained on their labels.

    The posterior follows from these probabilities, this catalogue's labels and the model's T(α).
    """
    head = model.heads[number]
    curve = model.curves[number]
    frame = evidence.everything
    unseen = labels.filter(pl.col("relation") != IN_SAMPLE)
    columns = columns_of("p", head.columns)
    joined = left_join(frame.select("object_id"), unseen.select(TEXT_ID, *columns))
    p = np.asarray(joined.select(columns), float)
    transition = transition_from_dict(curve)
    answers = np.arange(len(evidence.classes))
    if evidence.asked is not None:
        assert head.asked is not None
        answers = np.array(evidence.asked.answers_in(head.asked))
    after = np.full(p.shape, np.nan)
    if not isinstance(transition, MatrixTransition):
        after = given_labels(p, frame, transition, observables_of(curve, transition), evidence.source)
    return Model(name, model, head, curve, p, after, evidence.classes, answers, evidence.answer)


def _measured_rows(frame: pl.DataFrame, options: ReportOptions, source: str, models: bool) -> tuple[np.ndarray, str]:
    """Rows to measure on, and what they are called: of models on test galaxies, where these are enough."""
    chosen, _ = rows_where(frame, options.where, source)
    what = "galaxies"
    test = chosen & (frame["split"] == TEST).to_numpy()
    if models and test.sum() >= _ENOUGH_TO_TEST and not any("split" in rule for rule in options.where):
        what, chosen = "test galaxies", test
    conditions = f" ({' and '.join(options.where)})" if options.where else ""
    return np.flatnonzero(chosen), f"{chosen.sum():,} {what}{conditions}"


def _rules_for(
    catalogue: CatalogTable, rules: Sequence[str], questions: Sequence[str | None]
) -> dict[str | None, list[str]]:
    """Return the rules for gold labels that are of each question; InputError if one is of none of them."""
    of_question: dict[str | None, list[str]] = {question: [] for question in questions}
    for rule in rules:
        problems = []
        for question, own_rules in of_question.items():
            try:
                asked = None if question is None else asked_in(catalogue, question)
                gold_labels(catalogue, catalogue.frame, asked, rule)
            except InputError as problem:
                problems.append(problem)
            else:
                own_rules.append(rule)
        if len(problems) == len(of_question):
            raise problems[0]
    return of_question


def _gold(
    catalogue: CatalogTable, frame: pl.DataFrame, asked: Asked | None, estimate: Estimate, rules: Sequence[str]
) -> tuple[dict[str, LabelSet], dict[str, np.ndarray], list[Finding]]:
    """Gold labels by their definition: by rules, or those of the catalogue, or those of the estimate.

    Also the classes of T by each of them, `UNKNOWN` where there is none, and findings.
    """
    question, classes = (None, classes_of(catalogue)) if asked is None else (asked.question, asked.answers)
    column = gold_column(question)
    out = dict[str, LabelSet]()
    gold_classes = dict[str, np.ndarray]()
    findings = list[Finding]()
    own = ["gold"] if column in frame.columns and frame[column].count() else []
    for rule in [*own, *([estimate.about["gold_rule"]] if "gold_rule" in estimate.about else [])]:
        with suppress(InputError):  # its columns are not there, or the catalogue's means something else
            gold_labels(catalogue, frame, asked, rule)
            own = [rule]
            break
    rules = rules or own
    for rule in rules:
        read = gold_labels(catalogue, frame, asked, rule)
        findings += [*read.findings, *(from_same_images(catalogue, question) if rule == "gold" else ())]
        if not (read.numbers >= 0).any():
            text = f"No galaxy has a gold label by {rule}, so nothing is compared with it."
            findings.append(Finding("gold-empty", "caution", text, "Check the column or rule (`gold`)."))
            continue
        name = GOLD_LABELS if len(rules) == 1 else f"{GOLD_LABELS} ({read.definition})"
        name = TRUTH if read.rule == column and catalogue.metadata.get("simulated") else name
        p = np.where((read.numbers >= 0)[:, None], np.eye(len(classes))[read.numbers], np.nan)
        out[read.definition], gold_classes[read.definition] = LabelSet(name, "truth", p, classes), read.numbers
        if asked is not None:
            gold_classes[read.definition] = class_of_gold(asked, read.numbers, read.paths)
    return out, gold_classes, findings


def _others(
    catalogue: CatalogTable, frame: pl.DataFrame, asked: Asked | None, classes: Sequence[str], tables: Sequence[Any]
) -> tuple[list[LabelSet], list[Finding]]:
    """Return other groups' answers, by majority and as fractions, NaN where a galaxy has none; and findings."""
    if not tables:
        return [], []
    root = root_of(catalogue) if asked is None else asked
    joined, others = with_other_labels(catalogue, asked, tables)
    sets = sets_of_others(joined.frame, root, others, classes if asked is None else None)
    numbers = dict(zip(joined.frame["object_id"], range(joined.frame.height), strict=True))
    rows = frame["object_id"].replace_strict(numbers, default=-1).to_numpy()
    sets = [
        replace(labels, probabilities=np.where(rows[:, None] >= 0, labels.probabilities[rows], np.nan))
        for labels in sets
    ]
    return sets, [finding for finding in joined.findings if finding not in catalogue.findings]
