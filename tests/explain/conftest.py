"""Networks with random weights, for any backbone."""

import numpy as np
import polars as pl
import torch

from conftest import tiny
from truemorph import Classifier, RayleighTransition
from truemorph.bias.curves.families import transition_to_dict
from truemorph.classifiers.classifier import describe
from truemorph.classifiers.network import GalaxyNetwork
from truemorph.questions import heads_of


def model_of(backbone="test_resnet", size=64, members=1, seen=(), change=None, questions=(), **config):
    """A model with random weights that assigns half of `pictures` to each class; `change` modifies it.

    Or one that answers `questions` (Asked).
    """
    settings = tiny(backbone=backbone, image_size=size, folds=members, **config)
    torch.manual_seed(1)
    classes = [column for head in heads_of(questions) for column in head.columns] or ["smooth", "disk"]
    networks = [GalaxyNetwork(settings, len(classes)).eval() for _ in range(members)]
    for network in networks:
        torch.nn.init.normal_(network.head[-1].weight, std=0.5)
        with torch.inference_mode():
            logits = network(network.normalised(torch.from_numpy(pictures(24, size))))
        network.head[-1].bias.data -= logits.median(dim=0).values
        if change is not None:
            change(network)
    described = describe(
        settings,
        transition_to_dict(RayleighTransition(11.25)),
        catalogue={"alpha": "R / sigma_PSF", "alpha_psf": "sigma", "source": "a test", "rows": 2},
        members=members,
        classes=classes,
        questions=[question.to_dict() for question in questions],
        metrics={},
        normalisation=networks[0].normalisation,
        built=networks[0].built,
    )
    weights = [{name: value.detach().numpy() for name, value in network.state_dict().items()} for network in networks]
    schema = {"object_id": pl.Int64, "role": pl.String, "fold": pl.Int64}
    return Classifier(described, weights, pl.DataFrame(list(seen), schema=schema, orient="row"))


def pictures(n, size=64, seed=0):
    """Blobs near the centre, uint8 (n, size, size, 3)."""
    rng = np.random.default_rng(seed)
    axis = np.arange(size) - (size - 1) / 2
    x, y = rng.normal(0, size / 20, (2, n, 1, 1))
    width = rng.uniform(size / 16, size / 5, (n, 1, 1))
    light = 220 * np.exp(-((axis[None, None, :] - x) ** 2 + (axis[None, :, None] - y) ** 2) / (2 * width**2))
    colour = rng.uniform(0.6, 1, (n, 1, 1, 3))
    return np.clip(light[..., None] * colour + rng.normal(12, 4, (n, size, size, 3)), 0, 255).astype(np.uint8)
