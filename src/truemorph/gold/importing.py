"""Gold labels into a catalogue: from a plan's answers, from any table of classes, and from a Zooniverse export."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field, Json

from truemorph.catalogs.catalogue import TEXT_ID, as_ids, label_classes
from truemorph.catalogs.columns import lenticulars
from truemorph.catalogs.expressions import compute, read_expression
from truemorph.catalogs.paths import described_path, gold_column, label_column, root_answers
from truemorph.errors import InputError
from truemorph.findings import Finding
from truemorph.gold.agreement import combined
from truemorph.gold.answers import one_spelling
from truemorph.gold.choices import NEITHER, UNCLEAR, answer_of_path, choices_of, choices_of_label, label_of_path
from truemorph.io import checked
from truemorph.questions import APPLIES, CANNOT_TELL, NOT_APPLICABLE, SMOOTH_OR_DISK, Tree
from truemorph.tables import CatalogTable, left_join, read_table

# Words by which a class of this name is recognised in tables and on Zooniverse.
_WORDS = {
    "smooth": r"0|0\.0|smooth|elliptical",
    "disk": r"1|1\.0|disk|disc|features?( or dis[ck])?|spiral",
    "unclear": r"unclear|can.?t tell|unsure|uncertain",
    "artefact": r"artefact|artifact|star( or art[ei]fact)?",
}
# Nobody looked: no answer, which is not "can't tell".
_NONE = ("", "-1", "-1.0", "nan")
_ZOONIVERSE = ("annotations", "subject_data", "user_name", "created_at")
_COLUMNS = ("gold", "gold_probability", "gold_uncertain", "gold_people", "gold_time")


@dataclass(frozen=True)
class GoldColumns:
    """Gold labels that answers give: columns of a catalogue, and the class of each answer."""

    question: str | None  # None: the label
    classes: Mapping[str, Any]  # value in the first column of each class
    given: Mapping[str, str]  # class of an answer, or unclear, or artefact
    featureless: str | None  # class of all smooth galaxies; None if they are of several
    applies: Mapping[str, str] | None = None  # of a question: whether an answer says that it applies, or unclear

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in the order of `_COLUMNS`."""
        return tuple(gold_column(self.question, column) for column in _COLUMNS)


def gold_columns_of_label(classes: Sequence[str]) -> GoldColumns:
    """Return the gold labels that answers about two classes give: 0 and 1."""
    given = {choice: choice for choice in choices_of_label(classes)}
    return GoldColumns(None, {name: k for k, name in enumerate(classes)}, given, classes[0])


def gold_columns_of(tree: Tree, question: str, catalogue: CatalogTable) -> list[GoldColumns]:
    """Return the gold labels that answers about a question give: its own, and those of the questions on the way.

    The latter are the label, 0 or 1, and questions for which the catalogue is prepared. If such a column has gold
    labels that do not come from answers about this question, they stay as they are.
    """
    choices, every_gold = choices_of(tree, question), list[GoldColumns]()
    smooth = [name for name, path in choices.items() if path and path[0][1] in root_answers(tree)["smooth"]]
    for gate in reversed(tree.gates(question)):
        if label_column(gate.name) in catalogue.frame.columns:
            gates = [before.name for before in tree.gates(gate.name)]
            given = {name: answer_of_path(gate.name, path, gates) for name, path in choices.items()}
            if gate.name == question:  # in tables also without the answer that says so
                given[NOT_APPLICABLE] = NOT_APPLICABLE
            values = {answer: answer for answer in given.values() if answer not in NEITHER}
            reached = {name for name, path in choices.items() if path and path[-1][0] == gate.name}
            applies = {
                name: APPLIES if name in reached or answer in gate.answers else answer for name, answer in given.items()
            }
            featureless = {given[name] for name in smooth} - {UNCLEAR}
            only = featureless.pop() if len(featureless) == 1 else None
            every_gold.append(GoldColumns(gate.name, values, given, only, applies))
    classes = label_classes(catalogue)
    if len(classes) == 2:
        given = {name: label_of_path(tree, path, classes) for name, path in choices.items()}
        every_gold.append(replace(gold_columns_of_label(classes), given=given))
    along = catalogue.metadata.get("gold_along", {})
    kept = {column for column in catalogue.frame.columns if along.get(column) != question} - {gold_column(question)}
    return [gold for gold in every_gold if gold.columns[0] not in kept]


