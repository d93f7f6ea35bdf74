"""Training on a prepared catalogue: read it, train through T(α), write the run folder."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph._version import __version__, installed_versions
from truemorph.bias.curves.families import transition_from_dict, transition_to_dict
from truemorph.bias.curves.formulas import MatrixTransition
from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.curves.transitions import UNKNOWN, Transition
from truemorph.bias.files import read_fit
from truemorph.bias.fractions import unlike_labels
from truemorph.bias.likelihood import observables_of
from truemorph.bias.sample import Sample
from truemorph.catalogs.catalogue import classes_of, gold_classes, image_folder, read_catalogue
from truemorph.catalogs.label_sets import ONE_CLASS, nearly_one_class
from truemorph.catalogs.paths import asked_in, path_evidence, path_labels
from truemorph.catalogs.sampling import TRAIN, VALIDATION
from truemorph.classifiers.checkpoint import UNFINISHED, check_model_folder, load, save_classifier
from truemorph.classifiers.classifier import Classifier, logistic_inputs
from truemorph.classifiers.fits import fit_catalogue
from truemorph.classifiers.held_out import held_out, most_predicted
from truemorph.classifiers.members import train_members
from truemorph.classifiers.rows import TrainingRows
from truemorph.config import RunConfig, run_toml
from truemorph.errors import InputError, check_used, require_extra
from truemorph.findings import Finding, unique
from truemorph.io import plain, write_json
from truemorph.plotting import axes_or_new
from truemorph.questions import heads_of
from truemorph.results import Result, quantity_table, text_facts
from truemorph.tables import CatalogTable, frame_hash, missing_in, numeric_columns, write_table

# Above this number of bytes pixels are not held in memory.
_PIXELS_IN_MEMORY = 2**30
_FRACTIONS = ("smooth_fraction", "disk_fraction")
Problems = list[tuple[str, str]]  # ids of galaxies that are left out, with the reason
# The data, T(α), descriptions of T(α), what labels and α are, galaxies that are left out, and findings.
Prepared = tuple[TrainingRows, Transition | None, list[dict[str, Any]], dict[str, Any], Problems, list[Finding]]
# A fit with one of these findings is used only if it is given.
_UNUSABLE = ("fraction-at-bound", "drift-reversed")
# Settings that do not change the result.
NOT_THE_RESULT = {"device", "devices", "nodes", "loggers", "compile"}


@dataclass(frozen=True, repr=False)
class TrainingResult(Result):
    """A trained model and its run folder; `left_out` galaxies lack an image, a value or a gold label."""

    out: Path
    model: Classifier
    left_out: int
    seconds: dict[str, float]
    findings: tuple[Finding, ...]

    @property
    def rows(self) -> int:
        """Number of galaxies that were used."""
        return self.model.seen.height

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of the model that are numbers."""
        return {name: one for name, one in self.model.described["metrics"].items() if one is not None}

    def summary(self) -> str:
        """Return rows, T(α), metrics and the folder as text."""
        transition = self.model.described["transition"]
        values = {name: one for name, one in transition["parameters"].items() if isinstance(one, float) and one}
        asked = [str(head.question) for head in self.model.heads if head.question is not None]
        curve = ", ".join([*asked, *(f"{name} = {value:.3f}" for name, value in values.items())])
        left_out = f", {self.left_out:,} left out" if self.left_out else ""
        facts = [
            ("galaxies", f"{self.rows:,} trained on{left_out}"),
            ("bias curve", f"{transition['family']}{': ' if curve else ''}{curve}"),
            ("metrics", ", ".join(f"{name.replace('_', ' ')} {metric:.4g}" for name, metric in self.metrics.items())),
            ("time", ", ".join(f"{name} {one:.1f} s" for name, one in self.seconds.items())),
            ("model", str(self.out)),
        ]
        return "\n".join(text_facts(facts))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        own = {"out": str(self.out), "rows": self.rows, "left_out": self.left_out, "seconds": self.seconds}
        of_model = {name: self.model.described[name] for name in ("transition", "metrics")}
        return plain({**own, **of_model, "findings": [finding.to_dict() for finding in self.findings]})

    def to_table(self) -> Any:
        """Return a table with one row per metric."""
        return quantity_table(
            {
                "metric": (list(self.metrics), "", "name of the metric, on held-out galaxies"),
                "value": (list(map(float, self.metrics.values())), "", "value"),
            },
            out=str(self.out),
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the held-out loss of each network against the epoch; logistic regression has nothing to draw."""
        history = self.model.history
        if not history:
            return super().plot(ax)
        ax = axes_or_new(ax)
        for member in dict.fromkeys(one["member"] for one in history):
            own = [one for one in history if one["member"] == member]
            ax.plot([one["epoch"] for one in own], [one["held_out_loss"] for one in own], label=f"member {member}")
        ax.set(xlabel="epoch", ylabel="held-out loss")
        ax.legend(frameon=False, fontsize=8)
        return ax


def train_on_catalogue(
    run: RunConfig, catalogue: CatalogTable | None = None, transitions: Sequence[Mapping[str, Any]] | None = None
) -> TrainingResult | None:
    """Train a classifier on a prepared catalogue and write its run folder; if interrupted, the same call resumes.

    `catalogue` and `transitions`, in the format of a fit file, are used instead of the files named in `run`; several
    are those of questions. Without a transition, θ is fitted here: for a network, to all rows of the catalogue by
    maximum likelihood; for a logistic classifier, together with the regression. Returns None in all processes but the
    first.
    """
    config, network, unfinished = run.training, run.training.classifier == "network", None
    if network:
        require_extra("networks")
        from truemorph.classifiers.callbacks import Unfinished, is_first_process  # torch takes seconds to import

        unfinished = Unfinished(Path(run.out).resolve() / UNFINISHED)
    curves = read_curves(run, transitions)
    began = time.perf_counter()
    folder = check_model_folder(run.out)  # fails before hours of training, not after
    catalogue = read_catalogue(run.catalogue) if catalogue is None else catalogue
    of_questions = bool(run.question) or any("question" in curve for curve in curves)
    if not of_questions:
        curves = [_transition_for(catalogue, run, curves[0] if curves else None)]
    prepared = (_question_rows if of_questions else _training_rows)(catalogue, run, curves)
    rows, used, (described, *further), about, problems, of_rows = prepared
    loaded = time.perf_counter()
    identity = {
        "galaxies": frame_hash(rows.frame)[:16],
        "transition": {key: plain(described.get(key)) for key in ("family", "parameters")},
        **({"further_transitions": [plain(one["parameters"]) for one in further]} if further else {}),
        **({"question": list(run.question)} if run.question else {}),
        **config.model_dump(mode="json", exclude=NOT_THE_RESULT),
    }
    name = "naive" if run.naive else "debiased" if run.labels is None else "gold"
    with unfinished.alone(identity) if unfinished is not None else nullcontext():
        model = train_members(rows, used, config, name, unfinished)
    if network and not is_first_process():
        return None
    if used is None:  # fitted with the regression
        described = model.described["transition"] | {key: about[key] for key in ("alpha", "alpha_psf")}
    source = {
        "source": Path(run.catalogue).name,
        "sha256": frame_hash(catalogue.frame.select("object_id", "label", "alpha", "split")),
        **({"cutouts": catalogue.metadata["cutouts"]} if "cutouts" in catalogue.metadata else {}),  # of tiles
    }
    own = {
        "transition": described,
        **({"further_transitions": further} if further else {}),
        "catalogue": model.described["catalogue"] | source | about,
    }
    model = replace(model, described=plain(model.described | own), held_out=held_out(model, rows))
    seconds = {"load": loaded - began, "train": time.perf_counter() - loaded}

    def beside(partial: Path) -> None:
        (partial / "run.toml").write_text(run_toml(run), encoding="utf-8")
        write_json(partial / "metrics.json", {**model.described["metrics"], "seconds": seconds})
        write_json(partial / "environment.json", _environment(network))
        catalogue.frame.select("object_id", "split").write_parquet(partial / "split.parquet")
        if model.history:
            pl.DataFrame(model.history, infer_schema_length=None).write_csv(partial / "history.csv")
        if problems:
            listed = pl.DataFrame(problems, schema=["object_id", "reason"], orient="row")
            write_table(CatalogTable(listed), partial / "left_out.csv")
        if unfinished is not None and (unfinished.folder / "logs").is_dir():
            shutil.copytree(unfinished.folder / "logs", partial / "logs")

    saved = replace(load(save_classifier(model, folder, beside)), history=model.history)
    findings = unique(catalogue.findings, of_rows, saved.findings)
    if problems:
        message = (
            f"{len(problems):,} galaxies were left out because they lack an image, a feature, a gold label or an "
            f"observable of T(α); they are listed, each with the reason, in {folder / 'left_out.csv'}."
        )
        findings += (Finding("galaxies-left-out", "note", message),)
    if not of_questions and model.held_out is not None:
        kind, fraction = most_predicted(model)
        if np.mean(rows.column("label") == model.classes.index(kind)) < ONE_CLASS:  # its labels differ
            findings += tuple(nearly_one_class("On held-out galaxies, the classifier", fraction, kind))
    return TrainingResult(Path(run.out), saved, len(problems), seconds, findings)


def _named(transition: str | Sequence[str] | None) -> list[str]:
    """Return the names of files, or known curves."""
    return [] if transition is None else [transition] if isinstance(transition, str) else list(transition)


def _training_rows(catalogue: CatalogTable, run: RunConfig, curves: list[dict[str, Any]]) -> Prepared:
    """Return what a classifier of the catalogue's classes is trained on."""
    [described] = curves
    network = run.training.classifier == "network"
    frame = catalogue.frame.filter(pl.col("split").is_in([TRAIN, VALIDATION]))
    defined = ("alpha", "alpha_psf", "votes", "label_rule", "classes", "definition")
    about = {key: catalogue.metadata.get(key) for key in defined}
    problems, findings = Problems(), list[Finding]()
    if run.labels is not None:
        frame, about["gold_definition"], problems, findings = _with_gold(frame, catalogue, run.labels)
    used: Transition | None = transition_from_dict(described) if described else None
    names = () if used is None else observables_of(described, used)
    if names:
        complete = np.isfinite(numeric_columns(frame, names, run.catalogue)).all(axis=1)
        frame, more = _kept(frame, complete, "an observable of T(α) is missing")
        problems += more
    frame, inputs, more = (_pixels if network else _features)(frame, catalogue, run)
    observed: dict[str, Any] = {"classes": classes_of(catalogue)}
    if names:
        observed["resolution"] = numeric_columns(frame, ["alpha", *names], run.catalogue)
    if run.intrinsic:
        observed["intrinsic"] = numeric_columns(frame, run.intrinsic, run.catalogue)
    columns = [*names, *run.intrinsic, *(() if network else run.training.features)]
    findings += missing_in(frame, columns, run.catalogue)
    return TrainingRows(frame, inputs, **observed), used, [described], about, problems + more, findings


def _question_rows(catalogue: CatalogTable, run: RunConfig, curves: list[dict[str, Any]]) -> Prepared:
    """Return what a network that answers questions is trained on: p(votes | class, α) for all classes of each.

    If labels are correct (naive), that is 1 for the class of the majority path and 0 for others.
    """
    source = str(catalogue.path or "catalogue")
    frame = catalogue.frame.filter(pl.col("split").is_in([TRAIN, VALIDATION]))
    about = {key: catalogue.metadata.get(key) for key in ("alpha", "alpha_psf", "votes", "definition")}
    if run.naive:
        correct = {"assumption": "the observed labels are correct (naive training)"}
        questions = [asked_in(catalogue, one) for one in run.question]
        transitions: list[Transition] = [MatrixTransition.identity(len(asked.classes)) for asked in questions]
        curves = [
            transition_to_dict(transition) | correct | {"question": name}
            for transition, name in zip(transitions, run.question, strict=True)
        ]
    else:
        transitions = [transition_from_dict(curve) for curve in curves]
        questions = [transition.asked for transition in transitions if isinstance(transition, TreeTransition)]
        for curve in curves:
            _check_unit(curve, catalogue, source)
    names = [observables_of(curve, t) for curve, t in zip(curves, transitions, strict=True)]
    every = list(dict.fromkeys(chain(*names)))
    complete = np.isfinite(numeric_columns(frame, every, source)).all(axis=1) if every else np.ones(frame.height, bool)
    frame, problems = _kept(frame, complete, "an observable of T(α) is missing")
    frame, inputs, more = _pixels(frame, catalogue, run)
    evidence = []
    for asked, transition, own in zip(questions, transitions, names, strict=True):
        if isinstance(transition, TreeTransition):
            columns = numeric_columns(frame, ["alpha", *own], source)
            found = path_evidence(frame, transition, columns if own else columns[:, 0], source)
            evidence.append(found - found.max(axis=1, keepdims=True))
        else:
            labels = path_labels(frame, asked, source)
            evidence.append(np.where(np.eye(len(asked.classes), dtype=bool)[labels], 0.0, -np.inf))
    observed: dict[str, Any] = {"evidence": np.concatenate(evidence, axis=1), "questions": tuple(questions)}
    observed["classes"] = tuple(chain(*(one.columns for one in heads_of(questions))))
    if run.intrinsic:
        observed["intrinsic"] = numeric_columns(frame, run.intrinsic, source)
    findings = missing_in(frame, [*every, *run.intrinsic], source)
    return TrainingRows(frame, inputs, **observed), transitions[0], curves, about, problems + more, findings


def _transition_for(catalogue: CatalogTable, run: RunConfig, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return T(α) for training, in the format of a fit file; empty if it is fitted during training."""
    if run.naive or run.labels is not None:
        which = "observed labels are correct (naive training)" if run.naive else "gold labels are correct"
        return {**transition_to_dict(MatrixTransition.identity()), "assumption": f"the {which}"}
    if given is None:
        if run.training.classifier != "network":
            return {}
        fit, described = fit_catalogue(catalogue, where=run.where)
        found = next((finding for finding in fit.findings if finding.code in _UNUSABLE), None)
        if found is not None:
            raise InputError(
                f"{run.catalogue}: T(α) can't be fitted to these labels: {found.message} Give a fit with gold labels "
                "or a known T(α) (`transition`). A fit without gold labels is used only if you give it."
            )
        return described
    described = dict(given)
    _check_unit(described, catalogue, run.catalogue)
    labels, alpha = (catalogue.frame[name].to_numpy() for name in ("label", "alpha"))
    sample = Sample.of(labels, alpha)
    unlike = [one.to_dict() for one in unlike_labels(transition_from_dict(described), sample)]
    return described | {"findings": [*described.get("findings", ()), *unlike]} if unlike else described


def _check_unit(described: Mapping[str, Any], catalogue: CatalogTable, source: str) -> None:
    """Refuse T(α) for α in another unit than the catalogue's."""
    here = catalogue.metadata.get("alpha_psf")
    if described.get("alpha_psf") not in (None, here):
        raise InputError(
            f"{source}: T(alpha) is for alpha in units of the PSF's {described['alpha_psf']}, but this catalogue has "
            f"units of the PSF's {here}; fit it again or prepare with the same `psf`"
        )


def _environment(network: bool) -> dict[str, Any]:
    """Return time, machine and versions of a run."""
    about = {
        "command": sys.argv,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "truemorph": __version__,
        **installed_versions("torch", "lightning", "timm", "numpy", "polars"),
    }
    if network:
        import torch

        about["threads"] = torch.get_num_threads()
        about["accelerators"] = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return about


def read_curves(run: RunConfig, transitions: Sequence[Mapping[str, Any]] | None = None) -> list[dict[str, Any]]:
    """Return the estimates that a run names, or `transitions`, once they can be trained on together."""
    _check(run, transitions is not None)
    curves = [read_fit(one) for one in _named(run.transition)] if transitions is None else list(map(dict, transitions))
    _check_questions(run, curves)
    return curves


def _check_questions(run: RunConfig, curves: Sequence[Mapping[str, Any]]) -> None:
    """Check that several estimates are of questions, and that nothing else is given with them."""
    of_questions = [curve for curve in curves if "question" in curve]
    if len(curves) > 1 and len(of_questions) < len(curves):
        raise InputError("several estimates must be of questions (truemorph transition with `question`)")
    if (run.question or of_questions) and run.training.classifier != "network":
        raise InputError("logistic regression tells two classes apart; questions need a network (`preset`)")
    names = [question["question"] for question in of_questions] or list(run.question or ())
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"the question {twice[0]!r} is given twice; give one estimate of each question")
    if run.question and not run.naive:
        raise InputError("estimates name their questions: give `question` with `naive` only")
    if (run.question or of_questions) and run.labels is not None:
        raise InputError("a question is learned from its votes; leave out `labels`")


def _check(run: RunConfig, has_transition: bool) -> None:
    """Check that at most one source of T(α) is given."""
    ways = {"transition": has_transition or run.transition, "naive": run.naive, "labels": run.labels is not None}
    given = [f"`{name}`" for name, holds in ways.items() if holds]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} exclude each other; give one of them")
    if given and run.where:
        raise InputError(f"`where` selects galaxies to fit T(α) to, and {given[0]} leaves nothing to fit; leave it out")
    check_used("network", run.training.classifier == "network", where=run.where, intrinsic=run.intrinsic)


