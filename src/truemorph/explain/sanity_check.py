"""Check that maps depend on the learned weights: the randomisation test of Adebayo et al. 2018.

"Sanity checks for saliency maps" (NeurIPS, arXiv:1810.03292): if a map does not change when weights are randomised from
the class layer down ("cascading"), it shows the image, not the network. Galaxies are at the centre of their images, so
maps are correlated even without learning; and maps are not exactly reproducible. Both effects are measured with the
trained network: its maps of another galaxy, and of the same galaxy rotated by multiples of 90°. The check passes if
maps with random weights correlate less than the mean of these two.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata, t

from truemorph.classifiers.checkpoint import Classifier
from truemorph.classifiers.network import GalaxyNetwork
from truemorph.errors import InputError
from truemorph.explain.feature_maps import Grid, stages
from truemorph.explain.gradcam import GradCam, upsampled
from truemorph.progress import progress

# Width in pixels at which maps are compared.
_SIDE = 24


@dataclass(frozen=True)
class Randomisation:
    """Rank correlations between a network's maps and other maps.

    Attributes
    ----------
    layer : str
    steps : dict of str to array, shape (D, N)
        With maps of random weights, by draw and galaxy. The key is the last randomised part, from the class layer
        down. In the last step all weights are random.
    other, same : array, shape (N,)
        With the map of another galaxy of the same predicted class, and of the same galaxy rotated by multiples of 90°.
    blank : float
        Fraction of maps with random weights that are zero everywhere; their correlation counts as 0.
    """

    layer: str
    steps: dict[str, np.ndarray]
    other: np.ndarray
    same: np.ndarray
    blank: float

    @property
    def threshold(self) -> float:
        """Mean of the correlations with another galaxy and with the rotated galaxy."""
        return float((self.other + self.same).mean() / 2)

    @property
    def means(self) -> dict[str, tuple[float, float]]:
        """Mean correlation of each step, with its error."""
        return {name: _mean_and_error(one) for name, one in self.steps.items()}

    @property
    def passes(self) -> bool:
        """Whether maps with all weights random are below the threshold, with 97.5 % confidence."""
        random = list(self.steps.values())[-1]
        above, error = _mean_and_error(random - (self.other + self.same) / 2)
        return bool(above + t.ppf(0.975, len(random) - 1) * error < 0)

    @property
    def statement(self) -> str:
        """Return the result in words."""
        last, random = list(self.steps.items())[-1]
        mean, error = self.means[last]
        verdict = f"maps of {self.layer} depend on the weights"
        if not self.passes:
            verdict = f"it is not shown that {verdict}"
        return (
            f"{verdict[0].upper()}{verdict[1:]}: with all weights random ({len(random)} draws), the rank correlation "
            f"of a galaxy's map with that of the trained network is {mean:.2f} ± {error:.2f}. For comparison, it is "
            f"{self.other.mean():.2f} with another galaxy and {self.same.mean():.2f} with the same galaxy, rotated "
            f"(the check passes below {self.threshold:.2f})."
        )


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Return the mean of (D, N), and its error from the scatter of draws and of galaxies."""
    parts = [one.var(ddof=1) / one.size for one in (values.mean(axis=1), values.mean(axis=0))]
    return float(values.mean()), float(np.sqrt(sum(parts)))


def rank_correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each pair of maps, shape (N, ...); 0 if one is constant."""
    ranks = [rankdata(one.reshape(len(one), -1), axis=1) for one in (first, second)]
    ranks = [one - one.mean(axis=1, keepdims=True) for one in ranks]
    norms = [np.sqrt((one**2).sum(axis=1)) for one in ranks]
    product = norms[0] * norms[1]
    return np.where(product > 0, (ranks[0] * ranks[1]).sum(axis=1) / np.maximum(product, 1e-300), 0.0)


def randomise(
    model: Classifier,
    pixels: np.ndarray,
    layer: str | None = None,
    draws: int = 5,
    seed: int = 0,
) -> Randomisation:
    """Compare maps of a model's first member with maps after randomising weights from the top.

    `pixels` are a few dozen galaxies, uint8 of shape (N, S, S, 3), cropped and resized. Random networks are initialised
    as at the start of training.
    """
    if draws < 2:
        raise InputError(f"the check with random weights needs two draws or more; got {draws}")
    described = {**model.described, "temperatures": model.temperatures[:1]}
    alone = replace(model, described=described, members=model.members[:1])
    cam = GradCam(alone, layer)
    classes = cam.member(pixels, 0).argmax(axis=1)
    partner = _partners(classes, seed)
    paired = partner >= 0
    if not paired.any():
        raise InputError(
            "the check with random weights needs two galaxies of one predicted class; give more, or use `draws` 0"
        )
    pixels, classes, partner = pixels[paired], classes[paired], np.cumsum(paired)[partner[paired]] - 1
    scale = _SIDE / model.config.image_size
    grid = Grid(cam.grid.cells, (cam.grid.first + 0.5) * scale - 0.5, cam.grid.step * scale)

    def maps(turned: int = 0) -> np.ndarray:
        found = cam.maps(np.rot90(pixels, turned, axes=(1, 2)), classes)
        # Rotated back in pixels, because cells of a rotated image have other positions.
        return np.rot90(upsampled(found, _SIDE, grid), -turned, axes=(1, 2))

    trained = maps()
    other = rank_correlations(trained, trained[partner])
    same = np.mean([rank_correlations(trained, maps(turned)) for turned in (1, 2, 3)], axis=0)
    network = cam.networks[0]
    # The network's own order is that of its layers; in a file it is alphabetical.
    groups = _from_the_top(network.state_dict(), stages(network.backbone))
    steps = {name: np.zeros((draws, len(pixels))) for name in groups}
    blank = 0
    with progress(draws * len(groups), "checking maps with random weights", "networks") as bar:
        for draw in range(draws):
            fresh = _fresh_weights(alone, seed + draw)
            weights = {name: torch.from_numpy(value) for name, value in alone.members[0].items()}
            for name, keys in groups.items():
                weights |= {key: fresh[key] for key in keys}
                network.load_state_dict(weights)
                now = maps()
                blank += int((now.max(axis=(1, 2)) == 0).sum())
                steps[name][draw] = rank_correlations(trained, now)
                bar.update(1)
    return Randomisation(cam.layer, steps, other, same, blank / (draws * len(groups) * len(pixels)))


def _partners(classes: np.ndarray, seed: int) -> np.ndarray:
    """Draw another galaxy of the same class; -1 if there is none."""
    rng, out = np.random.default_rng([seed, 1]), np.full(len(classes), -1)
    for one in np.unique(classes):
        rows = rng.permutation(np.flatnonzero(classes == one))
        if rows.size > 1:
            out[rows] = np.roll(rows, 1)
    return out


def _fresh_weights(model: Classifier, seed: int) -> dict[str, Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = GalaxyNetwork(model.config, len(model.classes), built=model.described.get("built"))
    return network.state_dict()


def _from_the_top(weights: dict[str, Any], stages: Collection[str]) -> dict[str, list[str]]:
    """List the weights of each part of a network, from class layer to stem."""
    parts: dict[str, list[str]] = {}
    for key in weights:
        inside = key.removeprefix("backbone.")
        stage = next((one for one in stages if inside.startswith(f"{one}.")), None)
        if inside == key:
            name = ".".join(key.split(".")[:2])
        elif stage is None:
            name = inside.split(".")[0] if set(parts) - {"stem"} else "stem"
        else:
            name = stage
        parts.setdefault(name, []).append(key)
    return dict(reversed(parts.items()))
