"""OpenVINO networks of a model, converted once and kept in the user's cache directory.

They are found by the model's checksum, the version of OpenVINO and that of the conversion. An exported model has them
in its own folder, which is read only where they can't be made: where torch is not installed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import openvino
from filelock import FileLock

from truemorph.classifiers.engines import Unusable
from truemorph.errors import TruemorphError, reason
from truemorph.io import cache_folder, checksums, read_json, write_json, written_folder
from truemorph.progress import tell

# Increase this when `conversion.py` makes other networks of the same model.
CONVERSION = 2
EXPORTED = "openvino"
_ABOUT = "networks.json"


def networks_of(model: Any) -> tuple[Path, list[Path]]:
    """Return the folder of a `Classifier`'s OpenVINO networks, and their files; they are made if there are none.

    Raises
    ------
    Unusable
        If they can't be made or kept.
    """
    if model.folder is None:
        raise Unusable("OpenVINO's networks are kept by the checksum of a model; save it, and load it from its folder")
    place = cache_folder() / "openvino" / f"{model.model_hash}-{version('openvino')}-{CONVERSION}"
    if not _is_whole(place, model):
        exported = model.folder / EXPORTED
        if find_spec("torch") is not None:
            _make(model, place)
        elif _is_whole(exported, model):
            place = exported
        else:
            raise Unusable(
                f"{model.folder}: has no OpenVINO networks, and torch is not installed to make them: pip install "
                "'truemorph[networks]', or label with a copy made by `truemorph export` where torch is installed"
            )
    return place, [place / name for name in network_files(len(model.members)) if name.endswith(".xml")]


def network_files(members: int) -> list[str]:
    """Names of the files of all networks."""
    return [f"member-{member}.{kind}" for member in range(members) for kind in ("xml", "bin")]


def save_networks(networks: Iterable[Any], folder: Path) -> None:
    """Write networks into a folder, in float32."""
    for member, network in enumerate(networks):
        openvino.save_model(network, folder / f"member-{member}.xml", compress_to_fp16=False)


def _keep_first_layer(file: Path) -> None:
    """Let a network in OpenVINO's format compute in float32 up to its first convolution, where others use bf16.

    Most pixels are dark sky. Rounded pixels or weights change them all in the same direction, and with them the mean
    p(y | x).
    """
    tree = ElementTree.parse(file)
    for layer in tree.iterfind("layers/layer"):
        ElementTree.SubElement(ElementTree.SubElement(layer, "rt_info"), "attribute", name="precise", version="0")
        if layer.get("type") == "Convolution":
            tree.write(file)
            return


def _is_whole(place: Path, model: Any) -> bool:
    """Whether a folder has networks of this model and this conversion that did not change since."""
    try:
        stored = read_json(place / _ABOUT)
        sums = checksums(place, _ABOUT, stored, network_files(len(model.members)))
        return stored == stored | {"model_hash": model.model_hash, "conversion": CONVERSION, "sha256": sums}
    except (OSError, ValueError, TypeError):
        return False


def _make(model: Any, place: Path) -> None:
    """Convert a model's networks into a folder, unless another process does it in the meantime."""
    from truemorph.classifiers.engines.conversion import converted

    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_name(f".{place.name}.lock")):
            if _is_whole(place, model):
                return
            tell(f"converting the model for OpenVINO, once; the result is kept in {place}")
            with written_folder(place) as partial:
                save_networks(converted(model), partial)
                for path in partial.glob("*.xml"):
                    _keep_first_layer(path)
                about = {"model_hash": model.model_hash, "conversion": CONVERSION, "openvino": version("openvino")}
                sums = checksums(partial, _ABOUT, about, network_files(len(model.members)))
                write_json(partial / _ABOUT, {**about, "sha256": sums})
                shutil.rmtree(place, ignore_errors=True)  # damaged
                partial.rename(place)
    except TruemorphError:
        raise
    except Exception as problem:  # torch's exporter raises many types
        raise Unusable(f"OpenVINO's networks can't be made or kept in {place} ({reason(problem)})") from problem
