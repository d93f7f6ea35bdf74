"""Questions of a survey's decision tree, the classes that they define, and what is counted in a fraction.

A question is asked after some answers to others, its gates: bars, for instance, after "not edge-on", and that after
"features or disk". Its classes are the paths through these gates: smooth, edge-on, no bar, bar. A quantity is a ratio
of sums of classes, such as the bar fraction, {bar} / {no bar, bar}: galaxies to which the question does not apply are a
class of their own, outside the denominator. Each tree is a TOML file in the folder `trees` (docs/questions.md).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, model_validator

from truemorph.arrays import ratio
from truemorph.errors import InputError, nearest
from truemorph.io import PathLike, checked, read_toml

NOT_APPLICABLE = "does not apply"
APPLIES = "applies"  # the question, but the answer is not known
CANNOT_TELL = "cannot tell"
SMOOTH_OR_DISK = ("smooth", "disk")  # classes where none are named
_ARTIFACT = re.compile(r"(star or )?art[ei]facts?", re.IGNORECASE)
MOST_PATHS = 200  # to the answers of a question; those of surveys have at most 30


def slug(text: str) -> str:
    """Return a name as it stands in names of columns."""
    return re.sub(r"[^0-9a-zA-Z]+", "_", text).strip("_")


def columns_of(what: str, classes: Sequence[str]) -> list[str]:
    """Return the names of columns with one number per class, such as p_no_bar and p_bar."""
    return [f"{what}_{slug(name)}" for name in classes]


def check_class_names(classes: Sequence[str]) -> Sequence[str]:
    """Return names of classes; a ValueError unless they stay apart as names of columns and as answers of experts."""
    # Other answers, and p_spread and posterior_label, which are other columns.
    slugs, others = set(map(slug, classes)), {"", "unclear", "artefact", "spread", "label"}
    if len(slugs) < len(classes) or others & slugs:
        raise ValueError(
            "must be different names with letters, such as early-type, late-type; not spread, label, unclear, artefact"
        )
    if not all(name.isprintable() and len(name) <= 60 for name in classes):
        raise ValueError("must be names of at most 60 characters that can be printed")
    return classes


def class_names(n_classes: int) -> tuple[str, ...]:
    """Return the names of classes that nobody named: smooth and disk, or numbers if there are more than two."""
    return SMOOTH_OR_DISK if n_classes == 2 else tuple(map(str, range(n_classes)))


def fraction_names(classes: Sequence[str]) -> dict[str, int]:
    """Return the names of the class fractions that are quoted, each with its class: of two classes the second's."""
    if len(classes) == 2:
        return {f"{slug(classes[1])}_fraction": 1}
    return {f"fraction_{slug(name)}": k for k, name in enumerate(classes)}


