"""Labels of a question of a decision tree in a catalogue: volunteers' paths and votes, and gold labels.

A catalogue has, for each question, `label_<question>`, the name of the class by the majority path, and
`votes_<question>_<answer>`, numbers of votes, also of its gates. `gold_<question>` has names of classes, or of answers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.curves.transitions import UNKNOWN, Transition
from truemorph.bias.likelihood import ROWS, label_evidence, posterior
from truemorph.bias.methods import Kind
from truemorph.catalogs.catalogue import ID_COLUMNS, label_classes, read_catalogue
from truemorph.catalogs.columns import ADDED, vote_findings, which_rows
from truemorph.errors import InputError, nearest
from truemorph.findings import Finding
from truemorph.questions import Asked, Tree, Votes, is_unsure, plain_answer, read_tree, slug
from truemorph.tables import CatalogTable, first_column, numeric_columns

_MOST_CELLS = 10  # in a message
LARGEST_SUM = 1.01  # of a row's fractions; published fractions are rounded
_MORE_VOTES = 1.5  # times the votes of the answers before a question, and so many more: impossible


def label_column(question: str) -> str:
    """Return the name of a catalogue's column of the classes of a question."""
    return f"label_{slug(question)}"


def gold_column(question: str | None, kind: str = "gold") -> str:
    """Return the name of a catalogue's column of gold labels of a question (None: of the label), or `kind` of it."""
    return kind if question is None else f"{kind}_{slug(question)}"


def vote_column(question: str, answer: str) -> str:
    """Return the name of a catalogue's column of votes for an answer."""
    return f"votes_{slug(question)}_{slug(answer)}"


def described_path(name: str) -> str:
    """Return the description of a catalogue's column of a question."""
    kinds = {
        "gold_probability": ADDED["gold_probability"],
        "gold_uncertain": ADDED["gold_uncertain"],
        "gold_people": "people who gave the gold label",
        "gold_time": "time of their last answer",
        "votes": "number of votes",
        "gold": "gold label",  # after the longer names that begin with it
        "label": "class by the majority of the votes",
    }
    for kind, description in kinds.items():
        if name.startswith(f"{kind}_"):
            return f"{description}: {name.removeprefix(f'{kind}_')}"
    return name


def votes_of_survey(frame: pl.DataFrame, tree: Tree, question: str, source: str) -> tuple[Votes, list[Finding]]:
    """Return the votes for a question and its gates from a survey's table.

    The number of votes for the first question is in a column that the tree names, or in `vote_count`.
    """
    vote_columns = tree.columns(question, frame.columns)
    values = {gate: numeric_columns(frame, names, source) for gate, names in vote_columns.columns.items()}
    findings = [*vote_findings(np.column_stack(list(values.values())), question)]
    if vote_columns.kind == "counts":
        votes = Votes.from_columns(tree, question, values)
        return votes, [*findings, *_impossible_numbers(votes)]
    total = vote_columns.total or "vote_count"
    if total not in frame.columns:
        raise InputError(
            f"{source}: has fractions of votes for {question!r}, but not their number ({', '.join(tree.totals)}); name "
            "it, or give one number for all, such as 40 (vote_count of `columns`)"
        )
    return Votes.from_columns(tree, question, values, numeric_columns(frame, [total], source)[:, 0]), findings


def path_columns(votes: Votes) -> dict[str, pl.Series]:
    """Return the label and the votes of a question as columns of a catalogue."""
    names = [path.name for path in votes.asked.paths]
    columns = {label_column(votes.asked.question): pl.Series(names).gather(votes.paths)}
    for gate in votes.asked.questions:
        parts = zip(gate.answers, votes.counts[gate.name].T, strict=True)
        columns |= {vote_column(gate.name, answer): pl.Series(part) for answer, part in parts}
    return columns