def _kept(frame: pl.DataFrame, kept: Any, reason: str) -> tuple[pl.DataFrame, Problems]:
    """Return the galaxies to keep, and the others with the reason."""
    kept = pl.Series(kept)
    return frame.filter(kept), [(str(one), reason) for one in frame.filter(~kept)["object_id"]]


def _with_gold(
    frame: pl.DataFrame, catalogue: CatalogTable, rule: str
) -> tuple[pl.DataFrame, str, Problems, list[Finding]]:
    """Use gold labels as labels; also return the definition of class 1."""
    gold, definition, findings = gold_classes(frame, rule, str(catalogue.path or "catalogue"))
    definition = f"{classes_of(catalogue)[1]}: {definition}"
    if rule == "gold":
        definition = str(catalogue.metadata.get("gold_definition", definition))
    frame, problems = _kept(frame.with_columns(label=pl.Series(gold)), gold != UNKNOWN, "no gold label")
    if rule == "gold" and "gold_probability" in frame.columns and frame["gold_probability"].null_count() == 0:
        # Galaxies were not selected at random; each stands for as many as its probability says.
        inverse = 1 / pl.col("gold_probability")
        weight = pl.col("sampling_weight") if "sampling_weight" in frame.columns else pl.lit(1.0)
        frame = frame.with_columns(sampling_weight=weight * inverse / inverse.mean())
    return frame, definition, problems, findings


