"""T(α) against T(α, surface brightness), for the votes on artificially redshifted galaxies.

    python benchmarks/depth.py [SPLITS]

Needs ../shared/data. T is fitted to the images of half of the galaxies (FERENGI) and scored on those of the other half,
and the other way round: log-likelihood of the votes of an image at a question, and observed minus predicted mean
fraction of votes (rms over redshifts, and over fifths of surface brightness). Means over splits; errors by a bootstrap
over galaxies. Prints the table of docs/depth.md. The galaxies were chosen by class, so this is a test of T, and not of
class fractions.
"""

import sys
from pathlib import Path

import numpy as np

sys.path += [str(Path(__file__).parents[1] / "tests" / name) for name in ("", "real")]
import test_tree_transition as real

from truemorph import fit_transition
from truemorph.bias.binning import Bins
from truemorph.bias.curves.paths import dirichlet_multinomial

RESAMPLES = 300
SHARED = Path(__file__).parents[2] / "shared" / "data"
# Votes for an answer, and the question whose paths are fitted.
ANSWERS = {"disk": "bar", "bar": "bar", "spiral arms": "spiral"}
SHOWN = {"disk": "features or disk", "bar": "bar, of those who were asked"}
SHOWN |= {"spiral arms": "spiral arms, of those who were asked"}


def scored(transition, votes, argument, classes, answer, rows):
    """Log-likelihood of each image at the question of an answer, and observed minus predicted fraction; or NaN."""
    asked = transition.asked
    at = next(q for q, question in enumerate(asked.questions) if answer in question.answers)
    counts, mean = votes.counts[asked.questions[at].name], np.exp(transition.log_answers(argument, votes=True)[at])
    rho, of_class = np.array(transition.overdispersion[at]), (np.arange(len(classes)), classes)
    likelihood = dirichlet_multinomial(counts[:, None].astype(float), mean, (1 - rho) / rho)[of_class]
    rows = rows & (counts.sum(axis=1) > 0)
    k = list(asked.questions[at].answers).index(answer)
    away = counts[:, k] / np.maximum(counts.sum(axis=1), 1) - mean[of_class][:, k]
    return np.where(rows, [likelihood, away], np.nan)


def compared(question, splits):
    """Of the answers of a question: what T(α) and T(α, μ) say of images that they were not fitted to.

    For each answer an array of shape (splits, 2, 2, images): of T(α) and T(α, μ), log-likelihood and residual.
    """
    votes, alpha, brightness, classes, galaxy, redshift = real.redshifted(SHARED, question)
    kept_back = {answer: [] for answer, asked in ANSWERS.items() if asked == question}
    for seed in range(splits):
        half = (np.random.default_rng(seed).permutation(galaxy.max() + 1) < galaxy.max() // 2)[galaxy]
        both = {answer: np.full((2, 2, alpha.size), np.nan) for answer in kept_back}
        for fitted in (half, ~half):
            gold = np.where(fitted, classes, -1)
            for number, column in enumerate((None, brightness)):
                fit = fit_transition(votes, alpha, gold=gold, observables=column)
                argument = alpha if column is None else np.column_stack([alpha, column])
                for answer, of_answer in both.items():
                    scores = scored(fit.transition, votes, argument, classes, answer, ~fitted)
                    of_answer[number] = np.where(np.isnan(scores), of_answer[number], scores)
        for answer, of_answer in both.items():
            kept_back[answer].append(of_answer)
    groups = (redshift, Bins.cut(brightness, 5).index)
    return {answer: np.array(scores) for answer, scores in kept_back.items()}, galaxy, groups


def numbers_of(scores, groups, weights):
    """Gain in log-likelihood per image, and rms residuals in each set of groups, of T(α) and of T(α, μ) minus it."""
    asked = np.isfinite(scores[0, 0, 0]) & (weights > 0)
    gain = np.average((scores[:, 1, 0] - scores[:, 0, 0])[:, asked].mean(axis=0), weights=weights[asked])
    numbers = [gain]
    for of in groups:
        every = [asked & (of == one) for one in np.unique(of[asked])]
        means = [np.average(scores[:, :, 1, rows], axis=2, weights=weights[rows]) for rows in every]
        rms = np.sqrt(np.mean(np.square(means), axis=0)).mean(axis=0)
        numbers += [rms[0], rms[1] - rms[0]]
    return np.array(numbers)


def main(splits):
    """Print a row for each answer; errors are those of other galaxies (bootstrap)."""
    print(
        "| votes for | log-likelihood per image, T(α, μ) minus T(α) | without the galaxy that gains most "
        "| rms by redshift: T(α) | T(α, μ) minus it | rms by μ: T(α) | T(α, μ) minus it |\n|---" + "|---" * 6 + "|"
    )
    for question in dict.fromkeys(ANSWERS.values()):
        kept_back, galaxy, groups = compared(question, splits)
        for answer, scores in kept_back.items():
            rng, n = np.random.default_rng(0), galaxy.max() + 1
            drawn = [np.bincount(rng.integers(0, n, n), minlength=n)[galaxy] for _ in range(RESAMPLES)]
            value = numbers_of(scores, groups, np.ones(galaxy.size))
            error = np.std([numbers_of(scores, groups, weights.astype(float)) for weights in drawn], axis=0)
            gains = np.nan_to_num((scores[:, 1, 0] - scores[:, 0, 0]).mean(axis=0))
            most = np.bincount(galaxy, gains).argmax()
            without = numbers_of(scores, groups, (galaxy != most).astype(float))[0]
            shown = [f"{one:+.3f} ± {of:.3f}" if k in (0, 2, 4) else f"{one:.3f} ± {of:.3f}"
                     for k, (one, of) in enumerate(zip(value, error, strict=True))]  # fmt: skip
            print(f"| {SHOWN[answer]} | {shown[0]} | {without:+.3f} | {' | '.join(shown[1:])} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
