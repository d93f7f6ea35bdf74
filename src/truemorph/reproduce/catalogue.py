"""The first stages: the sample with the crowd's labels (GZ2B), and the same galaxies with debiased ones (GZ2D)."""

from __future__ import annotations

import gzip
import os
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from truemorph.bias.transitions import CLASS_NAMES, DISK, SMOOTH
from truemorph.catalogs.catalogue import IMAGE_ENDINGS
from truemorph.catalogs.crossmatch import Join
from truemorph.catalogs.expressions import Expression, compute
from truemorph.catalogs.mapping import Mapping, detect_mapping, read_mapping, resolve
from truemorph.catalogs.prepare import prepare, write_preparation
from truemorph.catalogs.sampling import TEST, draw_sample, sampling_weights, split_galaxies
from truemorph.errors import InputError
from truemorph.findings import Finding
from truemorph.reproduce.fingerprints import names_digest
from truemorph.reproduce.options import Inputs
from truemorph.reproduce.paper import SAMPLE
from truemorph.reproduce.stages import CATALOGUE, TEST_ROWS, Lacks, Stage, Work
from truemorph.tables import CatalogTable, read_table, table_extension, write_table

EVERYTHING, DEBIASED = "everything.parquet", "gz2d.parquet"
_FRACTIONS = ("smooth_fraction", "disk_fraction", "artefact_fraction")
# Answers to Galaxy Zoo 2's later questions, two hundred columns.
_LATER_QUESTIONS = r"^t(0[2-9]|1[01])_"


def column_names(path: Path) -> list[str]:
    """Columns of a table, without reading it where that is possible.

    Raises
    ------
    InputError
        If it can't be read.
    """
    try:
        return _column_names(path)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, pa.ArrowException) as problem:
        raise InputError(f"{path}: can't be read as a table ({' '.join(str(problem).split())[:200]})") from problem


def _column_names(path: Path) -> list[str]:
    extension = table_extension(path)
    if extension == ".parquet":
        return list(pq.read_schema(path).names)
    if extension not in (".csv", ".csv.gz", ".tsv"):
        return read_table(path).frame.columns
    opened = gzip.open if extension == ".csv.gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        first = next((line for line in lines if not line.startswith("#")), "")
    return [name.strip().strip('"') for name in first.split("\t" if extension == ".tsv" else ",")]


def _follows_from(work: Work) -> dict[str, Any] | Lacks:
    inputs = work.inputs
    if inputs.table is None:
        return Lacks("a table of Galaxy Zoo 2 votes", f"truemorph fetch gz2 --out {work.data / 'gz2'}, or `table`")
    names = column_names(Path(inputs.table))
    kind = _mapping(inputs) or detect_mapping(names, inputs.table, inputs.columns())
    found = resolve(kind, names)
    pictured = names if inputs.image_table is None else [*names, *column_names(Path(inputs.image_table))]
    if inputs.photometry is None and inputs.radius is None and "radius" in kind.columns and "radius" not in found:
        how = f"truemorph fetch sdss --out {work.data / 'sdss'}, or `photometry`, `radius` and `psf_fwhm`"
        return Lacks("Petrosian radii and PSF widths", how)
    files = {name: getattr(inputs, name) for name in ("table", "image_table", "photometry", "sersic_table")}
    settings = inputs.model_dump(
        mode="json", include={"id", "radius", "psf_fwhm", "psf", "where", "intrinsic", "features"}
    )
    return {
        **settings,
        "files": {name: work.hashes.of(Path(path)) for name, path in files.items() if path},
        "mapping": None if inputs.mapping is None else kind.model_dump(mode="json"),
        "images": _pictures(work, resolve(kind, pictured).get("image")),
        "share": work.options.size.share,
        "seed": work.options.seed,
    }


def _mapping(inputs: Inputs) -> Mapping | None:
    """What was named; the sample and the split are this experiment's own."""
    if inputs.mapping is None:
        return None
    return read_mapping(inputs.mapping).model_copy(update={"sample": None, "split": None})


def _pictures(work: Work, image: Expression | None) -> list[str]:
    """Where images are looked for, and a hash of which are there: more may come."""
    inputs = work.inputs
    assert inputs.table is not None
    if image is None and inputs.images is None:
        return []
    root = Path(inputs.table).parent if inputs.images is None else Path(inputs.images)
    return [str(root), names_digest(root, _named_folders(inputs, image), IMAGE_ENDINGS)]


def _named_folders(inputs: Inputs, image: Expression | None) -> set[str]:
    """Folders of the images that a table names, below their root, and the root."""
    for path in (inputs.table, inputs.image_table):
        if image is not None and path is not None and set(image.columns) <= set(column_names(Path(path))):
            named = compute(image, read_table(path).frame, str(path)).cast(pl.String).drop_nulls()
            return {"", *(os.path.dirname(name) for name in named)}
    return {""}


def _draw(frame: pl.DataFrame, work: Work) -> tuple[pl.DataFrame, list[Finding]]:
    """Draw the sample at random by id, as many of each label as wanted; return findings too."""
    seed, labels, asked = work.options.seed, frame["label"].to_numpy(), work.options.size.counts
    # Less than the paper's sample keeps no proportion: then every galaxy counts.
    have = asked if work.options.size.whole else tuple(np.bincount(labels, minlength=2))
    smooth, disk = (int(min(pair)) for pair in zip(asked, have, strict=True))
    chosen, smaller = draw_sample(labels, frame["object_id"].to_list(), (smooth, disk), seed)
    if (smooth, disk) != asked:
        found = (
            f"The sample has {smooth:,} smooth and {disk:,} disk galaxies; {asked[0]:,} and {asked[1]:,} were wanted."
        )
        smaller = Finding("sample-smaller", "caution", found, "Use a larger table, or a smaller scale (`scale`).")
    sample = frame.filter(pl.Series(chosen))
    split, _ = split_galaxies(sample["object_id"].to_list(), work.options.size.split(sample.height), seed)
    weights = sampling_weights(labels, chosen)[chosen]
    return sample.with_columns(split=pl.Series(split), draw_weight=pl.Series(weights)), [] if smaller is None else [
        smaller
    ]


