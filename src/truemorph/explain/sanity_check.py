"""Check that maps depend on the learned weights: the randomisation test of Adebayo et al. 2018 (arXiv:1810.03292).

If a map does not change when all weights are replaced by random ones, it shows the image, not the network. Galaxies are
at the centre, so maps are correlated even without learning, and they are not exactly reproducible: both are measured
with the trained network, by its maps of another galaxy, and of the same galaxy rotated by multiples of 90°. The check
passes if maps with random weights correlate less than the mean of these two.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import rankdata, t

from truemorph.arrays import ratio
from truemorph.classifiers.classifier import Classifier
from truemorph.classifiers.network import GalaxyNetwork
from truemorph.errors import InputError
from truemorph.explain.gradcam import GradCam, Grid, upsampled
from truemorph.progress import progress

# Width in pixels at which maps are compared.
_SIDE = 24


@dataclass(frozen=True)
class Randomisation:
    """Rank correlations between a network's maps and other maps."""

    layer: str
    random: np.ndarray  # (D, N): with maps of random weights, by draw and galaxy
    other: np.ndarray  # (N,): with the map of another galaxy of the same predicted class
    same: np.ndarray  # (N,): with the map of the same galaxy rotated by multiples of 90°

    @property
    def threshold(self) -> float:
        """Mean of the correlations with another galaxy and with the rotated galaxy."""
        return float((self.other + self.same).mean() / 2)

    @property
    def mean(self) -> tuple[float, float]:
        """Mean correlation with maps of random weights, with its error."""
        return _mean_and_error(self.random)

    @property
    def passes(self) -> bool:
        """Whether maps with random weights are below the threshold, with 97.5 % confidence."""
        above, error = _mean_and_error(self.random - (self.other + self.same) / 2)
        return bool(above + t.ppf(0.975, len(self.random) - 1) * error < 0)

    @property
    def statement(self) -> str:
        """Return the result in words."""
        mean, error = self.mean
        verdict = f"aps of {self.layer} depend on the weights"
        verdict = f"M{verdict}" if self.passes else f"It is not shown that m{verdict}"
        return (
            f"{verdict}: with random weights ({len(self.random)} draws), the rank correlation of a galaxy's map with "
            f"that of the trained network is {mean:.2f} ± {error:.2f}. For comparison, it is {self.other.mean():.2f} "
            f"with another galaxy and {self.same.mean():.2f} with the same galaxy, rotated (the check passes below "
            f"{self.threshold:.2f})."
        )


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Return the mean of (D, N), and its error from the scatter of draws and of galaxies."""
    parts = [means.var(ddof=1) / means.size for means in (values.mean(axis=1), values.mean(axis=0))]
    return float(values.mean()), float(np.sqrt(sum(parts)))


def rank_correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each pair of maps, shape (N, ...); 0 if one is constant."""
    ranks = np.array([rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (first, second)])
    ranks -= ranks.mean(axis=2, keepdims=True)
    norms = np.linalg.norm(ranks, axis=2).prod(axis=0)
    return np.nan_to_num(ratio(ranks.prod(axis=0).sum(axis=1), norms))


def randomise(
    model: Classifier, pixels: np.ndarray, layer: str | None = None, draws: int = 5, seed: int = 0
) -> Randomisation:
    """Compare maps of a model's first member with maps of the same network with random weights.

    `pixels` are a few dozen galaxies, uint8 (N, S, S, 3); two `draws` or more give an error of their mean.
    """
    cam = GradCam(replace(model, members=model.members[:1]), layer)
    classes = cam.member(pixels, 0).argmax(axis=1)
    paired = np.bincount(classes)[classes] > 1
    if not paired.any():
        raise InputError("the check with random weights needs two galaxies of one predicted class; or use `draws` 0")
    pixels, classes = pixels[paired], classes[paired]
    scale = _SIDE / model.config.image_size
    grid = Grid(cam.grid.cells, (cam.grid.first + 0.5) * scale - 0.5, cam.grid.step * scale)

    def maps(turned: int = 0) -> np.ndarray:
        cam_maps = cam.maps(np.rot90(pixels, turned, axes=(1, 2)), classes)
        # Rotated back in pixels, because cells of a rotated image have other positions.
        return np.rot90(upsampled(cam_maps, _SIDE, grid), -turned, axes=(1, 2))

    trained = maps()
    other = rank_correlations(trained, trained[_partners(classes, seed)])
    same = np.mean([rank_correlations(trained, maps(turned)) for turned in (1, 2, 3)], axis=0)
    random = np.zeros((draws, len(pixels)))
    for draw in progress(draws, "checking maps with random weights", "networks", of=range(draws)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + draw)
            fresh = GalaxyNetwork(model.config, len(model.classes), described=model.described)
        cam.networks[0].load_state_dict(fresh.state_dict())
        random[draw] = rank_correlations(trained, maps())
    return Randomisation(cam.layer, random, other, same)


def _partners(classes: np.ndarray, seed: int) -> np.ndarray:
    """Draw another galaxy of the same class."""
    rng, out = np.random.default_rng([seed, 1]), np.empty_like(classes)
    for number in np.unique(classes):
        rows = rng.permutation(np.flatnonzero(classes == number))
        out[rows] = np.roll(rows, 1)
    return out
