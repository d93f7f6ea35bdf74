"""The debiasing loss (eq. 4) as a torch module, for any network.

Equations: Medina-Rosales et al., arXiv:2308.11007; the arithmetic is in `truemorph.bias.likelihood`.
"""

from typing import Any, Literal

import numpy as np
import torch

from truemorph.arrays import float_array
from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.files import load_transition
from truemorph.bias.likelihood import argument_of, label_evidence, log_marginal, observed_log_probabilities
from truemorph.errors import InputError


class DebiasedLoss(torch.nn.Module):
    """Negative log-likelihood of biased labels: -log Σ_y p(ỹ | y, α) p(y | x) (eqs 3-4).

    If T(α) is the identity, this is exactly the cross-entropy. Half-precision logits are converted to float32.

    Parameters
    ----------
    transition : Transition, TransitionFit, Estimate, path or dict
        T(α), as in `load_transition`; constant during training (the paper's choice).
    reduction : {"mean", "sum", "none"}
        "sum" is eq. 4; "mean" (default) is the (weighted) average over galaxies.

    Raises
    ------
    InputError
        If the reduction is unknown.

    Examples
    --------
    >>> from truemorph.bias.curves.formulas import RayleighTransition
    >>> loss = DebiasedLoss(RayleighTransition(theta=11.25))
    >>> logits = torch.tensor([[0.2, 1.0], [1.5, -0.3]])
    >>> loss(logits, torch.tensor([1, 0]), torch.tensor([20.0, 6.0])).round(decimals=4)
    tensor(0.3103)
    """

    def __init__(self, transition: Any, reduction: Literal["mean", "sum", "none"] = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise InputError(f'reduction must be "mean", "sum" or "none"; got {reduction!r}')
        self.transition = load_transition(transition)
        self.reduction = reduction

    def forward(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor | None = None,
        alpha: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
        observables: torch.Tensor | None = None,
        evidence: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the loss.

        Parameters
        ----------
        logits : tensor, shape (N, K)
        labels : tensor of int64, shape (N,); or floating, shape (N, K); or shape (N, A)
            Observed labels ỹ, or soft labels (fractions or numbers of votes). T(α) applies to each vote. If T is of the
            paths through a decision tree (`TreeTransition`): numbers of votes for the answers at its nodes.
        alpha : tensor, shape (N,)
            Resolution of the image that was labelled.
        weights : tensor, shape (N,), optional
            Sampling weights.
        observables : tensor, shape (N,) or (N, J), optional
            Columns on which T depends in addition to α.
        evidence : tensor, shape (N, K), optional
            log p(observed | y) of another observation, instead of labels, α and T: for example of vote counts, or -inf
            for classes that an expert rules out.

        Returns
        -------
        tensor
            Scalar, or shape (N,) with reduction "none".

        Raises
        ------
        InputError
            If shapes disagree, or a label is not a class (checked for labels on the CPU only).
        """
        n, n_classes = logits.shape if logits.ndim == 2 else (-1, -1)
        if n_classes != self.transition.n_classes:
            raise InputError(f"logits must have shape (N, {self.transition.n_classes}); got {tuple(logits.shape)}")
        log_probabilities = torch.log_softmax(logits.float() if logits.dtype != torch.float64 else logits, dim=1)
        if evidence is None:
            losses = self._of_labels(log_probabilities, labels, alpha, observables)
        elif evidence.shape != logits.shape:
            raise InputError(f"evidence must have shape {tuple(logits.shape)}; got {tuple(evidence.shape)}")
        else:
            losses = -log_marginal(log_probabilities, evidence.to(log_probabilities.dtype))[0]
        if weights is not None:
            weights = _tensor(weights, "weights")
            _check_shape("weights", weights, n)
            losses = losses * weights
        if self.reduction == "none":
            return losses
        if self.reduction == "sum":
            return losses.sum()
        return losses.mean() if weights is None else losses.sum() / weights.sum()

    def _of_labels(self, log_probabilities: torch.Tensor, labels: Any, alpha: Any, observables: Any) -> torch.Tensor:
        n, n_classes = log_probabilities.shape
        labels, alpha = _tensor(labels, "labels"), _tensor(alpha, "alpha")
        of_tree = isinstance(self.transition, TreeTransition) and labels.ndim == 2
        soft = not of_tree and labels.is_floating_point() and labels.shape == log_probabilities.shape
        if not soft and not of_tree:
            _check_shape("labels", labels, n)
            if labels.is_floating_point():
                raise InputError(f"labels must be integers, or soft labels of shape (N, K); got {labels.dtype}")
            # On a GPU this check would synchronise at every step.
            if labels.device.type == "cpu" and n and not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
                raise InputError(f"labels must be 0 to {n_classes - 1}; got {int(labels.min())} to {int(labels.max())}")
        _check_shape("alpha", alpha, n)
        alpha = argument_of(self.transition, alpha.to(log_probabilities.dtype), observables)
        if soft:
            each = observed_log_probabilities(log_probabilities, alpha, self.transition)
            # Labels without votes have no gradient, even if they are impossible: 0 · -inf would be NaN.
            return -(labels * torch.where(labels > 0, each, 0.0)).sum(dim=1)
        return -log_marginal(log_probabilities, label_evidence(self.transition, labels, alpha))[0]


def _check_shape(name: str, values: torch.Tensor, n: int) -> None:
    if values.shape != (n,):
        raise InputError(f"{name} must have shape ({n},), one per galaxy; got {tuple(values.shape)}")


def _tensor(values: Any, name: str) -> torch.Tensor:
    """Return a tensor; not directly, because torch reads pandas columns by their index, and ignores masks."""
    if isinstance(values, torch.Tensor):
        return values
    whole = np.asarray(values).dtype.kind in "iub" and not np.ma.is_masked(values)
    return torch.as_tensor(np.array(values if whole else float_array(values, name)))
