"""The first stage: the sample with the volunteers' labels (GZ2B), and with debiased labels (GZ2D)."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.archives.provenance import is_local
from truemorph.catalogs.catalogue import TEXT_ID, read_catalogue
from truemorph.catalogs.crossmatch import Join
from truemorph.catalogs.mapping import read_mapping
from truemorph.catalogs.prepare import Preparation, TableSettings, prepare, write_preparation
from truemorph.catalogs.sampling import (
    FRACTIONS_OF_SPLIT,
    TEST,
    candidates,
    draw_sample,
    sampling_weights,
    split_galaxies,
)
from truemorph.errors import InputError, TruemorphError, nearest
from truemorph.findings import Finding
from truemorph.io import file_hash
from truemorph.progress import tell
from truemorph.reproduce.options import FETCHED
from truemorph.reproduce.paper import PAPER
from truemorph.reproduce.stages import CATALOGUE, DONE, FAILED, TEST_ROWS, Outcome, Stage, Values, Work
from truemorph.tables import CatalogTable, frame_hash, left_join, read_table, write_table

DEBIASED = "gz2d.parquet"
# Files that `truemorph fetch` writes in the folder of data.
_VOTES, _REDSHIFTS, _IMAGES = "gz2/zoo2MainSpecz.csv.gz", "gz2/gz2sample.csv.gz", "gz2/images.parquet"
_PHOTOMETRY, _SERSIC = "sdss/photometry.parquet", "simard/table3.parquet"
_FIRST = "t01_smooth_or_features_a0"
_REQUIRED = {  # columns of published tables; without one of them labels would be others, or none
    _VOTES: ("dr7objid", *(f"{_FIRST}{answer}_weighted_fraction"
                           for answer in ("1_smooth", "2_features_or_disk", "3_star_or_artifact"))),
    _REDSHIFTS: ("OBJID", "REDSHIFT"),
}  # fmt: skip
# α with the best PSF of all fields in place of that of the galaxy's own; null where it is unknown.
_BEST_PSF = pl.col("psfWidth_r_best")
BEST_ALPHA = pl.col("alpha") * pl.col("psf_fwhm") / pl.when(_BEST_PSF > 0).then(_BEST_PSF)
_ID = TEXT_ID.alias("_id")
_LABELS = ("label", "smooth_fraction", "disk_fraction", "artefact_fraction")
# Two hundred columns of Galaxy Zoo 2's later questions.
_LATER_QUESTIONS = r"^t(0[2-9]|1[01])_"


def missing_archives(work: Work) -> list[str]:
    """Return the archives of missing files, none with a table of the user; GZ2 first, because SDSS needs its tables."""
    needed = (_VOTES, _IMAGES, FETCHED["hart"], _PHOTOMETRY, _SERSIC) if work.inputs.table is None else ()
    return list(dict.fromkeys(file.partition("/")[0] for file in needed if not (work.data / file).exists()))


def download_plan(archives: Sequence[str]) -> str:
    """Say which archives are fetched, and how long that takes."""
    times = {"gz2": " (3.4 GB, 6 minutes at 10 MB/s)"}
    return "fetches " + ", ".join(f"{name}{times.get(name, ' (tables)')}" for name in archives)


def fetch_archive(name: str, data: Path, **chosen: Any) -> Outcome:
    """Fetch an archive into the folder of its name. A failure does not stop stages that have their data."""
    from truemorph.archives.fetch import fetch

    title, problem, began = f"reproduce: truemorph fetch {name}", "", time.perf_counter()
    tell(title)
    try:
        fetch(name, data / name, **chosen)
    except TruemorphError as error:
        problem = str(error)
    tell(f"{title}: {problem or DONE}")
    return Outcome(f"fetch-{name}", FAILED if problem else DONE, problem, seconds=round(time.perf_counter() - began, 2))


def _published(data: Path, name: str) -> CatalogTable:
    """Read a table as it was published; an InputError names a column that it lacks."""
    table = read_table(data / name)
    for column in _REQUIRED[name]:
        if column not in table.frame.columns:
            near = nearest(column, table.frame.columns, what="columns")
            raise InputError(f"{data / name}: no column {column!r}; {near}: rename it, or fetch the table that has it")
    return table


@lru_cache(maxsize=1)
def _prepared(work: Work) -> Preparation:
    """Prepare all usable galaxies, from which the sample is drawn."""
    data, seed = work.data, work.options.seed
    if work.inputs.table is not None:  # sample and split are the paper's
        own = read_catalogue(work.inputs.table)
        none_dropped = pl.DataFrame(schema={"row": pl.Int64, "object_id": pl.String, "reason": pl.String})
        return Preparation(own, none_dropped, [("galaxies of the catalogue", own.frame.height)], ())
    if not (data / _VOTES).exists():
        raise work.lacks("a table of Galaxy Zoo 2 votes", "gz2", "`table`")
    if not (data / _PHOTOMETRY).exists():
        raise work.lacks("Petrosian radii and PSF widths", "sdss", "`table`")
    joins: list[Any] = [data / file for file in (_IMAGES, _PHOTOMETRY, _SERSIC) if (data / file).exists()]
    if (data / _REDSHIFTS).exists():
        redshifts = _published(data, _REDSHIFTS).frame.select("OBJID", "REDSHIFT").unique("OBJID")
        joins.append(Join(redshifts, columns=("OBJID",)))
    prepared = prepare(
        _published(data, _VOTES), TableSettings(PAPER, joins=joins, sample="all", split=FRACTIONS_OF_SPLIT), seed=seed
    )
    frame = prepared.catalogue.frame.select(~pl.selectors.matches(_LATER_QUESTIONS))
    return replace(prepared, catalogue=replace(prepared.catalogue, frame=frame))


def _simulated(work: Work, metadata: Values) -> list[Finding]:
    """Return the finding that these galaxies are simulated, by their catalogue, or by where they were fetched."""
    fetched = () if work.inputs.table is not None else ("gz2", "sdss", "simard")
    if not (metadata.get("simulated") or any(is_local(work.data / name) for name in fetched)):
        return []
    message = "These galaxies are simulated, so that nothing here is a statement about the real ones, or the paper's."
    return [Finding("archive-simulated", "caution", message, "Fetch the real archives (`fetch`) to test the paper.")]


def _sample_settings(work: Work) -> Values:
    inputs, prepared = work.inputs, _prepared(work)
    return {
        "rows": frame_hash(prepared.catalogue.frame),
        "prepared": [prepared.catalogue.metadata, prepared.funnel, prepared.findings],
        "columns": [inputs.intrinsic, inputs.features],
        "hart": inputs.hart and [file_hash(inputs.hart), read_mapping(inputs.hart_preset).model_dump(mode="json")],
        "sample": [work.options.fraction, work.options.seed],
    }


def _with_hart(work: Work, frame: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Add labels and fractions from debiased votes (hart_label, ...), null where there are none; describe the votes."""
    table = read_table(work.inputs.hart)
    # Hart et al.'s table has no radii; rows that match none are not among the galaxies.
    geometry = frame.select("object_id", sample_radius="radius", sample_psf_fwhm="psf_fwhm")
    prepared = prepare(
        replace(table, frame=table.frame.drop("image", strict=False)),  # use the sample's images
        TableSettings(
            preset=work.inputs.hart_preset,
            joins=[Join(geometry, columns=("object_id",))],
            columns={"radius": "sample_radius"},
            psf_fwhm="sample_psf_fwhm",
        ),
        seed=work.options.seed,
    )
    labels = prepared.catalogue.frame.select(_ID, pl.col(_LABELS).name.prefix("hart_"))
    joined = left_join(frame.drop("hart_label", strict=False).with_columns(_ID), labels, "_id")
    return joined.drop("_id"), prepared.catalogue.metadata["votes"]


