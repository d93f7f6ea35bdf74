"""truemorph gold: choose galaxies for gold labels, label them on a local page, and bring them into a catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
from cyclopts import Parameter
from pydantic import Field

from truemorph.arguments import AtLeastOne, Count, Seed, Shown, Table, validated
from truemorph.bias.curves.transitions import DISK
from truemorph.bias.estimate import Estimate
from truemorph.bias.sample import FEWEST
from truemorph.catalogs.catalogue import TEXT_ID, classes_of, label_classes, read_catalogue
from truemorph.catalogs.other_labels import with_other_labels
from truemorph.catalogs.paths import asked_of, gold_column, labels_of_answers, root_of
from truemorph.catalogs.question_gold import experts_of
from truemorph.catalogs.selected import from_same_images, from_votes
from truemorph.errors import InputError, require_extra
from truemorph.findings import Finding, Findings
from truemorph.gold.agreement import RULE, agreement, misses_on_copies
from truemorph.gold.answers import FIRST, read_answers
from truemorph.gold.importing import (
    GoldColumns,
    about_questions,
    answers_of_table,
    gold_columns_of,
    gold_columns_of_label,
    with_gold,
)
from truemorph.gold.plan import (
    GoldPlan,
    PlanFile,
    PlanOptions,
    checksum,
    images_of,
    make_plan,
    read_about,
    read_chosen,
    read_plan,
    write_plan,
)
from truemorph.gold.session import Source, open_session, read_session, readable_images
from truemorph.images.decode import read_image_file
from truemorph.io import check_not_read, plain, write_file
from truemorph.progress import tell
from truemorph.questions import Asked, Tree
from truemorph.results import PlainResult, Result, text_facts, text_table
from truemorph.tables import CatalogTable, check_holds_metadata, left_join, to_astropy, write_table


@validated
def plan_gold(
    catalogue: Table,
    *,
    error: float | None = None,
    budget: AtLeastOne | None = None,
    bins: AtLeastOne = 8,
    labels: Table | None = None,
    estimate: Shown | None = None,
    by: str = "alpha",
    question: str | None = None,
    definition: str | None = None,
    out: Path | None = None,
    seed: Seed = 0,
) -> GoldPlan:
    """Choose the galaxies that should get a gold label, and how many are needed.

    Galaxies are drawn from strata of α, observed label and, with a model's labels, p(y | x); every galaxy has a known
    probability of selection. Gold labels of the catalogue, such as those of a pilot of 50, improve the prediction.

    Example: truemorph gold plan cat.parquet --error 0.03 --out gold

    Parameters
    ----------
    catalogue : path or table
        Prepared catalogue.
    error : float, optional
        Wanted standard error, by default 0.03, of the fraction of the second class (such as the disk fraction), the
        largest over the bins of α.
    budget : int, optional
        Number of galaxies to label, instead of an error.
    bins : int
        Number of bins of α.
    labels : path or table, optional
        Labels of a model, from truemorph label, which predict the classes; of a question, of a model that answers it.
    estimate : path or Estimate, optional
        Estimate of truemorph transition (.json) that predicts the classes; default one from the labels, or from the
        gold labels of a pilot.
    by : str
        Column in whose bins the fraction is wanted, or two, such as "alpha,surface_brightness".
    question : str, optional
        Question of a decision tree, such as bar: the error is that of the fraction of its answer (bar fraction). The
        catalogue must be prepared for it. Galaxies are drawn from all rows, also those to which it may not apply.
    definition : str, optional
        What counts as the second class, such as "disk: spirals and lenticulars", or as the answers to the question; the
        page shows it. Default: that of the catalogue (truemorph prepare).
    out : path, optional
        Folder for the plan: plan.json, plan.parquet, plan.png; answers are collected there too.
    seed : int
        Random seed.

    Returns
    -------
    GoldPlan

    Raises
    ------
    InputError
        If no galaxy can be labelled, the error or the budget cannot be reached, the folder holds a plan already, or
        the catalogue is not prepared for the question.

    Examples
    --------
    >>> from truemorph import simulate_catalogue
    >>> plan = plan_gold(simulate_catalogue(3000), budget=300)
    >>> 300 <= plan.selected.height <= 320
    True
    """
    if error is not None and budget is not None:
        raise InputError("a plan is for an `error` or for a `budget` of labels; give one of them")
    table = read_catalogue(catalogue)
    p = None if labels is None else _probabilities(table, labels, asked_of(table, question))
    read = estimate if estimate is None or isinstance(estimate, Estimate) else Estimate.read(estimate)
    curve, others = (None, ()) if read is None else (read.curve, read.about.get("observables", ()))
    options = PlanOptions(0.03 if error is None else error, budget, bins, seed, by, question, definition)
    plan = make_plan(table, options, p=p, curve=curve, observables=others)
    return plan if out is None else write_plan(plan, out)


def _probabilities(catalogue: CatalogTable, labels: Any, asked: Asked | None) -> np.ndarray:
    """A model's p of both classes, or of "does not apply" and the answers, (N, K); NaN if unknown or not to be used."""
    joined, (other,) = with_other_labels(catalogue, asked, [labels])
    root = root_of(catalogue)
    _, predictions = other.probabilities(joined.frame, asked or root)
    ids = catalogue.frame.select(TEXT_ID)
    columns = pl.DataFrame(predictions).with_columns(joined.frame["object_id"])
    p = left_join(ids, columns).drop("object_id").to_numpy()
    if asked is not None:
        return p
    p = p @ (labels_of_answers(root) == DISK)
    return np.column_stack([1 - p, p])


