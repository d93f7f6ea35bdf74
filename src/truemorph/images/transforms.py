"""Transform pixels on the device: normalisation, and augmentation that does not change α.

Zoom is off by default: it changes the apparent size of galaxy and PSF, from which a network that is trained through
T(α) may infer the resolution. To degrade the resolution of a galaxy, use `truemorph.images.degrade`.
"""

import math

import torch
from torch.nn.functional import affine_grid, grid_sample

from truemorph.config import TrainingConfig


def normalise(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Convert uint8 (B, S, S, 3) to float (B, 3, S, S), channels-last in memory; mean 0.5 is half of the range."""
    scaled = pixels.to(torch.float32).div_(255).sub_(mean).div_(std)
    return scaled.permute(0, 3, 1, 2)


def random_maps(config: TrainingConfig, n: int, generator: torch.Generator) -> torch.Tensor:
    """Draw n affine maps from output to input coordinates (-1 to 1 over the image), shape (n, 2, 3).

    Rotation is by any angle (with interpolation), by multiples of 90°, or none; the shift is the largest along each
    axis, in widths; zoom is by a factor between 1 / (1 + zoom) and 1 + zoom.

    Examples
    --------
    >>> still = TrainingConfig(flip=False, rotation="none")
    >>> torch.equal(random_maps(still, 1, torch.Generator().manual_seed(0)), torch.eye(2, 3)[None])
    True
    """
    # Always draw all numbers, so that one option does not change the others.
    mirror, turn, across, along, size = torch.rand(5, n, generator=generator)
    turn = {"any": turn, "quarter": torch.floor(4 * turn) / 4, "none": torch.zeros(n)}[config.rotation]
    cosine, sine = torch.cos(2 * math.pi * turn), torch.sin(2 * math.pi * turn)
    if config.rotation != "any":
        cosine, sine = cosine.round(), sine.round()  # exactly 0 and ±1
    sign = torch.where(mirror < 0.5, -1.0, 1.0) if config.flip else torch.ones(n)
    scale, shift = (1 + config.zoom) ** (1 - 2 * size), 2 * config.shift
    across, along = shift * (2 * across - 1), shift * (2 * along - 1)
    rows = sign * cosine * scale, -sine * scale, across, sign * sine * scale, cosine * scale, along
    return torch.stack(rows, dim=1).reshape(n, 2, 3)


def warp(images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Map images (B, 3, S, S) by maps of `random_maps`, bilinearly; beyond its edges an image is mirrored."""
    grid = affine_grid(maps.to(images.device, images.dtype), list(images.shape), align_corners=False)
    warped = grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return warped.contiguous(memory_format=torch.channels_last)
