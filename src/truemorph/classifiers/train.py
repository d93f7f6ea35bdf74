"""Training on a prepared catalogue: read it, train through T(α), write the run folder."""

import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph._version import __version__, installed_versions
from truemorph.bias.files import transition_described
from truemorph.catalogs.catalogue import image_folder, label_classes, read_catalogue
from truemorph.catalogs.label_sets import ONE_CLASS, nearly_one_class
from truemorph.catalogs.sampling import TRAIN, VALIDATION
from truemorph.classifiers.checkpoint import UNFINISHED, check_model_folder, load, save_classifier
from truemorph.classifiers.classifier import Classifier, logistic_inputs, said_of_tuning
from truemorph.classifiers.held_out import held_out, most_predicted
from truemorph.classifiers.learned import Learned, gold_evidence, learned_questions
from truemorph.classifiers.members import train_members
from truemorph.classifiers.rows import TrainingRows
from truemorph.config import OBSERVED, RunConfig, run_toml
from truemorph.errors import InputError, check_used, require_extra
from truemorph.findings import Finding, Findings, unique
from truemorph.io import plain, write_json
from truemorph.plotting import legend
from truemorph.results import Result, quantity_table, text_facts
from truemorph.tables import CatalogTable, frame_hash, frame_of_rows, missing_in, numeric_columns, write_problems

# Above this number of bytes pixels are not held in memory.
_PIXELS_IN_MEMORY = 2**30
Problems = list[tuple[str, str]]  # ids of galaxies that are left out, with the reason
# The data, what labels and α are, galaxies that are left out, and findings.
Prepared = tuple[TrainingRows, dict[str, Any], Problems, list[Finding]]
_ABOUT = ("alpha", "alpha_psf", "votes", "label_rule", "classes", "definition")
# Settings that do not change the result.
NOT_THE_RESULT = {"device", "devices", "nodes", "loggers", "compile"}