@validated
def collect_gold(
    plan: Path,
    *,
    images: Path | None = None,
    better: Path | None = None,
    twins: Count = 0,
    gold_source: Source | None = None,
    port: Annotated[int, Field(ge=0, lt=2**16), Parameter(allow_leading_hyphen=True)] = 8642,
) -> PlainResult:
    """Label the galaxies of a plan on a local page; Ctrl-C ends it.

    The page shows one galaxy at a time, without its observed label, α or id, in an order that is random for each
    person. Every answer is saved before the next galaxy is shown; to resume, run the same command again. Several
    people label one plan under their own names. To label from another computer, forward the port:
    ssh -L 8642:127.0.0.1:8642 HOST

    Example: truemorph gold label gold --images images --better hubble --twins 40

    Parameters
    ----------
    plan : path
        Folder of truemorph gold plan.
    images : path, optional
        Folder of the galaxies' images; default that of the catalogue.
    better : path, optional
        Folder of better images of the same galaxies, named after the id, to show beside them.
    twins : int
        Number of well-resolved galaxies that are shown again, degraded to a low α; they measure the experts' own bias.
    gold_source : str, optional
        Where gold labels come from: better-images, same-images or literature. Default: better-images if most galaxies
        have one, otherwise same-images.
    port : int
        Port of the page on 127.0.0.1; 0 for any that is free.

    Returns
    -------
    PlainResult
        The number of answers of each annotator; `truemorph.gold.answers.read_answers` returns the answers.

    Raises
    ------
    InputError
        If the folder holds no plan of this version, there are no images, or the port is in use.

    Examples
    --------
    >>> collect_gold("absent")
    Traceback (most recent call last):
        ...
    truemorph.errors.InputError: absent: is not the folder of a plan (no plan.json); make one with truemorph gold plan
    """
    require_extra("gold")
    from truemorph.gold.server import serve

    session = open_session(plan, images, better, twins, gold_source)
    if session.better:
        tell(f"{len(session.images):,} galaxies, {len(session.better):,} of them with a better image")
    serve(session, port)
    answers, choices = read_answers(plan), session.about.choices
    first = pl.col("occasion") == FIRST
    annotators = (
        answers.group_by("annotator")
        .agg(
            *(((pl.col("answer") == choice) & first).sum().alias(choice) for choice in choices),
            (~first).sum().alias("repeats and twins"),
            seconds=pl.col("seconds").median(),
        )
        .sort("annotator")
    )
    labelled, galaxies = answers.filter(first)["galaxy"].n_unique(), len(session.images)
    lines = [f"{labelled:,} of {galaxies:,} galaxies answered; source of the gold labels: {session.source}"]
    if annotators.height:
        rows = [[name, *map(str, counts), f"{seconds:.1f}"] for name, *counts, seconds in annotators.iter_rows()]
        header = ["annotator", *choices, "repeats and twins", "seconds each"]
        header[header.index("unclear")] = "can't tell"
        lines += ["", *text_table(header, rows)]
    values = {
        "plan": plan,
        "gold_source": session.source,
        "galaxies": galaxies,
        "annotators": annotators.to_dicts(),
        "findings": session.findings,
    }
    return PlainResult("\n".join(lines), values, session.findings)


