"""What people can answer about a galaxy: a class of a question, along its gates, or that it cannot be told.

A choice is known by its path, the answers from the first question of the tree on. The last one may be "cannot tell".
Each choice gives a gold label for all questions on its path: anyone who says that there is a bar also says that the
galaxy is not edge-on.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from truemorph.catalogs.paths import root_answers
from truemorph.questions import CANNOT_TELL, NOT_APPLICABLE, Steps, Tree, is_unsure

UNCLEAR, ARTEFACT = "unclear", "artefact"
NEITHER = UNCLEAR, ARTEFACT  # no class
_KEYS = 9


def choices_of_label(classes: Sequence[str]) -> tuple[str, ...]:
    """Return what people can answer without a question of a tree: the class of the label."""
    return (*classes, *NEITHER)


def choices_of(tree: Tree, question: str) -> dict[str, Steps]:
    """Return what people can answer about a question, each with its path; an artefact has none."""
    return _along(tree, question, {})[0]


def levels_of(tree: Tree, question: str, definitions: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the questions on the way to a question, as the page shows them; the first one comes first.

    Each has `question`, `text` and `answers`; an answer has a `key`, its definition, and what follows: the number of
    the next `level`, or the `choice` that it is. A question that is asked after several answers has a level for each.
    """
    return _along(tree, question, definitions)[1]


def _along(tree: Tree, question: str, definitions: Mapping[str, str]) -> tuple[dict[str, Steps], list[dict[str, Any]]]:
    """Return what `choices_of` and `levels_of` return."""
    gates = tree.gates(question)
    names = {path.answers: path.name for path in tree.classes(question)}
    several = sum(path[-1][0] == question for path in names) > len(tree.question(question).answers)
    choices, levels = dict[str, Steps](), list[dict[str, Any]]()

    def chosen(path: Steps) -> str:
        """Name a class, an artefact, or the question at which the galaxy cannot be told."""
        if path[-1][1] == ARTEFACT:
            return ARTEFACT
        name = names.get(path)
        if name is None and path[-1][0] == question and not several:
            name = CANNOT_TELL
        elif name is None:
            name = UNCLEAR if len(path) == 1 else ", ".join(answer for _, answer in path)
        choices[name] = path
        return name

    def follow(name: str, before: Steps) -> int:
        screen, number = tree.question(name), len(levels)
        answers: list[dict[str, Any]] = []
        levels.append({"question": name, "text": screen.text or name, "answers": answers})
        offered = [answer for answer in screen.answers if answer not in tree.outside]
        if not any(map(is_unsure, offered)):
            offered.append(CANNOT_TELL)
        for key, answer in enumerate([*offered, ARTEFACT], 1):
            path = (*before, (name, answer))
            after = [] if name == question else [gate.name for gate in gates if answer in gate.asked_after]
            meant = screen.definitions.get(answer) or definitions.get(answer, "")
            answers.append({"answer": answer, "key": str(key) if key <= _KEYS else "", "definition": meant})
            answers[-1] |= {"level": follow(after[0], path)} if after else {"choice": chosen(path)}
        return number

    follow(tree.root.name, ())
    choices.setdefault(UNCLEAR, ((tree.root.name, CANNOT_TELL),))  # where the first question is the one that is asked
    return choices | {ARTEFACT: ()}, levels


def answer_of_path(question: str, path: Steps, gates: Collection[str]) -> str:
    """Return the answer of a choice to a question on its path, whose `gates` are these; UNCLEAR if it cannot be told.

    The question does not apply to artefacts, nor where another gate has the last answer.
    """
    own = [step for step in path if step[0] in gates]
    if not own:
        return NOT_APPLICABLE
    last, answer = own[-1]
    if answer == CANNOT_TELL or (last == question and is_unsure(answer)):
        return UNCLEAR
    return answer if last == question else NOT_APPLICABLE


def label_of_path(tree: Tree, path: Steps, classes: Sequence[str]) -> str:
    """Return the class of the label, unclear or artefact: what a choice says of the label 0 or 1."""
    if not path:
        return ARTEFACT
    of_root = zip((*classes, ARTEFACT), root_answers(tree).values(), strict=True)
    return next((name for name, answers in of_root if path[0][1] in answers), UNCLEAR)
