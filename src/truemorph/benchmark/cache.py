"""Stages kept on disk under the hash of their configuration: a run that was cut off goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from truemorph.errors import TruemorphError
from truemorph.io import read_json

# Raised by hand whenever a change of code makes what older code left on disk wrong.
FORMAT = 1


def digest(config: Mapping[str, Any]) -> str:
    """Hash of a configuration; the order of its keys doesn't matter.

    Examples
    --------
    >>> digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    True
    """
    text = json.dumps({"format": FORMAT, **config}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Cache:
    """A folder of stages.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, kind: str, config: Mapping[str, Any]) -> Path:
        """Where a stage of this configuration lies, or will."""
        return self.folder / f"{kind}-{digest(config)}"

    def result(self, kind: str, config: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Read a JSON stage, or make and keep it.

        Raises
        ------
        TruemorphError
            If a file of the cache can't be read.
        """
        path = self.path(kind, config).with_suffix(".json")
        if path.is_file():
            try:
                return read_json(path)["result"]
            except (ValueError, KeyError) as problem:
                raise TruemorphError(f"{path}: damaged; delete it and run again") from problem
        result = make()
        self._write(path, json.dumps({"config": config, "result": result}, indent=1, default=str).encode())
        return result

    def array(self, kind: str, config: Mapping[str, Any], make: Callable[[], np.ndarray]) -> np.ndarray:
        """Memory-map an array stage, made and kept first if it isn't there."""
        path = self.path(kind, config).with_suffix(".npy")
        if not path.is_file():
            partial = path.with_name(f".{os.getpid()}.{path.name}")
            np.save(partial, make())
            os.replace(partial, path)
        return np.load(path, mmap_mode="r")

    def _write(self, path: Path, content: bytes) -> None:
        partial = path.with_name(f".{os.getpid()}.{path.name}")
        partial.write_bytes(content)
        os.replace(partial, path)
