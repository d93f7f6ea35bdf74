"""Estimate T(α) of paths, and the fractions of the answers to a question, from a catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from truemorph.bias.binning import Groups
from truemorph.bias.checks import balance_findings, selection_findings
from truemorph.bias.estimate import Estimate, estimate_of_paths
from truemorph.bias.fractions import fractions_in_bins
from truemorph.bias.sample import Sample
from truemorph.catalogs.other_labels import OtherLabels
from truemorph.catalogs.paths import gold_column, label_column, majority_paths, tree_of, votes_at_gates
from truemorph.catalogs.question_gold import columns_of_question, gold_of_question, sparse_answers, told_apart
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
from truemorph.questions import Asked, Quantity
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
    binned = [by] if by in catalogue.frame.columns else [one.strip() for one in (by or "").split(",") if by]
    binned = [] if binned == ["alpha"] else binned
    named = [*binned, *intrinsic]
    frame, findings = filtered(catalogue.frame, list(where), [*named, *observables], source)
    groups = groups_of(frame, by, source)
    rule = gold_column(question) if gold == "gold" else gold
    if gold == "gold" and rule not in frame.columns:
        raise InputError(f"{source}: no column {rule}; give a rule for gold labels of {question!r} (`gold`)")
    asked = Asked(tree, question)
    read = gold_of_question(frame, asked, rule, source)
    asked, merging = sparse_answers(asked, read.answers(asked))
    known, paths = read.answers(asked), majority_paths(frame, asked, source)
    counts = dict(
        zip(asked.answers, np.bincount(known[known >= 0], minlength=len(asked.answers)).tolist(), strict=True)
    )
    observed = np.array(asked.answers_of_paths)[paths]
    if sum(counts[name] > 0 for name in asked.answers) < 2 or not sum(list(counts.values())[1:]):
        have = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "none"
        raise InputError(f"{source}: gold labels of {question!r} are {have}; there must be some of two classes")
    if not counts[asked.answers[0]] and (outside := np.count_nonzero(observed == 0)):
        inside = ", ".join(f"'{path.name}'" for path in asked.paths if path.answer is not None)
        raise InputError(
            f"{source}: no gold label says that {question!r} does not apply, but by the volunteers' answers it does "
            f"not for {outside:,} of {observed.size:,} galaxies; give gold labels of such galaxies, too, or "
            "select those to which it applies by the volunteers' answers (`where`, such as "
            f'"{label_column(question)} IN ({inside})")'
        )
    probability, uncertain = (
        planned(frame, gold, gold_column(question, one)) for one in ("gold_probability", "gold_uncertain")
    )
    columns = numeric_columns(frame, list(intrinsic), source)
    sample = Sample.of(
        observed,
        frame["alpha"].to_numpy(),
        classes=asked.answers,
        gold=known,
        gold_probability=probability,
        gold_uncertain=read.unsure if uncertain is None else np.maximum(read.unsure, uncertain),
        weights=sample_weights(frame, weights, source),
        of_question=True,
    )
    sample = replace(with_fields(sample, frame, source), intrinsic=columns if intrinsic else None)
    asked, gold_of_t = told_apart(asked, known, read.paths(asked))
    votes = votes_at_gates(frame, asked, source)
    in_tree = Sample.of(
        votes,
        sample.alpha,
        observables={one: numeric_columns(frame, [one], source)[:, 0] for one in observables} or None,
        gold=gold_of_t,
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
        paths=paths,
        log_odds=np.column_stack([votes.log_odds, *(one.votes(frame).log_odds for one in others)]),
        quantities=asked.quantities,
        classes=asked.answers,
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
    asked = Asked(tree_of(catalogue, question), question)
    paths = majority_paths(catalogue.frame, asked, str(catalogue.path or "catalogue"))
    applies = float(np.mean(np.array([path.answer is not None for path in asked.paths])[paths]))
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
    members = rows.by.of_bins(found.edges) if isinstance(rows.by, Groups) else ()
    found = replace(found, about=rows.about, findings=findings, members=members)
    about = rows.about | {"alpha_psf": catalogue.metadata.get("alpha_psf"), "observables": list(observables)}
    about["rows_sha256"] = rows_hash(catalogue, where)
    return estimate_of_paths(rows.of_paths, found, about, seed, rows.seen)
