"""Cached stages.

A stage is kept in `stages/<name>-<key>`. The key is a hash of its settings, its inputs and the version of truemorph.
`stage.json`, written last, lists its files; a folder without it belongs to an interrupted run.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from truemorph._version import __version__
from truemorph.catalogs.catalogue import image_folder, read_catalogue
from truemorph.errors import InputError, TruemorphError
from truemorph.io import content_hash, plain, read_json, write_json
from truemorph.progress import tell
from truemorph.reproduce.options import Inputs, ReproduceOptions
from truemorph.tables import CatalogTable, frame_hash

# Plain values, such as the result of a stage, for JSON.
Values = dict[str, Any]
DONE, CACHED, LACKS, FAILED, LEFT_OUT, TO_DO = "done", "cached", "lacks", "failed", "left out", "to do"
CATALOGUE, TEST_ROWS = "gz2b.parquet", "test.parquet"
# Options that do not change results, or only those of networks.
_NOT_THE_RESULT = ("fetch", "stages", "preset", "cache", "seeds", "dry_run")


class Lacks(TruemorphError):
    """Missing input data of a stage; the message names the command or argument that provides them."""


@dataclass(frozen=True)
class Outcome:
    """Status and result of a stage.

    Statuses are "done", "cached" (from an earlier run), "lacks" (data are missing), "failed", "left out" (not selected)
    and "to do" (in a dry run); `text` says what is missing, or why it failed.
    """

    name: str
    status: str
    text: str = ""
    folder: Path | None = None
    result: Values = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(eq=False)
class Work:
    """Inputs of the stages, and the outcomes of the stages so far, by name.

    Where networks are trained several times, `training` is the number of that whose outcomes these are, from 1.
    """

    data: Path
    out: Path
    inputs: Inputs
    options: ReproduceOptions
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    training: int = 1

    def of_training(self, number: int) -> Work:
        """Return the same work with the outcomes of another training where there are any."""
        outcomes = {name: self.outcomes.get(f"{name}-{number}", outcome) for name, outcome in self.outcomes.items()}
        return self if number == 1 else replace(self, outcomes=outcomes, training=number)

    def have(self, stage: str) -> bool:
        """Return whether a stage has a result."""
        return stage in self.outcomes and self.outcomes[stage].status in (DONE, CACHED)

    def result(self, stage: str) -> Values:
        """Return the result of a stage."""
        return self.outcomes[stage].result

    def file(self, stage: str, name: str) -> Path:
        """Return the path of a file of a stage that has a result."""
        folder = self.outcomes[stage].folder
        assert folder is not None
        return folder / name

    def used(self, stages: Collection[str]) -> Values:
        """Identify the options, and the results of stages by folder and content, or what they lack.

        The content can differ in the same folder, for example if a network was trained again on a GPU.
        """
        options = {name: value for name, value in vars(self.options).items() if name not in _NOT_THE_RESULT}
        columns = [self.inputs.intrinsic, self.inputs.features, self.inputs.sersic_index]
        used = {
            name: [outcome.folder and outcome.folder.name, outcome.text, outcome.result]
            for name, outcome in self.outcomes.items()
            if name in stages
        }
        return {"options": options, "columns": columns, "used": used}

    def lacks(self, what: str, archive: str, argument: str) -> Lacks:
        """Return the error for data that can be fetched, or given as an argument."""
        return Lacks(f"{what}: truemorph fetch {archive} --out {self.data / archive}, or {argument}")

    def catalogue(self, file: str = CATALOGUE) -> CatalogTable:
        """Read a catalogue of the sample."""
        return read_catalogue(self.file("catalogue", file))


def rows_digest(frame: pl.DataFrame, columns: Iterable[str]) -> str:
    """Hash the rows of those columns that exist."""
    return frame_hash(frame.select(name for name in columns if name in frame.columns))[:16]


def files_digest(root: Path, names: Iterable[str | None]) -> str:
    """Hash names and sizes of existing files below a folder; times differ between copies, and reading takes minutes."""
    chosen = sorted({name for name in names if name and (root / name).is_file()})
    return content_hash([(name, (root / name).stat().st_size) for name in chosen])[:16]


@lru_cache(maxsize=1)
def images_digest(work: Work) -> str:
    """Hash names and sizes of the images of the sample."""
    table = work.catalogue()
    return files_digest(image_folder(table), table.frame["image"])


@dataclass(frozen=True)
class Stage:
    """A step of the experiment, with the stages that it needs, and those that it uses if they have a result.

    `make` writes files into the given folder and returns the result as plain data; after an interruption it is called
    again with the same folder. `settings` returns all that the result depends on (hashes of rows and images, settings),
    by default the options and the results of these stages, and raises `Lacks` if data are missing.
    """

    name: str
    title: str
    make: Callable[[Work, Path], Values]
    needs: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    settings: Callable[[Work], Values] | None = None
    training: int = 1  # of the networks


def trained_again(stage: Stage, number: int, of_networks: Collection[str]) -> Stage:
    """Return a stage for another training of the networks; `of_networks` are all stages that differ between them."""

    def named(names: Iterable[str]) -> tuple[str, ...]:
        return tuple(f"{name}-{number}" if name in of_networks else name for name in names)

    return replace(
        stage,
        name=f"{stage.name}-{number}",
        title=f"{stage.title}, training {number}",
        needs=named(stage.needs),
        wants=named(stage.wants),
        training=number,
    )


def asked(stages: Sequence[Stage], names: Sequence[str]) -> set[str]:
    """Return the names of the selected stages and of those that they use; all by default."""
    stage_names = [stage.name for stage in stages]
    for name in names:
        if name not in stage_names:
            raise InputError(f"no stage {name!r}; stages are {', '.join(stage_names)}")
    selection = set(names or stage_names)
    for stage in reversed(stages):  # a stage uses only earlier stages
        if stage.name in selection:
            selection |= {*stage.needs, *stage.wants}
    return selection


def run_stages(stages: Sequence[Stage], wanted: Collection[str], work: Work) -> None:
    """Run stages in order; reuse cached results. Outcomes go into `work`.

    A stage that fails or lacks data stops only the stages that need it.
    """
    for number, stage in enumerate(stages, 1):
        where = f"reproduce {number}/{len(stages)} {stage.name}"
        texts = {outcome.text for outcome in work.outcomes.values()} - {""}
        outcome = _run(stage, work, where) if stage.name in wanted else Outcome(stage.name, LEFT_OUT)
        work.outcomes[stage.name] = outcome
        text = f": {outcome.text}" if outcome.text else f", {outcome.seconds:.1f} s" if outcome.status == DONE else ""
        if outcome.text not in texts and not work.options.dry_run:  # the summary lists all stages
            tell(f"{where}: {outcome.status}{text}")


def _run(stage: Stage, work: Work, where: str) -> Outcome:
    """Run one stage, or reuse its cached result."""
    work = work.of_training(stage.training)
    absent = next((work.outcomes[name] for name in stage.needs if not work.have(name)), None)
    if absent is not None:
        text = f"needs {absent.name}, which failed" if absent.status == FAILED else absent.text
        return Outcome(stage.name, absent.status, text)
    try:
        depends_on = stage.settings(work) if stage.settings else work.used((*stage.needs, *stage.wants))
        folder = work.out / "stages" / f"{stage.name}-{content_hash([__version__, stage.name, depends_on])[:16]}"
        kept, status = _kept(folder), CACHED
        if kept is None and work.options.dry_run:
            return Outcome(stage.name, TO_DO)
        if kept is None:
            tell(f"{where}: {stage.title}")
            kept, status = _made(stage, work, folder), DONE
        return Outcome(stage.name, status, "", folder, kept["result"], kept["seconds"])
    except Lacks as problem:
        return Outcome(stage.name, LACKS, str(problem))
    except (TruemorphError, OSError) as problem:
        text = str(problem)
    except Exception as problem:  # a bug, or CUDA out of memory: other stages still run
        traceback.print_exc()
        text = f"{type(problem).__name__}: {problem} (the traceback is above; please report it)"
    return Outcome(stage.name, FAILED, " ".join(text.split()))


def _made(stage: Stage, work: Work, folder: Path) -> Values:
    """Run one stage; return its record."""
    (folder / "stage.json").unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    result = plain(stage.make(work, folder))
    seconds = round(time.perf_counter() - began, 2)
    files = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    made = {"truemorph_version": __version__, "seconds": seconds, "files": files, "result": result}
    write_json(folder / "stage.json", made)
    return made


def _kept(folder: Path) -> Values | None:
    """Read the record of a finished stage; None if a file is missing or has another size."""
    try:
        kept: Values = read_json(folder / "stage.json")
        whole = all((folder / name).stat().st_size == size for name, size in kept["files"].items())
    except (OSError, ValueError, KeyError):
        return None
    return kept if whole else None
