"""Labels of a question of a decision tree in a catalogue: volunteers' paths and votes, and gold labels.

A catalogue has, for each question, `label_<question>`, the name of the class by the majority path, and
`votes_<question>_<answer>`, numbers of votes, also of its gates. `gold_<question>` has names of classes, or of answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.checks import balance_findings, selection_findings
from truemorph.bias.estimate import Estimate, estimate_of_paths
from truemorph.bias.fractions import fractions_in_bins
from truemorph.bias.likelihood import ROWS, label_evidence
from truemorph.bias.sample import Sample
from truemorph.bias.transitions import ANSWER_UNKNOWN, UNKNOWN, TreeTransition
from truemorph.catalogs.catalogue import ID_COLUMNS, condition
from truemorph.catalogs.columns import ADDED, FRACTIONS, VOTES, vote_findings
from truemorph.catalogs.expressions import read_expression
from truemorph.catalogs.label_sets import Kind, LabelSet
from truemorph.catalogs.other_labels import OtherLabels
from truemorph.catalogs.selected import (
    filtered,
    from_same_images,
    from_votes,
    planned,
    properties,
    rows_hash,
    sample_weights,
)
from truemorph.errors import InputError, nearest
from truemorph.findings import Finding, unique
from truemorph.questions import (
    APPLIES,
    CANNOT_TELL,
    NOT_APPLICABLE,
    Nodes,
    Quantity,
    Tree,
    Votes,
    is_unsure,
    read_tree,
    slug,
)
from truemorph.tables import CatalogTable, numeric_columns

# Fewest gold labels of an answer; sparser ones are merged with others.
_FEWEST_OF_AN_ANSWER = 5
_RULE = re.compile(r"\s*([^:;'\"]+?)\s*:\s*(.+?)\s*", re.DOTALL)
# Semicolons outside of text in quotes.
_SEPARATED = re.compile(r";(?=(?:[^']*'[^']*')*[^']*$)")


def label_column(question: str) -> str:
    """Return the name of a catalogue's column of the classes of a question."""
    return f"label_{slug(question)}"


def gold_column(question: str, kind: str = "gold") -> str:
    """Return the name of a catalogue's column of gold labels of a question, or another `kind` beside it."""
    return f"{kind}_{slug(question)}"


def vote_column(question: str, answer: str) -> str:
    """Return the name of a catalogue's column of votes for an answer."""
    return f"votes_{slug(question)}_{slug(answer)}"


def described_path(name: str) -> str:
    """Return the description of a catalogue's column of a question."""
    kinds = {one: ADDED[one] for one in ("gold_probability", "gold_uncertain")}
    kinds |= {"gold_people": "people who gave the gold label", "gold_time": "time of their last answer"}
    kinds |= {"votes": "number of votes", "gold": "gold label", "label": "class by the majority of the votes"}
    kind = next((one for one in kinds if name.startswith(f"{one}_")), "")
    return f"{kinds[kind]}: {name.removeprefix(f'{kind}_')}" if kind else name


def path_columns(
    frame: pl.DataFrame, tree: Tree, question: str, total: np.ndarray | None, source: str
) -> tuple[pl.DataFrame, list[Finding]]:
    """Return the label and the votes of a question from a survey's table; `total` are votes on the first question."""
    gates = [one.name for one in tree.gates(question)]
    found = tree.columns(gates, frame.columns)
    names = list(dict.fromkeys(name for some in found.columns.values() for name in some))
    values = dict(zip(names, numeric_columns(frame, names, source).T, strict=True))
    if found.total is not None:
        total = numeric_columns(frame, [found.total], source)[:, 0]
    if found.kind == "fractions" and total is None:
        raise InputError(
            f"{source}: has fractions of votes for {question!r}, but not their number ({', '.join(tree.totals)}); name "
            "it (`columns`, vote_count)"
        )
    findings = vote_findings(np.column_stack(list(values.values())), question)
    votes = Votes.from_columns(tree, question, found, values, total)
    classes = [one.name for one in tree.classes(question)]
    columns = {label_column(question): pl.Series([classes[k] for k in votes.paths], dtype=pl.String)}
    for name, counts in votes.counts.items():
        columns |= {
            vote_column(name, answer): pl.Series(part)
            for answer, part in zip(tree.question(name).answers, counts.T, strict=True)
        }
    return pl.DataFrame(columns), findings


