"""Packages import only from lower packages, and do not depend on the command line."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import truemorph

SOURCE = Path(truemorph.__file__).parent
# Allowed imports of each package.
ROOMS = {
    "bias": set(),
    "archives": set(),
    "catalogs": {"archives", "bias"},
    "images": {"catalogs"},
    "simulate": {"bias", "catalogs", "images"},
    "classifiers": {"bias", "catalogs", "images"},
    "labelling": {"bias", "catalogs", "images", "classifiers"},
    "explain": {"bias", "catalogs", "images", "classifiers", "labelling"},
    "gold": {"bias", "catalogs", "images"},
    "report": {"bias", "catalogs", "images", "classifiers", "labelling", "explain"},
    "benchmark": {"bias", "catalogs", "images", "simulate", "classifiers", "labelling", "explain", "report"},
    "reproduce": {"archives", "bias", "catalogs", "images", "classifiers", "labelling", "explain", "report"},
}
ROOMS["commands"] = set(ROOMS)
EVERYWHERE = {"_version", "arguments", "arrays", "citation", "config", "errors", "findings", "io", "plotting"}
EVERYWHERE |= {"progress", "questions", "results", "samp", "table_formats", "tables", "workers"}
FLAG = re.compile(r"--[a-z][a-z-]+")


def imported(tree):
    """Modules of truemorph imported in a file, also those for type checkers alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("truemorph"):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("truemorph"))


def texts(node):
    """Line and content of all one-line strings in a file; f-strings as a whole."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.JoinedStr):
            yield child.lineno, "".join(str(value.value) for value in child.values if isinstance(value, ast.Constant))
        elif isinstance(child, ast.Constant):
            if isinstance(child.value, str) and "\n" not in child.value:
                yield child.lineno, child.value
        else:
            yield from texts(child)


FILES = {
    ".".join(("truemorph", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in SOURCE.rglob("*.py")
}


@pytest.fixture(scope="module")
def trees():
    return {name: ast.parse(path.read_text()) for name, path in FILES.items()}


@pytest.fixture(scope="module")
def imports(trees):
    return {name: {one for one in imported(tree) if one in FILES and one != name} for name, tree in trees.items()}


def test_every_package_is_listed():
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert packages == set(ROOMS)
    assert {path.stem for path in SOURCE.glob("*.py")} == {"__init__", "__main__", "cli", *EVERYWHERE}


def test_packages_import_only_from_allowed_packages(imports):
    for name, found in imports.items():
        room = name.split(".")[1] if "." in name else "__init__"
        if room in ROOMS or room in EVERYWHERE:
            wrong = {one.split(".")[1] for one in found if "." in one} - ROOMS.get(room, set()) - EVERYWHERE - {room}
            assert not wrong, f"{name} imports {wrong}"


def test_there_are_no_import_cycles(imports):
    """A cycle raises CycleError."""
    packages = {name for name, path in FILES.items() if path.stem == "__init__"}
    TopologicalSorter({name: found - packages for name, found in imports.items()}).prepare()


def test_bias_does_not_use_files_images_torch_or_the_command_line():
    """Only `files.py` reads and writes, estimates and fits."""
    for path in (SOURCE / "bias").rglob("*.py"):
        text = path.read_text()
        unwanted = ("import torch", "import polars", "import simplejpeg", "cyclopts", "truemorph.arguments")
        for name in (*unwanted, *(() if path.name == "files.py" else ("pathlib", "pydantic"))):
            assert name not in text, f"{path.name}: {name}"


def test_messages_of_packages_have_no_command_line_options(trees):
    """Messages may include commands but not single options, because Python users have arguments."""
    for name, tree in trees.items():
        room = name.split(".")[1] if "." in name else ""
        if room in ("commands", "cli"):
            continue
        for line, text in texts(tree):
            flags = FLAG.findall(re.sub(r"truemorph [a-z].*", "", text))
            assert not flags, f"{name}, line {line}: {flags}"
