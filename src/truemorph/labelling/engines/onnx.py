"""Export a model to one ONNX file for other programs."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from truemorph.classifiers.checkpoint import Classifier
from truemorph.errors import InputError, require_extra
from truemorph.io import written_whole


def export_onnx(model: Classifier, path: str | os.PathLike[str]) -> Path:
    """Write a model as ONNX.

    Parameters
    ----------
    model : Classifier
        A model of images.
    path : path

    Returns
    -------
    Path

    Notes
    -----
        Input `pixels`: uint8 (N, S, S, 3), cropped and resized as in `truemorph.images.decode.load_image`. Output
        `probabilities`: (N, K), mean over members after temperature scaling. The metadata has a description.

    Raises
    ------
    InputError
        If the model uses catalogue features, or the ONNX exporter is not installed.
    """
    if not model.uses_images:
        raise InputError("this model uses catalogue features, so there is no network to export")
    require_extra("networks")
    require_extra("fast")
    import onnx
    import torch

    from truemorph.labelling.engines.served import Ensemble

    path, size = Path(path), model.config.image_size
    with written_whole(path) as partial:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # internal deprecations of the exporters
            torch.onnx.export(
                Ensemble(model),
                (torch.zeros(2, size, size, 3, dtype=torch.uint8),),
                partial,
                input_names=["pixels"],
                output_names=["probabilities"],
                dynamic_shapes={"pixels": {0: torch.export.Dim("n")}},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        written = onnx.load(partial)
        about = {"classes": ",".join(model.classes), "crop": str(model.config.crop), "model_hash": model.model_hash}
        for key, value in about.items():
            entry = written.metadata_props.add()
            entry.key, entry.value = f"truemorph_{key}", value
        onnx.save(written, partial)
    return path
