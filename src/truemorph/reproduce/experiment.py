"""Run the experiment: fetch missing data, run the stages, and write the results."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from truemorph._version import __version__
from truemorph.errors import InputError, TruemorphError
from truemorph.io import lock, read_json, write_json, written_whole
from truemorph.progress import tell
from truemorph.reproduce import catalogue, figures, models, sensitivity, table1
from truemorph.reproduce.options import Inputs, ReproduceOptions
from truemorph.reproduce.page import page_stage
from truemorph.reproduce.stages import LEFT_OUT, Stage, Work, asked, run_stages

RESULT = "reproduce.json"
_STAGES = (*catalogue.STAGES, table1.STAGES[0], *models.STAGES, table1.STAGES[1], *sensitivity.STAGES, *figures.STAGES)
STAGES: tuple[Stage, ...] = (*_STAGES, page_stage(tuple(stage.name for stage in _STAGES)))
# Stages whose results are in reproduce.json, and stages of which one value is.
_TOLD = ("catalogue", "gz2d", "bias", "table1", "theta", "figure3", "changed", "figure4", "maps")
_VALUES = {"reasons": "reasons", "page": "answer"}
# Stages whose files are copied to the output folder.
_PUBLISHED = ("table1", "page")


def run_experiment(
    data: Path, out: Path, options: ReproduceOptions, config: Path | None, given: dict[str, Any]
) -> dict[str, Any]:
    """Run the experiment and return the content of `reproduce.json`; see `truemorph.reproduce_paper`.

    Raises
    ------
    InputError
        If the folder or a named file does not exist, or a setting is unknown.
    TruemorphError
        If another process uses the same folder.
    """
    if not data.is_dir() and not options.fetch:
        how = f"truemorph fetch gz2 --out {data / 'gz2'}, or with `fetch`"
        raise InputError(f"{data}: no such folder of data; create it with {how}")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder (`out`)")
    inputs = Inputs.of(data, config, **given)
    # Report invalid settings before anything is fetched or computed.
    wanted = asked(STAGES, options.stages)
    plan = models.training_plan(inputs, options) if wanted & set(models.NETWORKS) else ""
    tell(
        f"reproduce: {len(wanted)} stages for {sum(options.counts):,} galaxies; results of an earlier run in {out} are "
        "used again"
    )
    if plan:
        tell(f"reproduce: {plan}")
    (out / "stages").mkdir(parents=True, exist_ok=True)
    held = lock(out / "stages" / ".lock")
    if held is None:
        raise TruemorphError(
            f"{out}: another process is using this folder; wait for it, or choose another folder (`out`)"
        )
    with held:
        fetched = []
        if options.fetch and not options.dry_run:
            fetched = [catalogue.fetch_archive(name, data, **chosen)
                       for name, chosen in catalogue.missing_archives(inputs).items()]  # fmt: skip
            inputs = Inputs.of(data, config, **given)
        work = Work(data, out, inputs, options)
        run_stages(STAGES, work)
        result: dict[str, Any] = {
            "truemorph_version": __version__,
            "scale": options.fraction,
            "seed": options.seed,
            "stages": [
                {key: getattr(one, key) for key in ("name", "title", "status", "text", "seconds")}
                | {"folder": None if one.folder is None else str(one.folder.relative_to(out))}
                for one in (*fetched, *work.outcomes.values())
            ],
            **{name: work.result(name) for name in _TOLD if work.have(name)},
            "reasons": [],
            "answer": "",
            **{key: work.result(name)[key] for name, key in _VALUES.items() if work.have(name)},
            "files": {},
        }
        if not options.dry_run:
            result |= _published(work)
            write_json(out / RESULT, result)
    return result


def _published(work: Work) -> dict[str, Any]:
    """Copy published files to the output folder, and keep earlier results of stages that are left out.

    Files of stages that are left out stay; files of stages that could not run are removed.
    """
    try:
        earlier = read_json(work.out / RESULT)
    except InputError:
        earlier = {}
    left = [name for name, one in work.outcomes.items() if one.status == LEFT_OUT]
    before = earlier.get("published", {})
    published = {name: stage for name, stage in before.items() if stage in left and (work.out / name).is_file()}
    for stage in filter(work.have, _PUBLISHED):
        folder = work.file(stage, "")
        made = (path for path in folder.rglob("[!.]*") if path.is_file() and path.name != "stage.json")
        for path in sorted(made):
            name = str(path.relative_to(folder))
            with written_whole(work.out / name) as partial:
                shutil.copyfile(path, partial)
            published[name] = stage
    for name in before.keys() - published.keys():
        (work.out / name).unlink(missing_ok=True)
    kept = {key: earlier[key] for key in (_VALUES.get(name, name) for name in left) if key in earlier}
    files = {top: str(work.out / top) for top in (name.partition("/")[0] for name in published)}
    return {"published": published, "files": files, **kept, "of_an_earlier_run": list(kept)}