class TrainingResult(Result):
    """A trained model and its run folder; `left_out` galaxies lack an image, a value or a gold label."""

    out: Path
    model: Classifier
    left_out: int
    seconds: dict[str, float]
    findings: Findings

    @property
    def rows(self) -> int:
        """Number of galaxies that were used."""
        return self.model.seen.height

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of the model that are numbers."""
        return {name: score for name, score in self.model.described["metrics"].items() if score is not None}

    def summary(self) -> str:
        """Return rows, T(α), metrics and the folder as text."""
        transition = self.model.described["transition"]
        curve = [head.question for head in self.model.heads if head.question is not None]
        parameters = transition["parameters"].items()
        curve += [f"{name} = {value:.3f}" for name, value in parameters if isinstance(value, float) and value]
        left_out = f", {self.left_out:,} left out" if self.left_out else ""
        facts = [
            ("galaxies", f"{self.rows:,} trained on{left_out}"),
            ("bias curve", f"{transition['family']}{': ' if curve else ''}{', '.join(curve)}"),
            *(("gold labels", text) for text in said_of_tuning(self.model.described)),
            ("metrics", ", ".join(f"{name.replace('_', ' ')} {metric:.4g}" for name, metric in self.metrics.items())),
            ("time", ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())),
            ("model", str(self.out)),
        ]
        return "\n".join(text_facts(facts))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        own = {"out": self.out, "rows": self.rows, "left_out": self.left_out, "seconds": self.seconds}
        of_model = {name: self.model.described[name] for name in ("transition", "metrics")}
        return plain({**own, **of_model, "findings": self.findings})

    def to_table(self) -> Any:
        """Return a table with one row per metric."""
        return quantity_table(
            {
                "metric": (list(self.metrics), "name of the metric, on held-out galaxies"),
                "value": (list(map(float, self.metrics.values())), "value"),
            },
            out=str(self.out),
        )

    def draw(self, ax: Any) -> None:
        """Draw the held-out loss of each network against the epoch; logistic regression has nothing to draw."""
        if not self.model.history:
            super().draw(ax)  # an InputError
        history = frame_of_rows(self.model.history)
        for (member,), epochs in history.group_by("member", maintain_order=True):
            ax.plot(epochs["epoch"], epochs["held_out_loss"], label=f"member {member}")
        ax.set(xlabel="epoch", ylabel="held-out loss")
        legend(ax)


def train_on_catalogue(
    run: RunConfig, catalogue: CatalogTable | None = None, transitions: Sequence[Any] = ()
) -> TrainingResult | None:
    """Train a classifier on a prepared catalogue and write its run folder; if interrupted, the same call resumes.

    `catalogue` and `transitions`, as `transition_described` takes them, replace the files named in `run`; several are
    those of questions. Without a transition, θ is fitted here: for a network, to all rows of the catalogue by
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
    learned = learned_questions(catalogue, run, curves)
    rows, about, problems, of_rows = _training_rows(catalogue, run, learned)
    used, (described, *further) = learned[0].transition, [question.curve for question in learned]
    loaded = time.perf_counter()
    identity = {
        "galaxies": frame_hash(rows.frame)[:16],
        "transition": [{key: question.curve.get(key) for key in ("family", "parameters")} for question in learned],
        "question": run.question,
        "gold_labels": [question.gold_rule for question in learned],
        **config.model_dump(mode="json", exclude=NOT_THE_RESULT),
    }
    name = "naive" if run.naive else "gold" if run.gold_alone else "debiased"
    with unfinished.alone(identity) if unfinished is not None else nullcontext():
        model = train_members(rows, used, config, name, unfinished)
    if network and not is_first_process():
        return None
    if used is None:  # fitted with the regression
        described = model.described["transition"] | {key: about[key] for key in ("alpha", "alpha_psf")}
    source = {
        "source": Path(run.catalogue).name,
        "sha256": frame_hash(catalogue.frame.select("object_id", "label", "alpha", "split")),
        "cutouts": catalogue.metadata.get("cutouts"),  # of tiles
    }
    own = {
        "transition": described,
        "further_transitions": further,
        "catalogue": model.described["catalogue"] | source | about,
    }
    model = replace(model, described=plain(model.described | own), held_out=held_out(model, rows))
    seconds = {"load": loaded - began, "train": time.perf_counter() - loaded}

    def beside(partial: Path) -> None:
        (partial / "run.toml").write_text(run_toml(run), encoding="utf-8")
        write_json(partial / "environment.json", _environment(network))
        if model.history:
            frame_of_rows(model.history).write_csv(partial / "history.csv")
        if problems:
            write_problems(problems, partial / "left_out.csv")
        if unfinished is not None and (unfinished.folder / "logs").is_dir():
            shutil.copytree(unfinished.folder / "logs", partial / "logs")

    saved = replace(load(save_classifier(model, folder, beside)), history=model.history)
    findings = unique(catalogue.findings, of_rows, saved.findings, _of_training(model, rows, len(problems), folder))
    return TrainingResult(Path(run.out), saved, len(problems), seconds, findings)


def _of_training(model: Classifier, rows: TrainingRows, left_out: int, folder: Path) -> Iterator[Finding]:
    """Return findings about galaxies that were left out, and about predictions of nearly one class."""
    if left_out:
        message = (
            f"{left_out:,} galaxies were left out because they lack an image, a feature, a gold label or an "
            f"observable of T(α); they are listed, each with the reason, in {folder / 'left_out.csv'}."
        )
        yield Finding("galaxies-left-out", "note", message)
    if rows.questions == (None,) and model.held_out is not None:
        kind, fraction = most_predicted(model)
        if np.mean(rows.column("label") == model.classes.index(kind)) < ONE_CLASS:  # its labels differ
            yield from nearly_one_class("On held-out galaxies, the classifier", fraction, kind)


