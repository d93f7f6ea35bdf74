"""Label images or a catalogue in parts, on one or several machines or a cluster, and account for every row."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph._version import __version__
from truemorph.bias.transitions import (
    MatrixTransition,
    Transition,
    transition_from_dict,
    transition_to_dict,
)
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.classifiers.checkpoint import Classifier, load, logistic_inputs
from truemorph.classifiers.fits import observables_of
from truemorph.errors import InputError
from truemorph.findings import Finding, unique
from truemorph.images.store import MAXIMUM_BAD_FRACTION
from truemorph.labelling.engines import Precision, engine_for
from truemorph.labelling.labeller import Labeller, Observed
from truemorph.labelling.output import Account, Results, is_table
from truemorph.labelling.sources import NO_FEATURE, NO_IMAGE, PART_ROWS, Part, Source, decoded, open_source
from truemorph.plotting import axes_or_new
from truemorph.progress import Progress, Silence, progress
from truemorph.results import Result
from truemorph.tables import CatalogTable, frame_hash, numeric_columns, read_table, to_astropy

_BATCH = 256
NOT_FINITE = "the model's probabilities are not finite"
# With fewer rows, a large fraction of unreadable images may be chance.
_ENOUGH = 1_000

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, repr=False)
class LabelReport(Result):
    """Result of labelling: rows in = rows labelled + rows listed as problems.

    Attributes
    ----------
    out : Path
        The table or folder of labels.
    rows_in, labelled : int
    problems : list of (id, reason)
    listed : Path
        File or folder that lists the problems.
    complete : bool
        False if other processes or shards still have parts to label.
    findings : tuple of Finding
        Findings about T(α) and about this labelling.
    """

    out: Path
    rows_in: int
    labelled: int
    problems: list[tuple[Any, str]]
    listed: Path
    complete: bool
    findings: tuple[Finding, ...]

    def summary(self) -> str:
        """Return the row counts as text."""
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


@dataclass(frozen=True)
class Labelling:
    """A labelling run, of which any process can label any part.

    Attributes
    ----------
    labeller : Labeller
    source : Source
    results : Results
    labels : CatalogTable
        Columns, units, descriptions and metadata of the tables of labels, without rows.
    findings : tuple of Finding
        Findings about T(α) and about this labelling.
    """

    labeller: Labeller
    source: Source
    results: Results
    labels: CatalogTable
    findings: tuple[Finding, ...]

    def label(self, part: Part, bar: Progress) -> Account | None:
        """Label a part; return None if it is done or another process is working on it."""
        held = self.results.claim(part.name)
        if held is None:
            bar.update(part.rows or 0)
            return None
        with held:
            if self.results.is_done(part.name):
                return None
            with self.results.writer(part.name, self.labels) as writer:
                for frame, inputs, problems in self._inputs(part):
                    ids = frame["object_id"]
                    listed = [(ids[row], why) for row, why in enumerate(problems) if why is not None]
                    good = frame.filter(pl.Series(problems, dtype=pl.String).is_null()) if listed else frame
                    empty = pl.DataFrame(schema=self.labeller.schema)
                    labels = self.labeller.label(good, inputs) if good.height else empty
                    finite = labels.select(pl.all_horizontal(pl.col(self.labeller.probabilities).is_finite()))
                    if labels.height and not finite.to_series().all():
                        listed += [(one, NOT_FINITE) for one in labels.filter(~finite.to_series())["object_id"]]
                        labels = labels.filter(finite.to_series())
                    writer.write(frame.height, labels, listed)
                    bar.update(frame.height)
                writer.finish()
                return writer.account

    def _inputs(self, part: Part) -> Iterator[tuple[pl.DataFrame, np.ndarray, list[str | None]]]:
        """Yield batches of rows of a part, inputs of the good rows, and the problem of each row."""
        model = self.labeller.model
        if model.uses_images:
            for rows, images in decoded(model.config, part.batches(_BATCH)):
                good = [one for one in images if not isinstance(one, str)]
                problems = [one if isinstance(one, str) else None for one in images]
                yield rows.frame, np.stack(good) if good else np.empty(0), problems
            return
        for rows in part.batches(PART_ROWS):
            features = logistic_inputs(rows.frame, model.config.features, str(self.source.path))
            finite = np.isfinite(features).all(axis=1)
            yield rows.frame, features[finite], [None if one else NO_FEATURE for one in finite]


def open_labelling(
    model: Classifier,
    source: PathLike,
    out: PathLike,
    *,
    transition: dict[str, Any] | None = None,
    observed: PathLike | None = None,
    id_column: str | None = None,
    image_column: str | None = None,
    images: PathLike | None = None,
    keep: tuple[str, ...] = (),
    engine: str = "torch",
    precision: Precision = "auto",
    gate: PathLike | None = None,
) -> Labelling:
    """Prepare everything to label parts.

    Parameters
    ----------
    model : Classifier
    source, out : path
    transition : dict, optional
        T(α) in the format of a fit file.
    observed, image_column, images, precision, gate
        As in `truemorph.label_galaxies`; `id_column` and `keep` are its `id` and `copy`.
    engine : {"torch", "openvino"}

    Raises
    ------
    InputError
        If there is nothing to label, columns are missing, α has another unit than in the model, or an engine can't be
        used.
    """
    out = Path(out)
    is_table(out)  # fail early
    if out.resolve() == Path(source).resolve():
        raise InputError(f"{out}: would overwrite the input; choose another `out`")
    given = open_source(
        source,
        id_column=id_column,
        image_column=image_column,
        images=images,
        keep=keep,
        but=[out, out.with_name(f"{out.stem}.problems.csv"), *out.parent.glob(f"{glob.escape(out.name)}.*.parts")],
    )
    first = next((rows for part in given.parts for rows in part.batches(1)), None)
    if first is None:
        raise InputError(f"{source}: nothing to label")
    joined = None if observed is None else read_catalogue(observed)
    catalogue = given if joined is None else joined
    has_observed = joined is not None or given.prepared
    about = catalogue.metadata
    used, findings = _for_posteriors(model, transition, about, str(observed or source)) if has_observed else (None, ())
    names = () if used is None else observables_of(transition or model.described["transition"], used)
    if joined is None:
        numeric_columns(first.frame.clear(), names, str(source))  # fail early
    proof = None if precision != "int8" else given if gate is None else open_source(gate)
    labeller = Labeller(
        model,
        engine_for(model, engine, precision, proof),
        used,
        names,
        has_observed,
        None if joined is None else Observed.of(joined, names),
        tuple((name, first.frame[name].dtype) for name in keep),
        first.frame["object_id"].dtype,
    )
    clash = set(keep) & set(replace(labeller, keep=()).schema)
    if clash:
        raise InputError(f"{source}: {min(clash)!r} can't be copied, because the labels have such a column; rename it")
    identity = {
        "kind": "labels",
        "truemorph_version": __version__,
        "model_hash": model.model_hash,
        "engine": labeller.engine.description,
        # A user-defined class of T(α) without a table.
        "transition": None
        if used is None
        else {key: one for key, one in transition_to_dict(used).items() if key != "table"}
        | ({"observables": list(names)} if names else {}),
        "alpha": about.get("alpha"),
    }
    rests_on = [model.described["transition"], transition if used is not None and transition else {}]
    fitted = unique(*(map(Finding.from_dict, one.get("findings", ())) for one in rests_on))
    metadata = {
        "about": f"labels of galaxies by truemorph {__version__}, model {model.model_hash}",
        **identity,
        "source": given.metadata.get("source", str(source)),
        **{key: about[key] for key in ("votes", "label_rule", "gold_definition") if about.get(key)},
        "trained_on": model.described["catalogue"],
        "trained_through": transition_to_dict(model.transition),
        "findings": [one.to_dict() for one in fitted],
    }
    # Copied columns have the units and descriptions of the source.
    origins: dict[str, Source | CatalogTable] = dict.fromkeys(("object_id", *keep), given)
    if has_observed:
        origins |= dict.fromkeys(("alpha", "split"), catalogue)
    units = {name: one.units[name] for name, one in origins.items() if name in one.units}
    known = {name: one.descriptions[name] for name, one in origins.items() if name in one.descriptions}
    frame = pl.DataFrame(schema=labeller.schema)
    labels = CatalogTable(frame, units, metadata, descriptions=labeller.descriptions | known)
    columns = ("object_id", "label", "alpha", "split", *names)
    # Not the path of the source, which another process may write differently.
    identity |= {
        "rows": given.fingerprint,
        "observed": None if joined is None else frame_hash(joined.frame.select(columns)),
        "keep": list(keep),
    }
    return Labelling(labeller, given, Results(out, identity), labels, unique(fitted, findings))


def _for_posteriors(
    model: Classifier, transition: dict[str, Any] | None, about: dict[str, Any], source: str
) -> tuple[Transition | None, tuple[Finding, ...]]:
    """Return T(α) for posteriors (None if there is none) and findings about it."""
    own = model.transition
    naive = isinstance(own, MatrixTransition) and own == MatrixTransition.identity(own.n_classes)
    if naive and transition is None:
        return None, (
            Finding(
                "no-posterior",
                "note",
                "The model was trained without a bias curve, so there are no posteriors: they would only repeat the "
                "observed labels.",
                "Give a bias curve (`transition`).",
            ),
        )
    here = about.get("alpha_psf")
    fitted = model.described["catalogue"] if transition is None else transition
    if here != fitted.get("alpha_psf", here):
        raise InputError(
            f"{source}: α is in units of the PSF's {here}, but that of the bias curve in units of the PSF's "
            f"{fitted['alpha_psf']}; prepare the catalogue with that `psf`"
        )
    if transition is None:
        return own, ()
    return transition_from_dict(transition), ()


class PartLabeller:
    """Cluster actor that labels parts; if it dies, its part is labelled again from the start."""

    def __init__(self, folder: str, options: dict[str, Any]) -> None:
        self._work = open_labelling(load(folder), **options)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Label the parts with these numbers."""
        for number in batch["part"]:
            part = self._work.source.parts[int(number)]
            if not self._work.results.is_done(part.name):
                self._work.label(part, Silence())
        return batch


