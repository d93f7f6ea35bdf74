"""Imports go one way through the house."""

import ast
from pathlib import Path

import truemorph

SOURCE = Path(truemorph.__file__).parent
# Each room may import from the rooms before it; simulate stands beside images.
ROOMS = {
    "bias": set(),
    "archives": set(),
    "catalogs": {"archives"},
    "images": {"catalogs"},
    "simulate": {"bias", "catalogs", "images"},
    "classifiers": {"bias", "catalogs", "images"},
    "labelling": {"bias", "catalogs", "images", "classifiers"},
    "explain": {"bias", "catalogs", "images", "classifiers", "labelling"},
    "report": {"bias", "catalogs", "images", "classifiers", "labelling", "explain"},
    "benchmark": {"bias", "catalogs", "images", "simulate", "classifiers", "labelling", "explain", "report"},
}
EVERYWHERE = {"arrays", "errors", "io", "missing", "tables", "progress", "workers", "_version", "config"}


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if name.startswith("truemorph."):
                yield name.split(".")[1]


def test_rooms_import_only_what_comes_before_them():
    for room, allowed in ROOMS.items():
        for path in (SOURCE / room).rglob("*.py"):
            wrong = set(imported_rooms(path)) - allowed - EVERYWHERE - {room}
            assert not wrong, f"{path.relative_to(SOURCE)} imports {wrong}"


def test_bias_knows_nothing_of_files_images_or_torch():
    for path in (SOURCE / "bias").rglob("*.py"):
        text = path.read_text()
        for name in ("import torch", "import polars", "import simplejpeg", "pathlib"):
            assert name not in text, f"{path.name}: {name}"
