"""Label a catalogue or a folder of images, batch by batch, with an account of every row.

For a galaxy that helped to train the model, p(y | x) comes from a member that never saw its label (out of
fold). Where there is no such member (one fold), the posterior is left empty rather than counting the crowd's
label twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tqdm import tqdm

from truemorph._version import __version__
from truemorph.bias.families import transition_from_dict, transition_to_dict
from truemorph.bias.likelihood import posterior
from truemorph.bias.transitions import CLASS_NAMES, DISK, MatrixTransition, Transition
from truemorph.catalogs.catalogue import image_folder, read_catalogue
from truemorph.catalogs.schema import IMAGE_ENDINGS
from truemorph.catalogs.tables import CatalogTable, table_extension
from truemorph.classifiers.checkpoint import Classifier
from truemorph.classifiers.features import logistic_inputs
from truemorph.errors import InputError
from truemorph.images.decode import fits_reading
from truemorph.images.store import check_share, decode_batches
from truemorph.labelling.output import LabelWriter

NEW, IN_SAMPLE = "new", "in_sample"
_BATCH = 256


@dataclass(frozen=True)
class LabelReport:
    """What labelling did: rows in = rows labelled + rows listed as problems."""

    rows_in: int
    labelled: int
    problems: list[tuple[Any, str]]
    notes: list[str]


def folder_as_table(folder: Path) -> CatalogTable:
    """List the images of a folder: `object_id` is the file name without its ending.

    Raises
    ------
    InputError
        If there are none, or two files share a stem.
    """
    files = sorted(p for p in folder.iterdir() if p.name.lower().endswith(IMAGE_ENDINGS))
    if not files:
        raise InputError(f"{folder}: no images ({', '.join(IMAGE_ENDINGS)}) in this folder")
    stems = [p.name[: -len(next(end for end in IMAGE_ENDINGS if p.name.lower().endswith(end)))] for p in files]
    frame = pl.DataFrame({"object_id": stems, "image": [p.name for p in files]})
    twins = frame.filter(pl.col("object_id").is_duplicated())
    if twins.height:
        raise InputError(f"{folder}: two images share the name {twins['object_id'][0]}; rename one")
    return CatalogTable(frame, metadata={"image_root": str(folder), "source": str(folder)})


def _inputs(model: Classifier, table: CatalogTable) -> Iterator[tuple[np.ndarray, np.ndarray, list[tuple[Any, str]]]]:
    """Yield (rows, inputs, problems) batch by batch."""
    frame = table.frame
    ids = frame["object_id"]
    if not model.uses_images:
        features = logistic_inputs(frame, model.config.features, str(table.path))
        missing = np.flatnonzero(~np.isfinite(features).all(axis=1))
        good = np.flatnonzero(np.isfinite(features).all(axis=1))
        yield good, features[good], [(ids[int(i)], "a feature is missing") for i in missing]
        return
    if "image" not in frame.columns:
        raise InputError(f"{table.path}: no image column; run `truemorph prepare` with --images")
    root = image_folder(table)
    names = frame["image"].to_list()
    present = np.array([i for i, name in enumerate(names) if name is not None], dtype=np.int64)
    absent = [(ids[i], "no image") for i, name in enumerate(names) if name is None]
    if not present.size:
        raise InputError(f"{table.path}: no galaxy of this catalogue has an image; prepare it with --images")
    paths = [root / names[i] for i in present]
    first = True
    for batch, images in decode_batches(
        paths, model.config.image_size, model.config.crop, _BATCH, fits_reading(model.config)
    ):
        rows = present[batch]
        kept = [i for i, image in enumerate(images) if not isinstance(image, str)]
        bad = [(ids[int(rows[i])], one) for i, one in enumerate(images) if isinstance(one, str)]
        size = model.config.image_size
        pixels = np.stack([images[i] for i in kept]) if kept else np.zeros((0, size, size, 3), np.uint8)
        yield rows[kept], pixels, (absent if first else []) + bad
        first = False


def _out_of_fold(model: Classifier, inputs: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p(y | x) and its spread over members (NaN where one member speaks alone)."""
    n_members = len(model.members)
    total = np.zeros((len(inputs), len(model.classes)))
    squares, counts = np.zeros(len(inputs)), np.zeros(len(inputs))
    for member in range(n_members):
        # Members of fold f were trained without it; everything outside the folds is new to all members.
        asked = (fold == member // model.config.seeds) | (fold < 0)
        if asked.any():
            p = model.member_probabilities(inputs[asked], member)
            total[asked] += p
            squares[asked] += p[:, DISK] ** 2
            counts[asked] += 1
    mean = total / counts[:, None]
    variance = np.clip(squares / counts - mean[:, DISK] ** 2, 0, None)
    return mean, np.where(counts > 1, np.sqrt(variance), np.nan)


def _labelled(
    model: Classifier,
    table: CatalogTable,
    rows: np.ndarray,
    inputs: np.ndarray,
    transition: Transition | None,
) -> pl.DataFrame:
    frame = table.frame[rows]
    as_text = pl.col("object_id").cast(pl.String)  # a folder's ids are text, a catalogue's often integers
    seen = frame.select(as_text).join(
        model.seen.with_columns(as_text), on="object_id", how="left", maintain_order="left"
    )
    role = seen["role"].fill_null(NEW)
    probabilities, spread = _out_of_fold(model, inputs, seen["fold"].fill_null(-1).to_numpy())
    out: dict[str, Any] = {"object_id": frame["object_id"]}
    out |= {f"p_{name}": probabilities[:, k] for k, name in enumerate(CLASS_NAMES)}
    out |= {
        "p_spread": pl.Series(spread).fill_nan(None),
        "label": np.argmax(probabilities, axis=1),
        "relation": role,
    }
    if "label" in frame.columns and "alpha" in frame.columns:
        crowd, alpha = frame["label"].to_numpy(), frame["alpha"].to_numpy()
        out |= {"crowd_label": crowd, "alpha": alpha, "split": frame["split"]}
        if transition is not None:
            after = posterior(probabilities, crowd, alpha, transition)
            known = role != IN_SAMPLE
            columns = {f"posterior_{name}": after[:, k] for k, name in enumerate(CLASS_NAMES)}
            columns["posterior_label"] = np.argmax(after, axis=1)
            columns["label_quality"] = after[np.arange(len(crowd)), crowd]
            blank = pl.DataFrame(columns).with_columns(pl.when(known).then(pl.all()).otherwise(None))
            out |= {name: blank[name] for name in blank.columns}
    return pl.DataFrame(out)


def label_table(
    model: Classifier,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    transition: dict[str, Any] | None = None,
) -> LabelReport:
    """Label every galaxy of a catalogue, or every image of a folder, and write a table.

    Parameters
    ----------
    model : Classifier
    source : path
        A catalogue written by `truemorph prepare`, or a folder of images.
    out : path
        Where to write: `.parquet` is streamed batch by batch, other formats are gathered first. Rows that
        can't be labelled go to `<name>.problems.csv` beside it.
    transition : dict, optional
        T(α) for the posterior, as `truemorph transition` describes it; default the model's own. A naive model has
        none.

    Returns
    -------
    LabelReport

    Notes
    -----
    Columns: `object_id`, `p_smooth`, `p_disk` (p(y | x)), `p_spread` (standard deviation of p_disk over
    members), `label` (argmax), `relation` ("new", "out_of_fold", "early_stopping", "in_sample"); and where
    the catalogue has crowd labels `crowd_label`, `alpha`, `split`, `posterior_smooth`, `posterior_disk`
    (p(y | x, ỹ, α)), `posterior_label`, `label_quality` (posterior probability that the crowd was right). The
    posterior is null for galaxies the model has memorised (`relation` "in_sample").

    Raises
    ------
    InputError
        If there is nothing to label, more than 5 % of the images are bad, or the catalogue's α is in another
        unit than the model's.
    """
    path = Path(source)
    if Path(out).resolve() == path.resolve():
        raise InputError(f"{out}: would overwrite what is to be labelled; choose another --out")
    table_extension(Path(out))
    table = folder_as_table(path) if path.is_dir() else read_catalogue(path)
    notes = []
    own = model.transition
    naive = isinstance(own, MatrixTransition) and own == MatrixTransition.identity(own.n_classes)
    used = transition_from_dict(transition) if transition is not None else (None if naive else own)
    has_crowd = "label" in table.frame.columns
    if naive and transition is None and has_crowd:
        notes.append("a model trained without T(alpha): no posterior (it would repeat the crowd's label)")
    here = table.metadata.get("alpha_psf")
    fitted = model.described["catalogue"] if transition is None else transition
    if has_crowd and used is not None and here != fitted.get("alpha_psf", here):
        raise InputError(
            f"alpha of {path} is in units of PSF {here}, theta in units of PSF {fitted['alpha_psf']}; "
            "prepare the catalogue with the same --psf"
        )
    metadata = {
        "kind": "labels",
        "truemorph_version": __version__,
        "model_hash": model.model_hash,
        "transition": transition_to_dict(used) if used is not None else None,
        "alpha": table.metadata.get("alpha"),
        "source": table.metadata.get("source", str(path)),
    }
    problems: list[tuple[Any, str]] = []
    labelled, in_sample = 0, 0
    with (
        LabelWriter(Path(out), metadata) as writer,
        tqdm(total=table.frame.height, desc="label", unit="gal", leave=False, disable=None) as progress,
    ):
        for rows, inputs, bad in _inputs(model, table):
            problems += bad
            if rows.size:
                batch = _labelled(model, table, rows, inputs, used)
                writer.write(batch)
                labelled += batch.height
                in_sample += int((batch["relation"] == IN_SAMPLE).sum())
            progress.update(rows.size + len(bad))
        writer.list_problems(problems)
        unreadable = [(one, why) for one, why in problems if why not in ("no image", "a feature is missing")]
        check_share(len(unreadable), labelled + len(unreadable), unreadable)
        if labelled == 0:
            raise InputError(f"{path}: nothing to label ({problems[0][1]})")
        if labelled + len(problems) != table.frame.height:
            raise AssertionError(f"{table.frame.height} rows in, {labelled} labelled, {len(problems)} listed")
        writer.finish()
    if in_sample and has_crowd and used is not None:
        notes.append(
            f"{in_sample} galaxies trained the model's only member: their posterior is empty; "
            "train with --folds 5 to relabel them out of fold"
        )
    return LabelReport(table.frame.height, labelled, problems, notes)
