"""DebiasedLoss: eq. 4, exact cross-entropy if T is the identity, and finite gradients at the extremes."""

import numpy as np
import polars as pl
import pytest
import torch
from astropy.table import QTable
from torch.nn.functional import cross_entropy

from truemorph import DebiasedLoss, MatrixTransition, RayleighTransition
from truemorph.errors import InputError

THETA = 11.25


def batch(n=64, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 2, generator=g, dtype=dtype) * 3
    labels = torch.randint(0, 2, (n,), generator=g)
    alpha = torch.rand(n, generator=g, dtype=dtype) * 40 + 0.5
    return logits.requires_grad_(), labels, alpha


def test_the_loss_equals_eq_4():
    logits, labels, alpha = batch(dtype=torch.float64)
    p = torch.softmax(logits, 1)
    flip = torch.exp(-(alpha**2) / (2 * THETA**2))
    losses = -torch.where(labels == 1, p[:, 1] * (1 - flip), p[:, 0] + p[:, 1] * flip).log()
    for reduction, expected in (("none", losses), ("sum", losses.sum()), ("mean", losses.mean())):
        got = DebiasedLoss(RayleighTransition(THETA), reduction)(logits, labels, alpha)
        torch.testing.assert_close(got, expected)
    weights = torch.linspace(0, 2, 64, dtype=torch.float64)
    got = DebiasedLoss(RayleighTransition(THETA))(logits, labels, alpha, weights)
    torch.testing.assert_close(got, (losses * weights).sum() / weights.sum())


@pytest.mark.parametrize(
    ("transition", "alpha"),
    [(RayleighTransition(THETA), 1e4), (RayleighTransition(THETA), float("inf")), (MatrixTransition.identity(5), 1.0)],
)
def test_without_flips_the_loss_is_exactly_cross_entropy(transition, alpha):
    logits = torch.randn(50, transition.n_classes, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(50) % transition.n_classes
    ours = DebiasedLoss(transition, "none")(logits, labels, torch.full((50,), alpha))
    assert torch.equal(ours, cross_entropy(logits, labels, reduction="none"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("alpha", [0.0, 1e-30, 1e-3, 1e25])
@pytest.mark.parametrize("scale", [1.0, 60.0, 1e4])
def test_gradients_are_finite_everywhere(dtype, alpha, scale):
    logits = (torch.tensor([[-1.0, 1.0], [1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]) * scale).to(dtype).requires_grad_()
    loss = DebiasedLoss(RayleighTransition(THETA))(logits, torch.tensor([0, 1, 0, 1]), torch.full((4,), alpha))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("alpha", [0.0, 1e-9, 1e-4])
def test_the_gradient_of_a_disk_label_does_not_vanish_at_alpha_zero(alpha):
    # A disk label always means a disk (eq. 6), so its gradient is that of log p(disk) for all α.
    logits = torch.tensor([[0.3, -0.2]], dtype=torch.float64, requires_grad=True)
    DebiasedLoss(RayleighTransition(THETA))(logits, torch.tensor([1]), torch.full((1,), alpha).double()).backward()
    p = torch.softmax(logits.detach(), 1)
    torch.testing.assert_close(logits.grad, torch.stack([p[:, 0], p[:, 1] - 1], 1))


def test_the_gradient_equals_finite_differences():
    logits, labels, alpha = batch(8, dtype=torch.float64)
    loss = DebiasedLoss(RayleighTransition(THETA, false_disk=0.05))
    assert torch.autograd.gradcheck(lambda at: loss(at, labels, alpha), (logits,))


def test_a_label_that_is_never_observed_does_not_affect_the_gradient():
    never = MatrixTransition(((1, 0, 0), (0.5, 0, 0.5), (0, 0, 1)))  # class 1
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    DebiasedLoss(never)(logits, torch.tensor([0, 2, 2, 0]), torch.ones(4)).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": torch.tensor([0, 1, 2])}, "labels must be 0 to 1; got 0 to 2"),
        ({"labels": torch.tensor([0.3, 1.0, 0.0])}, "labels must be integers"),
        ({"alpha": torch.tensor(5.0)}, "alpha must have shape"),
        ({"logits": torch.zeros(3, 1)}, "logits must have shape"),
        ({"evidence": torch.zeros(3)}, "evidence must have shape"),
    ],
)
def test_wrong_shapes_and_labels_raise_errors(change, says):
    good = {"logits": torch.zeros(3, 2), "labels": torch.tensor([0, 1, 1]), "alpha": torch.ones(3)}
    with pytest.raises(InputError, match=says):
        DebiasedLoss(RayleighTransition(5.0))(**{**good, **change})


def test_columns_of_tables_are_labels_and_alpha():
    logits, labels, alpha = batch(n=6)
    frame = pl.DataFrame(
        {"label": labels.numpy(), "alpha": alpha.numpy(), "keep": [True, False, True, True, True, False]}
    )
    loss, kept = DebiasedLoss(RayleighTransition(THETA)), frame["keep"].to_numpy()
    expected = loss(logits[kept], labels[kept], alpha[kept])
    pandas = frame.to_pandas()
    for table in (frame.filter("keep"), pandas[pandas["keep"]], QTable.from_pandas(pandas)[kept]):
        torch.testing.assert_close(loss(logits[kept], table["label"], table["alpha"]), expected)
    with pytest.raises(InputError):
        loss(logits, labels, np.ma.masked_array(alpha.numpy(), mask=~kept))


def test_evidence_may_exclude_a_class():
    logits = torch.tensor([[0.3, -0.2], [1.0, 0.5]], requires_grad=True)
    known = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]])
    loss = DebiasedLoss(RayleighTransition(THETA))(logits, evidence=known)
    torch.testing.assert_close(loss, cross_entropy(logits, torch.tensor([0, 1])))
    loss.backward()
    assert torch.isfinite(logits.grad).all()
