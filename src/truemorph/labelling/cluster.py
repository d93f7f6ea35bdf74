"""Label parts on a Ray cluster: workers start as machines become free, and each takes one part after another."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from truemorph.classifiers.checkpoint import load
from truemorph.classifiers.classifier import Classifier
from truemorph.errors import InputError, TruemorphError, reason, require_extra
from truemorph.labelling.estimated import Estimated
from truemorph.labelling.run import Labelling, LabelOptions, open_labelling
from truemorph.progress import SILENT, progress, tell

CONNECTING = 10  # seconds
# Ray rests on HTTP/2, whose clients begin with a text and empty settings; servers answer with their settings.
_PREFACE, _SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)), 4
_PATIENCE = 60  # seconds without a finished part, after which a line says what is waited for
_PATHS = ("source", "out", "observed", "images", "gate", "tiles")


@dataclass
class RemoteEngine:
    """Engine of the workers of a cluster; this process evaluates nothing."""

    name: str
    precision: str
    description: str
    at_once: int = 1

    def member(self, inputs: np.ndarray, member: int) -> np.ndarray:
        """Raise an error: parts are labelled elsewhere."""
        raise NotImplementedError


class PartLabeller:
    """Cluster actor that labels parts; if it dies, its part is labelled again from the start."""

    def __init__(self, folder: str, device: str, options: LabelOptions) -> None:
        self._folder, self._device, self._options = folder, device, options
        self._opened: Labelling | None = None

    def _labelling(self) -> Labelling:
        """Open the labelling once; errors of `__init__` would not reach the driver as they are."""
        if self._opened is None:
            self._opened = open_labelling(load(self._folder, self._device), self._options)
        return self._opened

    def engine(self) -> RemoteEngine:
        """Return the engine of this machine."""
        own = self._labelling().labeller.engine
        return RemoteEngine(own.name, own.precision, own.description)

    def label(self, number: int) -> None:
        """Label the part with this number."""
        work = self._labelling()
        work.results.check()
        work.label(work.source.parts[number], SILENT)


class Cluster:
    """Workers on a Ray cluster, by default a local one; all use the engine that the first one has chosen."""

    def __init__(self, model: Classifier | Estimated, options: LabelOptions, address: str | None) -> None:
        if model.folder is None:
            raise InputError("engine ray needs a model loaded from a folder that all machines can read")
        _connect(address or os.environ.get("RAY_ADDRESS"))
        import ray

        # Workers run in other folders.
        paths = {name: getattr(options, name) for name in _PATHS}
        files = {name: path for name, path in paths.items() if isinstance(path, str | os.PathLike)}
        absolute: Any = {name: Path(path).resolve() for name, path in files.items()}
        self._options = replace(options, **absolute)
        self._model = str(model.folder.resolve()), model.device
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if model.uses_images and model.device != "cpu" else 0
        self._unit = "GPU" if gpus else "CPU"
        self._most = gpus or max(1, int(resources["CPU"]) - 1)  # one core is left for Ray itself
        share: dict[str, Any] = {f"num_{self._unit.lower()}s": 1}
        actor: Any = ray.remote(max_restarts=-1, max_task_retries=-1, **share)(PartLabeller)
        self._new = actor.remote
        first = self._new(*self._model, self._options)
        self._workers = [first]
        task = first.engine.remote()
        self.engine: RemoteEngine = _result(self._ended([task], 0))
        if model.uses_images:
            precision: Any = self.engine.precision
            self._options = replace(self._options, engine=self.engine.name, precision=precision)

    def label(self, numbers: list[int]) -> Iterator[int]:
        """Label parts; yield their numbers."""
        yield from progress(len(numbers), "label", "part", of=self._labelled(numbers))

    def _labelled(self, numbers: list[int]) -> Iterator[int]:
        n_workers = min(len(numbers), self._most)
        self._workers += [self._new(*self._model, self._options) for _ in range(n_workers - 1)]
        # A worker starts whenever its machine is free; until then, no part waits for it.
        tasks: dict[Any, tuple[Any, int | None]] = {worker.engine.remote(): (worker, None) for worker in self._workers}
        todo, n_left = numbers[::-1], len(numbers)
        while n_left:
            task = self._ended(list(tasks), sum(number is not None for _, number in tasks.values()))
            worker, number = tasks.pop(task)
            _result(task)
            if todo:
                next_number = todo.pop()
                tasks[worker.label.remote(next_number)] = worker, next_number
            if number is not None:
                n_left -= 1
                yield number

    def _ended(self, tasks: list[Any], n_busy: int) -> Any:
        """Wait until one of these tasks has ended; say each minute what is waited for."""
        import ray

        while True:
            ended, _ = ray.wait(tasks, timeout=_PATIENCE)
            if ended:
                return ended[0]
            free, every = (
                int(resources().get(self._unit, 0)) for resources in (ray.available_resources, ray.cluster_resources)
            )
            waiting = f"{n_busy} workers are labelling, {len(tasks) - n_busy} wait for a free {self._unit}"
            tell(f"label: no part finished for {_PATIENCE} s; {waiting} ({free} of {every} are free)")


def _connect(address: str | None) -> None:
    """Connect to a Ray cluster, or start a local one; Ray itself would try an address for many minutes."""
    require_extra("ray")
    import ray

    if ray.is_initialized():
        return
    try:
        if address not in (None, "auto", "local"):
            host, _, port = address.rpartition(":")
            with socket.create_connection((host, int(port)), timeout=CONNECTING) as connection:
                connection.sendall(_PREFACE)
                if connection.recv(4, socket.MSG_WAITALL)[3:] != bytes((_SETTINGS,)):
                    raise ValueError("another program listens there")
        ray.init(address=address, log_to_driver=False, include_dashboard=False)
    except (OSError, ValueError, RuntimeError) as problem:
        where = "give that of a running cluster, HOST:PORT, or none to start one on this machine (`address`)"
        raise InputError(f"no Ray cluster at {address} ({reason(problem)}); {where}") from problem
    if threading.current_thread() is threading.main_thread():  # Ray's own handler exits with status 15
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def _result(task: Any) -> Any:
    """Return the result of a task that has ended, or raise the error that ended it."""
    import ray

    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise TruemorphError(f"the cluster failed: {reason(error)}") from error
