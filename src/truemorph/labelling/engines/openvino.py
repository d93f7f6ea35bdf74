"""OpenVINO on CPUs, in float32 or bf16; int8 is in `int8.py`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import openvino
import torch

from truemorph.classifiers.checkpoint import Classifier
from truemorph.labelling.engines.served import Served

# Images per request; several requests run at once.
AT_ONCE = 8


def converted(model: Classifier, member: int) -> Any:
    """Convert a member to OpenVINO in float32; fixed batches of uint8 (B, S, S, 3) in, p(y | x) out."""
    size = model.config.image_size
    example = torch.zeros(AT_ONCE, size, size, 3, dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # internal deprecations of the exporters
        exported = torch.export.export(Served(model, member), (example,))
        return openvino.convert_model(exported, share_weights=False)


class OpenVinoEngine:
    """Run OpenVINO networks, one per member of a model, in precision fp32, bf16 or int8.

    `alignments` are corrections of each member's probabilities, if any.
    """

    def __init__(
        self,
        networks: Sequence[Any],
        model: Classifier,
        precision: str,
        alignments: Sequence[Callable[[np.ndarray], np.ndarray]] = (),
    ) -> None:
        core = openvino.Core()
        hints: dict[str, Any] = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
        }
        if os.environ.get("OMP_NUM_THREADS", "").isdigit():  # set by Ray; torch respects it, OpenVINO does not
            hints["INFERENCE_NUM_THREADS"] = int(os.environ["OMP_NUM_THREADS"])
        compiled = [core.compile_model(network, "CPU", hints) for network in networks]
        self._queues = [openvino.AsyncInferQueue(one) for one in compiled]
        self._n_classes, self._alignments = len(model.classes), alignments
        self.description = f"openvino cpu {precision}"

    def member(self, inputs: np.ndarray, member: int) -> np.ndarray:
        """Return p(y | x) of one member, shape (N, K)."""
        out, queue = np.empty((len(inputs), self._n_classes)), self._queues[member]

        def keep(request: Any, where: slice) -> None:
            out[where] = request.get_output_tensor(0).data[: where.stop - where.start]

        queue.set_callback(keep)
        for start in range(0, len(inputs), AT_ONCE):
            pixels = np.zeros((AT_ONCE, *inputs.shape[1:]), np.uint8)
            where = slice(start, min(start + AT_ONCE, len(inputs)))
            pixels[: where.stop - start] = inputs[where]
            queue.start_async({0: pixels}, where)
        queue.wait_all()
        return self._alignments[member](out) if self._alignments else out
