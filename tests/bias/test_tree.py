"""T(α) of the paths through a decision tree: recovered parameters, votes and labels, and the loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import logsumexp, softmax
from scipy.stats import betabinom, dirichlet_multinomial

from truemorph import (
    Asked,
    ConstantTransition,
    DebiasedLoss,
    TreeTransition,
    Votes,
    calibration,
    fit_transition,
    label_quality,
    posterior,
    read_tree,
)
from truemorph.bias.curves.families import transition_from_dict
from truemorph.errors import InputError

TREE = read_tree("gz2")
OF_PATHS = ("smooth", "edge-on", "no bar", "bar", "smooth")  # artifacts count as smooth
ASKED = Asked.named(TREE, "bar", OF_PATHS)
# Scores relative to the first answer, (class, answer, term), of each question: bars show in the first question, too.
TRUE = [
    np.array([[[-3, 0.1], [-3, 0]], [[0.5, 0.8], [-3, 0]], [[0.3, 1], [-3, 0]], [[1.6, 0.6], [-3, 0]]], dtype=float),
    np.array([[[2, 0.1]], [[-1, -0.3]], [[3, 0.2]], [[3.5, 0.2]]], dtype=float),
    np.array([[[-2, 0.1]], [[-1, 0]], [[-1.8, -0.2]], [[0.8, 0.4]]], dtype=float),
]
RHO = [[0.05, 0.15, 0.2, 0.15], [0.1, 0.3, 0.15, 0.1], [0.2, 0.2, 0.2, 0.25]]
SHARES = np.array([0.3, 0.2, 0.3, 0.2])
CENTER, SCALE = np.log(14), 0.45


def known():
    """T(α) of these scores, of labels as of votes."""
    full = [np.pad(one, ((0, 0), (1, 0), (0, 0))).tolist() for one in TRUE]
    return TreeTransition(ASKED, full, full, RHO, (CENTER,), (SCALE,))


def voted(n, seed, classes=None):
    """Simulated votes, α and true classes."""
    rng = np.random.default_rng(seed)
    u = rng.normal(size=n)
    classes = rng.choice(4, n, p=SHARES) if classes is None else classes
    reached, counts = rng.integers(30, 50, n), {}
    for question, scores, rho in zip(ASKED.questions, TRUE, RHO, strict=True):
        given_class = scores[classes]
        at = np.pad(given_class[..., 0] + given_class[..., 1] * u[:, None], ((0, 0), (1, 0)))
        concentration = ((1 - np.array(rho)) / rho)[classes]
        gammas = rng.gamma(softmax(at, axis=1) * concentration[:, None]) + 1e-12
        p = gammas / gammas.sum(axis=1, keepdims=True)
        counts[question.name] = rng.multinomial(reached, p)
        reached = counts[question.name][:, 1]
    return Votes(ASKED, counts), np.exp(CENTER + SCALE * u), classes


@pytest.fixture(scope="module")
def fitted():
    votes, alpha, classes = voted(1_500, 1)
    gold = np.where(np.arange(1_500) < 900, classes, -1)
    return votes, alpha, classes, fit_transition(votes, alpha, gold=gold)


def test_log_votes_is_the_dirichlet_multinomial_of_scipy(fitted):
    votes, alpha, *_ = fitted
    t, rows = known(), slice(0, 50)
    found = t.log_votes(votes.columns[rows], alpha[rows])
    means = [np.exp(log_answer) for log_answer in t.log_answers(alpha[rows], votes=True)]
    expected = np.zeros((50, 4))
    for question, mean, rho in zip(ASKED.questions, means, RHO, strict=True):
        for k in range(4):
            counts = votes.counts[question.name][rows]
            asked = counts.sum(axis=1) > 0  # older versions of scipy refuse none
            of, k_of = mean[asked, k] * (1 - rho[k]) / rho[k], counts[asked]
            expected[asked, k] += dirichlet_multinomial(of, k_of.sum(axis=1)).logpmf(k_of)
    np.testing.assert_allclose(found, expected, atol=1e-8)


def pulls(fit):
    """Fitted minus true parameters of the votes, in errors."""
    t, true = fit.transition, []
    for one, rho in zip(TRUE, RHO, strict=True):  # the fit standardises ln α by its own mean and scale
        moved = one[..., 0] + one[..., 1] * (t.center[0] - CENTER) / SCALE, one[..., 1] * t.scale[0] / SCALE
        of_class = np.stack(moved, axis=-1).reshape(len(rho), -1)
        true += np.column_stack([of_class, rho]).ravel().tolist()
    values, errors = (np.array(list(one.values()))[: len(true)] for one in (fit.values, fit.stderr))
    return (values - true) / errors


@pytest.mark.slow
def test_parameters_are_recovered_with_their_errors():
    found = []
    for seed in range(5):
        votes, alpha, classes = voted(800, seed)
        fit = fit_transition(votes, alpha, gold=classes)
        found.append(pulls(fit))
    # 5 × 44 values: 0.95 ± 0.015.
    assert 0.93 <= np.mean(np.abs(found) < 1.96) <= 0.98
    drawn = np.array([draw.votes[2] for draw in fit.draws(300)])[:, :, 1].std(axis=0)
    of_bars = [name for name in fit.stderr if name.startswith("bar: bar|") and not name.endswith("of labels")]
    np.testing.assert_allclose(drawn.ravel(), [fit.stderr[name] for name in of_bars], rtol=0.25)


def test_gold_labels_chosen_by_class_and_resolution_do_not_bias_t():
    votes, alpha, classes = voted(4_000, 3)
    chance = np.where(classes == 3, 0.5, 0.1) * np.where(alpha > 14, 1.0, 0.4)
    chosen = np.random.default_rng(0).random(alpha.size) < chance
    fit = fit_transition(votes, alpha, gold=np.where(chosen, classes, -1), gold_probability=chance)
    assert np.mean(np.abs(pulls(fit)) < 1.96) > 0.85
    np.testing.assert_allclose(fit.class_fractions, np.bincount(classes) / classes.size, atol=0.05)


def test_a_class_without_votes_at_a_node_gets_what_the_others_have():
    votes, alpha, classes = voted(800, 4)
    counts = {
        name: np.where((classes == 0)[:, None] & (name == "bar"), 0, count) for name, count in votes.counts.items()
    }
    t = fit_transition(replace(votes, counts=counts), alpha, gold=classes).transition
    p = np.exp(t.log_answers(np.array([14.0]), votes=True)[2])[0, :, 1]
    assert p[1:].min() < p[0] < p[1:].max()


def test_labels_are_products_along_their_path(fitted):
    t = known()
    alpha = np.array([6.0, 14.0, 40.0])
    matrix = t.matrix(alpha)
    np.testing.assert_allclose(matrix.sum(axis=2), 1)
    root, edge, bar = (np.exp(log_answer) for log_answer in t.log_answers(alpha))
    np.testing.assert_allclose(matrix[:, :, 3], root[..., 1] * edge[..., 1] * bar[..., 1])
    np.testing.assert_allclose(matrix[:, :, 0], root[..., 0] + root[..., 2])
    # The T of labels is that of majorities, which are more often right than a vote.
    votes, at, classes, fit = fitted
    observed = np.mean(votes.labels[classes == 3] == 3)
    assert abs(fit.transition.matrix(at[classes == 3])[:, 3, 3].mean() - observed) < 0.05
    single = np.prod(
        [np.exp(log_answer)[:, 3, 1] for log_answer in fit.transition.log_answers(at[classes == 3], votes=True)], axis=0
    )
    assert single.mean() < observed - 0.05


def test_labels_alone_give_the_t_of_labels(fitted):
    votes, alpha, classes, fit = fitted
    gold = np.where(np.arange(alpha.size) < 900, classes, -1)
    labels = Votes.of_labels(ASKED, votes.paths)
    alone = fit_transition(labels, alpha, gold=gold)
    np.testing.assert_allclose(alone.transition.matrix(alpha), fit.transition.matrix(alpha), atol=1e-6)
    with pytest.raises(InputError, match="of labels"):
        posterior(np.full((5, 4), 0.25), votes.columns[:5], alpha[:5], alone)


def test_votes_for_two_answers_are_beta_binomial():
    asked = Asked(
        read_tree({"name": "flat", "questions": [{"name": "smooth", "answers": {"smooth": ["a"], "disk": ["b"]}}]}),
        "smooth",
    )
    flip, false, rho = 0.3, 0.1, (0.15, 0.25)
    scores = [[[[0, 0], [np.log(false / (1 - false)), 0]], [[0, 0], [np.log((1 - flip) / flip), 0]]]]
    t = TreeTransition(asked, scores, scores, [rho])
    votes, alpha = np.random.default_rng(0).integers(0, 40, (30, 2)), np.linspace(3, 50, 30)
    for k, (mean, correlation) in enumerate(zip((false, 1 - flip), rho, strict=True)):
        whole = (1 - correlation) / correlation
        expected = betabinom.logpmf(votes[:, 1], votes.sum(axis=1), mean * whole, (1 - mean) * whole)
        np.testing.assert_allclose(t.log_votes(votes, alpha)[:, k], expected, atol=1e-9)
    np.testing.assert_allclose(t.matrix(alpha), ConstantTransition(flip, false).matrix(alpha), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    logits=arrays(float, (6, 4), elements=st.floats(-4, 4)),
    votes=arrays(int, (6, 7), elements=st.integers(0, 60)),
    alpha=arrays(float, 6, elements=st.floats(2, 90)),
    order=st.permutations(range(4)),
)
def test_the_loss_does_not_depend_on_the_order_of_classes_and_has_the_right_gradient(logits, votes, alpha, order):
    t, order = known(), list(order)
    tables = [np.array(vote)[order].tolist() for vote in t.votes]
    other = TreeTransition(ASKED, tables, tables, np.array(RHO)[:, order].tolist(), (CENTER,), (SCALE,))
    given_logits = torch.tensor(logits, requires_grad=True)
    observed = torch.tensor(votes), torch.tensor(alpha)
    losses = DebiasedLoss(t, "none")(given_logits, *observed)
    again = DebiasedLoss(other, "none")(given_logits[:, order], *observed)
    np.testing.assert_allclose(losses.detach(), again.detach(), atol=1e-12)
    p = softmax(logits, axis=1)
    expected = -logsumexp(np.log(p) + t.log_votes(votes, alpha), axis=1)
    np.testing.assert_allclose(losses.detach(), expected, atol=1e-8)
    losses.sum().backward()
    after = posterior(p, votes, alpha, t)
    np.testing.assert_allclose(given_logits.grad, p - after, atol=1e-8)
    np.testing.assert_allclose(label_quality(p, votes, alpha, t), after[np.arange(6), ASKED.votes(votes).labels])


def test_a_node_without_votes_gives_a_factor_of_1(fitted):
    t = known()
    votes = np.array([[20, 15, 5, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]])
    alpha = np.array([9.0, 30.0])
    found = t.log_votes(votes, alpha)
    np.testing.assert_array_equal(found[1], 0)
    alone = Asked.named(TREE, "smooth", ("smooth", "no bar", "smooth"))
    of_root = [np.array(t.votes[0])[[0, 2]].tolist()]
    root = TreeTransition(alone, of_root, of_root, [[RHO[0][0], RHO[0][2]]], (CENTER,), (SCALE,))
    np.testing.assert_allclose(found[:1, [0, 2]], root.log_votes(votes[:1, :3], alpha[:1]), atol=1e-12)
    loss = DebiasedLoss(t, "none")(torch.zeros(2, 4), torch.tensor(votes), torch.tensor(alpha))
    assert loss[1] == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_observables_written_fits_and_calibration(fitted):
    votes, alpha, classes, fit = fitted
    again = transition_from_dict(fit.to_dict())
    np.testing.assert_array_equal(again.log_votes(votes.columns, alpha), fit.transition.log_votes(votes.columns, alpha))
    assert calibration(fit).p_value > 0.01
    # A column on which the votes do not depend has slopes of 0.
    column = np.random.default_rng(0).normal(size=alpha.size)
    wide = fit_transition(votes, alpha, gold=classes, observables=column)
    slopes = np.array([value for name, value in wide.values.items() if name.endswith("slope of observable 1")])
    errors = np.array([error for name, error in wide.stderr.items() if name.endswith("slope of observable 1")])
    assert np.mean(np.abs(slopes) < 2 * errors) > 0.85
    some = [torch.tensor(one[:9]) for one in (votes.columns, alpha, column)]
    assert torch.isfinite(DebiasedLoss(wide)(torch.zeros(9, 4), some[0], some[1], observables=some[2]))


def test_it_needs_gold_labels_of_every_class():
    votes, alpha, classes = voted(300, 5)
    with pytest.raises(InputError, match="gold"):
        fit_transition(votes, alpha)
    with pytest.raises(InputError, match="'bar'"):
        fit_transition(votes, alpha, gold=np.where(classes == 3, -1, classes))
    negative = {name: np.where(np.arange(300)[:, None] == 2, -1, count) for name, count in votes.counts.items()}
    with pytest.raises(InputError, match="row 2"):
        fit_transition(replace(votes, counts=negative), alpha, gold=classes)
    with pytest.raises(InputError, match="row 1"):
        posterior(np.full((2, 4), 0.25), np.array([[1.0] * 7, [np.nan] * 7]), alpha[:2], known())
    with pytest.raises(InputError, match="7"):
        posterior(np.full((2, 4), 0.25), np.ones((2, 4)), alpha[:2], known())
    with pytest.raises(InputError, match="Votes"):
        fit_transition(votes.labels, alpha, "tree", gold=classes)


@pytest.mark.slow
def test_unresolved_galaxies_questions_without_votes_and_bootstrap_errors():
    votes, alpha, classes = voted(400, 6)
    alpha[:5] = 0
    without = replace(votes, counts={**votes.counts, "bar": 0 * votes.counts["bar"]})
    fit = fit_transition(without, alpha, gold=classes, bootstrap=3)
    assert np.isfinite(list(fit.values.values())).all()
    assert len(fit.draws(2)) == 2
    at_zero, near = fit.transition.matrix(np.array([0.0, 1e-9]))
    np.testing.assert_array_equal(at_zero, near)