def different(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of which no two are the same, by appending underscores."""
    out = list[str]()
    for name in names:
        while name in out:
            name += "_"
        out.append(name)
    return tuple(out)


def plain_answer(text: str) -> str:
    """Return an answer as it is compared with others: in lower case, without extra spaces; "can't" is "cannot"."""
    return re.sub("can.?t tell", CANNOT_TELL, " ".join(text.split()).casefold())


def is_unsure(answer: str) -> bool:
    """Whether an answer says that the question could not be answered."""
    return answer.casefold().startswith(CANNOT_TELL)


def artifacts_of(questions: Sequence[Question]) -> tuple[str, ...]:
    """Return the answers that are called artifact, or star or artifact."""
    answers = dict.fromkeys(answer for question in questions for answer in question.answers)
    return tuple(answer for answer in answers if _ARTIFACT.fullmatch(answer))


class Question(BaseModel, frozen=True, extra="forbid"):
    """One question of a tree: its answers, and the answers to other questions after any of which it is asked."""

    name: str = Field(min_length=1)
    # Answers, and the columns of the survey's tables with their votes, in order of preference.
    answers: dict[str, tuple[str, ...]]
    asked_after: tuple[str, ...] = ()  # none: the first question of the tree
    text: str = ""  # as the volunteers read it
    ordered: bool = False  # whether the answers have an order, such as sizes of bulges
    shown: tuple[str, ...] = ()  # answers whose fractions are shown; default all
    definitions: dict[str, str] = {}  # what counts as an answer, for those who give gold labels

    @model_validator(mode="after")
    def _consistent(self) -> Question:
        for text in (self.name, *self.answers):
            if not text.isprintable():
                raise ValueError(f"question {self.name!r}: {text!r} has characters that can't be printed; rename it")
        if len(self.answers) < 2:
            raise ValueError(f"question {self.name!r}: give at least two answers")
        for answer, columns in self.answers.items():
            if not slug(answer) or set(answer) & set(":;") or answer in (NOT_APPLICABLE, APPLIES):
                raise ValueError(
                    f"question {self.name!r}: an answer can't be called {answer!r}; use words without : and ;"
                )
            if not columns:
                raise ValueError(f"question {self.name!r}: name a column with the votes for {answer!r}")
        for kind, names in (("answers", list(map(slug, self.answers))), ("columns", [*chain(*self.answers.values())])):
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise ValueError(f"question {self.name!r}: two {kind} have the name {twice!r}")
        for answer in (*self.shown, *self.definitions):
            if answer not in self.answers or (answer in self.shown and is_unsure(answer)):
                raise ValueError(
                    f"question {self.name!r}: {answer!r} is not one of its answers ({', '.join(self.answers)})"
                )
        return self

    def columns(self, templates: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Yield the columns of all answers, under each of the names that they may have."""
        for template in templates:
            for wording in range(max(map(len, self.answers.values()))):
                names = (columns[min(wording, len(columns) - 1)] for columns in self.answers.values())
                yield tuple(template.format(column=name) for name in names)


Steps = tuple[tuple[str, str], ...]  # (question, answer), from the first question of the tree


@dataclass(frozen=True)
class PathClass:
    """A class of a question: a path through its gates, as the answer to each question on the way."""

    name: str
    answers: Steps
    answer: str | None  # to the question itself; None: the question does not apply


@dataclass(frozen=True)
class Quantity:
    """A ratio of sums of class fractions: Σ n_k f_k / Σ d_k f_k, with weights n and d of the K classes."""

    name: str
    numerator: tuple[float, ...]
    denominator: tuple[float, ...] | None = None  # None: all classes, whose fractions sum to 1

    @property
    def counted(self) -> np.ndarray:
        """Weight of each class in the denominator, shape (K,)."""
        return np.array(self.denominator or (1.0,) * len(self.numerator))

    def of(self, fractions: np.ndarray) -> np.ndarray:
        """Return the quantity from class fractions, shape (…, K) → (…)."""
        above = np.asarray(fractions @ np.array(self.numerator))
        return above if self.denominator is None else ratio(above, fractions @ np.array(self.denominator))

    def scatter(self, fractions: np.ndarray) -> np.ndarray:
        """Return the standard deviation of a galaxy's influence on the quantity, from class fractions, (…, K) → (…)."""
        influence = np.array(self.numerator) - self.of(fractions)[..., None] * self.counted
        return np.asarray(np.sqrt(np.sum(fractions * influence**2, axis=-1)) / (fractions @ self.counted))


class Tree(BaseModel, frozen=True, extra="forbid"):
    """The decision tree of a survey."""

    name: str = Field(min_length=1)
    about: str = ""  # the survey, and the source of questions and columns
    questions: tuple[Question, ...]
    # Answers of galaxies that are in no denominator; by default those called artifact.
    outside: tuple[str, ...] = Field(default_factory=lambda tree: artifacts_of(tree.get("questions", ())))
    # How columns of votes are called: numbers of votes, or fractions of the votes for the same question.
    counts: tuple[str, ...] = ("{column}",)
    fractions: tuple[str, ...] = ()
    totals: tuple[str, ...] = ()  # columns with the number of votes for the first question
    # Other groups' fractions, which are no votes: debiased ones (Willett et al. 2013, Hart et al. 2016, Walmsley et al.
    # 2022), and predictions of networks (Zoobot).
    predictions: tuple[str, ...] = ("{column}_debiased", "{column}_pred", "{column}_concentration")

    @model_validator(mode="after")
    def _consistent(self) -> Tree:
        names = [slug(question.name) for question in self.questions]
        if len(set(names)) < len(names) or not all(names):
            raise ValueError("give questions, each with a name of its own")
        for template in (*self.counts, *self.fractions, *self.predictions):
            if template.count("{column}") != 1 or set(template.replace("{column}", "")) & set("{}"):
                raise ValueError(f"{template!r} must contain {{column}}, for the name of a column")
        if not names or not (self.counts or self.fractions):
            raise ValueError("give questions, and `counts` or `fractions`")
        for answer in self.outside:
            if not any(answer in question.answers for question in self.questions):
                raise ValueError(f"outside: no question has the answer {answer!r}")
        earlier: set[str] = set()
        for number, question in enumerate(self.questions):
            if bool(question.asked_after) != bool(number):
                raise ValueError(f"question {question.name!r}: only the first question has no `asked_after`")
            for answer in question.asked_after:
                if answer not in earlier:
                    raise ValueError(f"question {question.name!r}: no earlier question has the answer {answer!r}")
                if sum(answer in other.answers for other in self.questions) > 1:
                    raise ValueError(f"several questions have the answer {answer!r}, so none can be asked after it")
            earlier.update(question.answers)
        for question in self.questions:
            self._paths(question.name)
        return self

    def _paths(self, question: str) -> list[Steps]:
        """Return the paths to the answers of a question, in the order of the tree's answers.

        A ValueError unless each combination of answers lies on one path, of a limited number.
        """
        gates = self.gates(question)
        paths: list[Steps] = [()]
        for gate in gates:
            longer = list[Steps]()
            for path in paths:
                asked = not path or path[-1][1] in gate.asked_after
                longer += [(*path, (gate.name, answer)) for answer in gate.answers] if asked else [path]
            paths = longer
            for answer in gate.answers:
                after = [other.name for other in gates if answer in other.asked_after]
                if len(after) > 1:
                    raise ValueError(
                        f"question {question!r}: both {after[0]!r} and {after[1]!r} are asked after {answer!r} on the "
                        "way to it, so galaxies would have two classes; name in `asked_after` only the last answer "
                        "before a question"
                    )
            if len(paths) > MOST_PATHS:
                raise ValueError(
                    f"question {question!r}: there are more than {MOST_PATHS} paths to its answers, the most "
                    "that can be told apart; ask it after fewer answers"
                )
        return paths

    @property
    def root(self) -> Question:
        """Return the first question, which is asked of all galaxies."""
        return self.questions[0]

    def question(self, name: str) -> Question:
        """Return a question by its name."""
        names = [question.name for question in self.questions]
        if name not in names:
            raise InputError(
                f"unknown question {name!r}; {nearest(name, names, what=f'questions of the tree {self.name}')}"
            )
        return self.questions[names.index(name)]

    def gates(self, name: str) -> tuple[Question, ...]:
        """Return the questions that decide whether a question is asked, and last the question itself."""
        question = self.question(name)
        needed = {name}
        for gate in reversed(self.questions[: self.questions.index(question) + 1]):
            if gate.name in needed:
                needed |= {other.name for other in self.questions if set(other.answers) & set(gate.asked_after)}
        return tuple(question for question in self.questions if question.name in needed)

    def classes(self, name: str) -> tuple[PathClass, ...]:
        """Return the classes of a question: all paths through its gates, in the order of the tree's answers."""
        paths = self._paths(name)
        ends = [path[-1][1] for path in paths]
        named = []
        for path, end in zip(paths, ends, strict=True):
            # Of paths with the same last answer, the names have all answers.
            whole = end if ends.count(end) == 1 else ", ".join(answer for _, answer in path)
            named.append(PathClass(whole, path, end if path[-1][0] == name else None))
        return tuple(named)

    def gold_answers(self, name: str) -> list[str]:
        """Return the answers that gold labels can have: neither outside nor unsure."""
        return [
            answer for answer in self.question(name).answers if answer not in self.outside and not is_unsure(answer)
        ]

    def columns(self, name: str, existing: Collection[str]) -> VoteColumns:
        """Find the columns of votes for a question and its gates in a table: numbers of votes, or else fractions."""
        nearest = list[list[tuple[str, str]]]()
        for kind, templates in (("counts", self.counts), ("fractions", self.fractions)):
            if not templates:
                continue
            by_question, lacking = nearest_columns(self.gates(name), templates, existing)
            if not lacking:
                total = next((total for total in self.totals if total in existing), None)
                return VoteColumns(kind, by_question, total)
            nearest.append(lacking)
        if other := self.other_answers(existing):
            raise InputError(
                f"column {other} has answers of others (a network's, or debiased ones), not votes; prepare a table of "
                "votes and give this one to bias, transition or report (`labels`), or name columns (`smooth`, `disk`)"
            )
        question, absent = min(nearest, key=len)[0]
        raise InputError(
            f"no column {absent}, which the tree {self.name} names for the question {question!r}: all answers to "
            f"{', '.join(by_question)} need numbers of votes, or all need fractions; describe other columns in a tree "
            "of your own (`tree`: a TOML file)"
        )

    def other_answers(self, existing: Collection[str]) -> str | None:
        """Return a column of another group's answers to the first question, if a table has them."""
        return next((names[0] for names in self.root.columns(self.predictions) if {*names} <= {*existing}), None)


@dataclass(frozen=True)
class VoteColumns:
    """The columns of a table with the votes for a question and its gates."""

    kind: str  # "counts", or "fractions" of the votes for each question
    columns: dict[str, tuple[str, ...]]  # of each question, in the order of its answers
    total: str | None  # column with the number of votes for the first question


def nearest_columns(
    questions: Sequence[Question], templates: Sequence[str], existing: Collection[str]
) -> tuple[dict[str, tuple[str, ...]], list[tuple[str, str]]]:
    """Return the columns of answers to each question of which a table has most, and those that it lacks."""
    columns = dict[str, tuple[str, ...]]()
    for question in questions:
        sets = question.columns(templates)
        columns[question.name] = max(sets, key=lambda names: sum(column in existing for column in names))
    return columns, [(name, column) for name, names in columns.items() for column in names if column not in existing]


_TREES = Path(__file__).with_name("trees")


@cache
def _packaged(name: str) -> Tree:
    names = _names()
    if name not in names:
        raise InputError(f"unknown tree {name!r}; {nearest(name, names, what='trees')}; your own must be a .toml file")
    return checked(Tree, {"name": name, **read_toml(_TREES / f"{name}.toml")}, f"tree {name}:")


@cache
def _names() -> list[str]:
    """Return the names of the surveys' trees."""
    return sorted(file.stem for file in _TREES.glob("*.toml"))


def packaged_trees() -> Iterator[Tree]:
    """Return the trees of all surveys."""
    return map(_packaged, _names())


def read_tree(source: Tree | Mapping[str, Any] | PathLike) -> Tree:
    """Read a decision tree.

    Parameters
    ----------
    source : str, path, dict or Tree
        The name of a survey's tree (docs/questions.md lists them), a TOML file, or its content.

    Returns
    -------
    Tree

    Raises
    ------
    InputError
        If there is no such tree, or if questions and answers are inconsistent.

    Examples
    --------
    >>> tree = read_tree("gz2")
    >>> [one.name for one in tree.classes("bar")]
    ['smooth', 'edge-on', 'no bar', 'bar', 'artifact']
    """
    if isinstance(source, Tree):
        return source
    if isinstance(source, Mapping):
        return checked(Tree, dict(source), "tree:")
    if not isinstance(source, str | os.PathLike):
        raise InputError(f"a tree is a name, a TOML file, or its content; got {source!r}")
    name = os.fspath(source)
    if name.lower().endswith(".toml"):
        return checked(Tree, {"name": os.path.basename(name).removesuffix(".toml"), **read_toml(name)}, f"{name}:")
    return _packaged(name)


@dataclass(frozen=True)
class Asked:
    """A question with its classes, as numbers: of which class each path is, and which answer each class counts as.

    A class of T(α) has one or several paths. Answers are those whose fractions are counted: 0 is "does not apply", also
    of answers that are outside all fractions, or unsure; merged answers have one number. Names are for people.

    Parameters
    ----------
    tree : Tree
    question : str
    of_paths : tuple of int
        Class of each path, in the order of `tree.classes(question)`; default: each path is a class.
    classes : tuple of str
        Names of the K classes.
    answers_of_paths, answers_of_classes : tuple of int
        Answer of each path, and of each class.
    answers : tuple of str
        Names of the answers, "does not apply" first.

    Raises
    ------
    InputError
        If there is not one class for each path.

    Examples
    --------
    >>> asked = Asked.named(read_tree("gz2"), "bar", ("other", "other", "no bar", "bar", "other"))
    >>> asked.classes, asked.of_paths, asked.answers_of_classes
    (('other', 'no bar', 'bar'), (0, 0, 1, 2, 0), (0, 1, 2))
    >>> asked.answers, [one.name for one in asked.questions]
    (('does not apply', 'no bar', 'bar'), ['smooth', 'edge-on', 'bar'])
    """

    tree: Tree = field(repr=False)
    question: str
    of_paths: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    answers_of_paths: tuple[int, ...] = ()
    answers_of_classes: tuple[int, ...] = ()
    answers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.of_paths:
            counted = (NOT_APPLICABLE, *self.tree.gold_answers(self.question))
            answers = tuple(counted.index(path.answer) if path.answer in counted else 0 for path in self.paths)
            classes = tuple(path.name for path in self.paths)
            every = (tuple(range(len(classes))), classes, answers, answers, counted)
            for name, value in zip(_OF_ASKED, every, strict=True):
                object.__setattr__(self, name, value)
        if len(self.of_paths) != len(self.paths) or {*self.of_paths} != {*range(len(self.classes))}:
            listed = ", ".join(path.name for path in self.paths)
            raise InputError(f"give the class of each of the {len(self.paths)} paths: {listed}")

    @classmethod
    def named(cls, tree: Tree, question: str, names: Sequence[str]) -> Asked:
        """Return a question with the class of each path by name: paths of one name are one class."""
        classes = tuple(dict.fromkeys(names))
        asked = replace(cls(tree, question), of_paths=tuple(map(classes.index, names)), classes=classes)
        every = list(zip(asked.of_paths, asked.answers_of_paths, strict=True))
        answers = tuple(max(n for of, n in every if of == k) for k in range(len(classes)))
        groups = dict[int, list[int]]()  # of answers in one class
        for number in range(1, len(asked.answers)):
            of_class = next(k for k, own in every if own == number)
            groups.setdefault(answers[of_class], []).append(number)
        return replace(asked, answers_of_classes=answers).merged(list(groups.values()))

    def merged(self, groups: Sequence[Sequence[int]]) -> Asked:
        """Return the question with each group of answers as one answer."""
        numbers = {0: 0} | {n: k for k, group in enumerate(groups, 1) for n in group}
        names = [self.answers[0], *(" or ".join(self.answers[n] for n in group) for group in groups)]
        return replace(
            self,
            answers_of_paths=tuple(numbers[n] for n in self.answers_of_paths),
            answers_of_classes=tuple(numbers[n] for n in self.answers_of_classes),
            answers=different(names),
        )

    @cached_property
    def paths(self) -> tuple[PathClass, ...]:
        """Paths through the gates to the answers."""
        return self.tree.classes(self.question)

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """Gates of the question, and the question."""
        return self.tree.gates(self.question)

    @property
    def asked(self) -> Question:
        """The question itself."""
        return self.questions[-1]

    @cached_property
    def parts(self) -> tuple[slice, ...]:
        """Columns of each question's answers among those of all questions."""
        limits = np.cumsum([0, *(len(question.answers) for question in self.questions)]).tolist()
        return tuple(slice(*ends) for ends in pairwise(limits))

    @cached_property
    def along(self) -> np.ndarray:
        """Whether an answer is on a path, shape (number of paths, number of answers)."""
        steps = [(question.name, answer) for question in self.questions for answer in question.answers]
        return np.array([[step in path.answers for step in steps] for path in self.paths])

    @cached_property
    def applies(self) -> tuple[int, ...]:
        """Classes to which the question applies, unsure answers too; first those that are shown."""
        shown = dict[int, bool]()
        for path, k in zip(self.paths, self.of_paths, strict=True):
            if path.answer is not None and path.answer not in self.tree.outside:
                shown[k] = shown.get(k, False) or path.answer in self.asked.shown
        return tuple(sorted(shown, key=lambda k: (not shown[k], k)))

    @cached_property
    def answers_by_gold(self) -> list[str]:
        """What a gold label of the question is for each path."""
        return [path.answer or NOT_APPLICABLE for path in self.paths]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Number of each answer of the tree to this question."""
        return {path.answer: n for path, n in zip(self.paths, self.answers_of_paths, strict=True) if path.answer}

    def answers_in(self, other: Asked) -> tuple[int, ...]:
        """Return the answer of each class of the same question with other classes; InputError if it has several."""
        every = list(zip(other.of_paths, other.answers_of_paths, self.answers_of_paths, strict=True))
        numbers = list[int]()
        for number, (name, answer) in enumerate(zip(other.classes, other.answers_of_classes, strict=True)):
            ours = {n for k, theirs, n in every if k == number and theirs == answer}
            if len(ours) > 1:
                apart = ", ".join(self.answers[n] for n in sorted(ours))
                raise InputError(f"{name!r} is one answer to {self.question!r}, but {apart} are told apart elsewhere")
            numbers.append(ours.pop())
        return tuple(numbers)

    @property
    def shown(self) -> tuple[int, ...]:
        """Numbers of the answers whose fractions are shown."""
        shown = dict.fromkeys(self.numbers[name] for name in self.asked.shown)
        return tuple(shown or range(1, len(self.answers)))

    @cached_property
    def quantities(self) -> tuple[Quantity, ...]:
        """What is quoted of the fractions of answers: ratios, and last the fraction to which the question applies."""
        n = len(self.answers)
        every, applies = np.eye(n), (0.0, *[1.0] * (n - 1))
        listed = [Quantity(f"{self.answers[k]} fraction", tuple(every[k].tolist()), applies) for k in self.shown]
        if self.asked.ordered:
            listed += [
                Quantity(f"fraction of at least {self.answers[k]}", tuple(every[k:].sum(axis=0).tolist()), applies)
                for k in range(3, n)
            ]
            if n == 1 + len(self.tree.gold_answers(self.question)):  # ranks of merged answers are not those of all
                listed.append(Quantity("mean rank", tuple(map(float, range(n))), applies))
        return (*listed, Quantity(f"fraction to which {self.question!r} applies", applies))

    def votes(self, columns: np.ndarray) -> Votes:
        """Return votes from numbers for the answers to all questions, shape (N, A)."""
        counts = {question.name: columns[:, part] for question, part in zip(self.questions, self.parts, strict=True)}
        return Votes(self, counts)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        numbers = {name: list(getattr(self, name)) for name in _OF_ASKED}
        tree = self.tree.model_dump(mode="json", exclude_defaults=True)
        return {"tree": tree, "question": self.question, **numbers}

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Asked:
        """Rebuild it from what `to_dict` returns; version 0.2 named the class of each path."""
        tree, question = read_tree(described["tree"]), described["question"]
        if "of_paths" in described and "classes" not in described:
            return cls.named(tree, question, described["of_paths"])
        return cls(tree, question, **{name: tuple(described.get(name, ())) for name in _OF_ASKED})


_OF_ASKED = ("of_paths", "classes", "answers_of_paths", "answers_of_classes", "answers")


@dataclass(frozen=True)
class Head:
    """The classes of one question among all that a classifier tells apart, which stand side by side."""

    question: str | None  # None: the two classes of a catalogue, such as smooth and disk
    classes: tuple[str, ...]
    numbers: tuple[int, ...]  # of the classes whose fractions are counted: to which it applies, or the second of two
    columns: tuple[str, ...]  # names of the classes that no other question has
    start: int = 0
    asked: Asked | None = None

    @property
    def part(self) -> slice:
        """Where these classes are among all."""
        return slice(self.start, self.start + len(self.classes))

    @property
    def answers(self) -> tuple[str, ...]:
        """Names of the classes whose fractions are counted."""
        return tuple(self.classes[k] for k in self.numbers)

    def name(self, what: str) -> str:
        """Return the name of a column about this question."""
        return what if self.question is None else f"{what}_{slug(self.question)}"


def heads_of(questions: Sequence[Asked | None], label: Sequence[str] = SMOOTH_OR_DISK) -> tuple[Head, ...]:
    """Return the classes of questions side by side, of None those of a `label`.

    Where two questions share a name of a class, columns have the question too.
    """
    every = [name for asked in questions for name in (label if asked is None else asked.classes)]
    heads, start = list[Head](), 0
    for asked in questions:
        if asked is None:
            heads.append(Head(None, tuple(label), tuple(range(1, len(label))), tuple(label), start))
        else:
            columns = tuple(f"{name} {asked.question}" if every.count(name) > 1 else name for name in asked.classes)
            heads.append(Head(asked.question, asked.classes, asked.applies, columns, start, asked))
        start += len(heads[-1].classes)
    return tuple(heads)


def possible_votes(votes: np.ndarray) -> np.ndarray:
    """Replace missing and impossible numbers of votes by 0."""
    return np.where(np.isfinite(votes) & (votes >= 0), votes, 0.0)


def log_odds(votes: np.ndarray) -> np.ndarray:
    """Return the log-odds of votes, shape (N, A), for every answer that somebody gave but the most frequent, (N, P)."""
    n, total = votes.sum(axis=1, keepdims=True), votes.sum(axis=0)
    counts = votes[:, (total > 0) & (np.arange(total.size) != total.argmax())]
    return np.asarray(np.log((counts + 0.5) / (n - counts + 0.5)))


@dataclass(frozen=True, repr=False)
class Votes:
    """Numbers of votes of N galaxies for the gates of a question and the question itself.

    Parameters
    ----------
    asked : Asked
        The question, and the classes of the paths through its gates.
    counts : dict of str to array, shape (N, A)
        Votes for the A answers to each of its questions, by name.

    Examples
    --------
    >>> counts = {"smooth": [[9, 30, 1]], "edge-on": [[2, 28]], "bar": [[8, 20]]}
    >>> votes = Votes(Asked(read_tree("gz2"), "bar"), {name: np.array(some) for name, some in counts.items()})
    >>> votes.columns.shape, votes.asked.classes[votes.labels[0]]
    ((1, 7), 'bar')
    """

    asked: Asked
    counts: dict[str, np.ndarray]

    @property
    def columns(self) -> np.ndarray:
        """Votes for the answers to all questions, shape (N, A)."""
        return np.column_stack([self.counts[question.name] for question in self.asked.questions])

    @property
    def labels(self) -> np.ndarray:
        """Class of the majority path, shape (N,)."""
        return np.array(self.asked.of_paths)[self.paths]

    def __repr__(self) -> str:
        return f"Votes({len(self.columns)} galaxies, {self.asked.question!r} of the tree {self.asked.tree.name})"

    @classmethod
    def of_labels(cls, asked: Asked, paths: np.ndarray) -> Votes:
        """Return labels as votes: one for each answer on the path of a galaxy, whose numbers have the shape (N,)."""
        return asked.votes(asked.along[paths].astype(float))

    @cached_property
    def paths(self) -> np.ndarray:
        """Number of each galaxy's path by majority, shape (N,): at each gate, the answer with most votes decides.

        A tie, or a question without votes, gets the answer that most galaxies have at this question.
        """
        chosen = []
        for question in self.asked.questions:
            votes = self.counts[question.name]
            most = votes == votes.max(axis=1, keepdims=True)
            often = most[most.sum(axis=1) == 1].sum(axis=0)
            # Among tied answers, the most frequent: its count decides where the votes are equal.
            chosen.append(np.eye(often.size, dtype=bool)[np.where(most, often + 1, 0).argmax(axis=1)])
        every = np.hstack(chosen)
        return np.stack([every[:, on_path].all(axis=1) for on_path in self.asked.along], axis=1).argmax(axis=1)

    @property
    def path_probabilities(self) -> np.ndarray:
        """Product of the fractions of votes along the path of each class, shape (N, number of classes).

        One vote more is shared by all answers to a question, so that a galaxy without votes has equal fractions.
        """
        votes = [self.counts[question.name] for question in self.asked.questions]
        every = np.hstack([(k + 1 / k.shape[1]) / (k.sum(axis=1, keepdims=True) + 1) for k in votes])
        return np.stack([every[:, on_path].prod(axis=1) for on_path in self.asked.along], axis=1)

    @property
    def log_odds(self) -> np.ndarray:
        """Log-odds of the votes at every gate and for every answer but the most frequent one, shape (N, P).

        ln[(k + ½) / (n - k + ½)] for k of n votes: a galaxy without votes has 0. Answers that nobody gave have none.
        """
        return np.hstack([*map(log_odds, self.counts.values())])

    @classmethod
    def from_columns(
        cls, tree: Tree, question: str, values: Mapping[str, np.ndarray], total: np.ndarray | None = None
    ) -> Votes:
        """Return the votes from numbers for each gate, shape (N, A), or with a `total` from fractions.

        Missing values count as no votes. Fractions are of the votes for their question, which are those for the answers
        after which it is asked: numbers are fractions times the votes of the first question, `total`, times the
        fractions on the way.
        """
        counts, reached = dict[str, np.ndarray](), dict[str, np.ndarray]()
        for gate in tree.gates(question):
            votes = possible_votes(values[gate.name])
            if total is not None:
                before = [reached[answer] for answer in gate.asked_after if answer in reached]
                votes = votes * np.sum(before or [possible_votes(total)], axis=0)[:, None]
            counts[gate.name] = votes
            reached |= zip(gate.answers, votes.T, strict=True)
        return cls(Asked(tree, question), counts)
