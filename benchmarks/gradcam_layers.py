"""Which layer to use for Grad-CAM: do maps rotate with the galaxy, and does the network use what they mark?

    python benchmarks/gradcam_layers.py GALAXIES CATALOGUE MODEL [MODEL ...]

For each layer of each model, on test galaxies of the catalogue:

- rotated: rank correlation of a galaxy's map with that of the image rotated by quarter turns (and rotated back); other:
  with the map of another galaxy of the same class. The first should be larger.
- highest: decrease of p(predicted class) when the fifth of the image with the highest intensity is replaced by sky;
  lowest: the fifth with the lowest intensity; centre: a central disk of the same area.
"""

import sys
from pathlib import Path

import numpy as np
import polars as pl

from truemorph.catalogs.catalogue import image_folder, read_catalogue
from truemorph.classifiers.checkpoint import load
from truemorph.explain.gradcam import GradCam, upsampled
from truemorph.explain.sanity_check import rank_correlations
from truemorph.explain.study import galaxies_of

SHARE = 0.2


def blanked(pixels, order):
    """Images with the first pixels of `order`, shape (N, S * S), replaced by the median of the border."""
    border = np.concatenate([pixels[:, :3].reshape(len(pixels), -1, 3), pixels[:, -3:].reshape(len(pixels), -1, 3)], 1)
    sky = np.median(border, axis=1).astype(np.uint8)
    out = pixels.reshape(len(pixels), -1, 3).copy()
    some = order[:, : round(SHARE * order.shape[1])]
    np.put_along_axis(out, some[..., None].repeat(3, axis=2), sky[:, None].repeat(some.shape[1], axis=1), axis=1)
    return out.reshape(pixels.shape)


def scores(model, layer, pixels):
    """Rotated, other, highest, lowest, centre."""
    cam, size = GradCam(model, layer), model.config.image_size

    def p(images):
        return np.mean([cam.member(images, member) for member in range(len(model.members))], axis=0)

    def maps(turned):
        found = cam.maps(np.rot90(pixels, turned, axes=(1, 2)), classes)
        return np.rot90(upsampled(found, size, cam.grid), -turned, axes=(1, 2))

    def correlations(first, second):
        return rank_correlations(first[:, ::4, ::4], second[:, ::4, ::4])

    before, rows = p(pixels), np.arange(len(pixels))
    classes = before.argmax(axis=1)
    own = maps(0)
    turned = np.mean([correlations(own, maps(k)) for k in (1, 2, 3)])
    rng = np.random.default_rng(0)
    shuffled = [rng.permutation(np.flatnonzero(classes == one)) for one in np.unique(classes)]
    another = np.concatenate([correlations(own[some], own[np.roll(some, 1)]) for some in shuffled]).mean()
    axis = np.arange(size) - (size - 1) / 2
    middle = np.broadcast_to(np.argsort(np.hypot(axis[:, None], axis).ravel(), kind="stable"), (len(pixels), size**2))
    order = np.argsort(-own.reshape(len(own), -1), axis=1, kind="stable")
    falls = [
        (before[rows, classes] - p(blanked(pixels, one))[rows, classes]).mean()
        for one in (order, order[:, ::-1], middle)
    ]
    return turned, another, *falls


def main(galaxies, catalogue, *folders):
    table = read_catalogue(catalogue)
    frame = table.frame.filter(pl.col("split") == "test").sample(int(galaxies), seed=0)
    print(f"{'':24} {'cells':>5} {'rotated':>7} {'other':>7} {'highest':>7} {'lowest':>8} {'centre':>7}")
    for folder in folders:
        model = load(folder)
        pixels = np.concatenate([some.inputs for some in galaxies_of(frame, image_folder(table))(model.config)])
        for name, cells in list(GradCam(model).layers.items())[1:]:
            numbers = scores(model, name, pixels)
            row = " ".join(f"{number:{width}.2f}" for number, width in zip(numbers, (7, 7, 7, 8, 7), strict=True))
            print(f"{Path(folder).name:16} {name:7} {cells:5} {row}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
