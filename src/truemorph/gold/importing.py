"""Gold labels into a catalogue: from a plan's answers, from any table of classes, and from a Zooniverse export."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from truemorph.catalogs.catalogue import find_images
from truemorph.errors import InputError
from truemorph.gold.agreement import combined
from truemorph.gold.plan import read_plan
from truemorph.tables import CatalogTable, read_table

# Words by which a class is recognised in tables and on Zooniverse.
_WORDS = {
    "smooth": r"0|0\.0|smooth|elliptical",
    "disk": r"1|1\.0|disk|disc|features?( or dis[ck])?|spiral",
    "unclear": r"unclear|can.?t tell|unsure|uncertain",
    "artefact": r"artefact|artifact|star( or art[ei]fact)?",
}
_ZOONIVERSE = ("annotations", "subject_data", "user_name", "created_at")
_COLUMNS = ("gold", "gold_probability", "gold_uncertain", "gold_people", "gold_time")


def class_of(word: object) -> str | None:
    """Return smooth, disk, unclear or artefact for a word, None if it is none of them.

    Examples
    --------
    >>> class_of("Features or disk"), class_of(0), class_of("Star or artifact"), class_of("ring")
    ('disk', 'smooth', 'artefact', None)
    """
    text = "" if word is None else str(word).strip().lower()
    return next((name for name, pattern in _WORDS.items() if re.fullmatch(pattern, text)), None)


def answers_of_table(path: Path, id_column: str, class_column: str) -> pl.DataFrame:
    """Read answers from a table with one row a galaxy (or a galaxy and person, in a column `annotator`).

    Raises
    ------
    InputError
        If a column is absent or a class is unknown.
    """
    frame = read_table(path).frame
    if set(_ZOONIVERSE) <= set(frame.columns):
        return _of_zooniverse(frame, str(path))
    for name in (id_column, class_column):
        if name not in frame.columns:
            raise InputError(f"{path}: no column {name!r} (`id`, `column`); it has {', '.join(frame.columns)}")
    who = frame["annotator"].cast(pl.String) if "annotator" in frame.columns else pl.Series([path.name] * frame.height)
    return _checked(
        frame[id_column].cast(pl.String), frame[class_column].to_list(), who, [None] * frame.height, str(path)
    )


def _of_zooniverse(frame: pl.DataFrame, source: str) -> pl.DataFrame:
    """Read a classification export: the first task's answer of each person to each subject."""
    ids, words = [], []
    for row in frame.iter_rows(named=True):
        subject = next(iter(json.loads(row["subject_data"]).values()))
        known = {name.lstrip("#!").lower(): value for name, value in subject.items()}
        if "object_id" not in known:
            raise InputError(f"{source}: subjects have no metadata object_id; upload them with truemorph gold export")
        ids.append(str(known["object_id"]))
        words.append(json.loads(row["annotations"])[0]["value"])
    times = frame["created_at"].cast(pl.String).to_list()
    return _checked(pl.Series(ids, dtype=pl.String), words, frame["user_name"].cast(pl.String), times, source)


def _checked(ids: pl.Series, words: Sequence[Any], who: pl.Series, times: Sequence[Any], source: str) -> pl.DataFrame:
    # Without a class, or -1, a galaxy has no gold label: nobody looked.
    asked = [word is not None and str(word).strip() not in ("", "-1", "-1.0", "nan") for word in words]
    ids, who = ids.filter(pl.Series(asked)), who.filter(pl.Series(asked))
    words, times = ([one for one, good in zip(some, asked, strict=True) if good] for some in (words, times))
    classes = [class_of(one) for one in words]
    unknown = sorted({str(word) for word, one in zip(words, classes, strict=True) if one is None})
    if unknown:
        raise InputError(
            f"{source}: unknown classes {', '.join(map(repr, unknown[:5]))}; use smooth, disk, unclear or artefact "
            "(or 0 and 1)"
        )
    columns = {"annotator": who.fill_null("?"), "galaxy": ids, "answer": pl.Series(classes, dtype=pl.String)}
    given = [None if one is None else str(one) for one in times]
    found = pl.DataFrame(columns).with_columns(time=pl.Series(given, dtype=pl.String))
    return found.unique(["annotator", "galaxy"], keep="last", maintain_order=True)


