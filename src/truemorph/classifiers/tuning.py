"""Tune a network on gold labels, after it was trained through T(α).

Where T(α) does not explain the labels, for example because flips depend on the image, gold labels show the class, and
T(α) misleads. The network is trained on them once more, for some epochs, and recalibrated; or it is left as it is.
Which is decided by the log-loss of gold labels that a network has not seen: each third of them is predicted by a
network that was tuned on the others. Gold labels that were selected count 1 / probability of selection.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize

from truemorph.catalogs.sampling import assign_folds
from truemorph.classifiers.callbacks import Unfinished, announce
from truemorph.classifiers.module import DebiasedModule, across_devices, evidence_loss, fit_module
from truemorph.classifiers.network import GalaxyNetwork, torch_device
from truemorph.classifiers.rows import TrainingRows
from truemorph.config import TrainingConfig
from truemorph.questions import Head

EPOCHS = (8, 32)
FEWEST = 30  # gold labels
_FOLDS = 3
_BATCH = 32
_AT_ONCE = 256
_SETTINGS = {
    "schedule": "cosine", "warm_up": 0.1, "learning_rate": 3e-4, "averaging": True, "accumulate": 1, "compile": False,
    "loggers": (),
}  # fmt: skip


def recalibration(
    logits: torch.Tensor, evidence: torch.Tensor, weights: torch.Tensor, heads: Sequence[Head]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factor and the offset of each class's logit, (K,), that gold labels suggest.

    Each question has one factor, and offsets relative to its first class. The factor's logarithm and the offsets have a
    Gaussian prior of variance 1 around 0, so that few gold labels change little.
    """
    factor, offset = torch.ones(logits.shape[1], dtype=torch.double), torch.zeros(logits.shape[1], dtype=torch.double)
    for head in heads:
        own, of_gold = logits[:, head.part].double(), evidence[:, head.part].double()

        def cost(x: np.ndarray, own: torch.Tensor = own, of_gold: torch.Tensor = of_gold) -> float:
            moved = own * float(np.exp(x[0])) + torch.tensor([0.0, *x[1:]])
            losses = evidence_loss(moved, of_gold, [slice(None)])
            return float((losses * weights).sum() / weights.sum()) + float(x @ x) / (2 * len(own))

        x = minimize(cost, np.zeros(own.shape[1]), method="BFGS").x
        factor[head.part], offset[head.part] = float(np.exp(x[0])), torch.tensor([0.0, *x[1:]])
    return factor, offset


def tuned(
    result: dict[str, Any],
    rows: TrainingRows,
    train: np.ndarray,
    config: TrainingConfig,
    member: int,
    name: str,
    unfinished: Unfinished,
) -> dict[str, Any]:
    """Tune a network that was trained through T(α), as `train_network` returns it, on gold labels of training galaxies.

    Its `tuning`, absent with too few gold labels, has the number of `gold_labels`; `epochs`, None if the network was
    left as it is; the mean log-loss in networks that have not seen them, `before` and `after`; and `beyond`, what
    tuning gains over recalibration alone, with its standard error, `beyond_stderr`.
    """
    chosen = train[:0] if rows.gold is None else train[rows.gold.known[train]]
    if chosen.size < FEWEST or "tuning" in result:  # the latter before the run was interrupted
        return result
    announce(f"{name}: tuning on {chosen.size:,} gold labels")
    network = GalaxyNetwork(config, len(rows.classes), described=result)
    network.load_state_dict(result["weights"])
    network.rescale(1 / result["temperature"])
    seed, folder = config.seed + member, unfinished.folder
    tuning = _Tuning(network, rows.with_gold(), config, seed, folder, name).on(chosen)
    result = result | {"tuning": tuning}
    if tuning["epochs"] is not None:
        weights = {key: value.cpu() for key, value in network.state_dict().items()}
        result |= {"weights": weights, "temperature": 1.0}
    unfinished.finish(member, result)
    return result


