"""A labelling run: its checks, what its labels rest on, and the parts that any process can label."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph._version import __version__
from truemorph.bias.curves.families import transition_from_dict, transition_to_dict
from truemorph.bias.curves.formulas import MatrixTransition
from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.likelihood import observables_of
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.catalogs.paths import vote_column, votes_at_gates
from truemorph.catalogs.positions import position_columns
from truemorph.classifiers.classifier import Classifier, logistic_inputs
from truemorph.classifiers.engines import EngineName, Precision, engine_for
from truemorph.errors import InputError, check_used
from truemorph.findings import Finding, Findings, findings_in, unique
from truemorph.images.decode import ahead
from truemorph.images.tiles import Tiles, differences, for_model, open_tiles
from truemorph.io import FORMAT_VERSION, PathLike, check_not_read, plain
from truemorph.labelling.hats import NO_POSITION, check_replaceable
from truemorph.labelling.labeller import Labeller
from truemorph.labelling.output import Batch, Results, is_table, parts_folder
from truemorph.labelling.parts import NO_FEATURE, DamagedFile, Galaxies, Part, Rows, decoded
from truemorph.labelling.sources import PART_ROWS, Source, SourceOptions, open_source, proof_of
from truemorph.progress import Progress
from truemorph.questions import columns_of
from truemorph.tables import CatalogTable, frame_hash, missing_in, name_of, numeric_columns

_BATCH = 256
NOT_FINITE = "the model's probabilities are not finite"


@dataclass(frozen=True)
class Labelling:
    """A labelling run, of which any process can label any part; `findings` are about T(α)."""

    labeller: Labeller
    source: Source
    results: Results
    findings: Findings
    catalogue: CatalogTable | None  # of observed labels, if it is in memory
    curves: Sequence[dict[str, Any]]  # T(α) of each question, of posteriors

    def label(self, part: Part, bar: Progress) -> None:
        """Label a part, unless it is done or another process is working on it; list a damaged file instead."""
        held = self.results.claim(part.name)
        if held is None:
            bar.update(part.rows or 0)
            return
        with held:
            if self.results.is_done(part.name):
                return
            marks = self._marks(part)
            try:
                self.results.write(part.name, self._completed(part, marks or {}, bar), marks)
            except DamagedFile as problem:  # labels of its other images are not trusted
                nothing = pl.DataFrame(schema=self.labeller.schema)
                self.results.write(part.name, [(1, nothing, [(part.name, str(problem))])], marks)

    def _marks(self, part: Part) -> dict[str, str] | None:
        """Return by id a hash of what the labels of each image rest on; None if the rows are not in memory."""
        if part.frame is None:
            return None
        if not self.labeller.model.uses_images:  # labels of catalogue features take no time
            return {}
        digests = map(str, part.frame.hash_rows())
        return dict(zip(part.frame["object_id"].cast(pl.String), digests, strict=True))

    def _completed(self, part: Part, marks: dict[str, str], bar: Progress) -> Iterator[Batch]:
        """Label the images of a part that have no labels from an earlier run; yield all in order."""
        kept = self.results.earlier(marks.values())
        if part.frame is None or kept.is_empty():
            yield from self._labelled(part, bar)
            return
        bar.update(kept.height)
        others = partial(_other_batches, part, set(kept["object_id"]))
        new = list(self._labelled(replace(part, batches=others), bar))
        labels = pl.concat([kept, *(labels for _, labels, _ in new)], how="vertical_relaxed")
        labels = part.frame.select("object_id").join(labels, on="object_id", maintain_order="left")
        yield part.frame.height, labels, [galaxy for _, _, listed in new for galaxy in listed]

    def _labelled(self, part: Part, bar: Progress) -> Iterator[Batch]:
        inputs = ((batch, [batch]) for batch in self._inputs(part))
        # A batch begins before the one before it has ended.
        for batch, (labels,) in ahead(self._labels, inputs, threads=self.labeller.engine.at_once):
            listed = list(batch.problems)
            rows_in = batch.rows.height + len(listed)
            bad = {NOT_FINITE: ~pl.all_horizontal(pl.col(columns_of("p", self.labeller.model.classes)).is_finite())}
            if self.results.hats is not None:
                ra, dec = (pl.col(name).cast(pl.Float64, strict=False) for name in self.results.hats)
                bad[NO_POSITION] = ~(ra.is_finite() & dec.is_between(-90, 90)).fill_null(value=False)
            for why, rows in bad.items():
                listed += [(galaxy, why) for galaxy in labels.filter(rows)["object_id"]]
                labels = labels.filter(~rows)
            yield rows_in, labels, listed
            bar.update(rows_in)

    def _labels(self, batch: Galaxies) -> pl.DataFrame:
        """Label the galaxies of a batch that have an input."""
        if batch.rows.is_empty():
            return pl.DataFrame(schema=self.labeller.schema)
        return self.labeller.label(batch.rows, batch.inputs)

    def _inputs(self, part: Part) -> Iterator[Galaxies]:
        """Yield the galaxies of a part in batches, with their inputs."""
        model = self.labeller.model
        if model.uses_images:
            yield from decoded(model.config, part.batches(_BATCH))
            return
        for rows in part.batches(PART_ROWS):
            features = logistic_inputs(rows.frame, model.features, str(self.source.path))
            finite = np.isfinite(features).all(axis=1)
            lacking = [(galaxy, NO_FEATURE) for galaxy in rows.frame["object_id"].filter(~finite)]
            yield Galaxies(rows.frame.filter(finite), features[finite], lacking)


def _other_batches(part: Part, labelled: set[Any], size: int) -> Iterator[Rows]:
    """Yield batches without galaxies that are labelled."""
    for rows in part.batches(size):
        chosen = [row for row, galaxy in enumerate(rows.frame["object_id"]) if galaxy not in labelled]
        if chosen:
            yield Rows(rows.frame[chosen], [rows.images[row] for row in chosen])


@dataclass(frozen=True, kw_only=True)
class LabelOptions(SourceOptions):
    """What is labelled, with what, and where labels go; see `truemorph.label_galaxies`."""

    source: Any
    out: Path
    transition: dict[str, Any] | None = None
    observed: Any = None
    bands: Sequence[str] = ()
    zero_point: float | None = None
    convert: bool = False
    engine: EngineName = "auto"
    precision: Precision = "auto"
    gate: PathLike | None = None
    shard: tuple[int, int] = (1, 1)
    max_bad: float = 1.0

    def check(self, model: Classifier) -> None:
        """Raise an InputError if the results would replace something that is read."""
        out = self.out
        if is_table(out) and self.hats:  # the first refuses what names no table or folder
            raise InputError(f"{out}: HATS is a folder; give a name without extension")
        if self.hats:
            check_replaceable(out)
        read = self.source, self.observed, self.images, self.tiles, self.gate, model.folder
        check_not_read(out, read, self.hats)

    def survey(self, model: Classifier) -> tuple[Tiles | None, str]:
        """Open tiles, by default with the bands and the size of cut-outs that the model was trained on."""
        if self.tiles is None:
            check_used("tiles", False, bands=self.bands, size=self.size, zero_point=self.zero_point)
            return None, ""
        if not model.uses_images:
            raise InputError("this model uses columns, not images; leave out `tiles`")
        trained = model.trained_on.get("cutouts") or {}
        size = self.size or trained.get("size")
        bands = self.bands or trained.get("bands", ())
        if not size:
            raise InputError("give the `size` of cut-outs, such as 40arcsec, or an expression, such as 6 * radius")
        return for_model(open_tiles(self.tiles, bands, self.zero_point), trained, self.convert), size


def open_labelling(model: Classifier, options: LabelOptions) -> Labelling:
    """Check options and prepare everything to label parts."""
    options.check(model)
    survey, size = options.survey(model)
    path, out = Path(name_of(options.source)), options.out
    # A model of columns uses no images, and the catalogue's may be elsewhere.
    images = options.images if model.uses_images else path.parent
    own = [out, out.with_name(f"{out.stem}.problems.csv"), parts_folder(out)]
    source = open_source(options.source, replace(options, images=images, tiles=survey, size=size), own)
    stored, trained = source.table.metadata.get("cutouts"), model.trained_on.get("cutouts")
    if survey is None and stored and trained and (other := differences(stored, trained)):
        raise InputError(f"{path}: its cut-outs have {' and '.join(other)}; label them from their tiles (`tiles`)")
    joined = None if options.observed is None else read_catalogue(options.observed)
    catalogue = joined or source.table
    has_observed = joined is not None or source.prepared
    curves = _curves_for_posteriors(model, options.transition, catalogue) if has_observed else []
    labeller = _labeller(model, options, source, joined, curves)
    ids = source.table.frame["object_id"]
    if joined is not None and len(ids) and labeller.observed_rows(ids).null_count() == len(ids):
        raise no_observed(labeller, source)
    if clash := set(source.keep) & set(labeller.columns):
        raise InputError(f"{path}: {min(clash)!r} can't be copied, because the labels have such a column; rename it")
    of_tiles = () if survey is None else survey.findings
    findings = unique(catalogue.findings, of_tiles, _findings(labeller, catalogue, curves))
    identity = _identity(labeller, catalogue)
    labels = _empty_labels(labeller, source, catalogue, identity, findings)
    identity |= {
        "inputs": [str(path.resolve()) for path in (source.path, source.root)],
        "observed": None if labeller.joined is None else frame_hash(labeller.joined),
        "columns": list(labeller.schema),
    }
    positions = position_columns(source.keep, str(path)) if options.hats else None
    results = Results(out, identity, source.parts, labels, positions)
    return Labelling(labeller, source, results, findings, catalogue if has_observed else None, curves)


def _labeller(
    model: Classifier,
    options: LabelOptions,
    inputs: Source,
    joined: CatalogTable | None,
    curves: Sequence[dict[str, Any]],
) -> Labeller:
    """Return what computes labels, with an engine, and the columns that posteriors need."""
    used = tuple(map(transition_from_dict, curves))
    names = tuple(map(observables_of, curves, used))
    every, catalogue = list(dict.fromkeys(chain(*names))), joined or inputs.table
    empty, source = catalogue.frame.clear(), catalogue.source
    # Columns of a catalogue that posteriors need: labels, α, and votes of a question; fail early.
    columns = ["object_id", *(head.name("label") for head in model.heads), "alpha", "split", *every]
    numeric_columns(empty, every, source)
    for transition in used:
        if isinstance(transition, TreeTransition):
            votes_at_gates(empty, transition.asked, source)
            gates = transition.asked.questions
            columns += [vote_column(gate.name, answer) for gate in gates for answer in gate.answers]
    proof = None
    if options.precision == "int8":
        proof = proof_of(inputs if options.gate is None else open_source(options.gate), model.config)
    return Labeller(
        model,
        engine_for(model, options.engine, options.precision, proof),
        transitions=used,
        observables=names,
        observed=joined is not None or inputs.prepared,
        joined=None if joined is None else joined.frame.select(*dict.fromkeys(columns)),
        copied={column: inputs.table.frame.schema[column] for column in ("object_id", *inputs.keep)},
    )


def _findings(labeller: Labeller, catalogue: CatalogTable, curves: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    """Return findings about columns that are used, the model and T(α)."""
    model = labeller.model
    yield from missing_in(catalogue.frame, [*chain(*labeller.observables), *model.features], catalogue.source)
    yield from model.findings
    yield from findings_in(*curves)
    if labeller.observed and not curves:
        lacking = "The model was trained without a bias curve, so there are no posteriors."
        yield Finding("no-posterior", "note", lacking, "Give a bias curve (`transition`).")
    if labeller.comparison is None and model.folder is not None:
        lacking = "The model has too few held-out training galaxies to compare these galaxies with, or none."
        action = "Train it again with this version, and with more galaxies or folds (`folds`)."
        yield Finding("training-not-compared", "note", lacking, action)


def _identity(labeller: Labeller, catalogue: CatalogTable) -> dict[str, Any]:
    """Return what determines the labels, beside the inputs."""
    through = []
    for transition, names in zip(labeller.transitions, labeller.observables, strict=True):
        described = transition_to_dict(transition)
        described.pop("table", None)  # of a user-defined class
        through.append(described | ({"observables": list(names)} if names else {}))
    return {
        "kind": "labels",
        "truemorph_version": __version__,
        "model_hash": labeller.model.model_hash,
        "engine": labeller.engine.description,
        "transition": through[0] if len(through) == 1 else through or None,
        "alpha": catalogue.metadata.get("alpha"),
    }


def _empty_labels(
    labeller: Labeller, source: Source, catalogue: CatalogTable, identity: dict[str, Any], findings: Findings
) -> CatalogTable:
    """Return a table of labels without rows: columns, units, descriptions and metadata."""
    model, about = labeller.model, catalogue.metadata
    defined = ("votes", "label_rule", "classes", "definition", "gold_definition")
    metadata = {
        "about": f"labels of galaxies by truemorph {__version__}, model {model.model_hash}",
        "format_version": FORMAT_VERSION,
        **identity,
        "source": source.table.metadata.get("source", str(source.path)),  # of a prepared catalogue
        **{key: about[key] for key in defined if about.get(key)},
        "trained_on": model.trained_on,
        "trained_through": transition_to_dict(model.transition),
        **({"questions": questions} if any(questions := [head.question for head in model.heads]) else {}),
        "findings": plain(findings),
    }
    # Copied columns have the units and descriptions of the source.
    origins = dict.fromkeys(labeller.copied, source.table)
    if labeller.observed:
        origins |= dict.fromkeys(("alpha", "split"), catalogue)
    units = {name: origin.units[name] for name, origin in origins.items() if name in origin.units}
    descriptions = {name: text for name, (_, text) in labeller.columns.items()}
    descriptions |= {name: origin.descriptions[name] for name, origin in origins.items() if name in origin.descriptions}
    return CatalogTable(pl.DataFrame(schema=labeller.schema), units, metadata, descriptions=descriptions)


def no_observed(labeller: Labeller, source: Source) -> InputError:
    """Return the error for a catalogue of observed labels that has none of the galaxies."""
    assert labeller.joined is not None
    return InputError(
        f"{source.path}: none of these galaxies is in the catalogue of observed labels (an id there: "
        f"{labeller.joined['object_id'][0]}); give its ids to the images, or name the column that has them (`id`)"
    )


def _curves_for_posteriors(
    model: Classifier, transition: dict[str, Any] | None, catalogue: CatalogTable
) -> list[dict[str, Any]]:
    """Return T(α) of each question in the format of a fit file; none if they would only repeat the observed labels."""
    if transition is None:
        if model.transition == MatrixTransition.identity(model.transition.n_classes):
            return []
        curves, fitted = model.curves, model.trained_on
    else:
        _check_question(model, transition)
        curves, fitted = [transition], transition
    here = catalogue.metadata.get("alpha_psf")
    if here != fitted.get("alpha_psf", here):
        own = f"in units of the PSF's {here}" if here else "of unknown unit"
        curve = f"that of the bias curve in units of the PSF's {fitted['alpha_psf']}"
        raise InputError(f"{catalogue.source}: α is {own}, but {curve}; prepare the catalogue with that unit (`psf`)")
    return curves


def _check_question(model: Classifier, transition: dict[str, Any]) -> None:
    """Raise an InputError unless T(α) is of the one question that a model answers, with its classes."""
    head, *others = model.heads
    if others:
        raise InputError("this model answers several questions; posteriors need the T(α) that it was trained through")
    if transition.get("question") != head.question:
        of_model, of = (question or "its two classes" for question in (head.question, transition.get("question")))
        raise InputError(f"the model is of {of_model}, but T(α) of {of}; give that of the same question (`transition`)")
    classes = transition_from_dict(transition).n_classes
    if classes != len(head.classes):
        raise InputError(
            f"the model tells {len(head.classes)} classes apart, but T(α) {classes}; give the estimate that it was "
            "trained through (`transition`)"
        )
