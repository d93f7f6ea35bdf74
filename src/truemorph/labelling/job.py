"""One labelling: what is labelled, with what, and where the labels go. Any process can do any part of it."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph._version import __version__
from truemorph.bias.families import described_findings, transition_from_dict, transition_to_dict
from truemorph.bias.transitions import MatrixTransition, Transition
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.classifiers.checkpoint import Classifier, logistic_inputs
from truemorph.errors import InputError
from truemorph.findings import Finding, unique
from truemorph.labelling.decoding import NO_IMAGE, decoded
from truemorph.labelling.engines import Precision, engine_for
from truemorph.labelling.labeller import IN_SAMPLE, Crowd, Labeller
from truemorph.labelling.output import Account, PartWriter, Results, is_table
from truemorph.labelling.parts import Part
from truemorph.labelling.sources import PART_ROWS, Source, open_source
from truemorph.progress import Progress
from truemorph.tables import CatalogTable, frame_hash

NO_FEATURE = "a feature is missing"
_BATCH = 256

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Asked:
    """What is to be labelled, how, and where labels go; see `truemorph.label_galaxies`.

    Attributes
    ----------
    source, out : path
    transition : dict, optional
        T(α) as a fit describes it.
    crowd, image_column, images, precision, gate
        As for `label_galaxies`; `id_column` and `keep` are its `id` and `copy`.
    engine : {"torch", "openvino"}
    threads : int, optional
        Cores that this process may use; default all.
    """

    source: PathLike
    out: PathLike
    transition: dict[str, Any] | None = None
    crowd: PathLike | None = None
    id_column: str | None = None
    image_column: str | None = None
    images: PathLike | None = None
    keep: tuple[str, ...] = ()
    engine: str = "torch"
    precision: Precision = "auto"
    gate: PathLike | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Job:
    """A labelling.

    Attributes
    ----------
    labeller : Labeller
    source : Source
    results : Results
    labels : CatalogTable
        Without rows: columns, units, descriptions and metadata of the tables of labels.
    findings : sequence of Finding
        Of the fits that the labels rest on, and of this labelling.
    threads : int, optional
        Cores that this process may use; default all.
    """

    labeller: Labeller
    source: Source
    results: Results
    labels: CatalogTable
    findings: Sequence[Finding]
    threads: int | None = None

    def label(self, part: Part, progress: Progress) -> Account | None:
        """Label a part; None where it is there or another process has it."""
        held = self.results.claim(part.name)
        if held is None:
            progress.update(part.rows or 0)
            return None
        with held:
            if self.results.is_done(part.name):
                return None
            with self.results.writer(part.name, self.labels) as writer:
                if self.labeller.model.uses_images:
                    _label_images(self, part, writer, progress)
                else:
                    _label_features(self.labeller, str(self.source.path), part, writer, progress)
                writer.finish()
                return writer.account


def open_job(model: Classifier, asked: Asked) -> Job:
    """Get everything ready to label parts.

    Raises
    ------
    InputError
        If there is nothing to label, columns are missing, α is in another unit than the model's, or an engine can't be
        had.
    """
    out = Path(asked.out)
    is_table(out)  # or an error, before anything else
    if out.resolve() == Path(asked.source).resolve():
        raise InputError(f"{out}: would overwrite what is to be labelled; choose another `out`")
    what = open_source(
        asked.source,
        id_column=asked.id_column,
        image_column=asked.image_column,
        images=asked.images,
        keep=asked.keep,
        but=[out, out.with_name(f"{out.stem}.problems.csv"), *out.parent.glob(f"{glob.escape(out.name)}.*.parts")],
    )
    first = next((rows for part in what.parts for rows in part.batches(1)), None)
    if first is None:
        raise InputError(f"{asked.source}: nothing to label")
    joined = None if asked.crowd is None else read_catalogue(asked.crowd)
    has_crowd = joined is not None or what.prepared
    said = what.metadata if joined is None else joined.metadata
    used, findings = _for_posteriors(model, asked.transition, said, has_crowd, str(asked.crowd or asked.source))
    proof = None if asked.precision != "int8" else what if asked.gate is None else open_source(asked.gate)
    engine = engine_for(model, asked.engine, asked.precision, proof, asked.threads)
    labeller = Labeller(
        model,
        engine,
        used,
        has_crowd,
        tuple((name, first.frame[name].dtype) for name in asked.keep),
        first.frame["object_id"].dtype,
        None if joined is None else Crowd.of(joined),
    )
    clash = set(asked.keep) & set(replace(labeller, keep=()).schema)
    if clash:
        raise InputError(f"{asked.source}: {min(clash)!r} can't be kept, labels have a column of that name; rename it")
    follows = {
        "kind": "labels",
        "truemorph_version": __version__,
        "model_hash": model.model_hash,
        "engine": engine.description,
        "transition": None if used is None else _named(used),
        "alpha": said.get("alpha"),
    }
    rests_on = [model.described["transition"], asked.transition if used is not None and asked.transition else {}]
    fitted = unique(*(map(Finding.from_dict, one.get("findings", ())) for one in rests_on))
    metadata = {
        "about": f"labels of galaxies by truemorph {__version__}, model {model.model_hash}",
        **follows,
        "source": what.metadata.get("source", str(asked.source)),
        **{key: said[key] for key in ("votes", "label_rule", "gold_definition") if said.get(key)},
        "trained_on": model.described["catalogue"],
        "trained_through": transition_to_dict(model.transition),
        "findings": [one.to_dict() for one in fitted],
    }
    labels = _without_rows(labeller, what, what if joined is None else joined, metadata)
    columns = ("object_id", "label", "alpha", "split")
    crowd = None if joined is None else frame_hash(joined.frame.select(columns))
    # Not how the source is spelled: another process may know it by another path.
    identity = {**follows, "rows": what.fingerprint, "crowd": crowd, "keep": list(asked.keep)}
    return Job(labeller, what, Results(out, identity), labels, unique(fitted, findings), asked.threads)


def _without_rows(
    labeller: Labeller, source: Source, crowd: Source | CatalogTable, metadata: dict[str, Any]
) -> CatalogTable:
    """Columns of the labels, with units and descriptions; those of copied columns are the source's."""
    origins: dict[str, Source | CatalogTable] = dict.fromkeys(("object_id", *dict(labeller.keep)), source)
    if labeller.crowd:
        origins |= dict.fromkeys(("alpha", "split"), crowd)
    units = {name: one.units[name] for name, one in origins.items() if name in one.units}
    known = {name: one.descriptions[name] for name, one in origins.items() if name in one.descriptions}
    frame = pl.DataFrame(schema=labeller.schema)
    return CatalogTable(frame, units, metadata, descriptions=labeller.descriptions | known)