def _pixels(frame: pl.DataFrame, catalogue: CatalogTable, run: RunConfig) -> tuple[pl.DataFrame, Any, Problems]:
    """Read pixels from a cache or into memory; decode on demand if there are many."""
    from truemorph.images.store import ImageFiles

    root = image_folder(catalogue)
    named = frame["image"] if "image" in frame.columns else pl.repeat(None, frame.height, eager=True)
    frame, problems = _kept(frame, named.is_not_null(), "no image")
    if frame.height == 0:
        raise InputError(
            f"{catalogue.path}: no training galaxy has an image; prepare with `images`, or use `preset` dcv14"
        )
    files = ImageFiles([root / name for name in frame["image"]], run.training)
    pixels, good, unreadable = files.load(run.cache, _PIXELS_IN_MEMORY)
    bad = frame.filter(~pl.Series(good))["object_id"].to_list()
    problems += [(str(one), why) for one, (_, why) in zip(bad, unreadable, strict=True)]
    # Unreadable images keep a row of zeros but leave the split, which avoids a copy.
    split = pl.when(pl.Series(good)).then("split").otherwise(pl.lit("left_out"))
    return frame.with_columns(split=split), pixels, problems


def _features(frame: pl.DataFrame, catalogue: CatalogTable, run: RunConfig) -> tuple[pl.DataFrame, Any, Problems]:
    features = logistic_inputs(frame, run.training.features, str(catalogue.path))
    finite = np.isfinite(features).all(axis=1)
    frame, problems = _kept(frame, finite, "a feature is missing")
    return frame, features[finite], problems
