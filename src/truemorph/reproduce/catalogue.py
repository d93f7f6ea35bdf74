"""The first stages: the sample with the volunteers' labels (GZ2B), and with debiased labels (GZ2D)."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.transitions import CLASS_NAMES, DISK, SMOOTH
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
from truemorph.reproduce.stages import CATALOGUE, DONE, FAILED, TEST_ROWS, Outcome, Stage, Work, once
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
    known = set() if inputs.table is None else set(read_table(inputs.table).frame.columns)
    if inputs.sersic_table is None and not known.issuperset((*inputs.features, inputs.sersic_index)):
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


@once
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
        joins.append(
            Join(read_table(inputs.redshifts).frame.select("OBJID", "REDSHIFT").unique("OBJID"), columns=("OBJID",))
        )
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


def _sample_from(work: Work) -> dict[str, Any]:
    inputs, prepared = work.inputs, _prepared(work)
    content = {
        "rows": frame_hash(prepared.catalogue.frame),
        "metadata": prepared.catalogue.metadata,
        "findings": [one.to_dict() for one in prepared.findings],
        "funnel": prepared.funnel,
        "columns": [inputs.id, inputs.intrinsic, inputs.features],
        "fraction": work.options.fraction,
        "seed": work.options.seed,
    }
    if inputs.hart is not None:
        content["hart"] = [file_hash(inputs.hart), read_mapping(inputs.hart_mapping).model_dump(mode="json")]
    return content


def _draw(frame: pl.DataFrame, work: Work) -> tuple[pl.DataFrame, list[Finding]]:
    """Draw the sample at random by id, with given numbers of each label; return findings too."""
    seed, labels, asked = work.options.seed, frame["label"].to_numpy(), work.options.counts
    # Below full scale, a label with too few galaxies does not reduce the number of the other.
    have = asked if work.options.fraction == 1 else tuple(np.bincount(labels, minlength=2))
    smooth, disk = (int(min(pair)) for pair in zip(asked, have, strict=True))
    chosen, smaller = draw_sample(labels, frame["object_id"].to_list(), (smooth, disk), seed)
    if (smooth, disk) != asked:
        found = (
            f"The sample has {smooth:,} smooth and {disk:,} disk galaxies; {asked[0]:,} and {asked[1]:,} were needed."
        )
        smaller = Finding("sample-smaller", "caution", found, "Use a larger table, or a smaller scale (`scale`).")
    sample = frame.filter(pl.Series(chosen))
    split, _ = split_galaxies(sample["object_id"].to_list(), split_fractions(sample.height), seed)
    weights = sampling_weights(labels, chosen)[chosen]
    sample = sample.with_columns(split=pl.Series(split), draw_weight=pl.Series(weights))
    return sample, [] if smaller is None else [smaller]


def _complete(frame: pl.DataFrame, work: Work) -> tuple[pl.DataFrame, list[tuple[str, int]]]:
    """Keep galaxies with an image, a label by Hart et al. and a redshift, where these data are there."""
    # As in published code of the paper's lineage. Redshifts count if most galaxies have one.
    conditions = {}
    if frame["image"].count():
        conditions["without image"] = pl.col("image").is_not_null()
    if work.inputs.hart is not None:
        labelled = _hart_labels(work, frame)[0]["_id"]
        conditions["without label by Hart et al."] = pl.col("object_id").cast(pl.String).is_in(labelled.implode())
    if "redshift" in frame.columns and frame["redshift"].count() > frame.height / 2:
        conditions["without redshift"] = pl.col("redshift").is_not_null()
    steps = []
    for what, holds in conditions.items():
        kept = frame.filter(holds)
        steps.append((what, frame.height - kept.height))
        frame = kept
    return frame, [*steps, ("candidates for the sample", frame.height)]


def _make_sample(work: Work, folder: Path) -> dict[str, Any]:
    inputs, prepared = work.inputs, _prepared(work)
    everything, steps = _complete(prepared.catalogue.frame, work)
    prepared = replace(prepared, funnel=[*prepared.funnel, *steps])
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
        "as_drawn_in_the_paper": work.options.fraction == 1 and not drawn and sample.height == sum(SAMPLE),
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


def _debiased_from(work: Work) -> dict[str, Any]:
    if work.inputs.hart is None:
        raise work.lacks("votes debiased by Hart et al. (2016)", "gz2", "`hart`")
    return {"from": work.keys(["catalogue"])}


def _hart_labels(work: Work, frame: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Return label and fractions from debiased votes of those galaxies that have them, by `_id`; name of the votes."""
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
    return prepared.catalogue.frame.select(_ID, "label", *_FRACTIONS), prepared.catalogue.metadata["votes"]


def _make_debiased(work: Work, folder: Path) -> dict[str, Any]:
    """Make GZ2D: galaxies, split, α and images of GZ2B, with labels from debiased votes."""
    sample = work.catalogue()
    debiased, votes = _hart_labels(work, sample.frame)
    both = sample.frame.with_columns(_ID, volunteers="label").drop("label", *_FRACTIONS)
    both = both.join(debiased, on="_id", how="inner", maintain_order="left")
    frame = both.select([name for name in sample.frame.columns if name in both.columns])
    metadata = {**sample.metadata, "votes": votes}
    write_table(replace(sample, frame=frame, metadata=metadata), folder / DEBIASED)
    moved = both.filter(pl.col("volunteers") != pl.col("label"))["label"]
    return {
        "galaxies": frame.height,
        "without_label": sample.frame.height - frame.height,
        "labels": _counts(frame),
        "to_disk": int((moved == DISK).sum()),
        "to_smooth": int((moved == SMOOTH).sum()),
        "votes": metadata["votes"],
    }


STAGES = (
    Stage("catalogue", "the sample, its labels (GZ2B), α and splits", _sample_from, _make_sample),
    Stage("gz2d", "the same galaxies with debiased labels (GZ2D)", _debiased_from, _make_debiased, ("catalogue",)),
)