class GoldImport(Result):
    """A catalogue with gold labels, and how well people agreed."""

    out: Path  # the catalogue
    catalogue: CatalogTable  # the same, in memory
    agreement: dict[str, Any]  # see `truemorph.gold.agreement.agreement`; empty for tables
    page: Path | None = None  # with the galaxies on which people did not agree
    question: str | None = None  # of a decision tree; None for the label, 0 or 1
    findings: Findings = ()

    @property
    def complete(self) -> bool:
        """Whether there are enough gold labels for an estimate."""
        return not any(finding.code == "gold-too-few" for finding in self.findings)

    @property
    def classes(self) -> dict[str, int]:
        """Number of gold labels of each class."""
        frame = self.catalogue.frame
        if self.question is None:
            return {name: int((frame["gold"] == k).sum()) for k, name in enumerate(classes_of(self.catalogue))}
        return dict(frame[gold_column(self.question)].drop_nulls().value_counts().sort(pl.nth(0)).rows())

    def summary(self) -> str:
        """Return the number of gold labels and the agreement as text."""
        count, agreed = self.to_dict(), self.agreement
        each = ", ".join(f"{n:,} {name}" for name, n in self.classes.items())
        gold = f"{count['gold']:,}: {each}; {count['uncertain']:,} uncertain"
        facts = [("gold labels", gold), ("rule", RULE)]
        for row in agreed.get("pairs", []):
            pair = f"{' and '.join(row['people'])}: {row['agree']:.0%} of {row['galaxies']:,} galaxies, Cohen's"
            facts.append(("agreement", f"{pair} kappa {row['kappa']:.2f} ± {row['kappa_stderr']:.2f}"))
        if every := agreed.get("fleiss"):
            kappa = f"Fleiss' kappa {every['kappa']:.2f} ± {every['kappa_stderr']:.2f}"
            facts.append(("all people", f"{every['galaxies']:,} galaxies, {kappa}"))
        for person in agreed.get("self_consistency", []):
            alike = f"{person['alike']:.0%} of {person['repeats']} repeats answered alike"
            facts.append(("consistency", f"{person['annotator']}: {alike}"))
        for name, twins in agreed.get("twins", {}).items():
            missed = "not measured, because no galaxy with a degraded copy is of this class"
            if twins["galaxies"]:
                missed = f"{twins['missed']:.0%} of {twins['galaxies']} galaxies not recognised on a degraded copy"
            facts.append(("twins", f"{name}: {missed}"))
        if self.page is not None:
            facts.append(("differences", f"{len(agreed['disagreements']):,} galaxies, shown in {self.page}"))
        return "\n".join(text_facts([*facts, ("wrote", str(self.out))]))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        uncertain = gold_column(self.question, "gold_uncertain")
        counts = self.classes
        return plain(
            {
                "out": self.out,
                "gold": sum(counts.values()),
                **(counts if self.question is None else {"question": self.question, "classes": counts}),
                "uncertain": (self.catalogue.frame[uncertain] > 0).sum(),
                "agreement": self.agreement,
                "findings": self.findings,
            }
        )

    def to_table(self) -> Any:
        """Return the catalogue as an astropy table."""
        return to_astropy(self.catalogue)


