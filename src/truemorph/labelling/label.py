"""Label images or a catalogue in parts, on one or several machines, and account for every row."""

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from truemorph.classifiers.classifier import Classifier
from truemorph.errors import InputError
from truemorph.findings import Finding, Findings, findings_in
from truemorph.labelling.elsewhere import ASSUMED, class_fractions, fractions_told, unlike_training
from truemorph.labelling.output import Counts, Results
from truemorph.labelling.parts import NO_INPUT
from truemorph.labelling.run import Labelling, LabelOptions, no_observed, open_labelling
from truemorph.progress import progress, tell
from truemorph.questions import columns_of
from truemorph.results import Result
from truemorph.tables import read_table, to_astropy

# With fewer rows, a large fraction of unreadable images may be chance.
_ENOUGH = 1_000
# From more rows, class fractions would not be noticeably more precise.
_MOST_ROWS = 200_000


class LabelReport(Result):
    """Result of labelling: rows in = rows labelled + rows listed as problems; of a shard, its own."""

    out: Path  # table or folder of labels
    rows_in: int
    labelled: int
    problems: list[tuple[Any, str]]  # id and reason
    complete: bool  # False if other processes or shards still have parts to label
    findings: Findings  # about T(α) and about this labelling
    classes: tuple[str, ...]  # of the model
    # Of each class, or answer of those to which a question applies: `mean` of p(y | x); `reestimated`, with its error;
    # `estimate`, that of the estimate that the model was trained through, if these are its galaxies.
    fractions: tuple[dict[str, Any], ...] = ()
    max_bad: float = 1.0  # largest part of the rows that may have no label
    shard: tuple[int, int] = (1, 1)

    @property
    def failure(self) -> str:
        """Why the command line exits with status 1: too few rows have a label."""
        if len(self.problems) <= self.max_bad * self.rows_in:
            return ""
        return (
            f"{len(self.problems):,d} of {self.rows_in:,d} rows have no label, more than {self.max_bad:.0%}; read the "
            "reasons in the list of problems, correct the input, or allow more (`max_bad`)"
        )

    def summary(self) -> str:
        """Return the row counts as text."""
        counts = f"{self.rows_in:,d} rows in, {self.labelled:,d} labelled, {len(self.problems):,d} listed as problems"
        if self.shard[1] > 1:
            counts = f"shard {self.shard[0]} of {self.shard[1]}: {counts}"
        lines = [counts, *fractions_told(self.fractions), *([f"wrote {self.out}"] if self.complete else [])]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return super().to_dict() | {"problems": len(self.problems)}

    def to_table(self) -> Any:
        """Read the labels as an astropy table with units and descriptions."""
        return to_astropy(read_table(self.out))

    def draw(self, ax: Any) -> None:
        """Draw the distribution of p of the second class."""
        column = columns_of("p", self.classes)[1]
        ax.hist(read_table(self.out).frame[column].drop_nulls().to_numpy(), bins=np.linspace(0, 1, 41))
        ax.set(xlabel=f"p({self.classes[1]})", ylabel="galaxies")


def label_table(model: Classifier, options: LabelOptions) -> LabelReport:
    """Label galaxies as `truemorph.label_galaxies`; the report counts the finished parts of this shard."""
    k, n = options.shard
    if not 1 <= k <= n:
        raise InputError(f"`shard` must be (k, n) with k from 1 to n; got {k}/{n}")
    work = open_labelling(model, options)
    results = work.results
    own = [*results.parts][k - 1 :: n]
    damaged = results.begin(own)
    left = [results.parts[name] for name in own if not results.is_done(name)]
    runs = work.labeller.engine.description
    tell(f"label: engine {runs}; {len(results.parts):,d} parts, of which this process labels {len(left):,d}")
    so_far, rows = Counter[str](), [part.rows for part in left]
    with progress(None if None in rows else sum(filter(None, rows)), "label", "gal") as bar:
        for number, part in enumerate(left, 1):
            if bar.total is None:  # of tar files, only their number is known
                bar.set_description(f"label, part {number:,} of {len(left):,}", refresh=False)
            work.label(part, bar)
            so_far += results.counts(part.name)
            if so_far["labelled"] + so_far["unreadable"] >= _ENOUGH:
                _check_bad(results, so_far, options.max_bad)
    return _concluded(work, options, own, damaged)


def _check_bad(results: Results, counts: Counts, max_bad: float) -> None:
    images = counts["labelled"] + counts["unreadable"]
    if counts["unreadable"] > max_bad * images:
        _, listed, _ = results.so_far()
        first = next((why for _, why in listed if why not in NO_INPUT), "not known")
        raise InputError(
            f"{counts['unreadable']} of {images} images can't be read, more than {max_bad:.0%} (first: {first}; more "
            f"in {results.problems}); replace them, or allow more (`max_bad`)"
        )