def _training_rows(catalogue: CatalogTable, run: RunConfig, learned: Sequence[Learned]) -> Prepared:
    """Return what a classifier is trained on: labels, or log p(observed | class, α) of each question."""
    network, source = run.training.classifier == "network", catalogue.source
    first = learned[0]
    frame = catalogue.frame if first.gold_alone is None else first.gold_alone
    about = {key: catalogue.metadata.get(key) for key in _ABOUT}
    problems, evidence = Problems(), None
    frame = frame.filter(pl.col("split").is_in([TRAIN, VALIDATION]))
    if first.gold_alone is not None:
        about["gold_definition"] = first.gold_definition
        frame, problems = _kept(frame, frame["label"] >= 0, "no gold label")
    names = list(dict.fromkeys(name for question in learned for name in question.names))
    complete = np.isfinite(numeric_columns(frame, names, source)).all(axis=1)
    frame, more = _kept(frame, complete, "an observable of T(α) is missing")
    problems += more
    frame, inputs, more = (_pixels if network else _features)(frame, catalogue, run)
    if first.transition is not None:
        evidence = np.hstack([question.evidence(frame, source) for question in learned])
    columns = [*names, *(() if network else run.training.features)]
    findings = [*first.findings, *missing_in(frame, columns, source)]
    rows = TrainingRows(
        frame,
        inputs,
        evidence,
        label=label_classes(catalogue),
        questions=tuple(question.asked for question in learned),
        gold=gold_evidence(learned, catalogue, frame),
    )
    return rows, about, problems + more, findings


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


def read_curves(run: RunConfig, transitions: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the estimates that a run names, or `transitions`, once they can be trained on together."""
    estimates, other_labels = transitions or run.transition, run.labels not in (None, OBSERVED)
    if estimates and other_labels:
        raise InputError(f"`transition` and `labels` {run.labels} exclude each other; give one of them")
    if run.where and (estimates or other_labels):
        way = "`transition`" if estimates else "`labels`"
        raise InputError(f"`where` selects galaxies to fit T(α) to, and {way} leaves nothing to fit; leave it out")
    check_used("network", run.training.classifier == "network", where=run.where)
    curves = list(map(transition_described, estimates))
    names = [curve.get("question") for curve in curves] or list(run.question)
    if twice := [name for name in names if names.count(name) > 1]:
        what = "the label" if twice[0] is None else f"the question {twice[0]!r}"
        raise InputError(f"{what} is given twice; give one estimate of each question")
    if run.question and not other_labels:
        raise InputError("estimates name their questions: give `question` with `labels` naive, or gold labels, only")
    if run.gold_alone is not None and len(run.question) > 1:
        raise InputError("gold labels (`labels`) are of one question; name it alone (`question`)")
    return curves


def _kept(frame: pl.DataFrame, kept: Any, reason: str) -> tuple[pl.DataFrame, Problems]:
    """Return the galaxies to keep, and the others with the reason."""
    return frame.filter(kept), [(str(galaxy), reason) for galaxy in frame.filter(~kept)["object_id"]]


def _pixels(frame: pl.DataFrame, catalogue: CatalogTable, run: RunConfig) -> tuple[pl.DataFrame, Any, Problems]:
    """Read pixels from a cache or into memory; decode on demand if there are many."""
    from truemorph.images.store import ImageFiles

    root = image_folder(catalogue)
    named = frame.get_column("image", default=pl.repeat(None, frame.height, eager=True))
    frame, problems = _kept(frame, named.is_not_null(), "no image")
    if frame.height == 0:
        raise InputError(
            f"{catalogue.path}: no training galaxy has an image; prepare with `images`, or use `preset` dcv14"
        )
    files = ImageFiles([root / name for name in frame["image"]], run.training)
    pixels, bad = files.load(run.cache, _PIXELS_IN_MEMORY)
    problems += [(str(frame["object_id"][row]), why) for row, why in bad.items()]
    # Unreadable images keep a row of zeros but leave the split, which avoids a copy.
    split = pl.when(pl.int_range(pl.len()).is_in(list(bad))).then(pl.lit("left_out")).otherwise("split")
    return frame.with_columns(split=split), pixels, problems


def _features(frame: pl.DataFrame, catalogue: CatalogTable, run: RunConfig) -> tuple[pl.DataFrame, Any, Problems]:
    features = logistic_inputs(frame, run.training.features, str(catalogue.path))
    finite = np.isfinite(features).all(axis=1)
    frame, problems = _kept(frame, finite, "a feature is missing")
    return frame, features[finite], problems
