"""OpenVINO on CPUs, in float32, bf16 or int8. Networks are converted in `conversion.py` and `int8.py`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import openvino

from truemorph.classifiers.engines import Unusable
from truemorph.errors import reason
from truemorph.io import cache_folder, content_hash, file_hash, write_file

# Images per request, which networks are converted for; several requests run at once.
AT_ONCE = 8
_CRASHES = {-number for number in (signal.SIGILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE)}
_CRASHES |= {-signal.SIGBUS} if hasattr(signal, "SIGBUS") else set()


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
            raise Unusable(f"OpenVINO can't run this model here ({reason(problem)})") from problem
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
        p = np.concatenate(list(self._threads.map(partial(self._part, member), parts)), dtype=np.float64)
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
    what = [file_hash(network), version("openvino"), precision, _processor()]
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
        raise Unusable(f"OpenVINO crashes on this CPU (status {code}, remembered in {place})")


def _crashed(code: int) -> bool:
    return code in _CRASHES or code > 255  # the latter on Windows


def _processor() -> list[str]:
    """Return what identifies the CPU, because machines with other CPUs may share the cache."""
    core = openvino.Core()
    names = ("FULL_DEVICE_NAME", "DEVICE_ARCHITECTURE", "OPTIMIZATION_CAPABILITIES")
    return [str(core.get_property("CPU", name)) for name in names]


if __name__ == "__main__":
    _of_file = _compiled(sys.argv[1], sys.argv[2])
    _of_file.create_infer_request().infer({0: np.zeros(_of_file.input(0).shape, np.uint8)})