@dataclass(frozen=True)
class _Tuning:
    network: GalaxyNetwork
    rows: TrainingRows  # whose evidence includes gold labels
    config: TrainingConfig
    seed: int
    folder: Path
    name: str

    def on(self, chosen: np.ndarray) -> dict[str, Any]:
        """Tune the network, in place, on some rows, or leave it as it is; see `tuned`."""
        rows, heads = self.rows, self.rows.heads
        parts = [head.part for head in heads]
        weights = torch.tensor(rows.weights[chosen], dtype=torch.double)
        evidence = rows.observed(chosen)["evidence"].double()
        fold = assign_folds(rows.frame["object_id"].gather(chosen).to_list(), _FOLDS, self.seed)
        logits, losses = self.left_out(chosen, fold), dict[int, torch.Tensor]()
        for epochs, outputs in logits.items():
            moved = torch.empty_like(outputs)
            for left in (fold == number for number in range(_FOLDS)):
                factor, offset = recalibration(outputs[~left], evidence[~left], weights[~left], heads)
                moved[left] = outputs[left] * factor + offset
            losses[epochs] = evidence_loss(moved, evidence, parts)
        own = evidence_loss(logits[0], evidence, parts)
        best = min(losses, key=lambda epochs: float((losses[epochs] * weights).sum()))
        gain, beyond = _gain(own, losses[best], weights), _gain(losses[0], losses[best], weights)
        if kept := gain[0] > gain[1]:
            if best:
                self.network.load_state_dict(self.trained(chosen, best).state_dict())
            self.network.rescale(*recalibration(logits[best], evidence, weights, heads))
        before = float((own * weights).sum() / weights.sum())
        return {
            "gold_labels": int(chosen.size),
            "epochs": best if kept else None,
            "before": before,
            "after": before - gain[0] if kept else before,
            "beyond": beyond[0] if kept else 0.0,
            "beyond_stderr": beyond[1],
        }

    def left_out(self, chosen: np.ndarray, fold: np.ndarray) -> dict[int, torch.Tensor]:
        """Return logits of networks that were tuned on the other folds, by the number of epochs, 0 for none."""
        logits = {0: self.logits(self.network, chosen)}
        for epochs in EPOCHS:
            logits[epochs] = torch.empty_like(logits[0])
            for left in (fold == number for number in range(_FOLDS)):
                logits[epochs][left] = self.logits(self.trained(chosen[~left], epochs), chosen[left])
        return logits

    def trained(self, chosen: np.ndarray, epochs: int) -> GalaxyNetwork:
        """Return a copy that was trained on the gold labels of some rows."""
        changes = {**_SETTINGS, "epochs": epochs, "batch_size": min(_BATCH, chosen.size)}
        network = copy.deepcopy(self.network)
        network.keeps_norms = True
        module = DebiasedModule(
            across_devices(network, self.config), self.config.model_copy(update=changes), self.rows, chosen,
            chosen[:0], self.seed,
        )  # fmt: skip
        fit_module(module, [], self.folder, self.name)
        network.load_state_dict(module.judged.state_dict())
        return network

    def logits(self, network: GalaxyNetwork, chosen: np.ndarray) -> torch.Tensor:
        """Return the logits of some rows, (N, K), in double precision."""
        device = torch_device("cpu" if self.config.device == "cpu" else "auto")
        network, out = network.to(device).eval(), []
        with torch.inference_mode():
            for part in np.array_split(chosen, -(-chosen.size // _AT_ONCE)):
                pixels = torch.from_numpy(np.ascontiguousarray(self.rows.inputs[part])).to(device)
                out.append(network(network.normalised(pixels)).double().cpu())
        return torch.cat(out)


def _gain(before: torch.Tensor, after: torch.Tensor, weights: torch.Tensor) -> tuple[float, float]:
    """Return by how much the mean loss fell, and the standard error."""
    fell, share = before - after, weights / weights.sum()
    mean = (fell * share).sum()
    return float(mean), float(((fell - mean) ** 2 * share**2).sum().sqrt())