def flat_tree(question: str, answers: Sequence[str]) -> Tree:
    """Return the tree of one question, from answers, each as "answer=column of its votes", or counted from experts'."""
    pairs = [text.partition("=") for text in answers]
    columns = {name.strip(): [column.strip() or f"experts_{slug(name)}"] for name, _, column in pairs}
    return read_tree({"name": question, "questions": [{"name": question, "answers": columns}]})


def count_experts(table: CatalogTable, tree: Tree, experts: Sequence[str], ids: str | None) -> CatalogTable:
    """Add numbers of votes of experts: each a column of answers, or one column of a table with a row for each expert.

    In the latter the first row of a galaxy gives all other columns. Empty answers are no votes.
    """
    name, frame = str(table.path or "table"), table.frame
    answers = {answer: columns[0] for answer, columns in tree.root.answers.items()}
    for column in experts:
        if column not in frame.columns:
            raise InputError(f"{name}: no column {column!r} of an expert's answers; {nearest(column, frame.columns)}")
        unknown = set(frame[column].cast(pl.String).drop_nulls()) - {*answers, ""}
        if unknown:
            raise InputError(
                f"{name}: column {column}: {min(unknown)!r} is not one of {', '.join(answers)} (`answers`)"
            )
    counts = [
        pl.sum_horizontal((pl.col(one).cast(pl.String) == answer).fill_null(False) for one in experts).alias(votes)
        for answer, votes in answers.items()
    ]
    frame = frame.with_columns(counts)
    if len(experts) == 1:
        key = ids if ids in frame.columns else next((one for one in ID_COLUMNS if one in frame.columns), None)
        if key is None:
            raise InputError(
                f"{name}: name the column of ids (`id`), so that the experts' rows of a galaxy are counted"
            )
        others = [one for one in frame.columns if one not in (key, *answers.values())]
        frame = frame.group_by(key, maintain_order=True).agg(pl.col(others).first(), pl.col(*answers.values()).sum())
    return replace(table, frame=frame)


def root_columns(tree: Tree, existing: Sequence[str]) -> tuple[dict[str, str], tuple[str, str]]:
    """Return columns of votes that make labels 0 and 1 of a tree's first question, and the names of these classes.

    1 are its `shown` answers, by default all but the first.
    """
    root, kinds = tree.root, root_answers(tree)
    found = dict(zip(root.answers, tree.columns([root.name], existing).columns[root.name], strict=True))
    columns = {
        kind: " + ".join('"' + found[one].replace('"', '""') + '"' for one in some) if len(some) > 1 else found[some[0]]
        for kind, some in kinds.items()
        if some
    }
    return columns, (" or ".join(kinds["smooth"]), " or ".join(kinds["disk"]))


def root_answers(tree: Tree) -> dict[str, list[str]]:
    """Return the answers to a tree's first question that make the labels 0 (smooth), 1 (disk), or none (artefact)."""
    inside = [one for one in tree.root.answers if one not in tree.outside]
    shown = [one for one in tree.root.shown or inside[1:] if one in inside]
    return {"smooth": [one for one in inside if one not in shown], "disk": shown, "artefact": list(tree.outside)}


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
        for text in texts.drop_nulls().unique():
            if text not in valid:
                raise InputError(f"{about}: column {name}: unknown class {text!r}; {nearest(text, list(valid))}")
        classes = texts.replace_strict(valid, default=None)
        paths = texts.replace_strict({**valid, **{one: one for one in ends}}, default=None)
        return QuestionGold(classes, paths, f"{question}: {name}", from_votes(name))
    meets, findings = dict[str, pl.Series](), from_votes(rule)
    for part in _SEPARATED.split(name):
        match = _RULE.fullmatch(part)
        if match is None and part.strip():
            raise InputError(
                f'{about}: {part.strip()!r} is neither a column nor "name: condition"; give rules such as '
                f'"{APPLIES}: t_type >= -3; {answers[-1]}: bar_length > 0"'
            )
        if match is None:
            continue
        if match[1] not in valid or match[1] in meets:
            why = (
                "has two rules; join them with OR"
                if match[1] in meets
                else f"is no class; {nearest(match[1], [*valid])}"
            )
            raise InputError(f"{about}: {match[1]!r} {why}")
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
        raise InputError(f'{about}: {rule!r} has no rule; give some, such as "{answers[-1]}: bar_length > 0"')
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