def _impossible_numbers(votes: Votes) -> Iterator[Finding]:
    """Say whether a question has more votes than the answers before it, and whether numbers are fractions."""
    gates, of_answer = votes.asked.questions, dict[str, np.ndarray]()
    if 0 < votes.counts[gates[0].name].sum(axis=1).max() <= LARGEST_SUM:
        message = f"Numbers of votes for {gates[0].name!r} sum to at most 1: they seem to be fractions."
        action = "Describe them as `fractions` in a tree of your own (`tree`), with the number of votes."
        yield Finding("votes-impossible", "caution", message, action)
    for gate in gates:
        before = [answer for answer in gate.asked_after if answer in of_answer]
        more = votes.counts[gate.name].sum(axis=1) > _MORE_VOTES * (sum(of_answer[name] for name in before) + 1)
        if before and more.any():
            message = (
                f"{gate.name!r} has more votes than {' or '.join(before)}, after which it is asked: {which_rows(more)}."
            )
            yield Finding("votes-impossible", "caution", message, "Check the columns of votes.")
        of_answer |= zip(gate.answers, votes.counts[gate.name].T, strict=True)


def flat_tree(question: str, answers: Sequence[str]) -> Tree:
    """Return the tree of one question, from answers, each as "answer=column of its votes", or counted from experts'."""
    pairs = [text.partition("=") for text in answers]
    columns = {name.strip(): [column.strip() or f"experts_{slug(name)}"] for name, _, column in pairs}
    return read_tree({"name": question, "questions": [{"name": question, "answers": columns}]})


def count_experts(table: CatalogTable, tree: Tree, experts: Sequence[str], ids: str | None) -> CatalogTable:
    """Add numbers of votes of experts: each a column of answers, or one column of a table with a row for each expert.

    In the latter the first row of a galaxy gives all other columns. Empty answers are no votes, nor is "cannot tell" if
    it is not one of the answers.
    """
    name, frame = str(table.path or "table"), table.frame
    answers = {answer: columns[0] for answer, columns in tree.root.answers.items()}
    experts = list(dict.fromkeys(experts))
    for column in experts:
        if column not in frame.columns:
            raise InputError(f"{name}: no column {column!r} of an expert's answers; {nearest(column, frame.columns)}")
    frame = frame.with_columns(_expert_answers(frame.select(experts), list(answers), name))
    counts = [
        pl.sum_horizontal(pl.col(expert) == answer for expert in experts).alias(votes)
        for answer, votes in answers.items()
    ]
    frame = frame.with_columns(counts)
    if len(experts) == 1:
        key = ids if ids in frame.columns else first_column(ID_COLUMNS, frame.columns)
        if key is None:
            raise InputError(
                f"{name}: name the column of ids (`id`), so that the experts' rows of a galaxy are counted"
            )
        others = [column for column in frame.columns if column not in (key, *answers.values())]
        frame = frame.group_by(key, maintain_order=True).agg(pl.col(others).first(), pl.col(*answers.values()).sum())
    return replace(table, frame=frame)


def _expert_answers(cells: pl.DataFrame, answers: Sequence[str], source: str) -> pl.DataFrame:
    """Return the answers that experts' cells say, whatever their case and spaces; null if there is none."""
    by_name = {plain_answer(answer): answer for answer in answers}
    texts, odd = cells.cast(pl.String), list[str]()
    for column in texts.columns:
        for row, cell in enumerate(texts[column], 1):
            plain = plain_answer(cell or "")
            if plain and plain not in by_name and not is_unsure(plain):
                odd.append(f"{cell!r} ({column}, row {row})")
    if odd:
        more = f" and {len(odd) - _MOST_CELLS:,d} more" if len(odd) > _MOST_CELLS else ""
        listed = ", ".join(odd[:_MOST_CELLS]) + more
        raise InputError(
            f"{source}: not one of {', '.join(answers)} (`answers`): {listed}; correct or empty these cells"
        )
    read = pl.all().map_elements(lambda cell: by_name.get(plain_answer(cell)), return_dtype=pl.String)
    return texts.select(read)


