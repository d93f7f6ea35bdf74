"""Label images or a catalogue in parts, on one or several machines or a cluster, and account for every row."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from truemorph.classifiers.checkpoint import load
from truemorph.classifiers.classifier import Classifier
from truemorph.classifiers.engines import Precision
from truemorph.errors import InputError, TruemorphError, reason, require_extra
from truemorph.findings import Finding
from truemorph.images.store import MAXIMUM_BAD_FRACTION
from truemorph.labelling.elsewhere import ASSUMED, class_fractions, fractions_told, unlike_training
from truemorph.labelling.output import Counts, Results
from truemorph.labelling.parts import NO_INPUT
from truemorph.labelling.run import Labelling, PathLike, no_observed, open_labelling
from truemorph.plotting import axes_or_new
from truemorph.progress import SILENT, progress, tell
from truemorph.questions import columns_of
from truemorph.results import Result
from truemorph.tables import read_table, to_astropy

# With fewer rows, a large fraction of unreadable images may be chance.
_ENOUGH = 1_000
# From more rows, class fractions would not be noticeably more precise.
_MOST_ROWS = 100_000


@dataclass(frozen=True, repr=False)
class LabelReport(Result):
    """Result of labelling: rows in = rows labelled + rows listed as problems."""

    out: Path  # table or folder of labels
    rows_in: int
    labelled: int
    problems: list[tuple[Any, str]]  # id and reason
    complete: bool  # False if other processes or shards still have parts to label
    findings: tuple[Finding, ...]  # about T(α) and about this labelling
    classes: tuple[str, ...]  # of the model
    # Of each class, or answer of those to which a question applies: `mean` of p(y | x); `reestimated`, with its error;
    # `estimate`, that of the estimate that the model was trained through, if these are its galaxies.
    fractions: tuple[dict[str, Any], ...] = ()
    max_bad: float = 1.0  # largest part of the rows that may have no label

    @property
    def failure(self) -> str:
        """Why the command line exits with status 1: too few rows have a label."""
        if not self.complete or len(self.problems) <= self.max_bad * self.rows_in:
            return ""
        return (
            f"{len(self.problems):,d} of {self.rows_in:,d} rows have no label, more than {self.max_bad:.0%}; read the "
            "reasons in the list of problems, correct the input, or allow more (`max_bad`)"
        )

    def summary(self) -> str:
        """Return the row counts as text."""
        counts = f"{self.rows_in:,d} rows in, {self.labelled:,d} labelled, {len(self.problems):,d} listed as problems"
        lines = [counts, *fractions_told(self.fractions), *([f"wrote {self.out}"] if self.complete else [])]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        own = super().to_dict() | {"problems": len(self.problems)}
        return {name: one for name, one in own.items() if name not in ("classes", "max_bad")}

    def to_table(self) -> Any:
        """Read the labels as an astropy table with units and descriptions."""
        return to_astropy(read_table(self.out))

    def plot(self, ax: Any = None) -> Any:
        """Draw the distribution of p of the second class; returns matplotlib axes."""
        ax, column = axes_or_new(ax), columns_of("p", self.classes)[1]
        ax.hist(read_table(self.out).frame[column].drop_nulls().to_numpy(), bins=np.linspace(0, 1, 41))
        ax.set(xlabel=f"p({self.classes[1]})", ylabel="galaxies")
        return ax


class PartLabeller:
    """Cluster actor that labels parts; if it dies, its part is labelled again from the start."""

    def __init__(self, folder: str, options: dict[str, Any]) -> None:
        self._work = open_labelling(load(folder), **options)

    def label(self, number: int) -> int:
        """Label the part with this number."""
        self._work.label(self._work.source.parts[number], SILENT)
        return number


def label_table(
    model: Classifier,
    source: Any,
    out: PathLike,
    *,
    engine: str = "auto",
    precision: Precision = "auto",
    shard: tuple[int, int] = (1, 1),
    address: str | None = None,
    max_bad: float = MAXIMUM_BAD_FRACTION,
    **options: Any,
) -> LabelReport:
    """Label galaxies as `truemorph.label_galaxies`; the report counts all parts that are finished so far."""
    k, n = shard
    if not 1 <= k <= n:
        raise InputError(f"`shard` must be (k, n) with k from 1 to n; got {k}/{n}")
    on_cluster = engine == "ray"
    if on_cluster:
        engine = "auto"
    options |= {"source": source, "out": out, "engine": engine, "precision": precision}
    work = open_labelling(model, **options)
    parts = work.source.parts
    if on_cluster and model.uses_images:  # all machines use the engine that the metadata name
        options |= {"engine": work.labeller.engine.name, "precision": work.labeller.engine.precision}
    own = range(k - 1, len(parts), n)
    damaged = work.results.begin([parts[number].name for number in own])
    left = [number for number in own if not work.results.is_done(parts[number].name)]
    runs = f"{'ray, ' if on_cluster else ''}{work.labeller.engine.description}"
    tell(f"label: engine {runs}; {len(parts):,d} parts, of which this process labels {len(left):,d}")
    so_far: Counts = Counter()
    for number in _on_cluster(model, left, options, address) if on_cluster else _here(work, left):
        so_far += work.results.counts(parts[number].name)
        if so_far["labelled"] + so_far["unreadable"] >= _ENOUGH:
            _check_bad(work.results, so_far, max_bad)
    return _concluded(work, damaged, max_bad)


def _here(work: Labelling, left: list[int]) -> Iterator[int]:
    """Label parts that no other process is working on; yield their numbers."""
    rows = [work.source.parts[number].rows for number in left]
    with progress(None if None in rows else sum(filter(None, rows)), "label", "gal") as bar:
        for number in left:
            work.label(work.source.parts[number], bar)
            yield number


def _on_cluster(model: Classifier, left: list[int], options: dict[str, Any], address: str | None) -> Iterator[int]:
    """Label parts on a Ray cluster, by default a local one; yield their numbers.

    Actors that die are restarted, and their parts repeated.
    """
    require_extra("ray")
    import ray
    from ray.util import ActorPool

    if model.folder is None:
        raise InputError("engine ray needs a model loaded from a folder that all machines can read")
    if not left:
        return
    # Workers run in other folders.
    paths = {name: options.get(name) for name in ("source", "out", "observed", "images", "gate", "tiles")}
    absolute = {name: Path(path).resolve() for name, path in paths.items() if isinstance(path, str | os.PathLike)}
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False, include_dashboard=False)
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    # Leave one core for Ray itself.
    size = min(len(left), gpus or max(1, int(resources["CPU"]) - 1))
    device: dict[str, Any] = {"num_gpus": 1} if gpus else {"num_cpus": 1}
    options |= {"engine": "torch"} if gpus else {}
    actor: Any = ray.remote(max_restarts=-1, max_task_retries=-1, **device)(PartLabeller)
    pool = ActorPool([actor.remote(str(model.folder.resolve()), {**options, **absolute}) for _ in range(size)])
    try:
        done = pool.map_unordered(lambda worker, part: worker.label.remote(part), left)
        yield from progress(len(left), "label", "part", of=done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise TruemorphError(f"the cluster failed: {reason(error)}") from error


def _check_bad(results: Results, counts: Counts, max_bad: float) -> None:
    images = counts["labelled"] + counts["unreadable"]
    if counts["unreadable"] > max_bad * images:
        results.write_problems()
        first = next((why for _, why in results.listed() if why not in NO_INPUT), "not known")
        raise InputError(
            f"{counts['unreadable']} of {images} images can't be read, more than {max_bad:.0%} (first: {first}; more "
            f"in {results.problems}); replace them, or allow more (`max_bad`)"
        )


def _concluded(work: Labelling, damaged: list[Finding], max_bad: float) -> LabelReport:
    """Count rows; when all parts are done, combine them if the output is one table."""
    results, findings, model = work.results, [*work.findings, *damaged], work.labeller.model
    fractions, of_fractions = tuple[dict[str, Any], ...](), list[Finding]()
    with results.alone():
        if not results.is_there:
            findings.append(Finding("written-elsewhere", "note", f"Another process has written {results.out}."))
            return LabelReport(results.out, 0, 0, [], True, tuple(findings), model.classes)
        counts, left = results.total(), sum(not results.is_done(part) for part in results.parts)
        unlike = unlike_training(work.labeller.comparison, counts)
        problems = results.listed()
        results.write_problems()
        if not left:
            _check_bad(results, counts, max_bad)
            if counts["labelled"] == 0:
                raise InputError(f"{work.source.path}: nothing to label ({problems[0][1]})")
            if work.labeller.joined is not None and not counts["matched"]:
                raise no_observed(work.labeller, work.source)
            about: dict[str, Any] = {}
            if model.held_out is not None:
                p = results.sampled(columns_of("p", model.classes), _MOST_ROWS)
                fractions, of_fractions = class_fractions(model, p, work.catalogue, counts["labelled"])
                about = {"fractions": fractions, "assumption_of_reestimated": ASSUMED}
            results.conclude(**about, findings=(*work.findings, *unlike, *of_fractions))
    findings += [*unlike, *of_fractions]
    if left:
        parts_left = f"{left} of {len(results.parts)} parts are left for other processes or shards."
        findings.append(Finding("parts-left", "note", parts_left))
    findings += _about_rows(work, counts, problems)
    rows_in, labelled = counts["rows_in"], counts["labelled"]
    about_run = not left, tuple(findings), model.classes, fractions, max_bad
    return LabelReport(results.out, rows_in, labelled, problems, *about_run)


def _about_rows(work: Labelling, counts: Counts, problems: list[tuple[Any, str]]) -> list[Finding]:
    """Return findings about rows without labels, repeated ids, posteriors that are missing, and observed labels."""
    findings = []
    if problems:
        first, why = problems[0]
        rows = f"{len(problems):,} of {counts['rows_in']:,} rows could not be labelled (first: {first}, {why})"
        message = f"{rows}; they are listed in {work.results.problems}."
        action = "Read the reasons there, correct these rows and label them again."
        findings.append(Finding("rows-not-labelled", "caution", message, action))
    if counts["repeated"]:
        message = f"{counts['repeated']:,} rows have the id of an earlier row of the same file."
        action = "Give each galaxy its own id: a join by id would mix them up."
        findings.append(Finding("ids-repeated", "caution", message, action))
    if counts["no_posterior"]:
        why = "because they were used to train the only member"
        if names := ", ".join(dict.fromkeys(chain(*work.labeller.observables))):
            why += f", or lack a value of {names}, on which the bias curve depends"
        message = f"{counts['no_posterior']:,} galaxies with an observed label have no posterior, {why}."
        action = "Train with 5 folds (`folds`), or add the missing values, and label again."
        findings.append(Finding("posterior-missing", "caution", message, action))
    if work.labeller.joined is not None:
        matched = f"{counts['matched']:,d} of {counts['labelled']:,d} galaxies are in the catalogue of observed labels."
        findings.append(Finding("observed-labels-matched", "note", matched))
    return findings
