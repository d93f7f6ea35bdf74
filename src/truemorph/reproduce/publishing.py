"""What a reproduction leaves beside its stages for people: files, and of those of an earlier run what still belongs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from truemorph.errors import InputError
from truemorph.io import read_json, written_whole
from truemorph.reproduce.page import FIGURES, PAGE
from truemorph.reproduce.result import RESULT
from truemorph.reproduce.stages import LEFT_OUT, Work
from truemorph.reproduce.tables import ECSV, JSON, MARKDOWN


def earlier_result(out: Path) -> dict[str, Any]:
    """What the run before left in reproduce.json."""
    try:
        found = read_json(out / RESULT)
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}


def top(name: str) -> str:
    """What of a published file lies beside reproduce.json: itself, or its folder."""
    return name.partition("/")[0]


def publish(work: Work, earlier: Any) -> dict[str, str]:
    """Copy what people look for to the top of the folder, each file whole.

    Parameters
    ----------
    work : Work
    earlier : dict
        What this gave the run before. Of it, what doesn't belong to this run any more is removed, and nothing else.

    Returns
    -------
    dict
        The stage that each file is of, by its name below the folder.
    """
    earlier = earlier if isinstance(earlier, dict) else {}
    files = {}
    for name, stage in {JSON: "table1", ECSV: "table1", MARKDOWN: "page", PAGE: "page"}.items():
        if work.have(stage) and work.outcomes[stage].file(name).is_file():
            _copied(work.outcomes[stage].file(name), work.out / name)
            files[name] = stage
    if work.have("page"):
        for path in sorted(work.outcomes["page"].file(FIGURES).iterdir()):
            _copied(path, work.out / FIGURES / path.name)
            files[f"{FIGURES}/{path.name}"] = "page"
    for name, stage in earlier.items():
        if name in files or not _may_be_published(name):
            continue
        if stage in work.outcomes and work.outcomes[stage].status == LEFT_OUT:
            files[name] = stage
        else:
            (work.out / name).unlink(missing_ok=True)
    return files


def _may_be_published(name: str) -> bool:
    """Whether a name in reproduce.json, which can be edited, is one that this writes."""
    folder, _, file = name.rpartition("/")
    return name in (JSON, ECSV, MARKDOWN, PAGE) or (folder == FIGURES and file not in ("", ".", ".."))


def _copied(path: Path, target: Path) -> None:
    for old in target.parent.glob(f".*.{target.name}"):  # of a process that was killed
        old.unlink()
    with written_whole(target) as partial:
        shutil.copyfile(path, partial)