def label_table(
    model: Classifier,
    source: PathLike,
    out: PathLike,
    *,
    engine: str = "torch",
    precision: Precision = "auto",
    shard: tuple[int, int] = (1, 1),
    address: str | None = None,
    max_bad: float = MAXIMUM_BAD_FRACTION,
    **options: Any,
) -> LabelReport:
    """Label galaxies and write a table or a folder of tables; see `truemorph.label_galaxies`.

    Parameters
    ----------
    model : Classifier
    source, out, precision, shard, address, max_bad
        As in `label_galaxies`.
    engine : {"torch", "openvino", "ray"}
    **options
        As in `open_labelling`.

    Returns
    -------
    LabelReport
        Counts of all parts finished so far.

    Raises
    ------
    InputError, TruemorphError
        As in `label_galaxies`.
    """
    k, n = shard
    if not 1 <= k <= n:
        raise InputError(f"`shard` must be (k, n) with k from 1 to n; got {k}/{n}")
    on_cluster = engine == "ray"
    if on_cluster:
        engine = "openvino" if precision == "int8" else "torch"
    options |= {"source": source, "out": out, "engine": engine, "precision": precision}
    work = open_labelling(model, **options)
    results = work.results
    results.begin()
    work = replace(work, findings=unique(work.findings, _forget_damaged(work)))
    _forget_unreadable(work, max_bad)
    numbers = list(range(k - 1, len(work.source.parts), n))
    left = [number for number in numbers if not results.is_done(work.source.parts[number].name)]
    if on_cluster:
        accounts = _labelled_on_cluster(model, work, left, options, address)
    else:
        accounts = _labelled_here(work, numbers, left)
    so_far = Account()
    for account in accounts:
        so_far += account
        if so_far.labelled + so_far.unreadable >= _ENOUGH:
            _check_bad(work, so_far, max_bad)
    return _concluded(work, max_bad)


