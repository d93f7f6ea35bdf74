"""What happens to pixels on the device: normalisation, and augmentation that leaves α alone.

Flips and quarter turns only: an image turned over shows the same galaxy at the same resolution. Zooming would
change how well resolved the galaxy looks while α stays that of the image the annotators saw.
"""

from __future__ import annotations

import torch


def normalise(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Turn uint8 (B, S, S, 3) into normalised float (B, 3, S, S), channels-last in memory.

    Parameters
    ----------
    pixels : tensor of uint8, shape (B, S, S, 3)
    mean, std : tensors, shape (3,)
        In units of the full range (0 to 1).
    """
    scaled = pixels.to(torch.float32).div_(255).sub_(mean).div_(std)
    return scaled.permute(0, 3, 1, 2)


def flip_and_turn(images: torch.Tensor) -> torch.Tensor:
    """Mirror and turn each image by a random multiple of 90°; shape (B, 3, S, S) in and out."""
    draws = torch.randint(0, 8, (images.shape[0],), device=images.device)
    out = torch.empty_like(images)
    for draw in range(8):
        chosen = draws == draw
        if chosen.any():
            turned = torch.rot90(images[chosen], draw % 4, (2, 3))
            out[chosen] = turned.flip(3) if draw >= 4 else turned
    return out
