"""Train the members of a classifier through T(α): networks, or logistic regression (DCV14).

With F folds, member f sees all folds but f, so each training galaxy has a member that did not see its label: a network
that memorised ỹ would make the posterior count ỹ twice. With several seeds, each fold has several networks.
"""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from truemorph.bias.curves.families import transition_to_dict
from truemorph.bias.curves.transitions import Transition
from truemorph.catalogs.sampling import TRAIN, VALIDATION, assign_folds
from truemorph.classifiers.classifier import Classifier, describe
from truemorph.classifiers.logistic import DebiasedLogisticRegression
from truemorph.classifiers.rows import TrainingRows
from truemorph.config import TrainingConfig
from truemorph.errors import InputError
from truemorph.findings import FindingWarning
from truemorph.io import plain
from truemorph.questions import Head

if TYPE_CHECKING:
    from truemorph.classifiers.callbacks import Unfinished


def train_members(
    rows: TrainingRows,
    transition: Transition | None,
    config: TrainingConfig,
    name: str = "train",
    unfinished: Unfinished | None = None,
) -> Classifier:
    """Train a classifier through T(α); its `history` has one entry per epoch and member.

    Galaxies with split "validation" decide when a network stops; logistic regression is trained on them too. The
    identity as T(α) treats the labels as correct (naive training); without one, for logistic regression, θ is fitted
    too (DCV14). `name` is the prefix of progress lines; `unfinished` has the state of training, to resume from.
    """
    train, validation = _divided(rows, config)
    ids, several = rows.frame["object_id"], config.folds > 1
    folds = np.full(train.size, -1)
    if several:
        folds = assign_folds(ids.gather(train).to_list(), config.folds, config.seed)
    seen = pl.DataFrame(
        {
            "object_id": ids.gather(np.append(train, validation)),
            "role": ["out_of_fold" if several else "in_sample"] * train.size + ["early_stopping"] * validation.size,
            "fold": np.append(folds, np.full(validation.size, -1)),
        }
    )
    parts = [train[folds != fold] for fold in range(config.folds)]
    history: list[dict[str, Any]] = []
    if config.classifier == "network":
        assert transition is not None
        seen_as = replace(rows, evidence=rows.through(transition))
        members, history, about = _networks(seen_as, parts, validation, config, name, unfinished)
        through = transition_to_dict(transition)
    else:
        members, through, about = _regressions(rows, train, parts, transition)
    arrays, classes = {"source": "arrays", "rows": seen.height}, list(rows.classes)
    if rows.questions != (None,):
        about["questions"] = [question and question.to_dict() for question in rows.questions]
    described = describe(config, through, classes=classes, catalogue=arrays, members=len(members), **about)
    return Classifier(described, members, seen, history=history)


def _divided(rows: TrainingRows, config: TrainingConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of training and validation galaxies; an InputError if there are too few."""
    network = config.classifier == "network"
    split, labels = rows.column("split"), rows.column("label")
    held_out = (split == VALIDATION) & network  # without early stopping they are used for training too
    train, validation = np.flatnonzero(np.isin(split, [TRAIN, VALIDATION]) & ~held_out), np.flatnonzero(held_out)
    if not train.size or (network and not validation.size):
        lacking = VALIDATION if train.size else TRAIN
        raise InputError(f"the catalogue has no {lacking} galaxies; prepare it with another `split`")
    for k, class_name in enumerate(rows.label if None in rows.questions else ()):
        if not np.any(labels[train] == k):
            raise InputError(f"no training galaxy is labelled {class_name}; two classes are needed")
    if train.size < 2 * max(config.folds, config.batch_size if network else 1):
        raise InputError(
            f"only {train.size} training galaxies for {config.folds} folds and batches of {config.batch_size}"
        )
    return train, validation


Members = list[dict[str, np.ndarray]]


def _networks(
    rows: TrainingRows,
    parts: list[np.ndarray],
    validation: np.ndarray,
    config: TrainingConfig,
    name: str,
    unfinished: Unfinished | None,
) -> tuple[Members, list[dict[str, Any]], dict[str, Any]]:
    """Train the networks of each part of the training galaxies; return weights, history and what describes them."""
    # Imported here because logistic regression needs no torch.
    from truemorph.classifiers.callbacks import Unfinished
    from truemorph.classifiers.module import train_network
    from truemorph.classifiers.tuning import tuned

    each = [part for part in parts for _ in range(config.seeds)]
    trained = []
    with tempfile.TemporaryDirectory(prefix="truemorph-") as scratch:
        keep = unfinished or Unfinished(Path(scratch))
        for number, part in enumerate(each):
            title = name if len(each) == 1 else f"{name} {number + 1}/{len(each)}"
            result = train_network(rows, part, validation, config, number, title, keep)
            trained.append(tuned(result, rows, part, config, number, title, keep))
    about = {
        "metrics": {"held_out_loss": float(np.mean([member["best"] for member in trained]))},
        "normalisation": trained[0]["normalisation"],
        "temperatures": [member["temperature"] for member in trained],
        "built": trained[0]["built"],
    }
    tuning = [member.get("tuning") for member in trained]
    if any(tuning):
        about["tuning"] = tuning
    members = [{key: value.numpy() for key, value in member["weights"].items()} for member in trained]
    history = [
        {"member": float(number), **epoch} for number, member in enumerate(trained) for epoch in member["history"]
    ]
    return members, history, about


def _regressions(
    rows: TrainingRows, train: np.ndarray, parts: list[np.ndarray], transition: Transition | None
) -> tuple[Members, dict[str, Any], dict[str, Any]]:
    """Fit logistic regressions to all training galaxies and to each part; return weights, T(α), and metrics."""
    whole = [_regression(rows, train, head, transition) for head in rows.heads]
    members = []
    for part in parts:
        of_heads = [_regression(rows, part, head, transition).class_weights() for head in rows.heads]
        members.append({name: np.concatenate([weights[name] for weights in of_heads]) for name in of_heads[0]})
    metrics = {
        "log_likelihood": sum(regression.log_likelihood_ for regression in whole),
        "iterations": sum(regression.n_iter_ for regression in whole),
        **{f"{name}_stderr": error for name, error in whole[0].stderr_.items()},
    }
    through = transition_to_dict(transition or whole[0].transition_)
    if transition is None:
        through |= {
            "stderr": whole[0].stderr_,
            "method": "logistic regression and θ, fitted together (DCV14)",
            "assumption": "p(y | features) is logistic, the flip probability depends only on the true class and alpha",
            "findings": plain(whole[0].findings_),
        }
    return members, through, {"metrics": metrics, "normalisation": {}}


def _regression(
    rows: TrainingRows, part: np.ndarray, head: Head, transition: Transition | None
) -> DebiasedLogisticRegression:
    """Fit the regression of one question to a part of the galaxies; without T, of the label, together with T."""
    X, weights = rows.inputs[part], rows.weights[part]
    with warnings.catch_warnings(action="ignore", category=FindingWarning):  # they are stored in `findings_`
        if transition is not None:
            evidence = rows.through(transition)[part, head.part]
            return DebiasedLogisticRegression().fit(X, None, sample_weight=weights, evidence=evidence)
        labels, alpha = rows.column("label")[part], rows.column("alpha")[part]
        return DebiasedLogisticRegression().fit(X, labels, alpha, weights)
