"""DebiasedLoss: eq. 4, exact cross-entropy if T is the identity, and finite gradients at the extremes."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from conftest import flipped_labels
from truemorph.bias.transitions import MatrixTransition, RayleighTransition
from truemorph.classifiers.loss import DebiasedLoss, evidence_losses
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
    seen = torch.where(labels == 1, p[:, 1] * (1 - flip), p[:, 0] + p[:, 1] * flip)
    for reduction, expected in (("none", -seen.log()), ("sum", -seen.log().sum()), ("mean", -seen.log().mean())):
        got = DebiasedLoss(RayleighTransition(THETA), reduction)(logits, labels, alpha)
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("alpha", [1e4, 1e12, 1e30, float("inf")])
def test_for_well_resolved_galaxies_the_loss_is_exactly_cross_entropy(alpha):
    logits, labels, _ = batch()
    ours = DebiasedLoss(RayleighTransition(THETA), "none")(logits, labels, torch.full((64,), alpha))
    assert torch.equal(ours, cross_entropy(logits, labels, reduction="none"))


def test_for_the_identity_the_loss_is_exactly_cross_entropy_with_k_classes():
    logits = torch.randn(50, 5, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(50) % 5
    ours = DebiasedLoss(MatrixTransition.identity(5), "none")(logits, labels, torch.ones(50))
    assert torch.equal(ours, cross_entropy(logits, labels, reduction="none"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("alpha", [0.0, 1e-30, 1e-12, 1e-3, 1e3, 1e25])
@pytest.mark.parametrize("scale", [1.0, 60.0, 1e4])
def test_gradients_are_finite_everywhere(dtype, alpha, scale):
    logits = (torch.tensor([[-1.0, 1.0], [1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]) * scale).to(dtype).requires_grad_()
    loss = DebiasedLoss(RayleighTransition(THETA))(logits, torch.tensor([0, 1, 0, 1]), torch.full((4,), alpha))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_the_gradient_of_a_disk_label_does_not_vanish_at_alpha_zero():
    # A disk label always means a disk (eq. 6), so its gradient is that of log p(disk) for all α.
    logits = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    gradients = []
    for alpha in (0.0, 1e-9, 1e-4):
        at = logits.clone().requires_grad_()
        DebiasedLoss(RayleighTransition(THETA))(
            at, torch.tensor([1]), torch.tensor([alpha], dtype=torch.float64)
        ).backward()
        gradients.append(at.grad)
    p = torch.softmax(logits, 1)
    for gradient in gradients:
        torch.testing.assert_close(gradient, torch.stack([p[:, 0], p[:, 1] - 1], 1))


def test_the_gradient_equals_finite_differences():
    logits, labels, alpha = batch(8, dtype=torch.float64)
    loss = DebiasedLoss(RayleighTransition(THETA, false_disk=0.05))
    assert torch.autograd.gradcheck(lambda at: loss(at, labels, alpha), (logits,))


def test_weights_give_a_weighted_mean():
    logits, labels, alpha = batch(6)
    weights = torch.tensor([2.0, 1, 1, 1, 1, 0])
    terms = DebiasedLoss(RayleighTransition(THETA), "none")(logits, labels, alpha)
    got = DebiasedLoss(RayleighTransition(THETA))(logits, labels, alpha, weights)
    torch.testing.assert_close(got, (terms * weights).sum() / weights.sum())


def test_a_plain_loop_recovers_the_true_fraction():
    """With one free logit, the loss gives the true disk fraction and cross-entropy the observed one."""
    labels, alpha, truth = flipped_labels(20_000, seed=3)
    found = {}
    for name, transition in (("debiased", RayleighTransition(THETA)), ("naive", MatrixTransition.identity())):
        logit = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([logit], max_iter=50)
        loss = DebiasedLoss(transition)

        def closure(loss=loss, logit=logit, optimizer=optimizer):
            optimizer.zero_grad()
            value = loss(logit.expand(labels.size, 2), torch.from_numpy(labels), torch.from_numpy(alpha))
            value.backward()
            return value

        optimizer.step(closure)
        found[name] = float(torch.softmax(logit.detach(), 1)[0, 1])
    # The biased labels have about a quarter of the information: the error of the fraction is about 0.006.
    assert found["debiased"] == pytest.approx(truth.mean(), abs=0.03)
    assert found["naive"] == pytest.approx(labels.mean(), abs=1e-4)
    assert np.mean(labels) < truth.mean() - 0.2


def test_an_unknown_reduction_raises_an_error():
    with pytest.raises(InputError, match="reduction"):
        DebiasedLoss(RayleighTransition(1.0), "median")


def test_a_label_that_is_never_observed_does_not_affect_the_gradient():
    # Class 1 is never observed.
    never = MatrixTransition(((1, 0, 0), (0.5, 0, 0.5), (0, 0, 1)))
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = DebiasedLoss(never)(logits, torch.tensor([0, 2, 2, 0]), torch.ones(4))
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": torch.tensor([0, 1, 2])}, "labels must be 0 to 1; got 0 to 2"),
        ({"labels": torch.tensor([0, -1, 1])}, "got -1 to 1"),
        ({"labels": torch.tensor([[0], [1], [1]])}, "labels must have shape"),
        ({"labels": torch.tensor([0.3, 1.0, 0.0])}, "labels must be integers"),
        ({"alpha": torch.tensor(5.0)}, "alpha must have shape"),
        ({"weights": torch.ones(3, 1)}, "weights must have shape"),
        ({"logits": torch.zeros(3, 1)}, "logits must have shape"),
    ],
)
def test_wrong_shapes_and_labels_raise_errors(change, says):
    good = {"logits": torch.zeros(3, 2), "labels": torch.tensor([0, 1, 1]), "alpha": torch.ones(3)}
    with pytest.raises(InputError, match=says):
        DebiasedLoss(RayleighTransition(5.0))(**{**good, **change})


def test_for_labels_the_evidence_loss_is_the_debiasing_loss():
    rng = np.random.default_rng(3)
    transition = RayleighTransition(THETA, false_disk=0.1)
    logits = torch.tensor(rng.normal(size=(40, 2)))
    labels, alpha = torch.tensor(rng.integers(0, 2, 40)), torch.tensor(rng.uniform(2, 30, 40))
    flips = transition.matrix(alpha.numpy())[np.arange(40), :, labels.numpy()]
    evidence = torch.tensor(np.log(flips))
    expected = DebiasedLoss(transition, "none")(logits, labels, alpha)
    torch.testing.assert_close(evidence_losses(logits, evidence), expected)


def test_evidence_may_exclude_a_class_and_its_scale_has_no_effect():
    logits = torch.tensor([[0.3, -0.2], [1.0, 0.5]], requires_grad=True)
    known = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]])
    loss = evidence_losses(logits, known).mean()
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])))
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    shifted = evidence_losses(logits.detach(), known + 3.0).mean()
    torch.testing.assert_close(shifted, loss.detach() - 3.0)
