"""Compare with ppi_py, crowd-kit and QuaPy: tables of docs/comparison.md.

    pip install ppi-python crowd-kit quapy abstention
    python benchmarks/other_software.py [DRAWS]

On simulated catalogues, ppi_py estimates a mean from gold labels and observed labels, crowd-kit combines the answers
of single people, and QuaPy re-estimates class fractions of another sample. truemorph needs none of them.
"""

import sys
import warnings
from importlib.metadata import version

import numpy as np
import pandas as pd
from abstention.calibration import TempScaling
from crowdkit.aggregation import GLAD, DawidSkene, MajorityVote
from error_bars import BINS, FLIPS, bin_means, columns
from ppi_py import ppi_mean_ci, ppi_mean_pointestimate
from quapy.method.aggregative import EMQ
from scipy.special import expit, logit
from sklearn.metrics import balanced_accuracy_score
from unfriendly_worlds import two_samples

import truemorph as tm
from truemorph.bias.prior import reestimated_fractions

GALAXIES, PEOPLE, ANSWERS = 4000, 200, 20
# Scatter of the probability of a disk vote: of galaxies (intra-galaxy correlation), and of people (in its logit).
GALAXY_SCATTER, PEOPLE_SCATTER = 0.15, 0.7


def powered(seed, **world):
    """Disk fractions of octiles by ppi_py and by truemorph: errors, covered, widths."""
    _, labels, alpha, gold, truth = columns(transition=FLIPS["rayleigh"], seed=seed, n=6000, gold=300, **world)
    true, parts = bin_means(truth, alpha)
    rival = []
    for part in parts:
        known, rest = part[gold[part] >= 0], part[gold[part] < 0]
        data = truth[known].astype(float), labels[known].astype(float), labels[rest].astype(float)
        low, high = ppi_mean_ci(*data, alpha=0.05)
        rival.append([ppi_mean_pointestimate(*data)[0], low[0], high[0]])
    ours = tm.debiased_fractions(labels, alpha, gold=gold, bins=BINS)
    ours = np.column_stack([ours.fractions[:, 1], ours.low[:, 1], ours.high[:, 1]])
    return [
        (found[:, 0] - true, (found[:, 1] <= true) & (true <= found[:, 2]), found[:, 2] - found[:, 1])
        for found in (np.array(rival), ours)
    ]


def answers(seed):
    """Answers of single people, whose mean is T(α): galaxy, worker and label; with α and truth."""
    _, _, alpha, _, truth = columns(transition=FLIPS["rayleigh"], seed=seed, n=GALAXIES)
    rng = np.random.default_rng([seed, 26])
    mean = FLIPS["rayleigh"].matrix(alpha)[np.arange(GALAXIES), truth, 1].clip(1e-6, 1 - 1e-6)
    size = (1 - GALAXY_SCATTER) / GALAXY_SCATTER
    seen = rng.beta(mean * size, (1 - mean) * size).clip(1e-6, 1 - 1e-6)
    people = rng.normal(0, PEOPLE_SCATTER, PEOPLE)
    worker = np.argsort(rng.random((GALAXIES, PEOPLE)), axis=1)[:, :ANSWERS]
    label = rng.random((GALAXIES, ANSWERS)) < expit(logit(seen)[:, None] + people[worker])
    task = np.repeat(np.arange(GALAXIES), ANSWERS)
    return pd.DataFrame({"task": task, "worker": worker.ravel(), "label": label.ravel().astype(int)}), alpha, truth


def combined(seed):
    """Labels by each way to combine answers, without and with T(α): accuracy, and error of the disk fractions."""
    table, alpha, truth = answers(seed)
    true = bin_means(truth, alpha)[0]
    found = {}

    def scored(name, labels, fractions):
        error = np.sqrt(np.mean((fractions - true) ** 2))
        found[name] = (balanced_accuracy_score(truth, labels), error)

    def corrected(name, fit, labels, likely):
        fractions = tm.debiased_fractions(labels, alpha, fit, bins=BINS).fractions[:, 1]
        scored(name, likely.argmax(axis=1), fractions)

    ways = {"majority": MajorityVote(), "Dawid–Skene": DawidSkene(n_iter=100), "GLAD": GLAD()}
    for name, way in ways.items():
        labels = way.fit_predict(table).reindex(np.arange(GALAXIES)).to_numpy().astype(int)
        scored(name, labels, bin_means(labels, alpha)[0])
        fit = tm.fit_transition(labels, alpha)
        prior = np.tile(fit.class_fractions, (GALAXIES, 1))
        corrected(f"{name}, then truemorph", fit, labels, tm.posterior(prior, labels, alpha, fit.transition))
    return found


