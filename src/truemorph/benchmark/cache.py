"""Stages kept on disk under the hash of their configuration: a run that was cut off goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from truemorph.errors import TruemorphError
from truemorph.io import content_hash, read_json, write_json, written_whole

# Raised by hand whenever a change of code makes what older code left on disk wrong.
FORMAT = 1


def digest(config: Mapping[str, Any]) -> str:
    """Hash of a configuration, and of the format of what is kept."""
    return content_hash({"format": FORMAT, **config})[:16]


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
        write_json(path, {"config": config, "result": result})
        return result

    def array(self, kind: str, config: Mapping[str, Any], make: Callable[[], np.ndarray]) -> np.ndarray:
        """Memory-map an array stage, made and kept first if it isn't there."""
        path = self.path(kind, config).with_suffix(".npy")
        if not path.is_file():
            with written_whole(path) as partial:
                np.save(partial, make())
        return np.load(path, mmap_mode="r")
