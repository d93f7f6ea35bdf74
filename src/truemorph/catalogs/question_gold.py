"""Gold labels of a question of a decision tree: rules and columns of names, and the classes that they tell apart."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from truemorph.catalogs.catalogue import condition
from truemorph.catalogs.columns import FRACTIONS, VOTES
from truemorph.catalogs.expressions import read_expression
from truemorph.catalogs.paths import label_column
from truemorph.catalogs.selected import from_votes
from truemorph.errors import InputError, nearest
from truemorph.findings import Finding
from truemorph.questions import APPLIES, CANNOT_TELL, NOT_APPLICABLE, Tree, is_unsure

# Fewest gold labels of an answer; sparser ones are merged with others.
_FEWEST_OF_AN_ANSWER = 5
_RULE = re.compile(r"\s*([^:;'\"]+?)\s*:\s*(.+?)\s*", re.DOTALL)
# Semicolons outside of text in quotes.
_SEPARATED = re.compile(r";(?=(?:[^']*'[^']*')*[^']*$)")


@dataclass(frozen=True)
class QuestionGold:
    """Gold labels of a question, shape (N,): names of classes or answers, null if unknown."""

    classes: pl.Series
    paths: pl.Series  # the same, but whole paths where gold labels name them
    definition: str
    findings: list[Finding]


def is_of_question(rule: str, frame: pl.DataFrame) -> bool:
    """Whether a rule for gold labels is one for a question: rules with names, or a column of names."""
    text = rule.strip()
    if text in frame.columns:
        return frame[text].dtype in (pl.String, pl.Categorical, pl.Enum)
    return _RULE.fullmatch(text.split(";")[0]) is not None


def gold_of_question(frame: pl.DataFrame, tree: Tree, question: str, rule: str, source: str) -> QuestionGold:
    """Read gold labels: a column of names, or rules "name: condition", separated by semicolons.

    Names are those of classes and answers, "applies", "does not apply" and "cannot tell". Where the question applies,
    one answer may lack a rule: it is given to galaxies for which all other rules are false. Where no rule for an answer
    is met, or one is null, it is only known that the question applies ("applies"). Other galaxies are unknown.
    """
    about = f"{source}: gold labels of {question!r}"
    ends = {one.name: one.answer or NOT_APPLICABLE for one in tree.classes(question)}
    answers = tree.gold_answers(question)
    unsure = {one: CANNOT_TELL for one in tree.question(question).answers if is_unsure(one)}
    outside = {one: NOT_APPLICABLE for one in tree.question(question).answers if one in tree.outside}
    valid = {**ends, **{one: one for one in (*answers, NOT_APPLICABLE, CANNOT_TELL, APPLIES)}, **unsure, **outside}
    name = rule.strip()
    if name in frame.columns:
        series = frame[name]
        if series.dtype not in (pl.String, pl.Categorical, pl.Enum):
            raise InputError(
                f"{about}: column {name} holds {series.dtype}, not names of classes; give a rule for each, such as "
                f'"{NOT_APPLICABLE}: t_type < -3; {answers[-1]}: {name} > 0"'
            )
        texts = series.cast(pl.String).str.strip_chars()
        texts = texts.set(texts == "", None)
        if unknown := sorted({*texts.drop_nulls()} - {*valid}):
            near = nearest(unknown[0], [*valid], what="classes")
            raise InputError(f"{about}: column {name}: unknown class {unknown[0]!r}; {near}")
        classes = texts.replace_strict(valid, default=None)
        paths = texts.replace_strict(valid | {one: one for one in ends}, default=None)
        return QuestionGold(classes, paths, f"{question}: {name}", from_votes(name))
    meets, findings = dict[str, pl.Series](), from_votes(rule)
    for part in filter(str.strip, _SEPARATED.split(name)):
        match = _RULE.fullmatch(part)
        if match is None:
            raise InputError(
                f'{about}: {part.strip()!r} is neither a column nor "name: condition"; give rules such as '
                f'"{APPLIES}: t_type >= -3; {answers[-1]}: COLUMN > 0"'
            )
        if match[1] in meets:
            raise InputError(f"{about}: {match[1]!r} has two rules; join them with OR")
        if match[1] not in valid:
            raise InputError(f"{about}: {match[1]!r} is no class; {nearest(match[1], [*valid], what='classes')}")
        made = {*FRACTIONS, *VOTES, "label", *(label_column(one.name) for one in tree.questions)}
        used = [one for one in read_expression(match[2], about).columns if one in made or one.startswith("votes_")]
        if used:
            raise InputError(
                f"{about}: {match[2]} uses {used[0]}, which has the bias of the observed labels; give classes from "
                "experts or better images"
            )
        meets[match[1]], more = condition(match[2], frame, about)
        findings += more
    if not meets:
        raise InputError(f'{about}: {rule!r} has no rule; give some, such as "{answers[-1]}: COLUMN > 0"')
    classes = _by_rules(meets, valid, answers, len(tree.gates(question)) > 1, about)
    paths = classes
    for one in [name for name in meets if name in ends]:
        paths = paths.set((meets[one] & (classes == ends[one])).fill_null(False), one)
    return QuestionGold(classes, paths, f"{question}: {name}", findings)


def _by_rules(
    meets: Mapping[str, pl.Series], valid: Mapping[str, str], answers: Sequence[str], has_gates: bool, about: str
) -> pl.Series:
    """Return the class of each galaxy from the rules that it meets; see `gold_of_question`."""
    outside = [name for name in meets if valid[name] == NOT_APPLICABLE]
    answered = [name for name in meets if valid[name] not in (APPLIES, NOT_APPLICABLE)]
    without = [one for one in answers if one not in meets]
    if has_gates and APPLIES not in meets and not outside:
        raise InputError(f'{about}: say where the question applies, such as "{APPLIES}: t_type >= -3"')
    if len(without) > 1:
        raise InputError(f"{about}: {', '.join(without)} have no rule; only one answer may lack one")
    n = len(next(iter(meets.values())))
    true = {name: one.fill_null(False).to_numpy() for name, one in meets.items()}
    false = {name: (~one).fill_null(False).to_numpy() for name, one in meets.items()}
    # Known to apply, and known not to.
    inside = np.all([true.get(APPLIES, np.ones(n, bool)), *(false[name] for name in outside)], axis=0)
    never = np.any([np.zeros(n, bool), *(true[name] for name in outside)], axis=0)
    several = (never & true.get(APPLIES, never & False)) | (
        np.sum([true[name] & inside for name in answered], axis=0) > 1
    )
    if several.any():
        raise InputError(f"{about}: {several.sum():,} galaxies meet the rules of two classes; make the rules exclusive")
    classes = np.where(never | false.get(APPLIES, never), NOT_APPLICABLE, "").astype(object)
    if APPLIES in meets or outside:
        classes[inside] = APPLIES
    for name in answered:
        classes[inside & true[name]] = valid[name]
    if without:
        classes[np.all([inside, *(false[name] for name in answered)], axis=0)] = without[0]
    return pl.Series(classes.tolist(), dtype=pl.String).replace("", None)


def columns_of_question(frame: pl.DataFrame, rule: str) -> list[str]:
    """Return the columns that rules for gold labels use."""
    if rule.strip() in frame.columns:
        return [rule.strip()]
    matches = (_RULE.fullmatch(part) for part in _SEPARATED.split(rule))
    return [name for match in matches if match for name in read_expression(match[2], "gold").columns]


def sparse_answers(gold: pl.Series, tree: Tree, question: str) -> tuple[dict[str, str], list[Finding]]:
    """Merge answers with few gold labels, with their sparser neighbour if they have an order, else with each other."""
    asked = tree.question(question)
    counts = dict(gold.drop_nulls().value_counts().iter_rows())
    groups = [[one] for one in tree.gold_answers(question)]

    def total(group: Sequence[str]) -> int:
        return sum(counts.get(one, 0) for one in group)

    while len(groups) > 2 and total(sparse := min(groups, key=total)) < _FEWEST_OF_AN_ANSWER:
        at = groups.index(sparse)
        others = [one for k, one in enumerate(groups) if k != at and (abs(k - at) == 1 or not asked.ordered)]
        near = min(others, key=total)
        first, second = sorted((at, groups.index(near)))
        groups[first : first + 1], groups[second : second + 1] = [groups[first] + groups[second]], []
    merged = {one: " or ".join(group) for group in groups if len(group) > 1 for one in group}
    if not merged:
        return {}, []
    names = "; ".join(sorted(set(merged.values())))
    message = f"Answers with fewer than {_FEWEST_OF_AN_ANSWER} gold labels were merged: {names}."
    return merged, [Finding("answers-merged", "note", message, "Add gold labels of these answers.")]


def path_classes(
    gold: pl.Series, tree: Tree, question: str, merged: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the class of each path that T(α) tells apart, and the number of the class of each name of gold labels.

    Paths are classes of their own if all gold labels of such galaxies name them. Paths of sparse answers are joined as
    these. One without gold labels counts as another path to which the question does not apply, too, if there is one.
    """
    counts = dict(gold.drop_nulls().value_counts().iter_rows())
    answers, paths = tree.gold_answers(question), tree.classes(question)
    wholes = [merged.get(one.answer, one.answer) if one.answer in answers else NOT_APPLICABLE for one in paths]
    names = []
    for path, whole in zip(paths, wholes, strict=True):
        of_whole = {one.answer for one, other in zip(paths, wholes, strict=True) if other == whole} | {whole}
        unnamed = sum(counts.get(one, 0) for one in of_whole if one != path.name)
        alone = unnamed == 0 and counts.get(path.name, 0) >= _FEWEST_OF_AN_ANSWER
        names.append(path.name if alone else whole)
    of = {one.name: name for one, name in zip(paths, names, strict=True)}
    of |= {whole: whole for whole in wholes} | {one: merged.get(one, one) for one in answers}
    of = {one: of[one] for one in of if one in counts}
    settled = list[str]()
    for name, whole in zip(names, wholes, strict=True):
        alike = [one for one, other in zip(names, wholes, strict=True) if one in of.values() and other == whole]
        settled.append(name if name in of.values() else next(iter(alike or of.values())))
    classes = list(dict.fromkeys(settled))
    return tuple(settled), {one: classes.index(name) for one, name in of.items()}
