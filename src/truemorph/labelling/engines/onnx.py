"""Export a model to one ONNX file for other programs."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch

from truemorph.classifiers.checkpoint import Classifier
from truemorph.errors import InputError, require_extra
from truemorph.io import written_whole
from truemorph.labelling.engines.served import Served


class Ensemble(torch.nn.Module):
    """All members as one module, which returns their mean probability."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.members = torch.nn.ModuleList([Served(model, member) for member in range(len(model.members))])
        self.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return p(y | x), shape (N, K), for uint8 pixels (N, S, S, 3)."""
        return torch.stack([member(pixels) for member in self.members]).mean(dim=0)


def export_onnx(model: Classifier, path: str | os.PathLike[str]) -> Path:
    """Write a model of images as ONNX.

    Input `pixels`: uint8 (N, S, S, 3), cropped and resized as in `truemorph.images.decode.load_image`. Output
    `probabilities`: (N, K), mean over members after temperature scaling. The metadata has classes, crop and model hash.
    """
    if not model.uses_images:
        raise InputError("this model uses catalogue features, so there is no network to export")
    require_extra("fast")
    path, size = Path(path), model.config.image_size
    with warnings.catch_warnings(action="ignore"):  # internal deprecations of the exporters
        program: Any = torch.onnx.export(
            Ensemble(model),
            (torch.zeros(2, size, size, 3, dtype=torch.uint8),),
            input_names=["pixels"],
            output_names=["probabilities"],
            dynamic_shapes={"pixels": {0: torch.export.Dim("n")}},
            dynamo=True,
            verbose=False,
        )
    about = {"classes": ",".join(model.classes), "crop": str(model.config.crop), "model_hash": model.model_hash}
    program.model.metadata_props.update({f"truemorph_{key}": value for key, value in about.items()})
    with written_whole(path) as partial:
        program.save(partial, external_data=False)
    return path
