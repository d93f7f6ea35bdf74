"""Label whatever holds images, or a catalogue: part by part, with an account of every row."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tqdm import tqdm

from truemorph._version import __version__
from truemorph.bias.families import transition_from_dict, transition_to_dict
from truemorph.bias.transitions import MatrixTransition, Transition
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.classifiers.checkpoint import Classifier
from truemorph.classifiers.features import logistic_inputs
from truemorph.errors import InputError
from truemorph.images.decode import fits_reading, load_image
from truemorph.images.store import MAXIMUM_BAD_SHARE
from truemorph.labelling.engines import Precision, engine_for
from truemorph.labelling.labeller import IN_SAMPLE, Crowd, Labeller
from truemorph.labelling.output import Account, PartWriter, Results
from truemorph.labelling.sources import PART_ROWS, Image, Part, Rows, Source, open_source

_BATCH = 256
_NO_IMAGE, _NO_FEATURE = "no image", "a feature is missing"
# Fewer rows than this don't say that a set of images is bad.
_ENOUGH = 1_000


@dataclass(frozen=True)
class LabelReport:
    """What labelling did: rows in = rows labelled + rows listed as problems.

    Attributes
    ----------
    rows_in, labelled : int
    problems : list of (id, reason)
    notes : list of str
    listed : Path
        Where problems are listed.
    complete : bool
        False where other processes, or other shards, still have parts to label.
    """

    rows_in: int
    labelled: int
    problems: list[tuple[Any, str]]
    notes: list[str]
    listed: Path
    complete: bool = True


def _decoded(model: Classifier, batches: Iterator[Rows]) -> Iterator[tuple[Rows, list[np.ndarray | str]]]:
    """Images of each batch, or why there is none; the next batch is decoded while the caller works on this one."""
    size, crop, reading = model.config.image_size, model.config.crop, fits_reading(model.config)

    def one(image: Image) -> np.ndarray | str:
        if image is None:
            return _NO_IMAGE
        try:
            return load_image(image, size, crop, reading)
        except InputError as problem:
            return str(problem)

    with ThreadPoolExecutor(max(2, os.cpu_count() or 2), "decode") as pool:
        ahead: tuple[Rows, list[Future[Any]]] | None = None
        for rows in batches:
            now, ahead = ahead, (rows, [pool.submit(one, image) for image in rows.images])
            if now is not None:
                yield now[0], [future.result() for future in now[1]]
        if ahead is not None:
            yield ahead[0], [future.result() for future in ahead[1]]


def _label_images(labeller: Labeller, part: Part, writer: PartWriter, progress: tqdm) -> None:
    for rows, images in _decoded(labeller.model, part.batches(_BATCH)):
        good = [row for row, image in enumerate(images) if not isinstance(image, str)]
        problems = [(rows.frame["object_id"][row], image) for row, image in enumerate(images) if isinstance(image, str)]
        unreadable = sum(why != _NO_IMAGE for _, why in problems)
        _write(labeller, rows.frame, good, [images[row] for row in good], problems, unreadable, writer)
        progress.update(len(images))


def _label_features(labeller: Labeller, source: str, part: Part, writer: PartWriter, progress: tqdm) -> None:
    for rows in part.batches(PART_ROWS):
        features = logistic_inputs(rows.frame, labeller.model.config.features, source)
        finite = np.isfinite(features).all(axis=1)
        problems = [(one, _NO_FEATURE) for one in rows.frame["object_id"].filter(pl.Series(~finite))]
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
    writer.write(labels, problems, Account(frame.height, labels.height, len(problems), unreadable, in_sample))


def label_table(
    model: Classifier,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    transition: dict[str, Any] | None = None,
    *,
    crowd: str | os.PathLike[str] | None = None,
    id_column: str | None = None,
    image_column: str | None = None,
    images: str | os.PathLike[str] | None = None,
    keep: Sequence[str] = (),
    precision: Precision = "auto",
    shard: tuple[int, int] | None = None,
    max_bad: float = MAXIMUM_BAD_SHARE,
) -> LabelReport:
    """Label galaxies, and write a table or a folder of tables.

    A labelling that was cut off goes on where it was when the same is asked for again. Processes that ask for the same
    at the same time share the work.

    Parameters
    ----------
    model : Classifier
    source : path
        What `open_source` takes: a prepared catalogue, images in folders, lists, tables, tar files or Parquet.
    out : path
        A table (the ending names the format; Parquet is streamed, others are gathered in memory), with rows that can't
        be labelled in `<name>.problems.csv` beside it. Or, without an ending, a folder of Parquet files named as
        the partitions of the source, with `problems/` in it.
    transition : dict, optional
        T(α) for the posterior, as `truemorph transition` describes it; default the model's own. A naive model has
        none.
    crowd : path, optional
        A prepared catalogue with labels of galaxies of the source, joined by id.
    id_column, image_column, images, keep
        As for `open_source`.
    precision : {"auto", "fp32", "bf16"}
    shard : (int, int), optional
        Label every n-th part only, beginning with the k-th (k, n; from 1), as one of n tasks of a cluster.
    max_bad : float
        Largest share of images that can't be read.

    Returns
    -------
    LabelReport
        Of all parts so far.

    Notes
    -----
    Columns: `object_id`, kept ones, `p_smooth`, `p_disk` (p(y | x)), `p_spread` (standard deviation of p over
    members), `label` (argmax), `relation` ("new", "out_of_fold", "early_stopping", "in_sample"); where there are
    crowd labels `crowd_label`, `alpha`, `split`, `posterior_smooth`, `posterior_disk` (p(y | x, ỹ, α)),
    `posterior_label`, `label_quality` (posterior probability that the crowd was right); and `model_hash`. The posterior
    is null for galaxies the model has memorised (`relation` "in_sample").

    Raises
    ------
    InputError
        If there is nothing to label, more images are bad than `max_bad`, the catalogue's α is in another
        unit than the model's, or other labels are in the way.
    TruemorphError
        If labels can't be written.
    """
    results = Results(out)
    if results.out.resolve() == Path(source).resolve():
        raise InputError(f"{out}: would overwrite what is to be labelled; choose another --out")
    k, n = shard or (1, 1)
    if not 1 <= k <= n:
        raise InputError(f"a shard is k/n, k from 1 to n; got {k}/{n}")
    what = open_source(source, id_column=id_column, image_column=image_column, images=images, keep=keep)
    first = next(what.parts[0].batches(1), None)
    if first is None:
        raise InputError(f"{source}: nothing to label")
    joined = None if crowd is None else read_catalogue(crowd)
    has_crowd = joined is not None or {"label", "alpha"} <= set(first.frame.columns)
    said = what.metadata if joined is None else joined.metadata
    used, notes = _for_posteriors(model, transition, said, has_crowd, str(crowd or source))
    engine = engine_for(model, precision)
    kept = tuple((name, first.frame[name].dtype) for name in keep)
    labeller = Labeller(
        model,
        engine,
        used,
        has_crowd,
        kept,
        first.frame["object_id"].dtype,
        None if joined is None else Crowd.of(joined),
    )
    metadata = {
        "kind": "labels",
        "truemorph_version": __version__,
        "model_hash": model.model_hash,
        "engine": engine.description,
        "transition": None if used is None else transition_to_dict(used),
        "alpha": said.get("alpha"),
        "source": what.metadata.get("source", str(source)),
    }
    identity = {
        **metadata,
        "rows": what.fingerprint,
        "crowd": None if crowd is None else str(crowd),
        "keep": list(keep),
    }
    results.begin(identity)
    _label_parts(labeller, what, results, what.parts[k - 1 :: n], metadata, max_bad)
    return _concluded(labeller, results, [part.name for part in what.parts], metadata, max_bad, notes)


def _for_posteriors(
    model: Classifier, transition: dict[str, Any] | None, said: dict[str, Any], has_crowd: bool, source: str
) -> tuple[Transition | None, list[str]]:
    """T(α) for posteriors, None where there is none, and what is to be said of it."""
    own = model.transition
    naive = isinstance(own, MatrixTransition) and own == MatrixTransition.identity(own.n_classes)
    if not has_crowd:
        return None, []
    if naive and transition is None:
        return None, ["a model trained without T(alpha): no posterior (it would repeat the crowd's label)"]
    here = said.get("alpha_psf")
    fitted = model.described["catalogue"] if transition is None else transition
    if here != fitted.get("alpha_psf", here):
        raise InputError(
            f"alpha of {source} is in units of PSF {here}, theta in units of PSF {fitted['alpha_psf']}; "
            "prepare the catalogue with the same --psf"
        )
    return own if transition is None else transition_from_dict(transition), []


def _label_parts(
    labeller: Labeller,
    source: Source,
    results: Results,
    parts: Sequence[Part],
    metadata: dict[str, Any],
    max_bad: float,
) -> None:
    """Label those parts that are not there and that no other process has."""
    so_far = Account()
    rows = [part.rows for part in parts]
    total = None if None in rows else sum(filter(None, rows))
    left = [part for part in parts if not results.is_done(part.name)]
    there = (total or 0) - sum(part.rows or 0 for part in left)
    with tqdm(
        total=total, initial=there, desc="label", unit="gal", unit_scale=True, leave=False, disable=None
    ) as progress:
        for part in left:
            lock = results.claim(part.name)
            if lock is None:
                progress.update(part.rows or 0)
                continue
            try:
                if results.is_done(part.name):  # since another process had it
                    continue
                with results.writer(part.name, labeller.schema, metadata) as writer:
                    if labeller.model.uses_images:
                        _label_images(labeller, part, writer, progress)
                    else:
                        _label_features(labeller, str(source.path), part, writer, progress)
                    writer.finish()
            finally:
                lock.release()
            so_far += results.account(part.name)
            if so_far.labelled + so_far.unreadable >= _ENOUGH:
                _check_bad(results, [part.name], so_far, max_bad)


def _check_bad(results: Results, parts: Sequence[str], account: Account, max_bad: float) -> None:
    """Refuse results with too many bad images; parts that have some are forgotten, until they are mended."""
    if account.unreadable <= max_bad * (account.labelled + account.unreadable):
        return
    spoilt = [part for part in parts if results.account(part).unreadable]
    listed = [row for part in spoilt for row in results.listed(part) if row[1] not in (_NO_IMAGE, _NO_FEATURE)]
    for part in spoilt:
        results.drop(part)
    raise InputError(
        f"{account.unreadable} of {account.labelled + account.unreadable} images are bad, more than {max_bad:.0%} "
        f"(first: {listed[0][1]}); mend the set, or allow more with --max-bad"
    )


def _concluded(
    labeller: Labeller,
    results: Results,
    parts: list[str],
    metadata: dict[str, Any],
    max_bad: float,
    notes: list[str],
) -> LabelReport:
    """Count, and make one table of all parts if the last is there and one table was asked for."""
    with results.alone():
        if not results.folder.is_dir():  # another process was the last
            return LabelReport(0, 0, [], [*notes, f"another process wrote {results.out}"], results.problems)
        done = [part for part in parts if results.is_done(part)]
        account = sum((results.account(part) for part in done), Account())
        problems = [row for part in done for row in results.listed(part)]
        complete = len(done) == len(parts)
        if complete:
            _check_bad(results, done, account, max_bad)
            if account.labelled == 0:
                raise InputError(f"{metadata['source']}: nothing to label ({problems[0][1]})")
            results.conclude(parts, metadata)
        else:
            notes = [*notes, f"{len(parts) - len(done)} of {len(parts)} parts are left to other processes or shards"]
    if account.in_sample and labeller.transition is not None:
        notes = [
            *notes,
            f"{account.in_sample} galaxies trained the model's only member: their posterior is empty; "
            "train with --folds 5 to relabel them out of fold",
        ]
    return LabelReport(account.rows_in, account.labelled, problems, notes, results.problems, complete)
