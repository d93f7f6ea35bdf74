"""T(α) against T(α, surface brightness), for the votes on artificially redshifted galaxies.

    python benchmarks/depth.py [SPLITS]

Needs ../shared/data. T is fitted to the images of half of the galaxies (FERENGI) and scored on those of the other half,
and the other way round: log-likelihood of the votes of an image at a question, and observed minus predicted mean
fraction of votes (rms over redshifts, and over fifths of surface brightness). Prints the table of docs/depth.md. The
galaxies were chosen by class, so this is a test of T, and not of class fractions.
"""

import sys
from pathlib import Path

import numpy as np

sys.path += [str(Path(__file__).parents[1] / "tests" / name) for name in ("", "real")]
import test_tree_transition as real

from truemorph import fit_transition
from truemorph.bias.binning import Bins
from truemorph.bias.curves.paths import dirichlet_multinomial

SHARED = Path(__file__).parents[2] / "shared" / "data"
# Votes for an answer, and the question whose paths are fitted.
ANSWERS = {"disk": "bar", "bar": "bar", "spiral arms": "spiral"}
SHOWN = {"disk": "features or disk", "bar": "bar, of those who were asked"}
SHOWN |= {"spiral arms": "spiral arms, of those who were asked"}


def scored(transition, votes, argument, classes, answer, rows, groups):
    """Log-likelihood per image at the question of an answer, and rms error of its fraction in each set of groups."""
    asked = transition.asked
    at = next(q for q, question in enumerate(asked.questions) if answer in question.answers)
    counts, mean = votes.counts[asked.questions[at].name], np.exp(transition.log_answers(argument, votes=True)[at])
    rho, of_class = np.array(transition.overdispersion[at]), (np.arange(len(classes)), classes)
    likelihood = dirichlet_multinomial(counts[:, None].astype(float), mean, (1 - rho) / rho)[of_class]
    rows = rows & (counts.sum(axis=1) > 0)
    k = list(asked.questions[at].answers).index(answer)
    away = counts[rows, k] / counts[rows].sum(axis=1) - mean[of_class][rows, k]
    every = ([away[of[rows] == one].mean() for one in np.unique(of[rows])] for of in groups)
    return np.array([likelihood[rows].mean(), *(np.sqrt(np.mean(np.square(one))) for one in every)])


def compared(question, splits):
    """Scores of T(α) and T(α, μ) for the answers of a question, shape (splits, 2, 3) each."""
    votes, alpha, brightness, classes, galaxy, redshift = real.redshifted(SHARED, question)
    groups = (redshift, Bins.cut(brightness, 5).index)
    found = {answer: [] for answer, asked in ANSWERS.items() if asked == question}
    for seed in range(splits):
        half = (np.random.default_rng(seed).permutation(galaxy.max() + 1) < galaxy.max() // 2)[galaxy]
        both = {answer: [] for answer in found}
        for fitted in (half, ~half):
            gold = np.where(fitted, classes, -1)
            for column in (None, brightness):
                fit = fit_transition(votes, alpha, gold=gold, observables=column)
                argument = alpha if column is None else np.column_stack([alpha, column])
                for answer, some in both.items():
                    some.append(scored(fit.transition, votes, argument, classes, answer, ~fitted, groups))
        for answer, some in both.items():
            found[answer].append(np.mean(np.reshape(some, (2, 2, 3)), axis=0))
    return {answer: np.array(one) for answer, one in found.items()}


def main(splits):
    """Print a row for each answer."""
    print(
        "| votes for | log-likelihood per image, T(α, μ) minus T(α) | rms by redshift: T(α) | T(α, μ) | "
        "rms by μ: T(α) | T(α, μ) |\n|---" + "|---" * 5 + "|"
    )
    for question in dict.fromkeys(ANSWERS.values()):
        for answer, one in compared(question, splits).items():
            gain = one[:, 1, 0] - one[:, 0, 0]
            numbers = [one[:, t, score] for score in (1, 2) for t in (0, 1)]
            shown = " | ".join(f"{values.mean():.3f} ± {values.std():.3f}" for values in numbers)
            print(f"| {SHOWN[answer]} | {gain.mean():+.3f} ± {gain.std():.3f} | {shown} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