@dataclass(frozen=True)
class QuestionRows:
    """Selected galaxies with labels and gold labels of a question, in the classes that gold labels tell apart."""

    sample: Sample
    of_paths: Sample  # with votes and gold labels of the paths that gold labels tell apart, for T(α)
    paths: np.ndarray  # (N,): class by the majority path
    log_odds: np.ndarray  # (N, P): of the votes at each gate and at the question
    quantities: tuple[Quantity, ...]
    classes: tuple[str, ...]
    columns: np.ndarray  # (N, C): named columns
    about: dict[str, Any]
    findings: tuple[Finding, ...]
    properties: dict[str, np.ndarray]  # columns, shape (N,), that gold labels should not depend on


def tree_of(catalogue: CatalogTable, question: str) -> Tree:
    """Return the tree of a catalogue that was prepared for a question."""
    source = str(catalogue.path or "catalogue")
    described = catalogue.metadata.get("tree")
    if described is None or label_column(question) not in catalogue.frame.columns:
        raise InputError(
            f"{source}: has no labels of the question {question!r}; prepare it with this question (`question`)"
        )
    return read_tree(described)


@dataclass(frozen=True)
class QuestionVotes:
    """Votes and majority paths of N galaxies for a question, beside the classes that gold labels tell apart."""

    votes: Votes
    chosen: np.ndarray  # (N,): class by the majority path
    collapsed: np.ndarray  # (number of paths,): class that gold labels tell apart, of each path

    @property
    def labels(self) -> np.ndarray:
        """Majority paths as classes that gold labels tell apart, shape (N,)."""
        return np.asarray(self.collapsed[self.chosen])


def question_votes(
    frame: pl.DataFrame, tree: Tree, question: str, numbers: Mapping[str, int], source: str
) -> QuestionVotes:
    """Read the votes and majority paths of a question from a catalogue; `numbers` are the classes of its answers."""
    counts = {
        one.name: numeric_columns(frame, [vote_column(one.name, answer) for answer in one.answers], source)
        for one in tree.gates(question)
    }
    paths = tree.classes(question)
    number = {one.name: k for k, one in enumerate(paths)}
    chosen = np.array([number[name] for name in frame[label_column(question)].to_list()])
    # Observed answers that gold labels do not have, such as "cannot tell", are outside the denominators.
    collapsed = np.array([numbers.get(one.answer or NOT_APPLICABLE, 0) for one in paths])
    return QuestionVotes(Votes(tree, question, counts), chosen, collapsed)


def votes_at_nodes(frame: pl.DataFrame, nodes: Nodes, source: str) -> Votes:
    """Return the votes of a catalogue's galaxies at the nodes of a question; missing ones count as none."""
    counts = {}
    for one in nodes.questions:
        columns = [vote_column(one.name, answer) for answer in one.answers]
        lacking = [name for name in columns if name not in frame.columns]
        if lacking:
            raise InputError(f"{source}: has no column {lacking[0]}; prepare it with this question (`question`)")
        counts[one.name] = np.nan_to_num(numeric_columns(frame, columns, source))
    return Votes(nodes.tree, nodes.question, counts, nodes.of_paths)


def path_labels(frame: pl.DataFrame, nodes: Nodes, source: str) -> np.ndarray:
    """Return the class of each galaxy's majority path among those that T(α) tells apart, shape (N,)."""
    name = label_column(nodes.question)
    if name not in frame.columns:
        raise InputError(f"{source}: has no column {name}; prepare it with this question (`question`)")
    of = zip(nodes.tree.classes(nodes.question), nodes.of_paths, strict=True)
    numbers = {path.name: nodes.classes.index(one) for path, one in of}
    return frame[name].replace_strict(numbers, return_dtype=pl.Int64).to_numpy()