def about_questions(
    catalogue: CatalogTable, question: str, columns: Sequence[GoldColumns], definition: str | None, where: str
) -> dict[str, Any]:
    """Return a catalogue's metadata on gold labels of a question and of those on the way (`columns`)."""
    of_gates = [gold.question for gold in reversed(columns) if gold.question]
    definitions = {gate: f"{gate}: as labelled ({where})" for gate in of_gates}
    definitions |= {question: definition or definitions[question]}
    along = dict.fromkeys(sorted({gold.columns[0] for gold in columns} - {gold_column(question)}), question)
    return {
        "gold_definitions": catalogue.metadata.get("gold_definitions", {}) | definitions,
        "gold_along": catalogue.metadata.get("gold_along", {}) | along,
    }


def class_of(word: str, names: Mapping[str, str]) -> str | None:
    """Return the answer for a word: by its name in lower case, or by a usual word for it; None if it is none."""
    if (plain := word.strip().lower()) in names:
        return names[plain]
    answers = set(names.values()) | set(NEITHER)
    usual = (name for name, pattern in _WORDS.items() if name in answers and re.fullmatch(pattern, plain))
    return next(usual, names.get(re.sub("can.?t tell", CANNOT_TELL, plain)))


def answers_of_table(
    path: Path,
    id_column: str,
    class_column: str,
    workflow: int | None = None,
    classes: Sequence[str] = SMOOTH_OR_DISK,
    question: tuple[Tree, str] | None = None,
) -> pl.DataFrame:
    """Read answers (`annotator`, `galaxy`, `answer`, `time`) from a table or a workflow of a Zooniverse export.

    A table has one row a galaxy, or a galaxy and person, in a column `annotator`. The classes may be an SQL expression.
    Each row without a name is of another person. Of several answers in an export, the latest one of a person counts.
    Answers about a question are its classes, or the answers along its gates, separated by commas.
    """
    names = {number: name for k, name in enumerate(classes) for number in (str(k), f"{k}.0")}
    names |= {name.lower(): name for name in classes}
    if question is not None:
        choices = choices_of(*question)
        names = {", ".join(answer for _, answer in way).lower(): word for word, way in choices.items() if len(way) > 1}
        names |= {word.lower(): word for word in (*choices, NOT_APPLICABLE)}
    frame = read_table(path).frame
    if of_zooniverse := set(_ZOONIVERSE) <= set(frame.columns):
        answers = _of_zooniverse(frame, workflow, str(path), 1 if question is None else None)
    elif workflow is not None:
        raise InputError(f"{path}: only Zooniverse's exports have workflows (`workflow`)")
    else:
        computed = class_column not in frame.columns and not class_column.isidentifier()
        for name in (id_column, *(() if computed else (class_column,))):
            if name not in frame.columns:
                raise InputError(f"{path}: no column {name!r} (`id`, `column`); it has {', '.join(frame.columns)}")
        answers = frame.select(
            annotator="annotator" if "annotator" in frame.columns else pl.lit(path.name),
            galaxy=as_ids(frame[id_column], str(path)),
            answer=compute(read_expression(class_column, str(path)), frame, str(path)) if computed else class_column,
            time=None,
        )
    answers = answers.cast(pl.String).filter(~pl.col("answer").str.strip_chars().str.to_lowercase().is_in(_NONE))
    class_by_word = {word: class_of(word, names) for word in answers["answer"].unique().sort()}
    unknown = [word for word, name in class_by_word.items() if name is None]
    listed = ", ".join(map(repr, unknown[:5]))
    if unknown and question is not None:
        options = "; ".join((*choices, NOT_APPLICABLE))
        raise InputError(f"{path}: unknown classes {listed}; use {options}, or an expression (`column`)")
    if unknown:
        raise InputError(
            f"{path}: unknown classes {listed}; use {', '.join(classes)}, unclear or artefact (or 0 and 1), or an "
            f"expression (`column`), such as \"CASE WHEN class = 'Sb' THEN '{classes[1]}' ELSE class END\""
            f"{lenticulars(unknown, classes)}"
        )
    named = pl.when(pl.col("annotator").str.strip_chars() != "").then("annotator")
    every = named.otherwise(pl.format("unknown {}", pl.int_range(1, pl.len() + 1)))
    spelled = one_spelling(answers.with_columns(pl.col("answer").replace(class_by_word), annotator=every))
    who = ["annotator", "galaxy"]
    twice = spelled.unique([*who, "answer"]).filter(pl.struct(who).is_duplicated())
    if not twice.is_empty() and not of_zooniverse:
        first = twice["galaxy"].sort()[0]
        raise InputError(f"{path}: {first} has several classes; keep one, or add a column annotator (who gave each)")
    return spelled.unique(who, keep="last", maintain_order=True)


