"""Gold labels of a question of a decision tree: rules and columns of names, and the classes that they tell apart."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.curves.transitions import ANSWER_UNKNOWN, UNKNOWN
from truemorph.catalogs.catalogue import computed, condition, from_votes, is_numeric
from truemorph.catalogs.columns import FRACTIONS, VOTES, lenticulars, which_rows
from truemorph.catalogs.expressions import column_expression, read_expression
from truemorph.catalogs.paths import label_column, labels_of_answers
from truemorph.errors import InputError, nearest
from truemorph.findings import Finding
from truemorph.questions import APPLIES, CANNOT_TELL, NOT_APPLICABLE, Asked, different, is_unsure

# Fewest gold labels of an answer; sparser ones are merged with others.
_FEWEST_OF_AN_ANSWER = 5
_RULE = re.compile(r"\s*([^:;'\"]+?)\s*:\s*(.+?)\s*", re.DOTALL)
# Semicolons outside of text in quotes.
_SEPARATED = re.compile(r";(?=(?:[^']*'[^']*')*[^']*$)")


@dataclass(frozen=True)
class GoldLabels:
    """Gold labels of N galaxies."""

    numbers: np.ndarray  # (N,): class, `UNKNOWN`, or `ANSWER_UNKNOWN` if only known that the question applies
    paths: np.ndarray  # (N,): path of a question that a gold label names, `UNKNOWN` elsewhere
    definition: str
    rule: str
    columns: list[str]  # that the rule uses
    findings: list[Finding]
    names: pl.Series | None = None  # of a question: of paths or answers, null if unknown

    @property
    def unsure(self) -> np.ndarray:
        """Whether people could not tell the answer to a question, bool of shape (N,)."""
        assert self.names is not None
        return (self.names == CANNOT_TELL).fill_null(False).to_numpy()


def is_of_question(rule: str, frame: pl.DataFrame) -> bool:
    """Whether a rule for gold labels is one for a question: rules with names, or a column of names."""
    text = rule.strip()
    if text in frame.columns:
        return frame[text].dtype == pl.String
    return _RULE.fullmatch(text.split(";")[0]) is not None


def gold_of_question(frame: pl.DataFrame, asked: Asked, rule: str, source: str) -> GoldLabels:
    """Read gold labels: a column of names, or rules "name: condition", separated by semicolons.

    Names are those of classes and answers, "applies", "does not apply" and "cannot tell". Where the question applies,
    one answer may lack a rule: it is given to galaxies for which all other rules are false. Where no rule for an answer
    is met, or one is null, it is only known that the question applies ("applies"). Other galaxies are unknown.
    """
    tree, question = asked.tree, asked.question
    about = f"{source}: gold labels of {question!r}"
    ends = {path.name: path.answer or NOT_APPLICABLE for path in asked.paths}
    answers = tree.gold_answers(question)
    valid = ends | {answer: answer for answer in (*answers, NOT_APPLICABLE, CANNOT_TELL, APPLIES)}
    valid |= {answer: CANNOT_TELL for answer in asked.asked.answers if is_unsure(answer)}
    valid |= {answer: NOT_APPLICABLE for answer in asked.asked.answers if answer in tree.outside}
    name = rule.strip()
    if name in frame.columns:
        series = frame[name]
        if series.dtype != pl.String:
            raise InputError(
                f"{about}: column {name} holds {series.dtype}, not names of classes; give a rule for each, such as "
                f'"{NOT_APPLICABLE}: t_type < -3; {answers[-1]}: {name} > 0"'
            )
        texts = series.str.strip_chars().replace("", None)
        if unknown := sorted({*texts.drop_nulls()} - {*valid}):
            near = nearest(unknown[0], [*valid], what="classes")
            raise InputError(f"{about}: column {name}: unknown class {unknown[0]!r}; {near}{lenticulars(unknown)}")
        names = texts.replace_strict(valid | {end: end for end in ends}, default=None)
        return _of_names(names, asked, name, [name], from_votes(name))
    meets, findings, columns = dict[str, pl.Series](), from_votes(rule), list[str]()
    made = {*FRACTIONS, *VOTES, "label", *(label_column(question.name) for question in tree.questions)}
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
        columns += read_expression(match[2], about).columns
        if used := [column for column in columns if column in made or column.startswith("votes_")]:
            raise InputError(
                f"{about}: {match[2]} uses {used[0]}, which has the bias of the observed labels; give classes from "
                "experts or better images"
            )
        meets[match[1]], more = condition(match[2], frame, about)
        findings += more
    if not meets:
        raise InputError(f'{about}: {rule!r} has no rule; give some, such as "{answers[-1]}: COLUMN > 0"')
    classes = _by_rules(meets, valid, answers, len(asked.questions) > 1, about)
    paths = classes
    for path in [name for name in meets if name in ends]:
        paths = paths.set((meets[path] & (classes == ends[path])).fill_null(False), path)
    return _of_names(paths, asked, name, columns, findings)


def gold_of_label(frame: pl.DataFrame, root: Asked, rule: str, second: str, source: str) -> GoldLabels:
    """Read gold labels 0 and 1: of answers to a tree's first question, or see `gold_classes`."""
    if not is_of_question(rule, frame):
        return gold_classes(frame, rule, second, source)
    read = gold_of_question(frame, root, rule, source)
    labels = labels_of_answers(root)[np.maximum(read.numbers, 0)]
    what = f"{read.rule} is {second}" if read.rule in frame.columns else read.rule.removeprefix(f"{second}:").strip()
    return replace(read, numbers=np.where(read.numbers > 0, labels, UNKNOWN), definition=f"{second}: {what}")