def with_gold(
    catalogue: CatalogTable, answers: pl.DataFrame, probability: pl.DataFrame | None, about: dict[str, Any]
) -> CatalogTable:
    """Return a catalogue with gold labels.

    Parameters
    ----------
    catalogue : CatalogTable
    answers : polars.DataFrame
        See `combined`.
    probability : polars.DataFrame, optional
        `object_id`, `probability` of selection and `before`, that of earlier plans, whose gold labels are kept.
    about : dict
        Kept in the metadata: `gold_source`, `gold_definition`.

    Raises
    ------
    InputError
        If none of the galaxies is in the catalogue.
    """
    source = str(catalogue.path or "catalogue")
    frame = catalogue.frame
    ids = frame["object_id"].cast(pl.String)
    gold = combined(answers.with_columns(pl.col("time").cast(pl.String)))
    matched = int(gold["object_id"].is_in(ids.implode()).sum())
    if not matched:
        raise InputError(f"{source}: has none of the {gold.height:,} galaxies with gold labels; are the ids the same?")
    missing, outside = gold.height - matched, 0
    if probability is not None:
        planned = probability.filter(pl.col("probability") > 0)["object_id"].cast(pl.String)
        inside = gold["object_id"].is_in(planned.implode())
        gold, outside = gold.filter(inside), int((~inside).sum())
        missing = min(missing, int((~gold["object_id"].is_in(ids.implode())).sum()))
    if probability is not None and (probability["before"] > 0).any() and "gold" not in frame.columns:
        raise InputError(
            f"{source}: lacks the gold labels of the pilot that this plan was made after; give the catalogue that the "
            "plan was made from"
        )
    if probability is not None:
        gold = pl.concat([gold, _of_pilot(frame, ids, gold, probability)], how="diagonal_relaxed")
    joined = frame.drop(*_COLUMNS, strict=False).with_columns(_id=ids)
    joined = joined.join(gold.rename({"object_id": "_id"}), on="_id", how="left", maintain_order="left")
    if probability is not None:
        drawn = probability.select(_id=pl.col("object_id").cast(pl.String), gold_probability="probability")
        joined = joined.join(drawn, on="_id", how="left", maintain_order="left")
    metadata = {**catalogue.metadata, **about, "gold_missing_from_catalogue": missing, "gold_not_in_plan": outside}
    return CatalogTable(joined.drop("_id"), catalogue.units, metadata, descriptions=catalogue.descriptions)


def _of_pilot(frame: pl.DataFrame, ids: pl.Series, gold: pl.DataFrame, probability: pl.DataFrame) -> pl.DataFrame:
    """Gold labels of a catalogue that earlier plans selected, and that were not answered again."""
    drawn = probability.filter(pl.col("before") > 0)["object_id"].cast(pl.String)
    kept = [one for one in _COLUMNS if one in frame.columns and one != "gold_probability"]
    earlier = frame.select(ids.alias("object_id"), *kept).filter(
        pl.col("object_id").is_in(drawn.implode()), ~pl.col("object_id").is_in(gold["object_id"].implode())
    )
    return earlier.filter(pl.any_horizontal(pl.lit(False), *(pl.col(one).is_not_null() for one in kept)))


def answered_probability(plan: pl.DataFrame, answered: pl.Series) -> pl.DataFrame:
    """Probability that a galaxy was selected and answered, and `before`, that by earlier plans.

    Orders are random, so the probability of this plan is multiplied by the fraction of its galaxies that were answered.
    """
    selected = plan.filter(pl.col("position").is_not_null())
    part = selected["object_id"].is_in(answered.implode()).sum() / max(selected.height, 1)
    now = pl.col("probability") - pl.col("before")
    return plan.select("object_id", "before", probability=pl.col("before") + now * part)


def export_subjects(plan: Path, out: Path, images: Path | None = None) -> tuple[Path, int]:
    """Write images and `manifest.csv` of a Zooniverse subject set; the classes stay hidden from volunteers.

    Returns
    -------
    manifest : Path
    galaxies : int

    Raises
    ------
    InputError
        If the plan has no images.
    """
    about, selected = read_plan(plan)
    root = images or (Path(about["image_root"]) if about.get("image_root") else None)
    if root is None or not root.is_dir():
        raise InputError(f"{plan}: no folder of images; name one (`images`)")
    names = find_images(selected["object_id"], None if selected["image"].is_null().all() else selected["image"], root)
    files = {one: name for one, name in zip(selected["object_id"], names, strict=True) if name is not None}
    if not files:
        raise InputError(f"{root}: has images of none of the galaxies of the plan")
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    for one, name in files.items():
        target = f"{len(rows):06d}{Path(name).suffix}"
        shutil.copyfile(root / name, out / target)
        rows.append({"image": target, "#object_id": one})
    pl.DataFrame(rows).write_csv(out / "manifest.csv")
    return out / "manifest.csv", len(rows)
