"""The first stage: the sample with the volunteers' labels (GZ2B), and with debiased labels (GZ2D)."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.transitions import CLASS_NAMES
from truemorph.catalogs.crossmatch import Join
from truemorph.catalogs.mapping import Mapping, detect_mapping, read_mapping, resolve
from truemorph.catalogs.prepare import Preparation, prepare, write_preparation
from truemorph.catalogs.sampling import TEST, draw_sample, sampling_weights, split_galaxies
from truemorph.errors import TruemorphError
from truemorph.findings import Finding
from truemorph.io import file_hash
from truemorph.progress import tell
from truemorph.reproduce.options import Inputs, split_fractions
from truemorph.reproduce.paper import SAMPLE
from truemorph.reproduce.stages import CATALOGUE, DONE, FAILED, TEST_ROWS, Outcome, Stage, Work
from truemorph.tables import CatalogTable, frame_hash, read_table, write_table

EVERYTHING, DEBIASED = "everything.parquet", "gz2d.parquet"
_ID = pl.col("object_id").cast(pl.String).alias("_id")
_FRACTIONS = ("smooth_fraction", "disk_fraction", "artefact_fraction")
# Two hundred columns of Galaxy Zoo 2's later questions.
_LATER_QUESTIONS = r"^t(0[2-9]|1[01])_"


def missing_archives(inputs: Inputs) -> dict[str, dict[str, Any]]:
    """Return the archives of missing inputs, with options of `fetch`; GZ2 first, because SDSS needs its tables."""
    out: dict[str, dict[str, Any]] = {}
    images = inputs.images is None and inputs.image_table is None
    if inputs.table is None or inputs.hart is None or images:
        out["gz2"] = {"images": images}
    if inputs.photometry is None and (inputs.radius is None or inputs.psf_fwhm is None):
        out["sdss"] = {}
    if inputs.sersic_table is None:
        out["simard"] = {}
    return out


def fetch_archive(name: str, data: Path, **chosen: Any) -> Outcome:
    """Fetch an archive into the folder of its name. A failure does not stop stages that have their data."""
    from truemorph.archives.fetch import fetch

    title, status, text, began = f"truemorph fetch {name}", DONE, "", time.perf_counter()
    tell(f"reproduce: {title}")
    try:
        fetch(name, data / name, **chosen)
    except TruemorphError as problem:
        status, text = FAILED, str(problem)
    tell(f"reproduce: {title}: {status}{': ' + text if text else ''}")
    return Outcome(f"fetch-{name}", title, status, text, seconds=round(time.perf_counter() - began, 2))


@lru_cache(maxsize=1)
def _prepared(work: Work) -> Preparation:
    """Prepare all usable galaxies, from which the sample is drawn."""
    inputs = work.inputs
    if inputs.table is None:
        raise work.lacks("a table of Galaxy Zoo 2 votes", "gz2", "`table`")
    table = read_table(inputs.table)
    mapping: Mapping | None = None
    if inputs.mapping is not None:  # sample and split are the paper's
        mapping = read_mapping(inputs.mapping).model_copy(update={"sample": None, "split": None})
    names = table.frame.columns
    columns = {name: one for name, one in (("object_id", inputs.id), ("radius", inputs.radius)) if one}
    kind = mapping or detect_mapping(names, inputs.table, columns)
    if inputs.photometry is None and inputs.radius is None and "radius" in {*kind.columns} - {*resolve(kind, names)}:
        raise work.lacks("Petrosian radii and PSF widths", "sdss", "`photometry`, `radius` and `psf_fwhm`")
    joins: list[Any] = [inputs.image_table, inputs.photometry, inputs.sersic_table]
    if inputs.redshifts is not None:
        own = read_table(inputs.redshifts).frame.select("OBJID", "REDSHIFT").unique("OBJID")
        joins.append(Join(own, columns=("OBJID",)))
        spectroscopic = inputs.photometry and "redshift" in read_table(inputs.photometry).frame.columns
        columns["redshift"] = "coalesce(nullif(redshift, -9999), REDSHIFT)" if spectroscopic else "REDSHIFT"
    prepared = prepare(
        table,
        mapping=mapping,
        joins=[one for one in joins if one is not None],
        columns=columns,
        psf_fwhm=inputs.psf_fwhm,
        psf=inputs.psf,
        images=inputs.images,
        where=inputs.where,
        seed=work.options.seed,
    )
    frame = prepared.catalogue.frame.select(~pl.selectors.matches(_LATER_QUESTIONS))
    return replace(prepared, catalogue=replace(prepared.catalogue, frame=frame))


def _sample_settings(work: Work) -> dict[str, Any]:
    inputs, prepared = work.inputs, _prepared(work)
    hart = inputs.hart and [file_hash(inputs.hart), read_mapping(inputs.hart_mapping).model_dump(mode="json")]
    return {
        "rows": frame_hash(prepared.catalogue.frame),
        "metadata": prepared.catalogue.metadata,
        "findings": [one.to_dict() for one in prepared.findings],
        "funnel": prepared.funnel,
        "columns": [inputs.id, inputs.intrinsic, inputs.features],
        "hart": hart,
        "fraction": work.options.fraction,
        "seed": work.options.seed,
    }


def _hart_labels(work: Work, frame: pl.DataFrame) -> CatalogTable:
    """Return label and fractions from debiased votes of those galaxies that have them, by `_id`."""
    inputs = work.inputs
    table = read_table(inputs.hart)
    own = inputs.id if inputs.id in table.frame.columns else None
    # Hart et al.'s table has no radii; rows that match none are not among the galaxies.
    geometry = frame.select("object_id", sample_radius="radius", sample_psf_fwhm="psf_fwhm")
    prepared = prepare(
        replace(table, frame=table.frame.drop("image", strict=False)),  # use the sample's images
        mapping=inputs.hart_mapping,
        joins=[Join(geometry, columns=("object_id",))],
        columns={"radius": "sample_radius", **({"object_id": own} if own else {})},
        psf_fwhm="sample_psf_fwhm",
        seed=work.options.seed,
    )
    labels = prepared.catalogue.frame.select(_ID, "label", *_FRACTIONS)
    return CatalogTable(labels, metadata={"votes": prepared.catalogue.metadata["votes"]})


def _complete(frame: pl.DataFrame, hart: CatalogTable | None) -> tuple[pl.DataFrame, list[tuple[str, int]]]:
    """Keep galaxies with an image, a label by Hart et al. and a redshift, where these data are there."""
    # As in published code of the paper's lineage. Redshifts count if most galaxies have one.
    conditions = {}
    if frame["image"].count():
        conditions["without image"] = pl.col("image").is_not_null()
    if hart is not None:
        conditions["without label by Hart et al."] = _ID.is_in(hart.frame["_id"].implode())
    if "redshift" in frame.columns and frame["redshift"].count() > frame.height / 2:
        conditions["without redshift"] = pl.col("redshift").is_not_null()
    steps = []
    for what, holds in conditions.items():
        kept = frame.filter(holds)
        steps.append((what, frame.height - kept.height))
        frame = kept
    return frame, [*steps, ("candidates for the sample", frame.height)]


def _draw(frame: pl.DataFrame, work: Work) -> tuple[pl.DataFrame, list[Finding]]:
    """Draw the sample at random by id, with given numbers of each label; return findings too."""
    seed, labels, asked = work.options.seed, frame["label"].to_numpy(), work.options.counts
    # Below full scale, a label with too few galaxies does not reduce the number of the other.
    have = asked if work.options.fraction == 1 else tuple(np.bincount(labels, minlength=2))
    smooth, disk = (int(min(pair)) for pair in zip(asked, have, strict=True))
    chosen, _ = draw_sample(labels, frame["object_id"].to_list(), (smooth, disk), seed)
    sample = frame.filter(pl.Series(chosen))
    split, _ = split_galaxies(sample["object_id"].to_list(), split_fractions(sample.height), seed)
    weights = sampling_weights(labels, chosen)[chosen]
    sample = sample.with_columns(split=pl.Series(split), draw_weight=pl.Series(weights))
    if sample.height == sum(SAMPLE):
        return sample, []
    found = _counts(sample)
    text = (
        f"The sample has {found['smooth']:,} smooth and {found['disk']:,} disk galaxies instead of {SAMPLE[0]:,} and "
        f"{SAMPLE[1]:,}: floors and errors are larger, and networks learn less."
    )
    return sample, [Finding("sample-not-the-papers", "caution", text, "Run at full scale (`scale`) on Galaxy Zoo 2.")]


def _make_sample(work: Work, folder: Path) -> dict[str, Any]:
    inputs, prepared = work.inputs, _prepared(work)
    everything = prepared.catalogue.frame
    hart = None if inputs.hart is None else _hart_labels(work, everything)
    everything, steps = _complete(everything, hart)
    sample, drawn = _draw(everything, work)
    catalogue = replace(prepared.catalogue, frame=sample)
    prepared = replace(
        prepared, catalogue=catalogue, funnel=[*prepared.funnel, *steps], findings=(*prepared.findings, *drawn)
    )
    own = [name for name in ("object_id", "label", "alpha", *inputs.intrinsic) if name in everything.columns]
    write_table(CatalogTable(everything.select(own)), folder / EVERYTHING)
    write_preparation(prepared, folder / CATALOGUE)
    write_table(replace(catalogue, frame=sample.filter(pl.col("split") == TEST)), folder / TEST_ROWS)
    debiased = None if hart is None else _debiased(catalogue, hart)
    if debiased is not None:
        write_table(debiased, folder / DEBIASED)
    return {
        "funnel": dict(prepared.funnel),
        "findings": [one.to_dict() for one in prepared.findings],
        "galaxies": sample.height,
        "labels": _counts(sample),
        "gz2d": debiased and _counts(debiased.frame),
        "splits": dict(sorted(sample["split"].value_counts().rows())),
        "of": everything.height,
        "with_image": int(sample["image"].is_not_null().sum()),
        "alpha": catalogue.metadata["alpha"],
        "votes": catalogue.metadata["votes"],
    }


def _debiased(sample: CatalogTable, hart: CatalogTable) -> CatalogTable:
    """Return galaxies, split, α and images of GZ2B, with labels from debiased votes (GZ2D)."""
    frame = sample.frame.with_columns(_ID).drop("label", *_FRACTIONS)
    frame = frame.join(hart.frame, on="_id", maintain_order="left")
    own = [name for name in sample.frame.columns if name in frame.columns]
    return replace(sample, frame=frame.select(own), metadata=sample.metadata | hart.metadata)


def _counts(frame: pl.DataFrame) -> dict[str, int]:
    return {name: int((frame["label"] == k).sum()) for k, name in enumerate(CLASS_NAMES)}


STAGES = (
    Stage(
        "catalogue",
        "the sample, α, splits, and labels of GZ2B and GZ2D",
        _make_sample,
        settings=_sample_settings,
        by_content=True,
    ),
)
