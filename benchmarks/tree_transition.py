"""T(α) of the paths through a decision tree: recovery, networks trained through it, and real votes.

    python benchmarks/tree_transition.py coverage|networks|real [REPEATS]

Tables of docs/statistics.md: how often the errors of the parameters hold the truth; p(bar) and the bar fraction of leaf
softmax regressions that are trained on simulated votes; and how well T of one half of real galaxies (FERENGI, and
Galaxy Zoo 2 with experts' bars) predicts the votes of the other half, which needs ../shared/data.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax

sys.path += [str(Path(__file__).parents[1] / "tests" / name) for name in ("", "bias", "real")]
import test_tree as simulated
import test_tree_transition as real

from truemorph import DebiasedLoss, fit_transition
from truemorph.bias.checks.calibration import calibration

SHARED = Path(__file__).parents[2] / "shared" / "data"
GALAXIES, GOLD = 20_000, 600
# Of the logits of smooth, edge-on, no bar and bar: intercepts, and slopes in three features.
COEFFICIENTS = np.array([[0.3, -0.2, 0.4, 0.2], [1.5, 0.5, -1, -1], [0, 1.2, -0.8, 0.4], [0, 0, -1, 1]])


def coverage(repeats):
    """Part of the parameters within 1.96 errors, and their mean difference in errors."""
    print("| gold labels | within 1.96 errors | mean difference in errors |\n|---|---|---|")
    for n in (300, 1_000):
        fits = []
        for seed in range(4 * repeats):
            votes, alpha, classes = simulated.voted(n, 100 + seed)
            fits.append(simulated.pulls(fit_transition(votes, alpha, gold=classes)))
        inside = np.abs(fits) < 1.96
        print(f"| {n:,} | {inside.mean():.3f} | {np.mean(fits):+.2f} |", flush=True)


def regression(design, losses, *observed):
    """Fit the coefficients of a leaf softmax, (P, 4), to a loss of logits and what was observed; return p, (N, 4)."""
    at = torch.zeros(design.shape[1], 4, requires_grad=True, dtype=torch.float64)
    optimiser = torch.optim.LBFGS([at], max_iter=300, line_search_fn="strong_wolfe")

    def step():
        optimiser.zero_grad()
        value = losses(design @ at, *observed)
        value.backward()
        return value

    optimiser.step(step)
    return softmax((design @ at).detach().numpy(), axis=1)


def of_fractions(logits, paths):
    """Cross-entropy of the fractions of votes on each path."""
    return -(paths * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()


def networks(repeats):
    """Mean error of p(bar | the question applies), and error of the bar fraction, over seeds."""
    rows = {}
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        x = np.column_stack([np.ones(GALAXIES), rng.normal(size=(GALAXIES, 3))])
        p = softmax(x @ COEFFICIENTS, axis=1)
        classes = (rng.random((GALAXIES, 1)) > p.cumsum(axis=1)).sum(axis=1)
        votes, alpha, _ = simulated.voted(GALAXIES, 1_000 + seed, classes)
        gold = np.where(np.arange(GALAXIES) < GOLD, classes, -1)
        t, columns = simulated.known(), torch.tensor(votes.columns, dtype=torch.float64)
        design, resolution = torch.tensor(x), torch.tensor(alpha)
        of_gold = fit_transition(votes, alpha, gold=gold).transition
        scores = [np.array(vote) for vote in t.votes]
        scores[0][3] = scores[0][2]  # bars do not change the answers to the first question
        scores[1][3] = scores[1][2]
        apart = type(t)(t.asked, scores, scores, t.overdispersion, t.center, t.scale)
        curves = {
            "the true T of paths": t,
            f"T of paths from {GOLD} gold labels": of_gold,
            "T in which bars change only their own question": apart,
        }
        found = {name: regression(design, DebiasedLoss(curve), columns, resolution) for name, curve in curves.items()}
        every = (count / np.maximum(count.sum(axis=1, keepdims=True), 1) for count in votes.counts.values())
        root, edge, bar = map(torch.tensor, every)
        disk, face = root[:, 1], root[:, 1] * edge[:, 1]
        paths = torch.stack([root[:, 0] + root[:, 2], disk * edge[:, 0], face * bar[:, 0], face * bar[:, 1]], dim=1)
        found["nothing: fractions of votes"] = regression(design, of_fractions, paths)
        true = p[:, 3] / p[:, 2:].sum(axis=1)
        for name, q in found.items():
            own = q[:, 3] / q[:, 2:].sum(axis=1)
            fraction = q[:, 3].sum() / q[:, 2:].sum() - p[:, 3].sum() / p[:, 2:].sum()
            rows.setdefault(name, []).append([np.abs(own - true).mean(), fraction, np.abs(q - p).mean()])
    print(
        "| trained through | mean error of p(bar), where the question applies | error of the bar fraction | "
        "mean error of all p |\n|---|---|---|---|"
    )
    for name, values in rows.items():
        error, fraction, every = np.mean(values, axis=0)
        print(f"| {name} | {error:.3f} | {fraction:+.3f} | {every:.3f} |")


def differences(name, column, away):
    print(f"| {name} | {column} | {np.sqrt(np.mean(away**2)):.3f} | {np.abs(away).mean():.3f} |", flush=True)


def halves(name, column, given, repeats):
    """Observed minus predicted mean vote fractions of the half that was not fitted: of all questions, and of bars."""
    away = [one for seed in range(repeats) for one in real.of_halves(*given, seed)]
    differences(name, column, np.concatenate([values for one in away for values in one.values()]))
    differences("… bars alone", column, np.concatenate([one["bar"] for one in away]))


def on_real_votes(repeats):
    print("| galaxies | T of | rms | mean difference |\n|---|---|---|---|")
    votes, alpha, brightness, *rest = real.redshifted(SHARED)
    for named, column in (("α", None), ("α, surface brightness", brightness)):
        halves("FERENGI, by question and redshift", named, (votes, alpha, column, *rest), repeats)
    votes, alpha, gold = real.with_expert_bars(SHARED)
    thirds = np.digitize(alpha, np.quantile(alpha, [1 / 3, 2 / 3]))
    given = votes, alpha, None, gold, np.arange(alpha.size), thirds
    halves("gz2_tree × bar_nair, by question and third of α", "α", given, repeats)
    checked = calibration(fit_transition(votes, alpha, gold=gold))
    away = checked.fitted - checked.observed
    differences(f"gz2_tree × bar_nair, no halves, by question, class and bin of α ({away.size})", "α", away)


if __name__ == "__main__":
    what = {"coverage": coverage, "networks": networks, "real": on_real_votes}[sys.argv[1]]
    what(int(sys.argv[2]) if len(sys.argv) > 2 else 5)
