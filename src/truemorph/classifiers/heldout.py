"""What is said of the held-out galaxies after each epoch, and the temperature that is fitted to them.

None of it needs a true class: likelihoods go through T(α), and bias is a drift of predictions with α.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torchmetrics import Metric

from truemorph.bias.binning import choose_bins
from truemorph.bias.metrics import cv14, cv18
from truemorph.classifiers.loss import EvidenceLoss
from truemorph.errors import InputError

_PARTS = 5
_TEMPERATURES = (0.2, 5.0)


class HeldOut(Metric):
    """Collects logits and losses of held-out galaxies, from all processes."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in ("places", "logits", "losses"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, places: torch.Tensor, logits: torch.Tensor, losses: torch.Tensor) -> None:
        """Add a batch; `places` are the numbers of its galaxies."""
        for name, values in (("places", places), ("logits", logits), ("losses", losses)):
            getattr(self, name).append(values)

    def compute(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (N, K) and weighted losses (N,) of all of them, in their own order."""
        states: tuple[Any, ...] = (self.places, self.logits, self.losses)
        places, logits, losses = (torch.cat(one) if isinstance(one, list) else one for one in states)
        order = torch.argsort(places)
        return logits[order].cpu(), losses[order].cpu()


class Measured:
    """Likelihood, class fractions and bias of predictions for held-out galaxies.

    Parameters
    ----------
    alpha : array, shape (N,) or (N, J)
    weights : array, shape (N,)
    class_names : sequence of str, length K
    intrinsic : array, shape (N, P), optional
        For CV18; CV14 is taken without.
    """

    def __init__(
        self, alpha: np.ndarray, weights: np.ndarray, class_names: Any, intrinsic: np.ndarray | None = None
    ) -> None:
        self.alpha, self.weights, self.class_names, self.intrinsic = alpha, weights, class_names, intrinsic
        first = alpha if alpha.ndim == 1 else alpha[:, 0]
        parts = np.array_split(np.argsort(first, kind="stable"), _PARTS)
        self._parts = [part for part in parts if part.size]

    def __call__(self, logits: torch.Tensor, losses: torch.Tensor) -> dict[str, float]:
        """Measure.

        Parameters
        ----------
        logits : tensor, shape (N, K)
        losses : tensor, shape (N,)
            Weighted.

        Returns
        -------
        dict
            `held_out_loss` (minus the mean log-likelihood), `fraction_<class>_<q>` (mean probability in quintile q of
            α, 1 the least resolved), `cv18_excess` or `cv14_excess` of the probabilities.
        """
        said = {"held_out_loss": float(losses.sum() / self.weights.sum())}
        probabilities = torch.softmax(logits.double(), dim=1).numpy()
        if not np.isfinite(probabilities).all():
            return said
        for k, name in enumerate(self.class_names[1:], 1):
            for number, part in enumerate(self._parts, 1):
                mean = np.average(probabilities[part, k], weights=self.weights[part])
                said[f"fraction_{name}_{number}"] = float(mean)
        return said | self._bias(probabilities)

    def _bias(self, probabilities: np.ndarray) -> dict[str, float]:
        n = len(probabilities)
        options: Any = {"bootstrap": 0, "floor": "analytic"}
        try:
            if self.intrinsic is None:
                _, bins = choose_bins(n, False)
                return {"cv14_excess": cv14(probabilities, self.alpha, bins, **options).excess}
            depth, bins = choose_bins(n, True)
            return {"cv18_excess": cv18(probabilities, self.alpha, self.intrinsic, depth, bins, **options).excess}
        except InputError:  # too few galaxies for any bins
            return {}


def fit_temperature(
    logits: torch.Tensor, evidence: torch.Tensor, weights: torch.Tensor, shares: torch.Tensor | None = None
) -> float:
    """Temperature by which logits are divided so that held-out observations are likeliest (Guo et al. 2017).

    Calibrates the probabilities of the true class, as the likelihood goes through T(α).

    Parameters
    ----------
    logits : tensor, shape (N, K)
    evidence, weights, shares
        As for `EvidenceLoss`.

    Returns
    -------
    float
        Between 0.2 and 5; above 1 where the network was too sure.

    Examples
    --------
    >>> logits = torch.tensor([[4.0, 0.0]] * 4)
    >>> known = torch.log(torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]]))
    >>> round(fit_temperature(logits, known, torch.ones(4)), 2)  # right three times of four: 4 / log 3
    3.64
    """
    loss, logits = EvidenceLoss(), logits.double()

    def cost(log_temperature: float) -> float:
        return float(loss(logits * np.exp(-log_temperature), evidence, weights, shares))

    found = minimize_scalar(cost, bounds=tuple(np.log(_TEMPERATURES)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x)) if np.isfinite(found.fun) else 1.0