def _concluded(work: Labelling, options: LabelOptions, parts: list[str], damaged: list[Finding]) -> LabelReport:
    """Count rows of a shard, of these parts; when all parts are done, combine them if the output is one table."""
    results, labeller, classes = work.results, work.labeller, work.labeller.model.classes
    counts, problems, left = results.so_far() if results.is_there else (Counter[str](), [], 0)
    with nullcontext() if left else results.alone():  # with parts left, another process concludes
        if not results.is_there:
            elsewhere = Finding("written-elsewhere", "note", f"Another process has written {results.out}.")
            return LabelReport(results.out, 0, 0, [], True, (*work.findings, *damaged, elsewhere), classes)
        about = None if left else results.concluded()
        if about is None and not left:
            counts, problems, left = results.so_far()  # another process may have begun, and set parts aside
        own, listed = counts, problems
        if options.shard[1] > 1:
            own, listed, _ = results.so_far(parts)
        if not left:
            _check_bad(results, counts, options.max_bad)
            about = about or _conclude(work, counts, problems)
    if about is None:
        parts_left = f"{left} of {len(results.parts)} parts are left for other processes or shards."
        findings = [*work.findings, *unlike_training(labeller.comparison, own)]
        findings.append(Finding("parts-left", "note", parts_left))
    else:
        findings = list(findings_in(about))
    findings += [*damaged, *_about_rows(work, own, listed)]
    fractions, counted = tuple((about or {}).get("fractions", ())), (own["rows_in"], own["labelled"], listed)
    return LabelReport(
        results.out, *counted, not left, tuple(findings), classes, fractions, options.max_bad, options.shard
    )


def _conclude(work: Labelling, counts: Counts, problems: list[tuple[str, str]]) -> dict[str, Any]:
    """Combine all parts, if the output is one table; return fractions and findings."""
    results, model = work.results, work.labeller.model
    if counts["labelled"] == 0:
        why = problems[0][1] if problems else "it has no images"
        raise InputError(f"{work.source.path}: nothing to label ({why})")
    if work.labeller.joined is not None and not counts["matched"]:
        raise no_observed(work.labeller, work.source)
    about: dict[str, Any] = {}
    findings = [*work.findings, *unlike_training(work.labeller.comparison, counts)]
    sample = results.sampled(columns_of("p", model.classes), -(-counts["labelled"] // _MOST_ROWS))
    if model.held_out is not None:
        p = sample.drop("object_id").to_numpy()
        fractions, of_fractions = class_fractions(model, p, work.catalogue, counts["labelled"], work.curves)
        about, findings = {"fractions": fractions, "assumption_of_reestimated": ASSUMED}, [*findings, *of_fractions]
    if repeated := sample.height - sample["object_id"].n_unique():
        message = f"At least {repeated:,} rows have the id of an earlier row."
        action = "Give each galaxy its own id: a join by id would mix them up."
        findings.append(Finding("ids-repeated", "caution", message, action))
    return results.conclude(problems, about | {"findings": findings})


def _about_rows(work: Labelling, counts: Counts, problems: list[tuple[Any, str]]) -> Iterator[Finding]:
    """Return findings about rows without labels, posteriors that are missing, and observed labels."""
    if problems:
        first, why = problems[0]
        rows = f"{len(problems):,} of {counts['rows_in']:,} rows could not be labelled (first: {first}, {why})"
        message = f"{rows}; they are listed in {work.results.problems}."
        action = "Read the reasons there, correct these rows and label them again."
        yield Finding("rows-not-labelled", "caution", message, action)
    if counts["no_posterior"]:
        why = "because they were used to train the only member"
        if names := ", ".join(dict.fromkeys(chain(*work.labeller.observables))):
            why += f", or lack a value of {names}, on which the bias curve depends"
        message = f"{counts['no_posterior']:,} galaxies with an observed label have no posterior, {why}."
        action = "Train with 5 folds (`folds`), or add the missing values, and label again."
        yield Finding("posterior-missing", "caution", message, action)
    if work.labeller.regression is not None and counts["regression"] < counts["labelled"]:
        left = counts["labelled"] - counts["regression"]
        message = (
            f"{left:,} of {counts['labelled']:,} galaxies have no probability by regression, because they are not "
            "those of the estimate, by id and α."
        )
        action = "Use the posterior for them, or make an estimate of these galaxies (`truemorph transition`)."
        yield Finding("regression-missing", "caution", message, action)
    if work.labeller.joined is not None:
        matched = f"{counts['matched']:,d} of {counts['labelled']:,d} galaxies are in the catalogue of observed labels."
        yield Finding("observed-labels-matched", "note", matched)
