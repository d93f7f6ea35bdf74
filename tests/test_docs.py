"""The documentation names commands, options, files and names that exist."""

import re
import runpy
import shlex
from functools import reduce
from operator import getitem
from typing import get_args

import pytest

import truemorph as tm
from conftest import ROOT
from truemorph.archives.fetch import ARCHIVES
from truemorph.bias.curves.families import COMPARED, KNOWN_CURVES
from truemorph.catalogs.columns import NAMED
from truemorph.catalogs.mapping import PRESETS
from truemorph.classifiers.engines import EngineName
from truemorph.cli import COMMANDS, GROUPS, command_app

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("[ct]*/*.md")]
FENCED = re.compile(r"^```(?:bash)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
CELL = re.compile(r"^```\{code-cell\} ipython3\n(?::tags:[^\n]*\n)?(.*?)^```", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"--[a-z][\w-]*")
# With a name after a dot, which is a setting or a column.
DOTTED = {"--training", "--columns"}


def commands_of(page):
    """Yield the arguments of every truemorph command in a page's fenced blocks."""
    for block in FENCED.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            before, _, command = line.partition("truemorph ")
            if command and before.strip() in ("", "srun"):
                yield shlex.split(command, comments=True)


SHOWN = [(page.relative_to(ROOT).as_posix(), one) for page in PAGES for one in commands_of(page)]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "words"), SHOWN, ids=lambda one: one if isinstance(one, str) else one[0])
def test_every_option_of_a_shown_command_exists(page, words):
    name = " ".join(words[: 2 if words[0] in GROUPS else 1])
    arguments = reduce(getitem, name.split(), command_app(name)).assemble_argument_collection()
    existing = (
        {option for argument in arguments for option in argument.names}
        | {"--json", "--quiet", "--config", "--help"}
        | DOTTED
    )
    assert {found[0] for found in map(OPTION.match, words) if found} <= existing


@pytest.mark.parametrize(
    "page",
    [one for one in PAGES if one.parent.name == "docs" and CELL.search(one.read_text())],
    ids=lambda page: page.stem,
)
def test_code_of_guides_runs(page, tmp_path, monkeypatch):
    pytest.importorskip("IPython")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCS_FOLDER", str(ROOT / "docs"))
    names = {}
    for cell in CELL.findall(page.read_text(encoding="utf-8")):
        exec(cell, names)


def test_every_command_has_a_page_and_is_shown():
    assert {words[0] for _, words in SHOWN} == {name.split()[0] for name in COMMANDS}
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "commands").glob("*.md"))
    assert sorted(re.findall(r"^```\{command-options\} (.+)$", pages, re.MULTILINE)) == sorted(COMMANDS)


def test_every_public_name_is_in_the_reference():
    listed = re.findall(r"^   ([\w.]+)$", (ROOT / "docs" / "reference" / "index.rst").read_text(), re.MULTILINE)
    assert set(tm.__all__) <= set(listed)
    assert len(listed) == len(set(listed))


def test_pages_include_the_tables_that_benchmarks_make():
    entries = runpy.run_path(ROOT / "benchmarks" / "all_numbers.py")["ENTRIES"]
    kept = {one.stem for one in (ROOT / "docs" / "numbers").iterdir()}
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert set(re.findall(r"^```{include} numbers/(\w+)\.md$", text, re.MULTILINE)) <= kept
    assert kept <= {name for entry in entries for name in entry.names}
    assert all((ROOT / "benchmarks" / entry.command.split()[0]).is_file() for entry in entries)


@pytest.mark.parametrize(
    ("places", "names"),
    [
        (("docs/archives.md",), ARCHIVES),
        (("docs/catalogues.md",), NAMED),
        (("docs/catalogues.md", "src/truemorph/commands/prepare.py"), PRESETS),
        (("docs/statistics.md", "src/truemorph/commands/transition.py"), (*COMPARED, "constant", "matrix", "logistic")),
        (("src/truemorph/commands/train.py",), KNOWN_CURVES),
        (("docs/labelling.md", "src/truemorph/commands/label.py"), get_args(EngineName)),
    ],
    ids=["archives", "columns", "presets", "families", "known curves", "engines"],
)
def test_pages_and_help_name_what_there_is_to_choose_from(places, names):
    for place in places:
        words = set(re.findall(r"\w+(?:-\w+)*", (ROOT / place).read_text(encoding="utf-8")))
        assert set(names) <= words, place


def test_files_that_pages_name_exist():
    """Paths of tests, benchmarks and rooms of the package."""
    rooms = "|".join(one.name for one in (ROOT / "src" / "truemorph").iterdir() if one.is_dir())
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for path in re.findall(r"\b((?:tests|benchmarks)/[a-z_/\d]+\.py)\b", text):
            assert (ROOT / path).is_file(), f"{page.name}: {path}"
        for path in re.findall(rf"`((?:{rooms})/[\w/]+\.py)`", text):
            assert (ROOT / "src" / "truemorph" / path).is_file(), f"{page.name}: {path}"
