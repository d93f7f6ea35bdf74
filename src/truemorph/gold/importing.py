"""Gold labels into a catalogue: from a plan's answers, from any table of classes, and from a Zooniverse export."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import polars as pl

from truemorph.errors import InputError
from truemorph.findings import Finding
from truemorph.gold.agreement import combined
from truemorph.gold.plan import images_of, read_plan
from truemorph.tables import CatalogTable, read_table

# Words by which a class is recognised in tables and on Zooniverse.
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


def class_of(word: str) -> str | None:
    """Return smooth, disk, unclear or artefact for a word, None if it is none of them."""
    return next((name for name, pattern in _WORDS.items() if re.fullmatch(pattern, word.strip().lower())), None)


def answers_of_table(path: Path, id_column: str, class_column: str) -> pl.DataFrame:
    """Read answers (`annotator`, `galaxy`, `answer`, `time`) from a table or a Zooniverse classification export.

    A table has one row a galaxy, or a galaxy and person, in a column `annotator`.
    """
    frame = read_table(path).frame
    if set(_ZOONIVERSE) <= set(frame.columns):
        given = _of_zooniverse(frame, str(path))
    else:
        for name in (id_column, class_column):
            if name not in frame.columns:
                raise InputError(f"{path}: no column {name!r} (`id`, `column`); it has {', '.join(frame.columns)}")
        given = frame.select(
            annotator="annotator" if "annotator" in frame.columns else pl.lit(path.name),
            galaxy=id_column,
            answer=class_column,
            time=None,
        )
    given = given.cast(pl.String).filter(~pl.col("answer").str.strip_chars().str.to_lowercase().is_in(_NONE))
    classes = {word: class_of(word) for word in given["answer"].unique().sort()}
    unknown = [word for word, one in classes.items() if one is None]
    if unknown:
        raise InputError(
            f"{path}: unknown classes {', '.join(map(repr, unknown[:5]))}; use smooth, disk, unclear or artefact "
            "(or 0 and 1)"
        )
    found = given.with_columns(pl.col("annotator").fill_null("?"), pl.col("answer").replace(classes))
    return found.unique(["annotator", "galaxy"], keep="last", maintain_order=True)


def _of_zooniverse(frame: pl.DataFrame, source: str) -> pl.DataFrame:
    """The first task's answer of each person to each subject."""
    rows = []
    for row in frame.iter_rows(named=True):
        subject = next(iter(json.loads(row["subject_data"]).values()))
        known = {name.lstrip("#!").lower(): value for name, value in subject.items()}
        if "object_id" not in known:
            raise InputError(f"{source}: subjects have no metadata object_id; upload them with truemorph gold export")
        answer = json.loads(row["annotations"])[0]["value"]
        rows.append([row["user_name"], str(known["object_id"]), answer, row["created_at"]])
    names = ("annotator", "galaxy", "answer", "time")
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row", strict=False)


def with_gold(
    catalogue: CatalogTable, answers: pl.DataFrame, selection: pl.DataFrame | None, about: dict[str, Any]
) -> tuple[CatalogTable, list[Finding]]:
    """Return a catalogue with gold labels from answers (see `combined`), and what was left out.

    `selection`, of galaxies that were chosen by a plan, is that of `answered_probability`: gold labels of earlier plans
    are kept. `about` is added to the metadata.
    """
    source = str(catalogue.path or "catalogue")
    frame = catalogue.frame.with_columns(_id=pl.col("object_id").cast(pl.String))
    gold = combined(answers.with_columns(pl.col("time").cast(pl.String))).rename({"object_id": "_id"})
    if gold.join(frame, on="_id", how="semi").is_empty():
        raise InputError(f"{source}: has none of the {gold.height:,} galaxies with gold labels; are the ids the same?")
    every = gold.height
    if selection is not None:
        gold = gold.join(selection.filter(pl.col("gold_probability") > 0), on="_id", how="semi")
    outside, missing = every - gold.height, gold.join(frame, on="_id", how="anti").height
    if selection is not None:
        if (selection["before"] > 0).any() and "gold" not in frame.columns:
            raise InputError(
                f"{source}: lacks the gold labels of the pilot that this plan was made after; give the catalogue that "
                "the plan was made from"
            )
        earlier = frame.join(selection.filter(pl.col("before") > 0), on="_id", how="semi")
        kept = [one for one in gold.columns if one in frame.columns]
        gold = pl.concat([gold, earlier.join(gold, on="_id", how="anti").select(kept)], how="diagonal_relaxed")
    joined = frame.drop(_COLUMNS, strict=False).join(gold, on="_id", how="left", maintain_order="left")
    if selection is not None:
        joined = joined.join(selection.drop("before"), on="_id", how="left", maintain_order="left")
    metadata = {**catalogue.metadata, **about}
    table = CatalogTable(joined.drop("_id"), catalogue.units, metadata, descriptions=catalogue.descriptions)
    findings = []
    if missing:
        said = f"{missing:,} galaxies with gold labels are not in the catalogue and were left out."
        todo = "Check that ids and catalogue are those that the labels were made for."
        findings.append(Finding("gold-not-in-catalogue", "caution", said, todo))
    if outside:
        said = f"{outside:,} galaxies with a class could not be selected by the plan and were left out."
        todo = "Import them without the plan, or check that it is the plan of these galaxies (`plan`)."
        findings.append(Finding("gold-not-in-plan", "caution", said, todo))
    return table, findings


def answered_probability(plan: pl.DataFrame, answered: pl.Series) -> pl.DataFrame:
    """Probability that a galaxy (`_id`) was selected and answered (`gold_probability`), and `before`, by earlier plans.

    Orders are random, so the probability of this plan is multiplied by the fraction of its galaxies that were answered.
    """
    selected = plan.filter(pl.col("position").is_not_null())
    part = selected["object_id"].is_in(answered.implode()).sum() / selected.height
    now = pl.col("probability") - pl.col("before")
    return plan.select(
        pl.col("object_id").cast(pl.String).alias("_id"), "before", gold_probability=pl.col("before") + now * part
    )


def export_subjects(plan: Path, out: Path, images: Path | None = None) -> tuple[Path, int]:
    """Write images and `manifest.csv` of a Zooniverse subject set; returns the manifest and the number of galaxies.

    Ids are in a column that volunteers do not see (#).
    """
    about, selected = read_plan(plan)
    root = images or about.get("image_root")
    if root is None:
        raise InputError(f"{plan}: no folder of images; name one (`images`)")
    found = images_of(selected, Path(root))
    if not found:
        raise InputError(f"{root}: has images of none of the galaxies of the plan")
    out.mkdir(parents=True, exist_ok=True)
    names = [f"{number:06d}{path.suffix}" for number, path in enumerate(found.values())]
    for name, path in zip(names, found.values(), strict=True):
        shutil.copyfile(path, out / name)
    pl.DataFrame({"image": names, "#object_id": list(found)}).write_csv(out / "manifest.csv")
    return out / "manifest.csv", len(found)
