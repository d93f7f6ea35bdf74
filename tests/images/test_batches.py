"""Batches and augmentation depend on seed and epoch, but not on the number of processes."""

import numpy as np
import pytest
import torch

from truemorph.config import TrainingConfig
from truemorph.images.dataset import GalaxyBatches
from truemorph.images.transforms import random_maps, warp


def numbered(n=20):
    """Pixels that encode their row."""
    return np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)


def loader(rows, size, **options):
    rows = np.asarray(rows)
    columns = {"row": torch.from_numpy(rows), "weights": torch.ones(rows.size)}
    return GalaxyBatches(numbered(), rows, columns, size, **options)


def order(data):
    return [batch["row"].tolist() for batch in data]


def test_the_order_depends_on_seed_and_epoch():
    rows, data = [3, 5, 8, 13, 19], loader(range(20), 4, seed=7)
    for batch in data:
        assert batch["pixels"][:, 0, 0, 0].tolist() == batch["row"].tolist()
    seen = [row for batch in order(loader(rows, 2, seed=1)) for row in batch]
    assert len(seen) == len(set(seen) & set(rows)) == 4  # the incomplete rest is left out
    assert order(loader(rows, 4)) == [[3, 5, 8, 13], [19]]  # held-out galaxies: all, in order
    first = order(data)
    assert first == order(data) == order(loader(range(20), 4, seed=7)) != order(loader(range(20), 4, seed=8))
    data.set_epoch(1)
    assert order(data) != first


@pytest.mark.parametrize(("processes", "parts"), [(3, 1), (1, 2), (2, 2)])
def test_processes_and_parts_have_the_same_steps(processes, parts):
    augmentation = TrainingConfig(rotation="any", shift=0.1)
    whole = list(loader(range(20), 8, seed=3, augmentation=augmentation))
    divided = [
        list(loader(range(20), 8, seed=3, augmentation=augmentation, parts=parts, process=(rank, processes)))
        for rank in range(processes)
    ]
    assert all(len(one) == parts * len(whole) for one in divided)
    for step, batch in enumerate(whole):
        pieces = [divided[rank][parts * step + part] for part in range(parts) for rank in range(processes)]
        for name in batch:
            torch.testing.assert_close(torch.cat([piece[name] for piece in pieces]), batch[name])
        assert batch["step_weights"].sum() == pytest.approx(1)


def test_rotation_by_90_degrees_and_mirroring_preserve_pixels():
    image = torch.arange(25.0).reshape(1, 1, 5, 5)
    maps = random_maps(TrainingConfig(), 400, torch.Generator().manual_seed(0))
    warped = warp(image.repeat(400, 1, 1, 1), maps)
    sides = [torch.rot90(side, k, (2, 3)) for side in (image, image.flip(3)) for k in range(4)]
    distance = torch.stack([(warped - side).abs().amax(dim=(1, 2, 3)) for side in sides])
    assert distance.min(dim=0).values.max() < 1e-4
    counts = torch.bincount(distance.argmin(dim=0), minlength=8)
    # 400 draws of eight: mean 50, standard deviation 6.6.
    assert counts.min() > 50 - 4 * 6.7
    assert counts.max() < 50 + 4 * 6.7


def test_a_round_galaxy_is_invariant_under_rotation_and_shifts_are_in_the_limits():
    y, x = torch.meshgrid(torch.arange(41.0) - 20, torch.arange(41.0) - 20, indexing="ij")
    galaxy = torch.exp(-(x**2 + y**2) / 50)[None, None]
    many = galaxy.repeat(64, 1, 1, 1)
    turned = warp(many, random_maps(TrainingConfig(rotation="any"), 64, torch.Generator().manual_seed(1)))
    # The error of bilinear interpolation is an eighth of the second derivative, at most 2 / 50 per axis.
    # Corners come from outside of the image.
    assert (turned - galaxy)[:, :, x**2 + y**2 < 19**2].abs().max() < 2 * (2 / 50) / 8 * 1.01
    moved = warp(many, random_maps(TrainingConfig(shift=0.1), 64, torch.Generator().manual_seed(2)))
    weight = moved / moved.sum(dim=(2, 3), keepdim=True)
    centres = torch.stack([(weight * x).sum(dim=(1, 2, 3)), (weight * y).sum(dim=(1, 2, 3))])
    assert 0.08 * 41 < centres.abs().max() < 0.1 * 41 + 0.1  # the largest of 128 uniform draws


def test_zoom_is_off_by_default():
    for zoom, augmentation in ((0.0, TrainingConfig(rotation="any", shift=0.1)), (0.5, TrainingConfig(zoom=0.5))):
        maps = random_maps(augmentation, 500, torch.Generator().manual_seed(0))
        scale = torch.linalg.det(maps[:, :, :2]).abs().sqrt()
        assert 1 / (1 + zoom) - 1e-6 <= scale.min() <= 1 / (1 + 0.9 * zoom) + 1e-6
        assert 1 + 0.9 * zoom - 1e-6 <= scale.max() <= 1 + zoom + 1e-6