def _labelled_here(work: Labelling, numbers: list[int], left: list[int]) -> Iterator[Account]:
    """Label parts that no other process is working on; yield their row counts."""
    parts = work.source.parts
    rows = [parts[number].rows for number in numbers]
    total = None if None in rows else sum(filter(None, rows))
    done = (total or 0) - sum(parts[number].rows or 0 for number in left)
    with progress(total, "label", "gal", done) as bar:
        for number in left:
            yield work.label(parts[number], bar) or Account()


def _labelled_on_cluster(
    model: Classifier, work: Labelling, left: list[int], options: dict[str, Any], address: str | None
) -> Iterator[Account]:
    """Label parts on a Ray cluster; yield their row counts."""
    from truemorph.labelling.engines.ray import on_actors

    if model.folder is None:
        raise InputError("engine ray needs a model loaded from a folder that all machines can read")
    # Workers run in other folders.
    paths = {name: options[name] for name in ("source", "out", "observed", "images", "gate") if options.get(name)}
    absolute = {name: Path(path).resolve() for name, path in paths.items()}
    arguments = (str(model.folder.resolve()), {**options, **absolute})
    for number in on_actors(PartLabeller, arguments, left, address):
        yield work.results.account(work.source.parts[number].name)


def _accounts(work: Labelling, parts: Iterable[str]) -> Account:
    return sum((work.results.account(part) for part in parts), Account())