def _make(work: Work, folder: Path) -> dict[str, Any]:
    inputs = work.inputs
    prepared = prepare(
        inputs.table,
        mapping=_mapping(inputs),
        joins=[one for one in (inputs.image_table, inputs.photometry, inputs.sersic_table) if one is not None],
        columns=inputs.columns(),
        psf_fwhm=inputs.psf_fwhm,
        psf=inputs.psf,
        images=inputs.images,
        where=inputs.where,
        seed=work.options.seed,
    )
    everything = prepared.catalogue.frame.select(~pl.selectors.matches(_LATER_QUESTIONS))
    sample, drawn = _draw(everything, work)
    findings = (*prepared.findings, *drawn)
    catalogue = replace(prepared.catalogue, frame=sample)
    own = [name for name in ("object_id", "label", "alpha", *inputs.intrinsic) if name in everything.columns]
    write_table(CatalogTable(everything.select(own)), folder / EVERYTHING)
    write_preparation(replace(prepared, catalogue=catalogue, findings=findings), folder / CATALOGUE)
    write_table(replace(catalogue, frame=sample.filter(pl.col("split") == TEST)), folder / TEST_ROWS)
    return {
        "funnel": dict(prepared.funnel),
        "findings": [one.to_dict() for one in findings],
        "galaxies": sample.height,
        "labels": _counts(sample),
        "splits": dict(sorted(sample["split"].value_counts().rows())),
        "of": everything.height,
        "labels_of_all": _counts(everything),
        "as_drawn_in_the_paper": work.options.size.whole and not drawn and sample.height == sum(SAMPLE),
        "with_image": int(sample["image"].is_not_null().sum()),
        "known": {
            name: int(sample[name].cast(pl.Float64, strict=False).fill_null(np.nan).is_finite().sum())
            for name in (*inputs.intrinsic, *inputs.features)
            if name in sample.columns
        },
        "alpha": catalogue.metadata["alpha"],
        "votes": catalogue.metadata["votes"],
    }


def _counts(frame: pl.DataFrame) -> dict[str, int]:
    return {name: int((frame["label"] == k).sum()) for k, name in enumerate(CLASS_NAMES)}


def _debiased_follows_from(work: Work) -> dict[str, Any] | Lacks:
    if work.inputs.hart is None:
        return Lacks(
            "votes debiased by Hart et al. (2016)", f"truemorph fetch gz2 --out {work.data / 'gz2'}, or `hart`"
        )
    return {
        "hart": work.hashes.of(Path(work.inputs.hart)),
        "mapping": read_mapping(work.inputs.hart_mapping).model_dump(mode="json"),
        "id": work.inputs.id,
        "catalogue": work.outcomes["catalogue"].key,
    }


def _make_debiased(work: Work, folder: Path) -> dict[str, Any]:
    """GZ2D: galaxies, split, α and images of GZ2B, labels of the debiased votes."""
    inputs, sample = work.inputs, work.catalogue()
    assert inputs.hart is not None
    table = read_table(inputs.hart)
    own = inputs.id if inputs.id in table.frame.columns else None
    # That table has no radii of its own; rows without these are of galaxies that are not in the sample.
    geometry = sample.frame.select("object_id", sample_radius="radius", sample_psf_fwhm="psf_fwhm")
    prepared = prepare(
        replace(table, frame=table.frame.drop("image", strict=False)),  # images are the sample's
        mapping=inputs.hart_mapping,
        joins=[Join(geometry, columns=("object_id",))],
        columns={"radius": "sample_radius", **({"object_id": own} if own else {})},
        psf_fwhm="sample_psf_fwhm",
        seed=work.options.seed,
    )
    said = prepared.catalogue.frame.select(pl.col("object_id").cast(pl.String).alias("_id"), "label", *_FRACTIONS)
    crowd = sample.frame.with_columns(pl.col("object_id").cast(pl.String).alias("_id"), crowd_label="label")
    both = crowd.drop("label", *_FRACTIONS).join(said, on="_id", how="inner", maintain_order="left")
    frame = both.select([name for name in sample.frame.columns if name in both.columns])
    metadata = {**sample.metadata, "votes": prepared.catalogue.metadata["votes"]}
    write_table(replace(sample, frame=frame, metadata=metadata), folder / DEBIASED)
    moved = both.filter(pl.col("crowd_label") != pl.col("label"))["label"]
    return {
        "galaxies": frame.height,
        "without_label": sample.frame.height - frame.height,
        "labels": _counts(frame),
        "to_disk": int((moved == DISK).sum()),
        "to_smooth": int((moved == SMOOTH).sum()),
        "votes": metadata["votes"],
    }


STAGES = (
    Stage("catalogue", "the sample, its labels (GZ2B), α and splits", _follows_from, _make),
    Stage(
        "gz2d", "the same galaxies with debiased labels (GZ2D)", _debiased_follows_from, _make_debiased, ("catalogue",)
    ),
)
