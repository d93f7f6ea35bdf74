"""OpenVINO on CPUs, in float32, bf16 or int8; networks are converted once, and kept in the user's cache directory.

They are found by the model's checksum, the version of OpenVINO and that of the conversion (`conversion.py`). An
exported model has them in its own folder, which is read only where they can't be made: where torch is not installed.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openvino
from filelock import FileLock

from truemorph.classifiers.engines import AT_ONCE
from truemorph.errors import InputError, TruemorphError, reason
from truemorph.io import (
    cache_folder,
    checksums,
    content_hash,
    file_hash,
    read_json,
    write_file,
    write_json,
    written_folder,
)
from truemorph.progress import tell

# Increase this when `conversion.py` makes other networks of the same model.
CONVERSION = 2
EXPORTED = "openvino"
_ABOUT = "networks.json"
_CRASHES = {-number for number in (signal.SIGILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE)}
_CRASHES |= {-signal.SIGBUS} if hasattr(signal, "SIGBUS") else set()


def networks_of(model: Any) -> tuple[Path, list[Path]]:
    """Return the folder of a `Classifier`'s OpenVINO networks, and their files; they are made if there are none.

    Raises
    ------
    InputError
        If they can't be made or kept.
    """
    if model.folder is None:
        raise InputError(
            "OpenVINO's networks are kept by the checksum of a model; save it, and load it from its folder"
        )
    place = cache_folder() / "openvino" / f"{model.model_hash}-{version('openvino')}-{CONVERSION}"
    if not _is_whole(place, model):
        exported = model.folder / EXPORTED
        if find_spec("torch") is not None:
            _make(model, place)
        elif _is_whole(exported, model):
            place = exported
        else:
            raise InputError(
                f"{model.folder}: has no OpenVINO networks, and torch is not installed to make them: pip install "
                "'truemorph[networks]', or label with a copy made by `truemorph export` where torch is installed"
            )
    return place, [place / f"member-{member}.xml" for member in range(len(model.members))]


def with_checksums(about: dict[str, Any], folder: Path, name: str, model: Any) -> dict[str, Any]:
    """Return the content of a file about a model's networks in a folder, with the checksums of it and of theirs."""
    about = about | {"model_hash": model.model_hash}
    files = [f"member-{member}.{kind}" for member in range(len(model.members)) for kind in ("xml", "bin")]
    return {**about, "sha256": checksums(folder, name, about, files)}


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
        return stored == with_checksums(stored | {"conversion": CONVERSION}, place, _ABOUT, model)
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
                about = {"conversion": CONVERSION, "openvino": version("openvino")}
                write_json(partial / _ABOUT, with_checksums(about, partial, _ABOUT, model))
                shutil.rmtree(place, ignore_errors=True)  # damaged
                partial.rename(place)
    except TruemorphError:
        raise
    except Exception as problem:  # torch's exporter raises many types
        raise InputError(f"OpenVINO's networks can't be made or kept in {place} ({reason(problem)})") from problem


def multiplies_bf16() -> bool:
    """Whether the CPU multiplies bf16 natively."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _compiled(network: Any, precision: str) -> Any:
    """Compile a network, or the file of one, for this CPU."""
    hints: dict[str, Any] = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" or not multiplies_bf16() else "bf16",
        "ENABLE_CPU_PINNING": False,  # processes that share a machine would be pinned to the same cores
    }
    if os.environ.get("OMP_NUM_THREADS", "").isdigit():  # torch respects it, OpenVINO does not
        hints["INFERENCE_NUM_THREADS"] = int(os.environ["OMP_NUM_THREADS"])
    return openvino.Core().compile_model(network, "CPU", hints)


class OpenVinoEngine:
    """Run OpenVINO networks, one per member; `alignments` correct each member's probabilities, if any."""

    at_once = 2  # so that no stream waits at the end of a call

    def __init__(
        self, networks: Sequence[Any], precision: str, alignments: Sequence[Callable[[np.ndarray], np.ndarray]] = ()
    ) -> None:
        try:
            compiled = [_compiled(network, precision) for network in networks]
        except RuntimeError as problem:  # also where the CPUs of this process have gaps
            raise InputError(f"OpenVINO can't run this model here ({reason(problem)})") from problem
        jobs = 2 * compiled[0].get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._threads = ThreadPoolExecutor(jobs)
        self._idle = [SimpleQueue[Any]() for _ in compiled]
        for model, idle in zip(compiled, self._idle, strict=True):
            for _ in range(jobs):
                request = model.create_infer_request()
                # Here, because two threads that make their first arrays of tensors can wait for each other for ever.
                idle.put((request, request.get_input_tensor().data, request.get_output_tensor().data))
        self._alignments = alignments
        self.description = f"openvino cpu {precision}"

    def member(self, inputs: np.ndarray, member: int) -> np.ndarray:
        """Return p(y | x) of one member, shape (N, K)."""
        parts = (inputs[start : start + AT_ONCE] for start in range(0, len(inputs), AT_ONCE))
        p = np.concatenate(list(self._threads.map(partial(self._part, member), parts)), dtype=float)
        return self._alignments[member](p) if self._alignments else p

    def _part(self, member: int, pixels: np.ndarray) -> np.ndarray:
        """Return p(y | x) of at most `AT_ONCE` images; networks take no fewer, so other rows are not used."""
        request, taken, outputs = job = self._idle[member].get()
        try:
            taken[: len(pixels)] = pixels
            request.start_async()
            request.wait()
            return outputs[: len(pixels)].copy()
        finally:
            self._idle[member].put(job)


def check_runs(network: Path, precision: str) -> None:
    """Run a network in a child process before the first time, and remember whether that process survived.

    On some CPUs compiling ends with a signal, which Python can't catch.
    """
    core = openvino.Core()
    # What identifies the CPU, because machines with other CPUs may share the cache.
    cpu = ("FULL_DEVICE_NAME", "DEVICE_ARCHITECTURE", "OPTIMIZATION_CAPABILITIES")
    processor = [str(core.get_property("CPU", name)) for name in cpu]
    what = [file_hash(network), version("openvino"), precision, processor]
    place = cache_folder() / "openvino" / "survived" / content_hash(what)[:16]
    code = None
    with suppress(OSError, ValueError):
        code = int(place.read_text())
    if code is None:
        command = [sys.executable, "-P", "-m", __name__, str(network), precision]
        code = subprocess.run(command, capture_output=True, check=False).returncode
        if code == 0 or _crashed(code):  # others say nothing about the CPU
            with suppress(OSError):
                write_file(place, str(code))
    if _crashed(code):
        raise InputError(f"OpenVINO crashes on this CPU (status {code}, remembered in {place})")


def _crashed(code: int) -> bool:
    return code in _CRASHES or code > 255  # the latter on Windows


if __name__ == "__main__":
    _of_file = _compiled(sys.argv[1], sys.argv[2])
    _of_file.create_infer_request().infer({0: np.zeros(_of_file.input(0).shape, np.uint8)})