def _done(work: Labelling) -> list[str]:
    return [part.name for part in work.source.parts if work.results.is_done(part.name)]


def _forget_damaged(work: Labelling) -> list[Finding]:
    """Delete damaged parts of an earlier run, so that they are labelled again; return a finding for each."""
    findings = []
    with work.results.alone():
        for part in _done(work):
            problem = work.results.damage(part)
            if problem:
                work.results.drop(part)
                findings.append(
                    Finding(
                        "part-damaged",
                        "caution",
                        f"Part {part} of an earlier run was damaged ({problem}) and was labelled again.",
                        "Check the disk of this folder.",
                    )
                )
    return findings


def _forget_unreadable(work: Labelling, max_bad: float) -> None:
    """If too many images were unreadable in an earlier run, label their parts again, in case they were replaced."""
    with work.results.alone():
        done = _done(work)
        if _accounts(work, done).too_bad(max_bad):
            for part in done:
                if work.results.account(part).unreadable:
                    work.results.drop(part)


def _check_bad(work: Labelling, account: Account, max_bad: float) -> None:
    """Raise an error if too many images are unreadable."""
    if account.too_bad(max_bad):
        listed = (why for part in _done(work) for _, why in work.results.listed(part))
        first = next((why for why in listed if why not in (NO_IMAGE, NO_FEATURE)), "not known")
        raise InputError(
            f"{account.unreadable} of {account.labelled + account.unreadable} images can't be read, more than "
            f"{max_bad:.0%} (first: {first}); replace them, or allow more (`max_bad`)"
        )


def _concluded(work: Labelling, max_bad: float) -> LabelReport:
    """Count rows; when all parts are done, combine them if the output is one table."""
    results, parts, findings = work.results, [part.name for part in work.source.parts], list(work.findings)
    with results.alone():
        if not results.is_there:
            findings.append(Finding("written-elsewhere", "note", f"Another process has written {results.out}."))
            return LabelReport(results.out, 0, 0, [], results.problems, True, tuple(findings))
        done = _done(work)
        account = _accounts(work, done)
        problems = [row for part in done for row in results.listed(part)]
        complete = len(done) == len(parts)
        if complete:
            _check_bad(work, account, max_bad)
            if account.labelled == 0:
                raise InputError(f"{work.source.path}: nothing to label ({problems[0][1]})")
            results.conclude(parts, work.labels)
    if not complete:
        findings.append(
            Finding(
                "parts-left",
                "note",
                f"{len(parts) - len(done)} of {len(parts)} parts are left for other processes or shards.",
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
                "Read the reasons there, correct these rows and label them again.",
            )
        )
    if account.in_sample and work.labeller.transition is not None:
        findings.append(
            Finding(
                "posterior-missing",
                "caution",
                f"{account.in_sample:,} galaxies were used to train the only member, so they have no posterior.",
                "Train with 5 folds (`folds`) to label them out of fold.",
            )
        )
    if account.incomplete:
        findings.append(
            Finding(
                "posterior-missing",
                "caution",
                f"{account.incomplete:,} galaxies have no posterior, because they lack a value of "
                f"{', '.join(work.labeller.observables)}, on which the bias curve depends.",
                "Add these values to the catalogue, and label it again.",
            )
        )
    if work.labeller.joined is not None:
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