def ppi(draws):
    """Disk fractions of octiles by ppi_py and by truemorph."""
    print("## other_ppi")
    print(f"ppi_py {version('ppi-python')}; {draws} catalogues.\n")
    print("| true disk fraction | rms error: ppi_py, truemorph | coverage | width |\n|---|---|---|---|")
    worlds = {"constant": {}, "rises with α": {"drift": 0.5}, "a wave in α": {"trend": "wave"}}
    for name, world in worlds.items():
        each, cells = [powered(1000 + seed, **world) for seed in range(draws)], []
        for found in zip(*each, strict=True):
            errors, covered, widths = map(np.array, zip(*found, strict=True))
            cells.append((np.sqrt(np.mean(errors**2)), covered.mean(), widths.mean()))
        shown = [f"{one:.{places}f}, {two:.{places}f}" for places, one, two in zip((3, 2, 3), *cells, strict=True)]
        print(f"| {name} | {' | '.join(shown)} |", flush=True)


def crowds(draws):
    """Labels by each way to combine answers, without and with T(α)."""
    print("## other_crowds")
    print(f"crowd-kit {version('crowd-kit')}; {draws} catalogues, ± standard deviation.\n")
    error = "rms error of disk fractions in octiles of α"
    print(f"| answers combined by | balanced accuracy vs truth | {error} |\n|---|---|---|")
    each = [combined(seed) for seed in range(draws)]
    for name in each[0]:
        values = np.array([one[name] for one in each])
        cells = [f"{mean:.3f} ± {scatter:.3f}" for mean, scatter in zip(values.mean(0), values.std(0), strict=True)]
        print(f"| {name} | " + " | ".join(cells) + " |")


def quantified(factor, fraction, seed):
    """Error of the re-estimated disk fraction of another sample, by each way, and the probability covered."""
    truth, labels, held_out, true, p_new = two_samples(factor, factor, seed, fractions=(0.7, fraction))
    found, trained = {}, held_out.p.mean(axis=0)
    found["EMQ"] = EMQ.EM(trained, p_new, epsilon=1e-8)[0][1]
    for name, classes in (("labels", labels), ("true classes", truth)):
        # EMQ_BCTS of QuaPy: bias-corrected temperature scaling (Alexandari et al. 2020).
        calibrated = TempScaling(bias_positions="all")(held_out.p, np.eye(2)[classes], posterior_supplied=True)
        found[f"EMQ, calibrated on {name}"] = EMQ.EM(calibrated(held_out.p).mean(axis=0), calibrated(p_new), 1e-8)[0][1]
    found["truemorph"] = reestimated_fractions(p_new, held_out)[0][1]
    return {name: value - true.mean() for name, value in found.items()}


def quantifiers(draws):
    """Disk fraction of another sample, re-estimated by QuaPy's EMQ and by truemorph."""
    print("## other_quapy")
    print(f"QuaPy {version('quapy')}; {draws} catalogues. Bias, rms error of the disk fraction.\n")
    for row, (factor, fraction) in enumerate((one, other) for other in (0.3, 0.7) for one in (0.8, 1.0, 1.25)):
        each = [quantified(factor, fraction, seed) for seed in range(draws)]
        if row == 0:
            print(f"| factor of the logits, disk fraction | {' | '.join(each[0])} |\n|---{'|---' * len(each[0])}|")
        errors = np.array([list(one.values()) for one in each])
        cells = zip(errors.mean(0), np.sqrt(np.mean(errors**2, axis=0)), strict=True)
        print(f"| {factor:g}, {fraction:g} | " + " | ".join(f"{bias:+.3f}, {rms:.3f}" for bias, rms in cells) + " |")


def main():
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    warnings.filterwarnings("ignore")
    ppi(draws)
    crowds(max(draws // 10, 2))
    quantifiers(draws)


if __name__ == "__main__":
    main()