def _draw(frame: pl.DataFrame, work: Work) -> pl.DataFrame:
    """Draw the sample at random by id, with given numbers of each label."""
    seed, labels, counts = work.options.seed, frame["label"].to_numpy(), work.options.counts
    # Below full scale, a label with too few galaxies does not reduce the number of the other.
    have = counts if work.options.fraction == 1 else np.bincount(labels, minlength=2)
    chosen, _ = draw_sample(labels, frame["object_id"].to_list(), np.minimum(counts, have).tolist(), seed)
    sample = frame.filter(chosen)
    split, _ = split_galaxies(sample["object_id"].to_list(), work.options.split(sample.height), seed)
    weights = sampling_weights(labels, chosen)[chosen]
    return sample.with_columns(split=split, draw_weight=weights)


def _make_sample(work: Work, folder: Path) -> Values:
    prepared = _prepared(work)
    everything, hart_votes = prepared.catalogue.frame, ""
    if work.inputs.hart is not None:
        everything, hart_votes = _with_hart(work, everything)
    complete, lacking = candidates(everything, read_mapping(PAPER).drawn_with)
    everything = everything.filter(complete)
    steps = [*((f"without {name}", n) for name, n in lacking), ("candidates for the sample", everything.height)]
    sample = _draw(everything, work)
    catalogue = replace(prepared.catalogue, frame=sample)
    prepared = replace(prepared, catalogue=catalogue, funnel=[*prepared.funnel, *steps])
    write_preparation(prepared, folder / CATALOGUE)
    write_table(replace(catalogue, frame=sample.filter(split=TEST)), folder / TEST_ROWS)
    if hart_votes:
        debiased = sample.with_columns(pl.col(f"hart_{name}").alias(name) for name in _LABELS)
        metadata = catalogue.metadata | {"votes": hart_votes}
        write_table(replace(catalogue, frame=debiased, metadata=metadata), folder / DEBIASED)
    return {
        "funnel": dict(prepared.funnel),
        "findings": [*prepared.findings, *_simulated(work, catalogue.metadata)],
        "galaxies": sample.height,
        "of": everything.height,
        "with_image": sample["image"].count(),
    }


STAGES = (
    Stage("catalogue", "the sample, α, splits, and labels of GZ2B and GZ2D", _make_sample, settings=_sample_settings),
)