def _of_names(names: pl.Series, asked: Asked, rule: str, columns: list[str], findings: list[Finding]) -> GoldLabels:
    """Return gold labels of a question from names of paths or answers, null if unknown."""
    # Of each name, the number of the path, `UNKNOWN` if it is not named, and that of the answer.
    numbers = dict.fromkeys((APPLIES, CANNOT_TELL), (UNKNOWN, ANSWER_UNKNOWN))
    numbers |= {NOT_APPLICABLE: (UNKNOWN, 0)} | {name: (UNKNOWN, n) for name, n in asked.numbers.items() if n}
    every = zip(asked.paths, asked.answers_of_paths, strict=True)
    numbers |= {path.name: (k, n) for k, (path, n) in enumerate(every) if path.name not in numbers or n}
    paths, answers = np.array([numbers.get(name, (UNKNOWN, UNKNOWN)) for name in names]).reshape(-1, 2).T
    return GoldLabels(answers, paths, f"{asked.question}: {rule}", rule, columns, findings, names)


def _by_rules(
    meets: Mapping[str, pl.Series], valid: Mapping[str, str], answers: Sequence[str], has_gates: bool, about: str
) -> pl.Series:
    """Return the class of each galaxy from the rules that it meets; see `gold_of_question`."""
    outside = [name for name in meets if valid[name] == NOT_APPLICABLE]
    answered = [name for name in meets if valid[name] not in (APPLIES, NOT_APPLICABLE)]
    without = [answer for answer in answers if answer not in meets]
    if has_gates and APPLIES not in meets and not outside:
        raise InputError(f'{about}: say where the question applies, such as "{APPLIES}: t_type >= -3"')
    if len(without) > 1:
        raise InputError(f"{about}: {', '.join(without)} have no rule; only one answer may lack one")
    n = len(next(iter(meets.values())))
    true = {name: met.fill_null(False).to_numpy() for name, met in meets.items()}
    false = {name: (~met).fill_null(False).to_numpy() for name, met in meets.items()}
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


def gold_classes(frame: pl.DataFrame, rule: str, second: str, source: str) -> GoldLabels:
    """Read gold labels of two classes; `second` is the name of class 1.

    `rule` is a column of 0, 1 and null or -1 (unknown); or an SQL expression such as "t_type>=-3",
    which is true for the second class, false for the first, and null if unknown.
    """
    about = f"{source}: gold classes"
    name = rule.strip()
    expression = column_expression(name) if name in frame.columns else read_expression(rule, about)
    if biased := [column for column in expression.columns if column in ("label", *FRACTIONS, *VOTES)]:
        advice = "give classes from experts or better images"
        raise InputError(
            f"{about}: {expression.text} uses {biased[0]}, which has the bias of the observed labels; {advice}"
        )
    series, findings = computed(expression, frame, about)
    if not is_numeric(series):
        wrong = f"{about}: {expression.text} should be numbers or true and false, not {series.dtype}"
        raise InputError(f"{wrong}; give a rule that is true for {second}, or name a column")
    values = series.cast(pl.Float64).fill_null(-1).to_numpy()
    bad = ~np.isin(values, (-1, 0, 1))
    if bad.any():
        raise InputError(
            f"{about}: {expression.text} should be 0, 1 or empty; wrong in "
            f'{which_rows(bad, values)}; give a rule such as "{expression.text}>=1"'
        )
    definition = f"{expression.text} is 1" if expression.lone else expression.tree.sql()
    numbers = values.astype(int)
    paths = np.full(numbers.size, UNKNOWN)
    return GoldLabels(numbers, paths, f"{second}: {definition}", rule, list(expression.columns), findings)


