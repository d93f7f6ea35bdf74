"""Label whatever holds images, or a catalogue: part by part, with an account of every row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from truemorph.bias.plots import axes_or_new
from truemorph.classifiers.checkpoint import Classifier
from truemorph.errors import InputError
from truemorph.findings import Finding
from truemorph.images.store import MAXIMUM_BAD_SHARE
from truemorph.labelling.decoding import NO_IMAGE
from truemorph.labelling.job import NO_FEATURE, Asked, Job, open_job
from truemorph.labelling.output import Account, Results
from truemorph.progress import progress
from truemorph.results import Result
from truemorph.tables import read_table, to_astropy

# Fewer rows than this don't say that a set of images is bad.
_ENOUGH = 1_000


@dataclass(frozen=True, repr=False)
class LabelReport(Result):
    """What labelling did: rows in = rows labelled + rows listed as problems.

    Attributes
    ----------
    out : Path
        The table or folder of labels.
    rows_in, labelled : int
    problems : list of (id, reason)
    listed : Path
        Where problems are listed.
    complete : bool
        False where other processes, or other shards, still have parts to label.
    findings : tuple of Finding
        Of the fits of T(α) that the labels rest on, and of this labelling; each once.
    """

    out: Path
    rows_in: int
    labelled: int
    problems: list[tuple[Any, str]]
    listed: Path
    complete: bool
    findings: tuple[Finding, ...]

    def summary(self) -> str:
        """Return the numbers of rows as text."""
        lines = [
            f"{self.rows_in:,d} rows in, {self.labelled:,d} labelled, {len(self.problems):,d} listed as problems",
            *([f"wrote {self.out}"] if self.complete else []),
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "out": str(self.out),
            "rows_in": self.rows_in,
            "labelled": self.labelled,
            "complete": self.complete,
            "problems": len(self.problems),
            "findings": [one.to_dict() for one in self.findings],
        }

    def to_table(self) -> Any:
        """Read the labels as an astropy table with units and descriptions."""
        return to_astropy(read_table(self.out))

    def plot(self, ax: Any = None) -> Any:
        """Draw the distribution of p(disk); returns matplotlib axes."""
        ax = axes_or_new(ax)
        ax.hist(read_table(self.out).frame["p_disk"].drop_nulls().to_numpy(), bins=np.linspace(0, 1, 41))
        ax.set(xlabel="p(disk)", ylabel="galaxies")
        return ax


def label_table(
    model: Classifier,
    asked: Asked,
    *,
    shard: tuple[int, int] = (1, 1),
    address: str | None = None,
    max_bad: float = MAXIMUM_BAD_SHARE,
    on_cluster: bool = False,
) -> LabelReport:
    """Label galaxies, and write a table or a folder of tables; see `truemorph.label_galaxies`.

    Parameters
    ----------
    model : Classifier
    asked : Asked
    shard, address, max_bad
        As for `label_galaxies`.
    on_cluster : bool
        Whether parts are labelled by actors on a Ray cluster.

    Returns
    -------
    LabelReport
        Of all parts so far.

    Raises
    ------
    InputError, TruemorphError
        As `label_galaxies`.
    """
    k, n = shard
    if not 1 <= k <= n:
        raise InputError(f"a shard (`shard`) is k of n, k from 1 to n; got {k}/{n}")
    job = open_job(model, asked)
    job.results.begin()
    _forget_spoilt(job, max_bad)
    parts = range(k - 1, len(job.source.parts), n)
    if on_cluster:
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
            f"(first: {results.first_unreadable((NO_IMAGE, NO_FEATURE))}); mend the set, or allow more (`max_bad`)"
        )


def _concluded(job: Job, max_bad: float) -> LabelReport:
    """Count, and make one table of all parts if the last is there and one table was asked for."""
    results, parts, findings = job.results, [part.name for part in job.source.parts], list(job.findings)
    with results.alone():
        if not results.is_there:
            findings.append(Finding("written-elsewhere", "note", f"Another process has written {results.out}."))
            return LabelReport(results.out, 0, 0, [], results.problems, True, tuple(findings))
        done = [part for part in parts if results.is_done(part)]
        account = sum((results.account(part) for part in done), Account())
        problems = [row for part in done for row in results.listed(part)]
        complete = len(done) == len(parts)
        if complete:
            _check_bad(results, account, max_bad)
            if account.labelled == 0:
                raise InputError(f"{job.source.path}: nothing to label ({problems[0][1]})")
            results.conclude(parts, job.labels)
    if not complete:
        findings.append(
            Finding(
                "parts-left",
                "note",
                f"{len(parts) - len(done)} of {len(parts)} parts are left to other processes or shards.",
            )
        )
    if problems:
        first, why = problems[0]
        findings.append(
            Finding(
                "rows-not-labelled",
                "caution",
                f"{len(problems):,} of {account.rows_in:,} rows could not be labelled (first: {first}, {why}); they "
                f"are listed in {results.problems}.",
                "Check the reasons there, correct these rows, and label them again.",
            )
        )
    if account.in_sample and job.labeller.transition is not None:
        findings.append(
            Finding(
                "posterior-missing",
                "caution",
                f"{account.in_sample:,} galaxies trained the model's only member, so they have no posterior.",
                "Train with 5 folds (`folds`) to label them out of fold.",
            )
        )
    if job.labeller.joined is not None:
        findings.append(
            Finding(
                "observed-labels-matched",
                "note",
                f"{account.matched:,d} of {account.labelled:,d} galaxies are in the catalogue of observed labels.",
            )
        )
    findings += [
        Finding(
            "unfinished-labelling",
            "note",
            f"{one} is an unfinished labelling with other settings.",
            "Delete it if you do not need it.",
        )
        for one in results.others
    ]
    return LabelReport(
        results.out, account.rows_in, account.labelled, problems, results.problems, complete, tuple(findings)
    )
