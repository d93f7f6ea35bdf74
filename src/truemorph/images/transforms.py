"""Transform pixels on the device: normalisation, and augmentation that does not change α.

Zoom is off by default: it changes the apparent size of galaxy and PSF, from which a network that is trained through
T(α) may infer the resolution. To degrade the resolution of a galaxy, use `truemorph.images.degrade`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn.functional import affine_grid, grid_sample


def normalise(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Convert uint8 (B, S, S, 3) to float (B, 3, S, S), channels-last in memory; mean 0.5 is half of the range."""
    scaled = pixels.to(torch.float32).div_(255).sub_(mean).div_(std)
    return scaled.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation in training; `rotation` is by any angle (with interpolation), by multiples of 90°, or none.

    `shift` is the largest along each axis, in widths; `zoom` is by a factor between 1 / (1 + zoom) and 1 + zoom.
    """

    flip: bool = True
    rotation: Literal["any", "quarter", "none"] = "quarter"
    shift: float = 0.0
    zoom: float = 0.0

    def draw(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Draw n affine maps from output to input coordinates (-1 to 1 over the image), shape (n, 2, 3).

        Examples
        --------
        >>> still = Augmentation(flip=False, rotation="none").draw(1, torch.Generator().manual_seed(0))
        >>> torch.equal(still, torch.eye(2, 3)[None])
        True
        """
        # Always draw all numbers, so that one option does not change the others.
        mirror, turn, across, along, size = torch.rand(5, n, generator=generator)
        if self.rotation == "any":
            angle = 2 * math.pi * turn
            cosine, sine = torch.cos(angle), torch.sin(angle)
        else:
            quarters = (4 * turn).long() if self.rotation == "quarter" else torch.zeros(n, dtype=torch.int64)
            cosine = torch.tensor([1.0, 0.0, -1.0, 0.0])[quarters]
            sine = torch.tensor([0.0, 1.0, 0.0, -1.0])[quarters]
        sign = torch.where(mirror < 0.5, -1.0, 1.0) if self.flip else torch.ones(n)
        scale = (1 + self.zoom) ** (1 - 2 * size)
        maps = torch.empty(n, 2, 3)
        maps[:, 0] = torch.stack([sign * cosine * scale, -sine * scale, 2 * self.shift * (2 * across - 1)], dim=1)
        maps[:, 1] = torch.stack([sign * sine * scale, cosine * scale, 2 * self.shift * (2 * along - 1)], dim=1)
        return maps


def warp(images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Map images (B, 3, S, S) by maps of `Augmentation.draw`, bilinearly; beyond its edges an image is mirrored."""
    grid = affine_grid(maps.to(images.device, images.dtype), list(images.shape), align_corners=False)
    warped = grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return warped.contiguous(memory_format=torch.channels_last)