def _asked_and_meant(
    source: Path, into: CatalogTable, about: PlanFile | None, question: str | None, definition: str | None
) -> tuple[tuple[Tree, str] | None, str | None]:
    """Return tree and question of answers, None for those of the label, and the definition that people saw."""
    target = about.target if about else None
    if about and source.is_dir():
        if question not in (None, about.question):
            raise InputError(f"{source}: its answers are not to {question!r} (`question`)")
        seen = about.definition if target is None else about.question_definition
        if seen and definition is not None:
            raise InputError(f"{source}: people saw the definition {seen!r}; leave out `definition`")
        if target is not None:
            definition = definition or seen or None
    elif target is None or question not in (None, target[1]):
        of_tree = asked_of(into, question)
        target = None if of_tree is None else (of_tree.tree, of_tree.question)
    return target, definition


@validated
def import_gold(
    source: Path,
    *,
    out: Path,
    catalogue: Table | None = None,
    plan: Path | None = None,
    id: str = "object_id",
    column: str = "class",
    workflow: int | None = None,
    gold_source: Source | None = None,
    definition: str | None = None,
    question: str | None = None,
) -> GoldImport:
    """Write gold labels into a catalogue: from a plan's answers, a table, or a Zooniverse classification export.

    The catalogue gets the columns gold, gold_probability, gold_uncertain, gold_people and gold_time; estimates with
    `gold` then take selection and doubt into account. Answers to a question are written to gold_QUESTION,
    gold_probability_QUESTION and so on; those along its gates also give the label, 0 or 1, and are written to the
    former columns unless these have other gold labels.

    Example: truemorph gold import gold --out catalogue-gold.parquet

    Parameters
    ----------
    source : path
        Folder of a plan; a table of ids and classes (and annotators); or the classification export of Zooniverse.
    out : path
        Catalogue to write (.parquet).
    catalogue : path or table, optional
        Prepared catalogue; default that of the plan.
    plan : path, optional
        Folder of the plan whose galaxies a table or a Zooniverse export has, for the probabilities of selection.
    id : str
        Column of a table that has the ids.
    column : str
        Column of a table that has the classes, or an SQL expression: the catalogue's names of them (smooth and disk, if
        it has no others), unclear, artefact, or 0 and 1; for a question its classes, such as edge-on or no bar, cannot
        tell, unclear, artefact.
    workflow : int, optional
        Id of a workflow (`workflow_id`), for a Zooniverse export of several.
    gold_source : str, optional
        better-images, same-images or literature; default that of the session, for tables literature.
    definition : str, optional
        What counts as the second class in a table, such as "disk: spirals and lenticulars, from Hubble images", or as
        the answers to the question. That of a plan is what its page showed.
    question : str, optional
        Question of a decision tree that a table answers; default that of the plan, or the catalogue's first.

    Returns
    -------
    GoldImport

    Raises
    ------
    InputError
        If there are no answers, a class is unknown, or no galaxy is in the catalogue.

    Examples
    --------
    >>> import tempfile
    >>> from truemorph import simulate_catalogue
    >>> folder = Path(tempfile.mkdtemp())
    >>> pl.DataFrame({"object_id": [3, 4], "class": ["disk", "can't tell"]}).write_csv(folder / "mine.csv")
    >>> found = import_gold(folder / "mine.csv", catalogue=simulate_catalogue(100), out=folder / "gold.parquet")
    >>> found.to_dict()["disk"], found.to_dict()["uncertain"]
    (1, 1)
    """
    check_holds_metadata(out)
    check_not_read(out, [source])
    is_plan = source.is_dir()
    folder = source if is_plan else plan
    if catalogue is None and folder is None:
        raise InputError(f"{source}: not a plan; a table of gold labels needs its catalogue (`catalogue`)")
    planned = None if folder is None else read_about(folder)
    into = read_catalogue(planned.catalogue if planned and catalogue is None else catalogue)
    target, definition = _asked_and_meant(source, into, planned, question, definition)
    classes = planned.classes if planned and is_plan and target is None else label_classes(into)
    if planned and planned.sha256 != checksum(into.frame):
        raise InputError(
            f"{into.source}: ids, labels or alpha are not those of the catalogue from which {folder} was "
            f"planned ({planned.catalogue}), so probabilities of selection do not hold; give that one (`catalogue`)"
        )
    measured, page = dict[str, Any](), None
    if is_plan:
        answers, recorded = read_answers(source), read_session(source)
        first = answers.filter(occasion=FIRST)
        if not first.height:
            raise InputError(f"{source}: has no answers yet; collect them with truemorph gold label")
        measured = agreement(answers)
        page = _disagreements_page(source, first, measured["disagreements"], recorded.images, out)
        gold_source = gold_source or recorded.gold_source
        same = first.filter(~pl.col("better") & (gold_source != "literature"))["galaxy"]
    else:
        first = answers_of_table(source, id, column, workflow, classes, target)
        gold_source = gold_source or "literature"
        same = first.filter(gold_source == "same-images")["galaxy"]
    shown = planned.definition if planned and is_plan else ""
    where = str(gold_source) if is_plan or column == "class" else f"{gold_source}, column {column}"
    of_label = f"{classes[1]}: {shown or 'as labelled'} ({where})"
    columns = [gold_columns_of_label(classes)]
    about = dict[str, Any]()
    if target is not None:
        columns = gold_columns_of(*target, into)
        about = about_questions(into, target[1], columns, definition, where)
    elif "gold_along" in into.metadata:
        about["gold_along"] = {name: rule for name, rule in into.metadata["gold_along"].items() if name != "gold"}
    table, findings = with_gold(into, first, None if folder is None else read_chosen(folder), columns)
    labels = table.frame.select(TEXT_ID, *(column.columns[0] for column in columns))
    missed = dict[str, dict[str, Any]]()
    if is_plan:
        for gold in columns:
            missed[gold.columns[0]] = misses_on_copies(answers, gold.given, list(gold.classes), gold.featureless)
        measured["twins"] = missed[columns[0].columns[0]]  # of the question itself
    about |= _about_images(into, columns, labels, first, same, missed)
    if "gold" in labels.columns:
        about |= {"gold_source": gold_source, "gold_definition": of_label if target else definition or of_label}
    table = replace(table, metadata=table.metadata | about)
    write_table(table, out)
    question = None if target is None else target[1]
    imported = GoldImport(out, table, measured, page, question)
    meant = about["gold_definition"] if question is None else about["gold_definitions"][question]
    findings += [*_too_few(imported.classes), *from_same_images(table, question)]
    findings += from_votes(f"{meant} {column}")
    return replace(imported, findings=tuple(findings))