def path_observations(frame: pl.DataFrame, transition: TreeTransition, source: str) -> np.ndarray:
    """Return what T(α) is of: votes at its nodes, shape (N, A), or labels, shape (N,)."""
    if transition.overdispersion is None:
        return path_labels(frame, transition.nodes, source)
    return votes_at_nodes(frame, transition.nodes, source).columns


def path_evidence(frame: pl.DataFrame, transition: TreeTransition, argument: np.ndarray, source: str) -> np.ndarray:
    """Return log p(votes | y, α) of each galaxy's votes, or of its majority path where T is of labels, shape (N, K)."""
    given, out = path_observations(frame, transition, source), []
    for begin in range(0, frame.height, ROWS):  # T needs several times the memory of the result
        part = slice(begin, begin + ROWS)
        out.append(np.asarray(label_evidence(transition, given[part], argument[part])))
    return np.concatenate(out) if out else np.empty((0, transition.n_classes))


def question_rows(
    catalogue: CatalogTable,
    question: str,
    gold: str,
    *,
    where: Sequence[str] = (),
    named: Sequence[str] = (),
    observables: Sequence[str] = (),
    weights: str = "balance",
    others: Sequence[OtherLabels] = (),
) -> QuestionRows:
    """Select galaxies of a catalogue, with the labels and gold labels of a question; arguments as in `select_rows`.

    The log-odds of other groups' answers stand beside those of the votes.
    """
    source, tree = str(catalogue.path or "catalogue"), tree_of(catalogue, question)
    frame, findings = filtered(catalogue.frame, list(where), [*named, *observables], source)
    rule = gold_column(question) if gold == "gold" else gold
    if gold == "gold" and rule not in frame.columns:
        raise InputError(f"{source}: no column {rule}; give a rule for gold labels of {question!r} (`gold`)")
    read = gold_of_question(frame, tree, question, rule, source)
    merged, merging = _sparse_answers(read.classes, tree, question)
    classes, quantities = tree.quantities(question, merged)
    numbers = {one: k for k, one in enumerate(classes)} | {one: classes.index(name) for one, name in merged.items()}
    observed = question_votes(frame, tree, question, numbers, source)
    counts = dict(read.classes.drop_nulls().value_counts().iter_rows())
    answered = [one for one in tree.gold_answers(question) if counts.get(one)]
    if not answered or len(answered) + (NOT_APPLICABLE in counts) < 2:
        have = ", ".join(f"{count:,} {one}" for one, count in counts.items()) or "none"
        raise InputError(f"{source}: gold labels of {question!r} are {have}; there must be some of two classes")
    numbers |= {APPLIES: ANSWER_UNKNOWN, CANNOT_TELL: ANSWER_UNKNOWN}
    known = read.classes.replace_strict(numbers, default=UNKNOWN, return_dtype=pl.Int64).to_numpy()
    unsure = (read.classes == CANNOT_TELL).fill_null(False).to_numpy()
    probability, uncertain = (
        planned(frame, gold, gold_column(question, one)) for one in ("gold_probability", "gold_uncertain")
    )
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
    of_paths, numbers = path_classes(read.paths, tree, question, merged)
    votes = replace(observed.votes, of_paths=of_paths)
    in_tree = Sample.of(
        votes,
        sample.alpha,
        observables=numeric_columns(frame, list(observables), source) if observables else None,
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
        "alpha": catalogue.metadata.get("alpha"),
        "where": list(where),
        **({"other_labels": [one.name for one in others]} if others else {}),
    }
    return QuestionRows(
        sample,
        in_tree,
        observed.chosen,
        np.column_stack([observed.votes.log_odds, *(one.votes(frame).log_odds for one in others)]),
        quantities,
        classes,
        numeric_columns(frame, list(named), source),
        about,
        unique(
            catalogue.findings,
            findings,
            read.findings,
            merging,
            from_same_images(catalogue.metadata, question) if gold == "gold" else (),
        ),
        properties(catalogue, frame, [*named, *observables, *columns_of_question(frame, rule)]),
    )