def answers_inside(tree: Tree) -> tuple[str, ...]:
    """Return the answers to a tree's first question that are classes of labels."""
    return tuple(answer for answer in tree.root.answers if answer not in tree.outside)


def root_columns(tree: Tree, existing: Sequence[str]) -> tuple[dict[str, str], tuple[str, str]]:
    """Return columns of votes that make labels 0 and 1 of a tree's first question, and the names of these classes.

    1 is the answer that is `shown`; if both are, the second.
    """
    root, kinds = tree.root, root_answers(tree)
    columns_of = dict(zip(root.answers, tree.columns(root.name, existing).columns[root.name], strict=True))
    columns = {
        kind: " + ".join('"' + columns_of[answer].replace('"', '""') + '"' for answer in answers)
        if len(answers) > 1
        else columns_of[answers[0]]
        for kind, answers in kinds.items()
        if answers
    }
    return columns, (" or ".join(kinds["smooth"]), " or ".join(kinds["disk"]))


def root_answers(tree: Tree) -> dict[str, list[str]]:
    """Return the answers to a tree's first question that make the labels 0 (smooth), 1 (disk), or none (artefact)."""
    inside = list(answers_inside(tree))
    outside = [answer for answer in tree.root.answers if answer in tree.outside]
    shown = [answer for answer in tree.root.shown if answer in inside]
    if len(shown) in (0, len(inside)):  # all are shown
        shown = inside[1:]
    return {"smooth": [answer for answer in inside if answer not in shown], "disk": shown, "artefact": outside}


def tree_of_classes(classes: Sequence[str]) -> Tree:
    """Return the tree of a label without one: its classes are the answers to one question."""
    return flat_tree(" or ".join(classes), [f"{name}={slug(name)}_votes" for name in classes])


def root_of(catalogue: CatalogTable) -> Asked:
    """Return the first question of a catalogue's tree; without one, that of its label."""
    described = catalogue.metadata.get("tree")
    tree = tree_of_classes(label_classes(catalogue)) if described is None else read_tree(described)
    return Asked(tree, tree.root.name)


def labels_of_answers(root: Asked) -> np.ndarray:
    """Return the label, 0 or 1, of each number of an answer to the first question of a tree; others are unknown."""
    labels = np.full(len(root.answers), UNKNOWN)
    for label, answers in enumerate(list(root_answers(root.tree).values())[:2]):
        labels[[root.numbers[answer] for answer in answers]] = label
    return labels


def asked_of(catalogue: CatalogTable, question: str | None) -> Asked | None:
    """Return a question of a catalogue's tree, by default the first; None for that if it has two classes (labels)."""
    root = root_of(catalogue).question
    if question in (None, root) and len(label_classes(catalogue)) == 2:
        return None
    return asked_in(catalogue, question or root)


def kind_of(asked: Asked | None) -> Kind:
    """Return the kind of a question, as `asked_of` returns it."""
    if asked is None:
        return "two answers"
    return "asked after others" if len(asked.questions) > 1 else "more answers"


def asked_in(catalogue: CatalogTable, question: str) -> Asked:
    """Return a question for which a catalogue has columns of labels and votes."""
    source, described = catalogue.source, catalogue.metadata.get("tree")
    if label_column(question) not in catalogue.frame.columns:
        raise InputError(
            f"{source}: has no labels of the question {question!r}; prepare it with this question (`question`)"
        )
    if described is None:
        raise InputError(
            f"{source}: has labels of the question {question!r}, but not its tree, which only the prepared file has; "
            "give this file, and add columns to the table before it is prepared"
        )
    return Asked(read_tree(described), question)