def _about_images(
    into: CatalogTable,
    columns: Sequence[GoldColumns],
    labels: pl.DataFrame,
    first: pl.DataFrame,
    same: pl.Series,
    missed: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Return metadata of a catalogue: gold labels from the images of the observed ones, and what their experts miss.

    `same` are galaxies whose answers are from such images, `missed` what copies showed, by column of gold labels. What
    is known of gold labels of earlier sessions that stay in the catalogue stays, too.
    """
    in_same = labels.filter(pl.col("object_id").is_in(same.implode()))
    kept = labels.filter(~pl.col("object_id").is_in(first["galaxy"].implode()))
    experts, metadata = experts_of(into.metadata, label_classes(into)), into.metadata
    for column in labels.columns[1:]:
        # Copies are shown without the better images that all galaxies had.
        used = {} if same.is_empty() else missed.get(column, {})
        if used or not kept[column].count():
            experts[column] = used

    def count(column: str, before: int) -> int:
        return in_same[column].count() + min(before, kept[column].count())

    about: dict[str, Any] = {"gold_experts": {column: measured for column, measured in experts.items() if measured}}
    if "gold" in labels.columns:
        about["gold_from_same_images"] = count("gold", metadata.get("gold_from_same_images", 0))
    if of_gates := {gold.question: gold.columns[0] for gold in reversed(columns) if gold.question}:
        before = metadata.get("gold_same_images", {})
        about["gold_same_images"] = before | {gate: count(name, before.get(gate, 0)) for gate, name in of_gates.items()}
    return about


def _too_few(counts: dict[str, int]) -> list[Finding]:
    """Return a finding if there are fewer gold labels, by class, than an estimate needs."""
    if sum(counts.values()) >= FEWEST and sum(n > 0 for n in counts.values()) >= 2:
        return []
    listed = " and ".join(f"{n} {name}" for name, n in counts.items()) or "none"
    return [
        Finding(
            "gold-too-few",
            "caution",
            f"Gold labels: {listed}; an estimate needs {FEWEST}, of two classes or more.",
            "Label more galaxies and import again; until then, estimate from labels alone (truemorph transition).",
        )
    ]


def _disagreements_page(
    plan: Path, first: pl.DataFrame, galaxies: list[str], images: str | None, out: Path
) -> Path | None:
    """Write a page of the galaxies on which people did not agree, with what each answered on the first occasion."""
    if not galaxies:
        return None
    from truemorph.report.gallery import jpeg_source, whole_picture
    from truemorph.report.page import Page, Pair, Section, write_page

    about, selected = read_plan(plan)
    root = Path(images or about.image_root or plan)
    files = images_of(selected, root) if root.is_dir() else {}
    pairs = []
    for galaxy in galaxies:
        said = first.filter(galaxy=galaxy).sort("annotator").select("annotator", "answer").rows()
        picture = ""
        with suppress(InputError, KeyError):  # an image that is gone, or can't be read
            picture = jpeg_source(whole_picture(files[galaxy]))
        caption = f"{galaxy}: " + "; ".join(f"{who}: {answer}" for who, answer in said)
        pairs.append(Pair(caption, [("image" if picture else "no readable image", picture)]))
    page = Page(
        title=f"Gold labels of {plan.name}",
        answer=f"People did not agree on {len(galaxies):,} of {first['galaxy'].n_unique():,} galaxies. {RULE}",
        sections=[Section("Galaxies", pairs=pairs)],
    )
    return write_page(page, out.with_name(f"{out.stem}_disagreements.html"))


@validated
def export_gold(plan: Path, *, out: Path, images: Path | None = None) -> PlainResult:
    """Write the images and the manifest of a Zooniverse subject set for the galaxies of a plan.

    Example: truemorph gold export gold --out subjects

    Parameters
    ----------
    plan : path
        Folder of truemorph gold plan.
    out : path
        Folder for manifest.csv and the images; their names do not tell the ids.
    images : path, optional
        Folder of the galaxies' images; default that of the catalogue.

    Returns
    -------
    PlainResult

    Raises
    ------
    InputError
        If the folder holds no plan, or there are no images.

    Examples
    --------
    >>> export_gold("absent", out="subjects")
    Traceback (most recent call last):
        ...
    truemorph.errors.InputError: absent: is not the folder of a plan (no plan.json); make one with truemorph gold plan
    """
    about, selected = read_plan(plan)
    root = images or about.image_root
    if root is None:
        raise InputError(f"{plan}: no folder of images; name one (`images`)")
    paths, findings = readable_images(plan, selected, Path(root))
    names = [f"{number:06d}{path.suffix}" for number, path in enumerate(paths.values())]
    for name, path in zip(names, paths.values(), strict=True):
        write_file(out / name, read_image_file(path))
    subjects = pl.DataFrame({"image": names, "#object_id": list(paths)})  # a hidden column of Zooniverse
    manifest = write_table(subjects, out / "manifest.csv")
    text = f"{len(paths):,} galaxies for Zooniverse: upload {manifest} with the images beside it"
    values = {"out": manifest, "galaxies": len(paths), "findings": findings}
    return PlainResult(text, values, findings)