def columns_of_question(frame: pl.DataFrame, rule: str) -> list[str]:
    """Return the columns that rules for gold labels use."""
    if rule.strip() in frame.columns:
        return [rule.strip()]
    matches = (_RULE.fullmatch(part) for part in _SEPARATED.split(rule))
    return [name for match in matches if match for name in read_expression(match[2], "gold").columns]


def answer_sets(
    frame: pl.DataFrame, tree: Tree, question: str, others: Sequence[OtherLabels] = ()
) -> tuple[list[LabelSet], list[LabelSet]]:
    """Return the answers on the majority path, and gold ones, as label sets, NaN where the question was not asked.

    Those of other groups are on their own majority path, once by majority and once as fractions of the answers. The
    second list has the same for each answer that is shown, against all others.
    """
    asked = tree.question(question)
    answers = tree.gold_answers(question)
    ends = {one.name: one.answer for one in tree.classes(question)}
    given: list[tuple[str, Kind, np.ndarray]] = []
    kinds: list[tuple[str, Kind, str]] = [
        ("observed labels", "observed", label_column(question)),
        ("gold labels", "truth", gold_column(question)),
    ]
    for name, kind, column in kinds:
        if column in frame.columns and frame[column].count():
            end = frame[column].replace_strict(ends, default=pl.first(), return_dtype=pl.String)
            parts = [(end == answer).fill_null(False).to_numpy() for answer in answers]
            given.append((name, kind, np.stack(parts, axis=1)))
    for other in others:
        chosen, p = other.probabilities(frame, {answer: k for k, answer in enumerate(answers, 1)})
        given.append((other.name, "labels", chosen[:, 1:] > 0))
        on_path = (chosen[:, :1] == 0) & (p[:, 1:] > 0).any(axis=1, keepdims=True)
        given.append((f"{other.name}, fractions", "probabilities", on_path * p[:, 1:]))
    sets, shown = [], []
    for name, kind, of_answers in given:
        total = of_answers.sum(axis=1, keepdims=True)
        values = np.divide(of_answers, total, out=np.full(of_answers.shape, np.nan), where=total > 0)
        sets.append(LabelSet(name, kind, values, tuple(answers)))
        for one in asked.shown or answers:
            title = name if len(asked.shown) == 1 else f"{name}: {one}"
            shown.append(LabelSet.of_two(title, kind, values[:, answers.index(one)], (f"not {one}", one), one))
    return sets, shown


def _sparse_answers(gold: pl.Series, tree: Tree, question: str) -> tuple[dict[str, str], list[Finding]]:
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
    population: bool = False,
    fraction_bins: int = 8,
    seed: int = 0,
    others: Sequence[OtherLabels] = (),
) -> Estimate:
    """Estimate T(α) of the paths to a question's answers, and their fractions where it applies, from gold labels."""
    if gold is None:
        raise InputError(_why_no_number(catalogue, question))
    columns = [] if by in (None, "alpha") else [one.strip() for one in by.split(",")]
    options: dict[str, Any] = {"named": [*columns, *intrinsic], "observables": observables, "others": others}
    rows = question_rows(catalogue, question, gold, where=where, weights=weights, **options)
    binned, given = np.split(rows.columns, [len(columns)], axis=1)
    alpha = rows.sample.alpha
    values = [alpha if one == "alpha" else binned[:, k] for k, one in enumerate(columns)]
    found = fractions_in_bins(
        rows.sample,
        None,
        by=np.squeeze(np.column_stack(values)) if values else None,
        bins=max(1, min(fraction_bins, rows.sample.labels.size // 50)),
        covariates=given if intrinsic else None,
        votes=rows.log_odds,
        name=by or "alpha",
        seed=seed,
        paths=rows.paths,
        quantities=rows.quantities,
        population=population,
    )
    findings = unique(
        rows.findings,
        selection_findings(rows.sample),
        balance_findings(rows.properties, rows.sample) if rows.sample.probability is None else (),
        found.findings,
    )
    found = replace(found, about=rows.about, findings=findings)
    about = rows.about | {"alpha_psf": catalogue.metadata.get("alpha_psf"), "observables": list(observables)}
    about["rows_sha256"] = rows_hash(catalogue, where)
    return estimate_of_paths(rows.of_paths, found, about, seed)