def _named(transition: Transition) -> dict[str, Any]:
    """Family and parameters; a class of one's own without its table of T(α)."""
    return {key: one for key, one in transition_to_dict(transition).items() if key != "table"}


def _for_posteriors(
    model: Classifier, transition: dict[str, Any] | None, said: dict[str, Any], has_crowd: bool, source: str
) -> tuple[Transition | None, list[Finding]]:
    """Return T(α) for posteriors, None where there is none, and findings about it."""
    own = model.transition
    naive = isinstance(own, MatrixTransition) and own == MatrixTransition.identity(own.n_classes)
    if not has_crowd:
        return None, []
    if naive and transition is None:
        return None, [
            Finding(
                "no-posterior",
                "note",
                "The model was trained without a bias curve, so no posteriors are given: they would repeat the "
                "observed labels.",
                "Give a bias curve (`transition`).",
            )
        ]
    here = said.get("alpha_psf")
    fitted = model.described["catalogue"] if transition is None else transition
    if here != fitted.get("alpha_psf", here):
        raise InputError(
            f"{source}: its α is in units of the PSF's {here}, that of the bias curve in units of the PSF's "
            f"{fitted['alpha_psf']}; prepare the catalogue with the other one"
        )
    if transition is None:
        return own, list(described_findings(model.described["transition"]))
    return transition_from_dict(transition), list(described_findings(transition))


def _label_images(job: Job, part: Part, writer: PartWriter, progress: Progress) -> None:
    labeller = job.labeller
    for rows, images in decoded(labeller.model.config, part.batches(_BATCH), job.threads):
        good = [row for row, image in enumerate(images) if not isinstance(image, str)]
        problems = [(rows.frame["object_id"][row], image) for row, image in enumerate(images) if isinstance(image, str)]
        unreadable = sum(why != NO_IMAGE for _, why in problems)
        _write(labeller, rows.frame, good, [images[row] for row in good], problems, unreadable, writer)
        progress.update(len(images))


def _label_features(labeller: Labeller, source: str, part: Part, writer: PartWriter, progress: Progress) -> None:
    for rows in part.batches(PART_ROWS):
        features = logistic_inputs(rows.frame, labeller.model.config.features, source)
        finite = np.isfinite(features).all(axis=1)
        problems = [(one, NO_FEATURE) for one in rows.frame["object_id"].filter(pl.Series(~finite))]
        _write(labeller, rows.frame, np.flatnonzero(finite).tolist(), features[finite], problems, 0, writer)
        progress.update(rows.frame.height)


def _write(
    labeller: Labeller,
    frame: pl.DataFrame,
    good: list[int],
    inputs: Any,
    problems: list[tuple[Any, str]],
    unreadable: int,
    writer: PartWriter,
) -> None:
    labels = pl.DataFrame(schema=labeller.schema)
    if good:
        chosen = frame if len(good) == frame.height else frame[good]
        labels = labeller.label(chosen, np.stack(inputs) if isinstance(inputs, list) else inputs)
    in_sample = int((labels["relation"] == IN_SAMPLE).sum())
    matched = labels["crowd_label"].count() if labeller.crowd else 0
    account = Account(frame.height, labels.height, len(problems), unreadable, in_sample, matched)
    writer.write(labels, problems, account)