def sparse_answers(asked: Asked, answers: np.ndarray) -> tuple[Asked, list[Finding]]:
    """Merge answers with few gold labels, with their sparser neighbour if they have an order, else with each other."""
    counts = np.bincount(answers[answers > 0], minlength=len(asked.answers))
    groups = [[n] for n in range(1, len(asked.answers))]

    def total(group: Sequence[int]) -> int:
        return int(counts[group].sum())

    while len(groups) > 2 and total(sparse := min(groups, key=total)) < _FEWEST_OF_AN_ANSWER:
        at = groups.index(sparse)
        others = [group for k, group in enumerate(groups) if k != at and (abs(k - at) == 1 or not asked.asked.ordered)]
        near = min(others, key=total)
        first, second = sorted((at, groups.index(near)))
        groups[first : second + 1] = [groups[first] + groups[second], *groups[first + 1 : second]]
    merged = asked.merged(groups)
    names = [merged.answers[k] for k, group in enumerate(groups, 1) if len(group) > 1]
    if not names:
        return asked, []
    message = f"Answers with fewer than {_FEWEST_OF_AN_ANSWER} gold labels were merged: {'; '.join(sorted(names))}."
    return merged, [Finding("answers-merged", "note", message, "Add gold labels of these answers.")]


def told_apart(asked: Asked, answers: np.ndarray, paths: np.ndarray) -> tuple[Asked, np.ndarray]:
    """Return a question with the classes that gold labels tell apart, for T(α), and the class of each gold label.

    Paths are classes of their own if all gold labels of galaxies with their answer name a path. Others are one class an
    answer. One without gold labels counts as another path of its answer, if there is one, as to which the question does
    not apply. `answers` and `paths`, shape (N,), are numbers of the gold labels.
    """
    of_paths = np.array(asked.answers_of_paths)
    named = np.bincount(paths[paths >= 0], minlength=of_paths.size)
    unnamed = np.bincount(answers[(paths < 0) & (answers >= 0)], minlength=len(asked.answers))
    is_merged = np.bincount(list(asked.numbers.values()), minlength=unnamed.size) > 1
    is_merged[0] = False
    alone = (unnamed[of_paths] == 0) & (named >= _FEWEST_OF_AN_ANSWER) & ~is_merged[of_paths]
    # Paths alone are numbered after the answers.
    keys = np.where(alone, unnamed.size + np.arange(of_paths.size), of_paths)
    counts = np.bincount(keys, named, minlength=unnamed.size + of_paths.size)
    counts[: unnamed.size] += unnamed
    settled = list[int]()
    for key, answer in zip(keys, of_paths, strict=True):
        instead = (key, *keys[of_paths == answer], *keys[named > 0], *np.flatnonzero(counts))
        settled.append(int(next(own for own in instead if counts[own])))
    every = list(dict.fromkeys(settled))
    names = [asked.answers[key] if key < unnamed.size else asked.paths[key - unnamed.size].name for key in every]
    classes = tuple(every.index(key) for key in settled)
    question = replace(
        asked,
        of_paths=classes,
        classes=different(names),
        answers_of_classes=tuple(key if key < unnamed.size else int(of_paths[key - unnamed.size]) for key in every),
    )
    return question, class_of_gold(question, answers, paths)


def class_of_gold(asked: Asked, answers: np.ndarray, paths: np.ndarray) -> np.ndarray:
    """Return the class of gold labels, shape (N,), from numbers of their answers, and of paths where they are named."""
    of_answers = np.full(len(asked.answers), UNKNOWN)
    for answer, k in reversed(list(zip(asked.answers_of_paths, asked.of_paths, strict=True))):
        if asked.answers_of_classes[k] == answer:
            of_answers[answer] = k
    gold = np.where(answers >= 0, of_answers[np.maximum(answers, 0)], UNKNOWN)
    return np.where(paths >= 0, np.array(asked.of_paths)[np.maximum(paths, 0)], gold)


def experts_of(metadata: Mapping[str, Any], classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return how the experts miss classes, by column of gold labels, as `gold import` measured it with twins."""
    every = metadata.get("gold_experts") or {}
    if "upper" in every:  # before 0.3, of the second class of labels
        every = {"gold": {classes[1]: every | {"called": {classes[0]: 1.0}}}}
    return dict(every)
