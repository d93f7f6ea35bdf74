"""Train the members of a classifier through T(α): networks, or logistic regression (DCV14).

With one fold, the only member sees every training galaxy. With F folds, member f sees all folds but f, so each training
galaxy has a member that did not see its label. Training galaxies are labelled by that member (out of fold), because
a network that memorised ỹ would make the posterior count ỹ twice. With several seeds, each fold has several
networks.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from truemorph.bias.transitions import CLASS_NAMES, Transition, transition_to_dict
from truemorph.catalogs.sampling import TRAIN, VALIDATION, assign_folds
from truemorph.classifiers.checkpoint import Classifier, describe
from truemorph.classifiers.logistic import DebiasedLogisticRegression
from truemorph.config import TrainingConfig
from truemorph.errors import InputError
from truemorph.findings import FindingWarning

if TYPE_CHECKING:
    import torch

    from truemorph.classifiers.callbacks import Unfinished

Transitions = Transition | Mapping[str, Transition]


@dataclass(frozen=True)
class TrainingRows:
    """Training data of a classifier, one row per galaxy.

    Attributes
    ----------
    frame : polars.DataFrame
        `object_id`, `label`, `alpha`, `split`; `sampling_weight` if the sample was balanced; `transition` (a name) if
        galaxies have different T(α).
    inputs : array or Pixels
        Pixels (N, S, S, 3) of uint8 for networks; features (N, P) for logistic regression.
    evidence : array, shape (N, K), optional
        log p(observed | y), for observations richer than a label, such as vote counts. Networks then learn from it,
        and labels only define the classes.
    soft_labels : array, shape (N, K), optional
        Fractions or numbers of votes for each class. Networks then learn from them instead of labels; T(α) applies to
        each vote.
    resolution : array, shape (N, 1 + J), optional
        Columns on which T depends, if more than `alpha`; `alpha` is the first.
    intrinsic : array, shape (N, P), optional
        Intrinsic properties, for CV18 of held-out galaxies.
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
        """Return one column as a numpy array."""
        return self.frame[name].to_numpy()

    @property
    def weights(self) -> np.ndarray:
        """Sampling weights; 1 if there are none."""
        if "sampling_weight" in self.frame.columns:
            return self.column("sampling_weight")
        return np.ones(self.frame.height)

    @property
    def resolutions(self) -> np.ndarray:
        """Columns on which T depends, shape (N,) or (N, 1 + J)."""
        return self.column("alpha") if self.resolution is None else self.resolution

    def observed(self, transition: Transitions, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Inputs of the loss for some rows: `evidence`, `weights`, `votes` (soft labels) and `place`."""
        import torch

        found: dict[str, np.ndarray] = {"weights": self.weights[rows]}
        if self.evidence is not None:
            found["evidence"] = self.evidence[rows]
        elif self.soft_labels is not None:
            found["evidence"], found["votes"] = self._log_matrices(transition, rows), self.soft_labels[rows]
        else:
            labels = self.column("label")[rows]
            found["evidence"] = self._log_matrices(transition, rows)[np.arange(rows.size), :, labels]
        columns = {name: torch.tensor(values, dtype=torch.float32) for name, values in found.items()}
        return {**columns, "place": torch.arange(rows.size)}

    def _log_matrices(self, transition: Transitions, rows: np.ndarray) -> np.ndarray:
        """log p(ỹ | y, α) of some rows, shape (M, K, K)."""
        alpha = self.resolutions[rows]
        if not isinstance(transition, Mapping):
            return np.asarray(transition.log_matrix(alpha))
        names = self.column("transition")[rows]
        out = np.empty((rows.size, len(self.classes), len(self.classes)))
        for name in np.unique(names):
            here = names == name
            out[here] = transition[name].log_matrix(alpha[here])
        return out


def _check(rows: TrainingRows, transition: Transitions | None, config: TrainingConfig) -> None:
    """Check the shapes of observations, and that transitions belong to the rows."""
    n, n_classes = rows.frame.height, len(rows.classes)
    given = list(transition.values()) if isinstance(transition, Mapping) else [transition]
    for one in given:
        if one is not None and one.n_classes != n_classes:
            raise InputError(f"T(alpha) has {one.n_classes} classes, but the catalogue has {n_classes}")
    if isinstance(transition, Mapping):
        if "transition" not in rows.frame.columns:
            raise InputError("with several T(alpha), a column `transition` must name the one for each galaxy")
        unknown = set(rows.frame["transition"].unique()) - set(transition)
        if unknown:
            raise InputError(f"no T(alpha) named {min(map(str, unknown))!r}; available: {', '.join(transition)}")
    for name, values in (("evidence", rows.evidence), ("soft_labels", rows.soft_labels)):
        if values is None:
            continue
        if config.classifier == "logistic":
            raise InputError(f"logistic regression learns from labels: remove {name}")
        if values.shape != (n, n_classes):
            raise InputError(f"{name} must have shape ({n}, {n_classes}); got {values.shape}")
        best = values.max(axis=1)
        wrong = ~np.isfinite(best) | np.isnan(values).any(axis=1)
        if name == "soft_labels":
            wrong |= (values < 0).any(axis=1) | (best <= 0)
        if wrong.any():
            what = "finite for at least one class" if name == "evidence" else "fractions or numbers of votes, not all 0"
            raise InputError(f"{name} must be {what}; row {wrong.argmax()} is {values[wrong.argmax()]}")


def train_members(
    rows: TrainingRows,
    transition: Transitions | None,
    config: TrainingConfig,
    name: str = "train",
    unfinished: Unfinished | None = None,
) -> Classifier:
    """Train a classifier through T(α).

    Parameters
    ----------
    rows : TrainingRows
        Galaxies with split "train" are used for training. Those with "validation" decide when a network stops;
        logistic regression is trained on them too. Others are not used.
    transition : Transition, dict of Transition, or None
        T(α), constant in the loss; the identity treats the labels as correct (naive training). A dict of several, by
        name, if rows have a column `transition`. None is for logistic regression only: θ is then fitted together with
        the regression, as in DCV14.
    config : TrainingConfig
    name : str
        Prefix of progress lines.
    unfinished : Unfinished, optional
        Folder of the training state, to resume from. Without it, an interrupted run starts again.

    Returns
    -------
    Classifier
        With its `history`, one entry per epoch and member.

    Raises
    ------
    InputError
        If there are no training or validation galaxies, a class is empty, a network is given no T(α), or evidence has
        the wrong shape.
    CheckpointError
        If the state of training can't be read or written.
    """
    network = config.classifier == "network"
    split, labels = rows.column("split"), rows.column("label")
    train, validation = np.flatnonzero(split == TRAIN), np.flatnonzero(split == VALIDATION)
    if not network:
        # There is no early stopping: validation galaxies are used for training too.
        train, validation = np.sort(np.concatenate([train, validation])), validation[:0]
    for which, where in ((TRAIN, train), (VALIDATION, validation))[: 2 if network else 1]:
        if where.size == 0:
            raise InputError(f"the catalogue has no {which} galaxies; prepare it with another `split`")
    empty = [name for k, name in enumerate(rows.classes) if not np.any(labels[train] == k)]
    if empty:
        raise InputError(f"no training galaxy is labelled {empty[0]}; two classes are needed")
    if train.size < 2 * max(config.folds, config.batch_size if network else 1):
        raise InputError(
            f"only {train.size} training galaxies for {config.folds} folds and batches of {config.batch_size}"
        )
    _check(rows, transition, config)
    ids, several = rows.frame["object_id"], config.folds > 1
    folds = assign_folds(ids.gather(train).to_list(), config.folds, config.seed)
    seen = pl.DataFrame(
        {
            "object_id": pl.concat([ids.gather(train), ids.gather(validation)]),
            "role": ["out_of_fold" if several else "in_sample"] * train.size + ["early_stopping"] * validation.size,
            "fold": np.append(folds if several else np.full(train.size, -1), np.full(validation.size, -1)),
        }
    )
    parts = [train[folds != fold] for fold in range(config.folds)] if several else [train]
    if not network:
        assert transition is None or not isinstance(transition, Mapping)
        return _train_logistic(rows, train, parts, transition, config, seen)
    if transition is None:
        raise InputError("a network needs T(alpha) before training; fit it with `truemorph transition`")
    # Imported here because logistic regression needs no torch.
    from truemorph.classifiers.callbacks import Unfinished, is_first_process
    from truemorph.classifiers.module import train_network

    found: list[dict[str, Any]] = []
    history: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="truemorph-") as scratch:
        keep = unfinished or Unfinished(Path(scratch))
        each = [part for part in parts for _ in range(config.seeds)]
        for number, part in enumerate(each):
            label = name if len(each) == 1 else f"{name} {number + 1}/{len(each)}"
            done = keep.finished(number)
            if done is None:
                start = found[0]["start"] if found else None
                done = train_network(rows, part, validation, transition, config, number, label, keep, history, start)
                if is_first_process():
                    keep.finish(number, done)
            found.append(done)
            history += [{"member": float(number), **epoch} for epoch in done["history"]]
    first = found[0]
    described = describe(
        config,
        {} if isinstance(transition, Mapping) else transition_to_dict(transition),
        catalogue={"source": "arrays", "rows": seen.height},
        members=len(found),
        metrics={"held_out_loss": float(np.mean([one["best"] for one in found]))},
        normalisation={"mean": first["mean"], "std": first["std"]},
        classes=rows.classes,
        temperatures=[one["temperature"] for one in found],
        start=first["start"],
        built=first["built"],
    )
    return Classifier(described, [one["weights"] for one in found], seen, history=history)


def _train_logistic(
    rows: TrainingRows,
    train: np.ndarray,
    parts: list[np.ndarray],
    transition: Transition | None,
    config: TrainingConfig,
    seen: pl.DataFrame,
) -> Classifier:
    labels, alpha, weights = rows.column("label"), rows.column("alpha"), rows.weights
    observables = None if rows.resolution is None else rows.resolution[:, 1:]

    def fit(which: np.ndarray) -> DebiasedLogisticRegression:
        model = DebiasedLogisticRegression(transition=transition)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FindingWarning)  # they are stored in `findings_`
            return model.fit(
                rows.inputs[which],
                labels[which],
                alpha=alpha[which],
                sample_weight=weights[which],
                observables=None if observables is None else observables[which],
            )

    whole = fit(train)
    members = [whole if part is train else fit(part) for part in parts]
    metrics = {"log_likelihood": whole.log_likelihood_, "em_iterations": whole.n_iter_}
    metrics |= {f"{name}_stderr": error for name, error in whole.stderr_.items()}
    through = transition_to_dict(whole.transition_)
    if transition is None:
        through |= {
            "stderr": whole.stderr_,
            "method": "EM with logistic regression (DCV14)",
            "assumption": "p(y | features) is logistic, the flip probability depends only on the true class and alpha",
        }
        if whole.findings_:
            through["findings"] = [one.to_dict() for one in whole.findings_]
    described = describe(
        config,
        through,
        catalogue={"source": "arrays", "rows": seen.height},
        members=len(members),
        metrics=metrics,
        normalisation={"mean": [], "std": []},
        classes=rows.classes,
    )
    return Classifier(described, [one.class_weights() for one in members], seen)