class _Classification(BaseModel):
    """What is read from a row of a Zooniverse export."""

    subject_data: Json[Annotated[dict[str, dict[str, Any]], Field(min_length=1)]]
    annotations: Json[Annotated[list[dict[str, Any]], Field(min_length=1)]]
    created_at: Annotated[AwareDatetime, BeforeValidator(lambda one: str(one).replace(" UTC", "Z"))]


def _of_zooniverse(frame: pl.DataFrame, workflow: int | None, source: str, tasks: int | None) -> pl.DataFrame:
    """The answers to the first tasks of a workflow (None: all), separated by commas, in order of time."""
    held = frame["workflow_id"].unique().sort().to_list() if "workflow_id" in frame.columns else [None]
    if workflow not in held and (workflow is not None or len(held) > 1):
        listed = ", ".join(map(str, held))
        raise InputError(f"{source}: has workflows {listed}, each with a question of its own; choose one (`workflow`)")
    rows = []
    for number, row in enumerate(frame.iter_rows(named=True), 1):
        if workflow not in (None, row.get("workflow_id")):
            continue
        record = checked(_Classification, row, f"{source}: row {number}:")
        subject = next(iter(record.subject_data.values()))
        columns = {name.lstrip("#!").lower(): value for name, value in subject.items()}
        if "object_id" not in columns:
            raise InputError(f"{source}: subjects have no metadata object_id; upload them with truemorph gold export")
        values = [annotation.get("value") for annotation in record.annotations[:tasks]]
        several = [text for value in values for text in (value if isinstance(value, list) else [value])]
        if not all(isinstance(text, str | None) for text in several):
            raise InputError(f"{source}: row {number}: an answer is {several[0]!r}, not text; export texts of answers")
        answer = ", ".join(text for text in several if text is not None)
        rows.append((record.created_at, [row["user_name"], str(columns["object_id"]), answer, row["created_at"]]))
    names = ("annotator", "galaxy", "answer", "time")
    ordered = [values for _, values in sorted(rows, key=lambda pair: pair[0])]
    return pl.DataFrame(ordered, schema=dict.fromkeys(names, pl.String), orient="row", strict=False)


