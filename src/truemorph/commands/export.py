"""truemorph export: copy a model with its OpenVINO networks."""

from __future__ import annotations

import shutil
from pathlib import Path

from truemorph.arguments import Model, validated
from truemorph.classifiers.checkpoint import CARD, CONFIG, SEALED, load
from truemorph.errors import InputError, require_extra
from truemorph.io import written_folder
from truemorph.results import PlainResult


@validated
def export_model(model: Model, out: Path) -> PlainResult:
    """Copy a model with its OpenVINO networks, to label on machines without torch.

    They need `pip install truemorph[label]`, and label with the copy as with any model.

    Example: truemorph export model model-for-labelling

    Parameters
    ----------
    model : path or Classifier
        Model folder.
    out : path
        Folder of the copy, which must not exist.

    Returns
    -------
    PlainResult
        Folder and size of the copy. It has int8 networks too, if they have passed their test.

    Raises
    ------
    InputError
        If the folder exists, or the model has no networks or can't be converted.

    Examples
    --------
    >>> export_model("model", "model")
    Traceback (most recent call last):
    truemorph.errors.InputError: model: not a truemorph model folder...
    """
    model = load(model)
    if not model.uses_images or model.folder is None:
        raise InputError("this model needs no networks to label; copy its folder or file")
    if out.exists():
        raise InputError(f"{out}: exists; choose another folder (`out`)")
    require_extra("label")
    from truemorph.classifiers.engines.openvino import EXPORTED, networks_of

    folder = networks_of(model)[0]
    with written_folder(out) as partial:
        for name in (CONFIG, CARD, *SEALED):
            if (model.folder / name).is_file():
                shutil.copy(model.folder / name, partial)
        shutil.copytree(folder, partial / EXPORTED, ignore=shutil.ignore_patterns(".*"))
        partial.rename(out)
    size = sum(path.stat().st_size for path in out.rglob("*"))
    return PlainResult(f"wrote {out} ({size / 1e6:.0f} MB)", {"out": out, "bytes": size})
