"""Training through T(α): networks by Lightning, DCV14 by one call, folds and ensembles for both.

A model is one or more members. With one fold the member sees every training galaxy. With F folds member f
sees all but fold f, so that each training galaxy has a member that never saw its label: relabelling is then
out of fold (science: p(y | x) of a network that memorised ỹ would make the posterior count ỹ twice). With several
seeds each fold has several networks.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import polars as pl
import torch

from truemorph.bias.transitions import CLASS_NAMES, Transition
from truemorph.catalogs.sampling import TRAIN, VALIDATION, assign_folds
from truemorph.classifiers.heldout import Measured, fit_temperature
from truemorph.classifiers.logistic import DebiasedLogisticRegression
from truemorph.classifiers.loop import Story, loggers_for, trainer_for
from truemorph.classifiers.module import DebiasedModule
from truemorph.classifiers.network import GalaxyNetwork
from truemorph.classifiers.resuming import KeepState, Unfinished, is_first_process
from truemorph.config import TrainingConfig
from truemorph.errors import InputError, TruemorphError

_STATE_MINUTES = 10.0


@dataclass(frozen=True)
class TrainingRows:
    """The columns a classifier learns from, one row a galaxy, inputs beside.

    Attributes
    ----------
    frame : polars.DataFrame
        `object_id`, `label`, `alpha`, `split`; where a sample was balanced, `sampling_weight`; where galaxies have
        transitions of their own, `transition` (its name).
    inputs : array or Pixels
        Pixels (N, S, S, 3) of uint8 for networks, features (N, P) for logistic regression.
    evidence : array, shape (N, K), optional
        log p(observed | y), where more than a label was observed of each galaxy (votes, say); networks then learn from
        it, and labels only say which galaxies there are of each class.
    soft_labels : array, shape (N, K), optional
        Shares of votes for each class, or votes: a network then learns from them in place of labels, each vote flipped
        by T(α) as a label is.
    resolution : array, shape (N, J), optional
        What T depends on, where it is more than `alpha`.
    intrinsic : array, shape (N, P), optional
        Intrinsic properties, by which CV18 of held-out galaxies is measured.
    classes : tuple of str
        Names of the K classes.
    """

    frame: pl.DataFrame
    inputs: Any
    evidence: np.ndarray | None = None
    soft_labels: np.ndarray | None = None
    resolution: np.ndarray | None = None
    intrinsic: np.ndarray | None = None
    classes: tuple[str, ...] = CLASS_NAMES

    def column(self, name: str) -> np.ndarray:
        """One column as a numpy array."""
        return self.frame[name].to_numpy()

    @property
    def weights(self) -> np.ndarray:
        """Sampling weights, 1 where there are none."""
        if "sampling_weight" in self.frame.columns:
            return self.column("sampling_weight")
        return np.ones(self.frame.height)

    def observed(self, transition: Transition | Mapping[str, Transition], rows: np.ndarray) -> dict[str, torch.Tensor]:
        """What the loss takes of some rows: `evidence` and `weights`, `shares` for soft labels, and their `place`."""
        found: dict[str, np.ndarray] = {"weights": self.weights[rows]}
        if self.evidence is not None:
            found["evidence"] = self.evidence[rows]
        else:
            flips = self._log_matrices(transition, rows)
            if self.soft_labels is None:
                labels = self.column("label")[rows]
                found["evidence"] = flips[np.arange(rows.size), :, labels]
            else:
                found["evidence"], found["shares"] = flips, self.soft_labels[rows]
        columns = {name: torch.as_tensor(values, dtype=torch.float32) for name, values in found.items()}
        return {**columns, "place": torch.arange(rows.size)}

    def _log_matrices(self, transition: Transition | Mapping[str, Transition], rows: np.ndarray) -> np.ndarray:
        """log p(ỹ | y, α) of some rows, (M, K, K)."""
        alpha = (self.column("alpha") if self.resolution is None else self.resolution)[rows]
        if not isinstance(transition, Mapping):
            return np.asarray(transition.log_matrix(alpha))
        names = self.column("transition")[rows]
        n_classes = next(iter(transition.values())).n_classes
        out = np.empty((rows.size, n_classes, n_classes))
        for name in np.unique(names):
            here = names == name
            out[here] = transition[name].log_matrix(alpha[here])
        return out


@dataclass
class TrainedMembers:
    """What training returns: member weights, which galaxies each has seen, and its story."""

    members: list[dict[str, np.ndarray]]
    seen: pl.DataFrame  # object_id, role, fold (-1: none)
    transition: Transition | Mapping[str, Transition] | None
    history: list[dict[str, float]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    temperatures: list[float] = field(default_factory=list)
    start: str = "random"


def _train_network(
    rows: TrainingRows,
    train: np.ndarray,
    validation: np.ndarray,
    transition: Transition | Mapping[str, Transition],
    config: TrainingConfig,
    member: int,
    name: str,
    unfinished: Unfinished,
    earlier: list[dict[str, float]],
) -> dict[str, Any]:
    """One network from its first or last state to its end: `weights`, `history`, `best` and the like."""
    seed = config.seed + member
    lightning.seed_everything(seed, verbose=False)
    network = GalaxyNetwork(config, len(rows.classes), config.pretrained)
    held_out = rows.observed(transition, validation)
    alpha = rows.column("alpha") if rows.resolution is None else rows.resolution
    intrinsic = None if rows.intrinsic is None else rows.intrinsic[validation]
    measured = Measured(alpha[validation], rows.weights[validation], rows.classes, intrinsic)
    module = DebiasedModule(
        network, config, rows.inputs, (train, rows.observed(transition, train)), (validation, held_out), measured, seed
    )
    story = Story(name, config.patience, earlier, unfinished.folder / "history.csv")
    state = unfinished.readable_state(member)
    if state is not None:
        story.load_state_dict(state[1]["callbacks"][story.state_key])
        if is_first_process():
            print(f"{name}: going on after epoch {len(story.history)}", file=sys.stderr)
    if not story.done:
        callbacks = [story, KeepState(unfinished.state(member), _STATE_MINUTES)]
        trainer = trainer_for(
            config, callbacks, unfinished.folder, loggers_for(config, unfinished.folder / "logs", name)
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="lightning")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
            try:
                trainer.fit(module, ckpt_path=None if state is None else str(state[0]), weights_only=True)
            except SystemExit:
                # Lightning turns Ctrl-C into exit status 1, and ends a step before it heeds SIGTERM.
                if trainer.received_sigterm:
                    print(f"{name}: terminated; the same command goes on from the last state", file=sys.stderr)
                    raise SystemExit(128 + signal.SIGTERM) from None
                if trainer.interrupted:
                    raise KeyboardInterrupt from None
                raise
    if not story.weights:
        if is_first_process():
            unfinished.drop()
        raise TruemorphError(
            f"training diverged: no epoch had a finite held-out loss; lower learning_rate (now {config.learning_rate})"
        )
    temperature = 1.0
    if config.calibrate:
        temperature = fit_temperature(story.logits, held_out["evidence"], held_out["weights"], held_out.get("shares"))
    return {
        "weights": {key: value.cpu().numpy() for key, value in story.weights.items()},
        "history": story.history,
        "best": story.best,
        "temperature": temperature,
        "mean": network.mean,
        "std": network.std,
        "start": network.start,
    }


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
    _check_observed(rows, transition, config)
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
    with tempfile.TemporaryDirectory(prefix="truemorph-") as scratch:
        keep = unfinished or Unfinished(Path(scratch))
        masks = [mask for mask in _fold_masks(folds, config.folds) for _ in range(config.seeds)]
        found: list[dict[str, Any]] = []
        history: list[dict[str, float]] = []
        for number, mask in enumerate(masks):
            label = name if len(masks) == 1 else f"{name} {number + 1}/{len(masks)}"
            done = keep.finished(number)
            if done is None:
                done = _train_network(rows, train[mask], validation, transition, config, number, label, keep, history)
                if is_first_process():
                    keep.finish(number, done["weights"], {key: done[key] for key in done if key != "weights"})
            found.append(done)
            history += [{"member": float(number), **epoch} for epoch in done["history"]]
    return TrainedMembers(
        [one["weights"] for one in found],
        seen,
        transition,
        history,
        {"held_out_loss": float(np.mean([one["best"] for one in found]))},
        tuple(found[0]["mean"]),
        tuple(found[0]["std"]),
        [one["temperature"] for one in found],
        found[0]["start"],
    )


def _check_observed(
    rows: TrainingRows, transition: Transition | Mapping[str, Transition] | None, config: TrainingConfig
) -> None:
    """Refuse observations of the wrong shape, and transitions that don't belong to the rows."""
    n, n_classes = rows.frame.height, len(rows.classes)
    given = list(transition.values()) if isinstance(transition, Mapping) else [transition]
    for one in given:
        if one is not None and one.n_classes != n_classes:
            raise InputError(f"T(alpha) has {one.n_classes} classes, the catalogue {n_classes}")
    if isinstance(transition, Mapping):
        if "transition" not in rows.frame.columns:
            raise InputError("several T(alpha) need a column transition that names the one of each galaxy")
        unknown = set(rows.frame["transition"].unique()) - set(transition)
        if unknown:
            raise InputError(f"no T(alpha) named {min(map(str, unknown))!r}; there are {', '.join(transition)}")
    for name, values in (("evidence", rows.evidence), ("soft_labels", rows.soft_labels)):
        if values is None:
            continue
        if config.classifier == "logistic":
            raise InputError(f"logistic regression learns from labels: leave {name} out")
        if values.shape != (n, n_classes):
            raise InputError(f"{name} must have shape ({n}, {n_classes}); got {values.shape}")
        best = values.max(axis=1)
        wrong = ~np.isfinite(best) | np.isnan(values).any(axis=1)
        if name == "soft_labels":
            wrong |= (values < 0).any(axis=1) | (best <= 0)
        if wrong.any():
            what = "finite for one class at least" if name == "evidence" else "shares or numbers of votes, not all 0"
            raise InputError(f"{name} must be {what}; row {wrong.argmax()} is {values[wrong.argmax()]}")


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
        return model.fit(rows.inputs[which], labels[which], alpha=alpha[which], sample_weight=weights[which])

    whole = fit(train)
    parts = [whole] if config.folds == 1 else [fit(train[mask]) for mask in _fold_masks(folds, config.folds)]
    metrics = {"log_likelihood": whole.log_likelihood_, "em_iterations": whole.n_iter_}
    metrics |= {f"{name}_stderr": error for name, error in whole.stderr_.items()}
    members = [{"coef": part.coef_, "intercept": part.intercept_} for part in parts]
    return TrainedMembers(members, seen, whole.transition_, [], metrics)
