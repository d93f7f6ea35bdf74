"""Label whatever holds images, or a catalogue: part by part, with an account of every row."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truemorph.classifiers.checkpoint import Classifier
from truemorph.errors import InputError
from truemorph.images.store import MAXIMUM_BAD_SHARE
from truemorph.labelling.decoding import NO_IMAGE
from truemorph.labelling.engines import Precision
from truemorph.labelling.job import NO_FEATURE, Asked, Job, open_job
from truemorph.labelling.output import Account, Results
from truemorph.progress import progress

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
    engine: str = "torch",
    precision: Precision = "auto",
    gate: str | os.PathLike[str] | None = None,
    address: str | None = None,
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
    engine : {"torch", "openvino", "ray"}
        "ray": torch (int8: OpenVINO) in actors on all machines of a Ray cluster, which must see model, source and out.
    precision : {"auto", "fp32", "bf16", "int8"}
        int8 is OpenVINO's.
    gate : path, optional
        Images, such as `open_source` takes, on which int8 proves itself where it has not yet; default those of
        `source`.
    address : str, optional
        Of a Ray cluster; default one on this machine.
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
    k, n = shard or (1, 1)
    if not 1 <= k <= n:
        raise InputError(f"a shard is k/n, k from 1 to n; got {k}/{n}")
    ours = engine if engine != "ray" else "openvino" if precision == "int8" else "torch"
    asked = Asked(source, out, transition, crowd, id_column, image_column, images, tuple(keep), ours, precision, gate)
    job = open_job(model, asked)
    job.results.begin()
    _forget_spoilt(job, max_bad)
    parts = range(k - 1, len(job.source.parts), n)
    if engine == "ray":
        from truemorph.labelling.cluster import label_on_cluster

        label_on_cluster(model, asked, job, parts, address, _Watch(job.results, max_bad))
    else:
        _label_here(job, parts, _Watch(job.results, max_bad))
    return _concluded(job, max_bad)


def _label_here(job: Job, parts: Sequence[int], finished: Callable[[Account], None]) -> None:
    """Label those parts that are not there and that no other process has."""
    chosen = [job.source.parts[number] for number in parts]
    rows = [part.rows for part in chosen]
    total = None if None in rows else sum(filter(None, rows))
    left = [part for part in chosen if not job.results.is_done(part.name)]
    there = (total or 0) - sum(part.rows or 0 for part in left)
    with progress(total, "label", "gal", there) as told:
        for part in left:
            finished(job.label(part, told) or Account())


class _Watch:
    """Ends a labelling early when more images are bad than may be."""

    def __init__(self, results: Results, max_bad: float) -> None:
        self._results, self._max_bad, self._so_far = results, max_bad, Account()

    def __call__(self, account: Account) -> None:
        """Count a part that is finished."""
        self._so_far += account
        if self._so_far.labelled + self._so_far.unreadable >= _ENOUGH:
            _check_bad(self._results, self._so_far, self._max_bad)


def _forget_spoilt(job: Job, max_bad: float) -> None:
    """Where too many images were bad when last asked, label those parts again: they may be mended by now."""
    results = job.results
    with results.alone():
        done = [part.name for part in job.source.parts if results.is_done(part.name)]
        if sum((results.account(part) for part in done), Account()).too_bad(max_bad):
            for part in done:
                if results.account(part).unreadable:
                    results.drop(part)


def _check_bad(results: Results, account: Account, max_bad: float) -> None:
    """Refuse results with too many bad images."""
    if account.too_bad(max_bad):
        raise InputError(
            f"{account.unreadable} of {account.labelled + account.unreadable} images are bad, more than {max_bad:.0%} "
            f"(first: {results.first_unreadable((NO_IMAGE, NO_FEATURE))}); mend the set, or allow more with --max-bad"
        )


def _concluded(job: Job, max_bad: float) -> LabelReport:
    """Count, and make one table of all parts if the last is there and one table was asked for."""
    results, parts, notes = job.results, [part.name for part in job.source.parts], job.notes
    with results.alone():
        if not results.is_there:  # another process was the last
            return LabelReport(0, 0, [], [*notes, f"another process wrote {results.out}"], results.problems)
        done = [part for part in parts if results.is_done(part)]
        account = sum((results.account(part) for part in done), Account())
        problems = [row for part in done for row in results.listed(part)]
        complete = len(done) == len(parts)
        if complete:
            _check_bad(results, account, max_bad)
            if account.labelled == 0:
                raise InputError(f"{job.source.path}: nothing to label ({problems[0][1]})")
            results.conclude(parts, job.metadata)
        else:
            notes = [*notes, f"{len(parts) - len(done)} of {len(parts)} parts are left to other processes or shards"]
    if account.in_sample and job.labeller.transition is not None:
        notes = [
            *notes,
            f"{account.in_sample} galaxies trained the model's only member: their posterior is empty; "
            "train with --folds 5 to relabel them out of fold",
        ]
    if job.labeller.joined is not None:
        notes = [*notes, f"{account.matched:,d} of {account.labelled:,d} galaxies are in the crowd's catalogue"]
    for one in results.others:
        notes = [*notes, f"{one}: an unfinished labelling with other settings; delete it if it is of no use"]
    return LabelReport(account.rows_in, account.labelled, problems, notes, results.problems, complete)
