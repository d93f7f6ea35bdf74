"""Training through T(α): networks by Lightning, DCV14 by one call, folds and ensembles for both.

A model is one or more members. With one fold the member sees every training galaxy. With F folds member f
sees all but fold f, so that each training galaxy has a member that never saw its label: relabelling is then
out of fold (science: p(y | x) of a network that memorised ỹ would make the posterior count ỹ twice). With several
seeds each fold has several networks.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from truemorph.bias.transitions import CLASS_NAMES, Transition, transition_to_dict
from truemorph.catalogs.sampling import TRAIN, VALIDATION, assign_folds
from truemorph.classifiers.checkpoint import Classifier, describe
from truemorph.classifiers.logistic import DebiasedLogisticRegression
from truemorph.classifiers.rows import TrainingRows, check_observed
from truemorph.config import TrainingConfig
from truemorph.errors import InputError
from truemorph.findings import Finding, FindingWarning

if TYPE_CHECKING:
    from truemorph.classifiers.resuming import Unfinished


@dataclass
class TrainedMembers:
    """What training returns: member weights, which galaxies each has seen, and its story."""

    config: TrainingConfig
    members: list[dict[str, np.ndarray]]
    seen: pl.DataFrame  # object_id, role, fold (-1: none)
    transition: Transition | Mapping[str, Transition] | None
    classes: tuple[str, ...] = CLASS_NAMES
    history: list[dict[str, float]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    temperatures: list[float] = field(default_factory=list)
    start: str = "random"
    built: dict[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    def classifier(
        self, transition: dict[str, Any] | None = None, catalogue: Mapping[str, Any] | None = None
    ) -> Classifier:
        """The model that these members are.

        Parameters
        ----------
        transition : dict, optional
            T(α) and what it rests on, as a fit describes it; default the one that was trained through, where it was
            one.
        catalogue : dict, optional
            What was trained on: `source`, `rows`, `sha256`, `alpha`, `alpha_psf`, `votes`, `label_rule`.
        """
        if transition is None:
            one = self.transition
            transition = {} if one is None or isinstance(one, Mapping) else transition_to_dict(one)
        described = describe(
            self.config,
            transition,
            catalogue={"source": "arrays", "rows": self.seen.height, **(catalogue or {})},
            members=len(self.members),
            metrics=self.metrics,
            normalisation={"mean": list(self.mean), "std": list(self.std)},
            classes=self.classes,
            temperatures=self.temperatures,
            start=self.start,
            built=self.built,
        )
        return Classifier(described, self.members, self.seen)


def _fold_masks(folds: np.ndarray, n_folds: int) -> list[np.ndarray]:
    return [np.ones(folds.size, bool)] if n_folds == 1 else [folds != fold for fold in range(n_folds)]


def train_members(
    rows: TrainingRows,
    transition: Transition | Mapping[str, Transition] | None,
    config: TrainingConfig,
    name: str = "train",
    unfinished: Unfinished | None = None,
) -> TrainedMembers:
    """Train a classifier through T(α).

    Parameters
    ----------
    rows : TrainingRows
        Galaxies with split "train" are trained on, those with "validation" stop a network's training (logistic
        regression trains on them too), others are left alone.
    transition : Transition, dict of Transition, or None
        T(α), constant in the loss; the identity takes labels at their word (naive training). Several by name where
        rows have a column `transition` of names. None is for logistic regression only: θ is fitted along by EM, as in
        DCV14.
    config : TrainingConfig
    name : str
        Prefix of progress lines.
    unfinished : Unfinished, optional
        Where the state of training is kept, and taken up. Without one nothing is left of a run that was cut off.

    Returns
    -------
    TrainedMembers

    Raises
    ------
    InputError
        If there are no training or validation galaxies, a class is empty, a network is given no T(α), or evidence has
        the wrong shape.
    CheckpointError
        If the state of training can't be read or written.
    """
    split, labels = rows.column("split"), rows.column("label")
    train, validation = np.flatnonzero(split == TRAIN), np.flatnonzero(split == VALIDATION)
    if config.classifier == "logistic":
        # Nothing stops early: validation galaxies are trained on like the others, in folds.
        train, validation = np.sort(np.concatenate([train, validation])), validation[:0]
    parts = [(TRAIN, train)] + ([(VALIDATION, validation)] if config.classifier == "network" else [])
    for part, where in parts:
        if where.size == 0:
            raise InputError(f"no {part} galaxies in this catalogue; prepare it with a {part} share")
    empty = [name for k, name in enumerate(rows.classes) if not np.any(labels[train] == k)]
    if empty:
        raise InputError(f"no training galaxy is labelled {empty[0]}: nothing to learn from")
    if train.size < 2 * max(config.folds, config.batch_size if config.classifier == "network" else 1):
        raise InputError(
            f"only {train.size} training galaxies for {config.folds} folds and batches of {config.batch_size}"
        )
    check_observed(rows, transition, config)
    ids = rows.frame["object_id"]
    folds = assign_folds(ids.gather(train).to_list(), config.folds, config.seed)
    role = np.full(train.size, "out_of_fold" if config.folds > 1 else "in_sample")
    fold_seen = folds if config.folds > 1 else np.full(train.size, -1)
    seen = pl.concat(
        [
            pl.DataFrame({"object_id": ids.gather(train), "role": role, "fold": fold_seen}),
            pl.DataFrame({"object_id": ids.gather(validation)}).with_columns(
                role=pl.lit("early_stopping"), fold=pl.lit(-1, dtype=pl.Int64)
            ),
        ]
    )
    if config.classifier == "logistic":
        assert transition is None or not isinstance(transition, Mapping)
        return _train_logistic(rows, train, folds, transition, config, seen)

    if transition is None:
        raise InputError("a network needs T(alpha) before it trains: fit one with `truemorph transition`")
    # Not above: logistic regression needs no torch.
    from truemorph.classifiers.loop import train_network
    from truemorph.classifiers.resuming import Unfinished, is_first_process

    with tempfile.TemporaryDirectory(prefix="truemorph-") as scratch:
        keep = unfinished or Unfinished(Path(scratch))
        masks = [mask for mask in _fold_masks(folds, config.folds) for _ in range(config.seeds)]
        found: list[dict[str, Any]] = []
        history: list[dict[str, float]] = []
        for number, mask in enumerate(masks):
            label = name if len(masks) == 1 else f"{name} {number + 1}/{len(masks)}"
            done = keep.finished(number)
            if done is None:
                start = found[0]["start"] if found else None
                done = train_network(
                    rows, train[mask], validation, transition, config, number, label, keep, history, start
                )
                if is_first_process():
                    keep.finish(number, done["weights"], {key: done[key] for key in done if key != "weights"})
            found.append(done)
            history += [{"member": float(number), **epoch} for epoch in done["history"]]
    return TrainedMembers(
        config,
        [one["weights"] for one in found],
        seen,
        transition,
        rows.classes,
        history,
        {"held_out_loss": float(np.mean([one["best"] for one in found]))},
        tuple(found[0]["mean"]),
        tuple(found[0]["std"]),
        [one["temperature"] for one in found],
        found[0]["start"],
        found[0]["built"],
        (_random_start(config),) if config.pretrained and found[0]["start"] == "random" else (),
    )


def _random_start(config: TrainingConfig) -> Finding:
    return Finding(
        "random-start",
        "caution",
        f"The published weights of {config.backbone} cannot be fetched, so training started from random weights.",
        "Connect to the internet once to fetch them, or leave `pretrained` out.",
    )


def _train_logistic(
    rows: TrainingRows,
    train: np.ndarray,
    folds: np.ndarray,
    transition: Transition | None,
    config: TrainingConfig,
    seen: pl.DataFrame,
) -> TrainedMembers:
    labels, alpha, weights = rows.column("label"), rows.column("alpha"), rows.weights

    def fit(which: np.ndarray) -> DebiasedLogisticRegression:
        model = DebiasedLogisticRegression(transition=transition)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FindingWarning)  # they are in `findings_`
            return model.fit(rows.inputs[which], labels[which], alpha=alpha[which], sample_weight=weights[which])

    whole = fit(train)
    parts = [whole] if config.folds == 1 else [fit(train[mask]) for mask in _fold_masks(folds, config.folds)]
    metrics = {"log_likelihood": whole.log_likelihood_, "em_iterations": whole.n_iter_}
    metrics |= {f"{name}_stderr": error for name, error in whole.stderr_.items()}
    members = [part.class_weights() for part in parts]
    return TrainedMembers(config, members, seen, whole.transition_, metrics=metrics, findings=whole.findings_)