def with_gold(
    catalogue: CatalogTable, answers: pl.DataFrame, plan: pl.DataFrame | None, columns: Sequence[GoldColumns]
) -> tuple[CatalogTable, list[Finding]]:
    """Return a catalogue with gold labels from answers (see `combined`), and what was left out.

    With the table of a plan, `gold_probability` is the probability of being selected, times the fraction of the plan
    that was answered, as orders are random; gold labels of earlier plans are kept.
    """
    table, findings = _joined(catalogue, answers, plan, columns[0])
    for other in columns[1:]:  # of questions on the way
        drawn = plan
        if plan is not None and other.columns[0] not in table.frame.columns:  # labels in hand do not answer these
            now = pl.col("probability") - pl.col("before")
            drawn = plan.with_columns(before=pl.lit(0.0), probability=now)
        table, _ = _joined(table, answers, drawn, other)
    names = {name for gold in columns for name in gold.columns}.intersection(table.frame.columns) - set(_COLUMNS)
    described = table.descriptions | {name: described_path(name) for name in names}
    return replace(table, path=None, descriptions=described), findings


def _joined(
    catalogue: CatalogTable, answers: pl.DataFrame, plan: pl.DataFrame | None, into: GoldColumns
) -> tuple[CatalogTable, list[Finding]]:
    """Write the gold labels of one question into a catalogue; see `with_gold`."""
    source = catalogue.source
    frame = catalogue.frame.with_columns(TEXT_ID)
    answer = pl.col("answer")
    # Answers that leave a gate open, as "does not apply" does, are none for it.
    labels = answers.with_columns(answer.replace_strict(into.given, default=None), pl.col("time").cast(pl.String))
    value = pl.col("gold").replace_strict(dict(enumerate(into.classes.values())))
    named = dict(zip(_COLUMNS, into.columns, strict=True))
    gold = combined(labels.drop_nulls("answer"), list(into.classes)).with_columns(value)
    if into.applies is not None:
        applies = answers.with_columns(answer.replace_strict(into.applies, default=None)).drop_nulls("answer")
        # 2 where it is also uncertain whether the question applies.
        more = combined(applies, [NOT_APPLICABLE, APPLIES])["gold_uncertain"]
        gold = gold.with_columns(pl.col("gold_uncertain") + more)
    gold = gold.rename(named, strict=False)
    if gold.join(frame, on="object_id", how="semi").is_empty():
        raise InputError(f"{source}: has none of the {gold.height:,} galaxies with gold labels; are the ids the same?")
    joined, every, outside = frame.drop(into.columns, strict=False), gold.height, 0
    if plan is not None:
        drawn = plan.drop_nulls("position").select("object_id")
        part = drawn["object_id"].is_in(answers["galaxy"].implode()).mean()
        now = pl.col("before") + (pl.col("probability") - pl.col("before")) * part
        selection = plan.select("object_id", "before", now.alias(named["gold_probability"]))
        if (selection["before"] > 0).any() and named["gold"] not in frame.columns:
            raise InputError(
                f"{source}: lacks the gold labels of the pilot that this plan was made after; give the catalogue that "
                "the plan was made from"
            )
        gold = gold.join(drawn, on="object_id", how="semi")
        outside = every - gold.height
        earlier = frame.join(selection.filter(pl.col("before") > 0), on="object_id", how="semi")
        kept = [column for column in gold.columns if column in frame.columns]
        gold = pl.concat([gold, earlier.join(gold, on="object_id", how="anti").select(kept)], how="diagonal_relaxed")
        joined = left_join(joined, selection.drop("before"))
    missing = gold.join(frame, on="object_id", how="anti").height
    joined = left_join(joined, gold)
    lost = f"{missing:,} are not in the catalogue (ids, or dropped by truemorph prepare)"
    action = "Check that the ids are those of the catalogue."
    if outside:
        lost += f", {outside:,} were not drawn by the plan (probability unknown)"
        action = "Check that ids, catalogue and plan belong together, or import them without the plan (`plan`)."
    left_out = Finding("gold-left-out", "caution", f"Galaxies with a class were left out: {lost}.", action)
    joined = joined.with_columns(catalogue.frame["object_id"])  # of its type
    return replace(catalogue, frame=joined), [left_out] if missing or outside else []
