"""Estimate T(α) of paths, and the fractions of the answers to a question, from a catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.binning import Groups
from truemorph.bias.checks import balance_findings, selection_findings
from truemorph.bias.estimate import Estimate, estimate_of_paths
from truemorph.bias.fractions import fractions_in_bins
from truemorph.bias.sample import Sample
from truemorph.bias.transitions import ANSWER_UNKNOWN, UNKNOWN
from truemorph.catalogs.other_labels import OtherLabels
from truemorph.catalogs.paths import gold_column, label_column, question_votes, tree_of
from truemorph.catalogs.question_gold import columns_of_question, gold_of_question, path_classes, sparse_answers
from truemorph.catalogs.selected import (
    filtered,
    groups_of,
    images_of_gold,
    planned,
    properties,
    rows_hash,
    sample_weights,
    seen_in_images,
    with_fields,
)
from truemorph.errors import InputError
from truemorph.findings import Finding, unique
from truemorph.questions import APPLIES, CANNOT_TELL, NOT_APPLICABLE, Quantity
from truemorph.tables import CatalogTable, numeric_columns


@dataclass(frozen=True)
class QuestionRows:
    """Selected galaxies with labels and gold labels of a question, in the classes that gold labels tell apart."""

    sample: Sample
    of_paths: Sample  # with votes and gold labels of the paths that gold labels tell apart, for T(α)
    paths: np.ndarray  # (N,): class by the majority path
    log_odds: np.ndarray  # (N, P): of the votes at each gate and at the question
    quantities: tuple[Quantity, ...]
    classes: tuple[str, ...]
    by: np.ndarray | None  # (N,) or (N, 2): one or two columns to bin by; `Groups` of text
    intrinsic: np.ndarray  # (N, P)
    about: dict[str, Any]
    findings: tuple[Finding, ...]
    properties: dict[str, np.ndarray]  # columns, shape (N,), that gold labels should not depend on
    seen: dict[str, np.ndarray]  # of the images, shape (N,), which T leaves out


def question_rows(
    catalogue: CatalogTable,
    question: str,
    gold: str,
    *,
    where: Sequence[str] = (),
    by: str | None = None,
    intrinsic: Sequence[str] = (),
    observables: Sequence[str] = (),
    weights: str = "balance",
    others: Sequence[OtherLabels] = (),
) -> QuestionRows:
    """Select galaxies of a catalogue, with the labels and gold labels of a question; arguments as in `select_rows`.

    The log-odds of other groups' answers stand beside those of the votes.
    """
    source, tree = str(catalogue.path or "catalogue"), tree_of(catalogue, question)
    binned = [] if by in (None, "alpha") else [one.strip() for one in by.split(",")]
    named = [*binned, *intrinsic]
    frame, findings = filtered(catalogue.frame, list(where), [*named, *observables], source)
    groups = groups_of(frame, by, source)
    rule = gold_column(question) if gold == "gold" else gold
    if gold == "gold" and rule not in frame.columns:
        raise InputError(f"{source}: no column {rule}; give a rule for gold labels of {question!r} (`gold`)")
    read = gold_of_question(frame, tree, question, rule, source)
    merged, merging = sparse_answers(read.classes, tree, question)
    classes, quantities = tree.quantities(question, merged)
    numbers = {one: k for k, one in enumerate(classes)} | {one: classes.index(name) for one, name in merged.items()}
    observed = question_votes(frame, tree, question, numbers, source)
    counts = dict(read.classes.drop_nulls().value_counts().iter_rows())
    answered = [one for one in tree.gold_answers(question) if counts.get(one)]
    if not answered or len(answered) + (NOT_APPLICABLE in counts) < 2:
        have = ", ".join(f"{count:,} {one}" for one, count in counts.items()) or "none"
        raise InputError(f"{source}: gold labels of {question!r} are {have}; there must be some of two classes")
    if NOT_APPLICABLE not in counts and (outside := np.count_nonzero(observed.labels == 0)):
        inside = ", ".join(f"'{one.name}'" for one in tree.classes(question) if one.answer is not None)
        raise InputError(
            f"{source}: no gold label says that {question!r} does not apply, but by the volunteers' answers it does "
            f"not for {outside:,} of {observed.labels.size:,} galaxies; give gold labels of such galaxies, too, or "
            "select those to which it applies by the volunteers' answers (`where`, such as "
            f'"{label_column(question)} IN ({inside})")'
        )
    numbers |= {APPLIES: ANSWER_UNKNOWN, CANNOT_TELL: ANSWER_UNKNOWN}
    known = read.classes.replace_strict(numbers, default=UNKNOWN, return_dtype=pl.Int64).to_numpy()
    unsure = (read.classes == CANNOT_TELL).fill_null(False).to_numpy()
    probability, uncertain = (
        planned(frame, gold, gold_column(question, one)) for one in ("gold_probability", "gold_uncertain")
    )
    columns = numeric_columns(frame, list(intrinsic), source)
    sample = Sample.of(
        observed.labels,
        frame["alpha"].to_numpy(),
        classes=classes,
        gold=known,
        gold_probability=probability,
        gold_uncertain=unsure if uncertain is None else np.maximum(unsure, uncertain),
        weights=sample_weights(frame, weights, source),
        of_question=True,
    )
    sample = replace(with_fields(sample, frame, source), intrinsic=columns if intrinsic else None)
    of_paths, numbers = path_classes(read.paths, tree, question, merged)
    votes = replace(observed.votes, of_paths=of_paths)
    in_tree = Sample.of(
        votes,
        sample.alpha,
        observables={one: numeric_columns(frame, [one], source)[:, 0] for one in observables} or None,
        gold=read.paths.replace_strict(numbers, default=UNKNOWN, return_dtype=pl.Int64).to_numpy(),
        gold_probability=probability,
        weights=sample.weights,
    )
    about = {
        "question": question,
        "tree": tree.name,
        "gold_definition": catalogue.metadata.get("gold_definitions", {}).get(question, read.definition)
        if gold == "gold"
        else read.definition,
        "gold_rule": rule,
        "alpha": catalogue.metadata.get("alpha"),
        "where": list(where),
        **({"other_labels": [one.name for one in others]} if others else {}),
    }
    return QuestionRows(
        sample=sample,
        of_paths=in_tree,
        paths=observed.chosen,
        log_odds=np.column_stack([observed.votes.log_odds, *(one.votes(frame).log_odds for one in others)]),
        quantities=quantities,
        classes=classes,
        by=np.squeeze(numeric_columns(frame, binned, source)) if binned and groups is None else groups,
        intrinsic=columns,
        about=about,
        findings=unique(
            catalogue.findings, findings, read.findings, merging, images_of_gold(catalogue.metadata, gold, question)
        ),
        properties=properties(catalogue, frame, [*named, *observables, *columns_of_question(frame, rule)]),
        seen=seen_in_images(frame, observables, source),
    )


def _why_no_number(catalogue: CatalogTable, question: str) -> str:
    """Say why labels alone give no fraction of a question, and which errors how many gold labels give."""
    tree = tree_of(catalogue, question)
    ends = {one.name: one.answer is not None for one in tree.classes(question)}
    applies = float(np.mean([ends[name] for name in catalogue.frame[label_column(question)].to_list()]))
    # Half of the error of gold labels alone, as measured for bars (docs/statistics.md).
    errors = {n: 0.55 * np.sqrt(0.25 * 8 / max(n * applies, 1.0)) for n in (150, 300, 600)}
    expected = ", ".join(f"{n} of random galaxies {error:.2f}" for n, error in errors.items())
    return (
        f"labels alone give no fraction for {question!r}: who was asked depends on the bias, and bars break what an "
        "inversion assumes (a constant fraction, no false answers, the right family): it is off by 0.2 to 0.9. Give "
        f"gold labels (`gold`); expected errors in 8 bins: {expected}. truemorph bias measures how answers drift with α"
    )


def question_estimate(
    catalogue: CatalogTable,
    question: str,
    gold: str | None,
    *,
    where: Sequence[str] = (),
    by: str | None = None,
    intrinsic: Sequence[str] = (),
    observables: Sequence[str] = (),
    weights: str = "balance",
    fraction_bins: int = 8,
    seed: int = 0,
    others: Sequence[OtherLabels] = (),
) -> Estimate:
    """Estimate T(α) of the paths to a question's answers, and their fractions where it applies, from gold labels."""
    if gold is None:
        raise InputError(_why_no_number(catalogue, question))
    options: dict[str, Any] = {"by": by, "intrinsic": intrinsic, "observables": observables, "others": others}
    rows = question_rows(catalogue, question, gold, where=where, weights=weights, **options)
    found = fractions_in_bins(
        rows.sample,
        None,
        by=rows.by,
        bins=max(1, min(fraction_bins, rows.sample.labels.size // 50)),
        covariates=rows.intrinsic if intrinsic else None,
        votes=rows.log_odds,
        name=by or "alpha",
        seed=seed,
        paths=rows.paths,
        quantities=rows.quantities,
    )
    findings = unique(
        rows.findings,
        selection_findings(rows.sample),
        balance_findings(rows.properties, rows.sample) if rows.sample.probability is None else (),
        found.findings,
    )
    groups = rows.by.of_bins(found.edges) if isinstance(rows.by, Groups) else ()
    found = replace(found, about=rows.about, findings=findings, groups=groups)
    about = rows.about | {"alpha_psf": catalogue.metadata.get("alpha_psf"), "observables": list(observables)}
    about["rows_sha256"] = rows_hash(catalogue, where)
    return estimate_of_paths(rows.of_paths, found, about, seed, rows.seen)
