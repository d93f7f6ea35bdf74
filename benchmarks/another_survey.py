"""A model on another survey: tables of docs/elsewhere.md.

    python benchmarks/another_survey.py [SEED ...]

EFIGI images (../shared/data) of known type, degraded to random α. Networks learn late types from one part of them, with
labels that are flipped by a known T(α); the other part is the other survey, with another PSF, noise, size in the frame
or class fractions. Errors are those of its fraction of late types. First the rate of findings among galaxies like those
of training, from many random divisions of one survey.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import torch
from PIL import Image

import truemorph as tm
from truemorph.benchmark.methods import benchmark_config
from truemorph.benchmark.worlds import Sizes, degraded_efigi
from truemorph.bias.prior import reestimated_fractions
from truemorph.catalogs.sampling import TRAIN, VALIDATION
from truemorph.classifiers.held_out import Comparison, held_out, held_out_galaxies, measured
from truemorph.classifiers.members import train_members
from truemorph.classifiers.rows import TrainingRows
from truemorph.images.degrade import degrade
from truemorph.images.transforms import normalise
from truemorph.labelling.elsewhere import FALSE_ALARM
from truemorph.simulate.annotate import vote_fractions

SHARED = Path(__file__).parents[2] / "shared" / "data"
PIXELS, EPOCHS, FOLDS, GOLD, DRAWS = 48, 12, 2, (50, 200), 20
FLIPS = tm.RayleighTransition(11.25)
SOURCE, TARGET = (14.0, 0.35), (8.0, 0.35)  # α: median, and scatter of ln α
FEWER = 0.3  # late types in another survey; 0.76 in EFIGI
DIVISIONS = 400


def log_normal(rng, alpha, n):
    return rng.lognormal(np.log(alpha[0]), alpha[1], n)


def with_noise(images, rng, level=8):
    """Images with more noise, by grey levels."""
    noisy = images + rng.normal(0, level, images.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def enlarged(images, part):
    """The central part of images, as large as before."""
    side = images.shape[1]
    first = round(side * (1 - part) / 2)
    box = (first, first, side - first, side - first)
    return np.stack([np.asarray(Image.fromarray(image).resize((side, side), box=box)) for image in images])


class Survey:
    """EFIGI galaxies in random order with their types; `images` degrades some of them."""

    def __init__(self, seed):
        self.table = pl.read_csv(SHARED / "efigi_images.csv", infer_schema_length=None)
        self.seed, classes = seed, (self.table["t_type"].to_numpy() >= 1).astype(np.int64)
        files, sizes = self.table["image"], Sizes(pixels=PIXELS)
        world, self.sharp = degraded_efigi("EFIGI", "spirals", files, classes, seed, sizes, SHARED)
        self.truth, self.radius = world.truth, world.radius[0]

    def images(self, rows, alpha, how="distance"):
        return degrade(self.sharp[rows], np.full(rows.size, np.inf), alpha, self.radius, self.seed, how=how)


def targets(survey, rows, rng):
    """Name, rows, images and α of other surveys of galaxies that the networks did not see."""
    late = survey.truth[rows] == 1
    n = int(np.sum(~late) / (1 - FEWER))
    few = np.concatenate([rows[~late], rng.permutation(rows[late])[: n - np.sum(~late)]])
    same, near = log_normal(rng, SOURCE, rows.size), log_normal(rng, SOURCE, few.size)
    far = log_normal(rng, TARGET, few.size)
    yield "as in training", rows, survey.images(rows, same), same
    yield "other class fractions", few, survey.images(few, near), near
    yield "and lower α (farther away)", few, survey.images(few, far), far
    yield "and lower α (worse seeing)", few, survey.images(few, far, "seeing"), far
    yield "and more noise", few, with_noise(survey.images(few, near), rng), near
    yield "and lower α, more noise", few, with_noise(survey.images(few, far), rng), far
    yield "and 1.4 times larger in the frame", few, enlarged(survey.images(few, near), 0.7), near
    yield "and twice as large in the frame", few, enlarged(survey.images(few, near), 0.5), near


class ByFeatures:
    """The same comparison by features of the first network, along 16 principal axes, instead of what images look like.

    `images` are those of galaxies that it did not see.
    """

    def __init__(self, model, images):
        self.network = model.networks()[0]
        self.scale = [torch.tensor(model.described["normalisation"][one]) for one in ("mean", "std")]
        found = self.features(images)
        self.centre = found.mean(axis=0)
        self.axes = np.linalg.svd(found - self.centre, full_matrices=False)[2][:16].T
        like = SimpleNamespace(uses_images=False, features=list(map(str, range(16))))
        like.held_out = self.projected(images)
        self.comparison = Comparison.of(like, False)

    def features(self, images):
        with torch.inference_mode():
            return self.network.backbone(normalise(torch.from_numpy(images), *self.scale)).numpy()

    def projected(self, images):
        return pl.DataFrame((self.features(images) - self.centre) @ self.axes, list(map(str, range(16))))

    def unlike(self, images):
        return self.comparison.unlike(self.projected(images))


def trained(survey, rows, rng):
    """A classifier of late types with its held-out galaxies, and the same comparison by its features."""
    alpha = log_normal(rng, SOURCE, rows.size)
    labels = (vote_fractions(survey.truth[rows], alpha, FLIPS, survey.seed)[1] > 0.5).astype(np.int64)
    split = np.where(np.arange(rows.size) < rows.size // 8, VALIDATION, TRAIN)
    frame = pl.DataFrame({"object_id": rows, "label": labels, "alpha": alpha, "split": split})
    data = TrainingRows(frame, survey.images(rows, alpha))
    config = benchmark_config(PIXELS, EPOCHS).model_copy(update={"folds": FOLDS, "seed": survey.seed})
    model = train_members(data, FLIPS, config, f"seed {survey.seed}")
    model.held_out = held_out(model, data)
    unseen = model.seen.filter(pl.col("fold") == 0)["object_id"]
    return model, ByFeatures(model, data.inputs[frame["object_id"].is_in(unseen.implode()).to_numpy()])


def fraction_of(labels, alpha, gold, p=None):
    """Fraction of class 1 from gold labels, alone or with p as a covariate; and its standard error."""
    if p is None:
        known = gold[gold >= 0]
        return known.mean(), np.sqrt(known.mean() * (1 - known.mean()) / known.size)
    found = tm.debiased_fractions(labels, alpha, gold=gold, covariates=p, bins=4)
    weight = found.bin_weights / found.bin_weights.sum()
    low, high = found.of_total[0, 1:, 1]
    return weight @ found.fractions[:, 1], (high - low) / 3.92


def estimates(model, truth, p, alpha, rng):
    """Error and stated error of each estimate of the fraction of late types, over draws of gold labels."""
    labels, mean = (p[:, 1] > 0.5).astype(np.int64), truth.mean()
    again, covariance = reestimated_fractions(p, held_out_galaxies(model, model.classes))
    yield "mean p", [(p[:, 1].mean() - mean, np.nan)]
    yield "re-estimated", [(again[1] - mean, np.sqrt(covariance[1, 1]))]
    for number in GOLD:
        found = {"gold labels": [], "with predictions": []}
        for _ in range(DRAWS):
            gold = np.full(truth.size, -1)
            chosen = rng.choice(truth.size, number, replace=False)
            gold[chosen] = truth[chosen]
            for name, covariate in (("gold labels", None), ("with predictions", p[:, 1:])):
                value, error = fraction_of(labels, alpha, gold, covariate)
                found[name].append((value - mean, error))
        for name, some in found.items():
            yield f"{number} {name}", some


def false_alarms(survey, rng):
    """How often galaxies like those of training have the finding."""
    n = survey.truth.size
    rows = np.arange(n)
    alpha = log_normal(rng, SOURCE, n)
    model = SimpleNamespace(uses_images=True)
    every = measured(model, survey.images(rows, alpha), alpha)
    for m in (400, 1500):
        found, beyond = [], []
        for _ in range(DIVISIONS):
            order = rng.permutation(n)
            model.held_out = every[order[:m]]
            comparison = Comparison.of(model, True)
            unlike = comparison.unlike(every[order[m:]])
            beyond.append(unlike.count() / len(unlike))
            found.append(comparison.chance(unlike.count(), len(unlike)) <= FALSE_ALARM)
        yield (
            f"- {m:,} held-out galaxies, {n - m:,} others: {np.mean(beyond):.1%} beyond the limit on average, "
            f"finding in {np.mean(found):.1%} of {DIVISIONS} divisions"
        )


def main(seeds):
    rows, unlike, alarms = {}, {}, []
    for seed in seeds:
        survey, rng = Survey(seed), np.random.default_rng([seed, 21])
        if seed == seeds[0]:
            alarms = list(false_alarms(survey, rng))
        own, others = np.array_split(rng.permutation(survey.truth.size), 2)
        model, by_features = trained(survey, own, rng)
        comparison = Comparison.of(model, True)
        for name, chosen, images, alpha in targets(survey, others, rng):
            truth, p = survey.truth[chosen], model.probabilities(images)
            how = comparison.unlike(measured(model, images, alpha))
            alarm = how.count() > 0 and comparison.chance(how.count(), len(how)) <= FALSE_ALARM
            most = how.drop_nulls().value_counts(sort=True).head(2).rows()
            features = by_features.unlike(images).count() / len(how)
            unlike.setdefault(name, []).append((how.count() / len(how), alarm, features))
            right = np.mean((p[:, 1] > 0.5) == truth)
            print(f"seed {seed}: {name:30} accuracy {right:.3f}, {how.count()} unlike {most}", file=sys.stderr)
            for estimate, some in estimates(model, truth, p, alpha, rng):
                rows.setdefault((name, estimate), []).extend(some)
    names = list(dict.fromkeys(estimate for _, estimate in rows))
    print(f"## elsewhere\n| other survey | {' | '.join(names)} |\n|---" + "|---" * len(names) + "|")
    for name in unlike:
        cells = []
        for estimate in names:
            off, stated = np.array(rows[name, estimate]).T
            error = "" if np.isnan(stated).all() else f" ({np.sqrt(np.mean(stated**2)):.3f})"
            cells.append(f"{np.sqrt(np.mean(off**2)):.3f}{error}")
        print(f"| {name} | {' | '.join(cells)} |")
    print("\n## elsewhere_found\n| other survey | beyond the limit | finding | beyond that of the network's features |")
    print("|---|---|---|---|")
    for name, some in unlike.items():
        beyond, alarm, features = np.mean(some, axis=0)
        print(f"| {name} | {beyond:.1%} | {alarm * len(some):.0f} of {len(some)} | {features:.1%} |")
    print("\nGalaxies like those of training, by random divisions of one survey:\n")
    print("\n".join(alarms))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main([int(one) for one in sys.argv[1:]] or [0, 1, 2])