def read_votes(catalogue: Any, question: str) -> Votes:
    """Read the votes for a question of a decision tree, and for its gates, from a prepared catalogue.

    Parameters
    ----------
    catalogue : path or table
        Catalogue of `truemorph prepare`, with this question.
    question : str
        Name of the question in the tree, such as "bar".

    Returns
    -------
    Votes
        Its `columns`, numbers of votes of shape (N, A), are what `fit_transition`, `posterior` and `DebiasedLoss` take
        in place of labels. Missing numbers are 0.

    Raises
    ------
    InputError
        If the catalogue was prepared without this question.

    Examples
    --------
    >>> from truemorph import prepare_catalogue
    >>> from truemorph.simulate import simulate_survey
    >>> _, table = simulate_survey(200, seed=0)
    >>> votes = read_votes(prepare_catalogue(table, question="bar").catalogue, "bar")
    >>> votes.columns.shape, [question.name for question in votes.asked.questions]
    ((196, 7), ['smooth', 'edge-on', 'bar'])
    """
    table = read_catalogue(catalogue)
    return votes_at_gates(table.frame, Asked(root_of(table).tree, question), table.source)


def votes_at_gates(frame: pl.DataFrame, asked: Asked, source: str) -> Votes:
    """Return the votes of a catalogue's galaxies at the gates of a question and for it; missing ones count as none."""
    counts = {}
    for question in asked.questions:
        columns = [vote_column(question.name, answer) for answer in question.answers]
        lacking = [name for name in columns if name not in frame.columns]
        if lacking:
            raise InputError(f"{source}: has no column {lacking[0]}; prepare it with this question (`question`)")
        counts[question.name] = np.nan_to_num(numeric_columns(frame, columns, source))
    return Votes(asked, counts)


def majority_paths(frame: pl.DataFrame, asked: Asked, source: str) -> np.ndarray:
    """Return the number of each galaxy's majority path, shape (N,)."""
    name = label_column(asked.question)
    if name not in frame.columns:
        raise InputError(f"{source}: has no column {name}; prepare it with this question (`question`)")
    numbers = {path.name: k for k, path in enumerate(asked.paths)}
    return frame[name].replace_strict(numbers, return_dtype=pl.Int64).to_numpy()


def path_labels(frame: pl.DataFrame, asked: Asked, source: str) -> np.ndarray:
    """Return the class of each galaxy's majority path among those that T(α) tells apart, shape (N,)."""
    return np.array(asked.of_paths)[majority_paths(frame, asked, source)]


def path_observations(frame: pl.DataFrame, transition: TreeTransition, source: str) -> np.ndarray:
    """Return what T(α) is of: votes at its gates, shape (N, A), or labels, shape (N,)."""
    if transition.overdispersion is None:
        return path_labels(frame, transition.asked, source)
    return votes_at_gates(frame, transition.asked, source).columns


def given_labels(
    p: np.ndarray, frame: pl.DataFrame, transition: Transition, names: Sequence[str], source: str, gates: bool = False
) -> np.ndarray:
    """Return p(class | observed, α) from p(class) without it, shape (N, K); NaN where that or an observable is unknown.

    What is observed is what T is of: labels, or votes; if `gates`, only the votes that decide who is asked. `names` are
    the columns on which T depends beside α.
    """
    values = numeric_columns(frame, names, source)
    usable = np.isfinite(p).all(axis=1) & np.isfinite(values).all(axis=1)
    galaxies, out = frame.filter(usable), np.full(p.shape, np.nan)
    if isinstance(transition, TreeTransition):
        observed = path_observations(galaxies, transition, source)
        if gates:
            observed[:, transition.asked.parts[-1]] = 0
    else:
        observed = galaxies["label"].to_numpy()
    others = values[usable] if names else None
    out[usable] = posterior(p[usable], observed, galaxies["alpha"].to_numpy(), transition, observables=others)
    return out


def path_evidence(frame: pl.DataFrame, transition: TreeTransition, argument: np.ndarray, source: str) -> np.ndarray:
    """Return log p(votes | y, α) of each galaxy's votes, or of its majority path where T is of labels, shape (N, K)."""
    observations, out = path_observations(frame, transition, source), np.empty((frame.height, transition.n_classes))
    for begin in range(0, frame.height, ROWS):  # T needs several times the memory of the result
        part = slice(begin, begin + ROWS)
        out[part] = label_evidence(transition, observations[part], argument[part])
    return out
