"""Results as plain data, written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np


def write_json(path: Path, content: dict[str, Any]) -> Path:
    """Write JSON that appears whole or not at all; NaN becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    partial.write_text(json.dumps(plain(content), indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)
    return path


def plain(value: Any) -> Any:
    """Turn numpy numbers and arrays, tuples and NaN into what JSON holds."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
