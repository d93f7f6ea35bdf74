"""Stages in their order: what is there is taken, what is missing made, what can't be made said.

A stage lies in `stages/<name>-<key>`, its key the hash of its settings, of what it was made from, and of truemorph's
version. `stage.json`, written last, lists its files and makes it whole; a folder without one was cut off.
"""

from __future__ import annotations

import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from truemorph._version import __version__
from truemorph.errors import InputError, TruemorphError, reason
from truemorph.io import content_hash, plain, write_json
from truemorph.reproduce.options import ReproduceOptions
from truemorph.reproduce.stages import (
    CACHED,
    DONE,
    FAILED,
    LACKS,
    LEFT_OUT,
    TO_DO,
    Lacks,
    Outcome,
    Stage,
    Work,
    read_result,
)

# Raised by hand whenever a change of code makes what older code left on disk wrong.
FORMAT = 2


def run_stages(stages: Sequence[Stage], work: Work, quiet: bool = False) -> None:
    """Make stages, in order; outcomes go into `work`.

    A stage that fails or lacks something stops only those that need it.

    Raises
    ------
    InputError
        If a stage that was asked for is unknown.
    """
    wanted, again = asked(stages, work.options)
    work.outcomes.clear()
    for number, stage in enumerate(stages, 1):
        where = f"reproduce {number}/{len(stages)} {stage.name}"
        outcome = (
            _attempt(stage, work, stage.name in again, where)
            if stage.name in wanted
            else Outcome(stage.name, stage.title, LEFT_OUT)
        )
        work.outcomes[stage.name] = outcome
        if quiet:
            continue
        text = f": {outcome.text}" if outcome.text else f", {outcome.seconds:.1f} s" if outcome.status == DONE else ""
        print(f"{where}: {outcome.status}{text}", file=sys.stderr)


def asked(stages: Sequence[Stage], options: ReproduceOptions) -> tuple[set[str], set[str]]:
    """Stages to make, with those that they use; and those to make anew, with those that use them.

    Raises
    ------
    InputError
        If one that was asked for is unknown.
    """
    by_name = {stage.name: stage for stage in stages}
    for name in (*options.stages, *([options.again] if options.again else [])):
        if name not in by_name:
            raise InputError(f"no stage {name!r}; stages are {', '.join(by_name)}")
    wanted = set(options.stages or by_name)
    for stage in reversed(stages):  # a stage uses earlier ones alone
        if stage.name in wanted:
            wanted |= set(stage.before)
    again = {options.again} if options.again else set()
    for stage in stages:
        if again & set(stage.before):
            again.add(stage.name)
    return wanted, again


def _attempt(stage: Stage, work: Work, again: bool, where: str) -> Outcome:
    """Take or make a stage."""
    for name in stage.needs:
        if not work.have(name):
            before = work.outcomes[name]
            status = before.status if before.status in (LACKS, FAILED) else TO_DO
            text = {LACKS: before.text, FAILED: f"needs {name}, which failed"}.get(status, "")
            return Outcome(stage.name, stage.title, status, text)
    try:
        content = stage.follows_from(work)
        if isinstance(content, Lacks):
            return Outcome(stage.name, stage.title, LACKS, str(content))
        key = content_hash({"version": __version__, "format": FORMAT, "stage": stage.name, **content})[:16]
        folder = work.out / "stages" / f"{stage.name}-{key}"
        kept = None if again else read_result(folder)
        if kept is not None:
            return Outcome(stage.name, stage.title, CACHED, "", key, folder, kept["result"], kept["seconds"])
        if work.options.dry_run:
            return Outcome(stage.name, stage.title, TO_DO)
        if again:
            shutil.rmtree(folder, ignore_errors=True)
        print(f"{where}: {stage.title}", file=sys.stderr)
        return _made(stage, work, key, folder)
    except (TruemorphError, OSError) as problem:
        told = str(problem) if isinstance(problem, TruemorphError) else f"{problem.filename or ''}: {reason(problem)}"
        return Outcome(stage.name, stage.title, FAILED, " ".join(told.split()))
    except Exception as problem:  # what nobody foresaw: the other stages don't depend on it
        traceback.print_exc()
        said = " ".join(f"{type(problem).__name__}: {problem}".split())
        return Outcome(stage.name, stage.title, FAILED, f"{said} (where is said above; please report it)")


def _made(stage: Stage, work: Work, key: str, folder: Path) -> Outcome:
    (folder / "stage.json").unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    for partial in folder.glob(".*"):  # of a process that was killed while it wrote
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
    began = time.perf_counter()
    result = plain(stage.make(work, folder))
    seconds = round(time.perf_counter() - began, 2)
    files = {str(one.relative_to(folder)): one.stat().st_size for one in sorted(folder.rglob("*")) if one.is_file()}
    about = {"stage": stage.name, "key": key, "truemorph_version": __version__, "seconds": seconds}
    write_json(folder / "stage.json", {**about, "files": files, "result": result})
    return Outcome(stage.name, stage.title, DONE, "", key, folder, result, seconds)
