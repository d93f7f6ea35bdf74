"""The experiment from end to end, and what it leaves behind."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from truemorph._version import __version__
from truemorph.errors import InputError, TruemorphError
from truemorph.findings import Finding, unique
from truemorph.io import lock, plain, write_json
from truemorph.reproduce import catalogue, figures, models, reasons, tables
from truemorph.reproduce.estimate import estimate
from truemorph.reproduce.fetching import fetch_missing
from truemorph.reproduce.options import Inputs, ReproduceOptions
from truemorph.reproduce.page import page_stage
from truemorph.reproduce.pipeline import asked, run_stages
from truemorph.reproduce.publishing import earlier_result, publish, top
from truemorph.reproduce.result import RESULT, Reproduction
from truemorph.reproduce.stages import LEFT_OUT, Stage, Work

_STAGES = (*catalogue.STAGES, tables.STAGES[0], *models.STAGES, tables.STAGES[1], *reasons.STAGES, *figures.STAGES)
STAGES: tuple[Stage, ...] = (*_STAGES, page_stage(tuple(stage.name for stage in _STAGES)))
# Results of stages that stand in reproduce.json under their names.
_TOLD = ("catalogue", "gz2d", "bias", "table1", "theta", "figure3", "changed", "figure4", "maps")


def reproduce(
    data: Path,
    out: Path,
    options: ReproduceOptions | None = None,
    *,
    config: Path | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> Reproduction:
    """Reproduce the paper's experiment from a folder of data; see `truemorph.reproduce_paper`.

    Parameters
    ----------
    data, out, options, config
        As for `reproduce_paper`.
    inputs : mapping, optional
        Fields of `Inputs`.

    Raises
    ------
    InputError
        If there is no such folder, a file that was named is absent, or a setting is unknown.
    TruemorphError
        If another process works in the same folder.
    """
    options = options or ReproduceOptions()
    if not data.is_dir() and not options.fetch:
        how = f"truemorph fetch gz2 --out {data / 'gz2'}, or with `fetch`"
        raise InputError(f"{data}: no such folder of data; make one with {how}")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; name a folder (`out`)")
    (out / "stages").mkdir(parents=True, exist_ok=True)
    held = lock(out / "stages" / ".lock")
    if held is None:
        raise TruemorphError(f"{out}: another process is at work there; wait for it, or choose another folder (`out`)")
    with held:
        content = _reproduce(data, out, options, config, dict(inputs or {}))
    known = [one for name in ("catalogue", "theta") for one in (content.get(name) or {}).get("findings", ())]
    return Reproduction(out, content, unique(map(Finding.from_dict, known)))


def _reproduce(
    data: Path, out: Path, options: ReproduceOptions, config: Path | None, given: dict[str, Any]
) -> dict[str, Any]:
    inputs = Inputs.of(data, config, **given)
    # What is wrong with the command is said before anything is fetched or made.
    wanted, _ = asked(STAGES, options)
    if wanted & set(models.NETWORKS):
        models.network_config(inputs, options)
    fetched = fetch_missing(data, inputs, options) if options.fetch and not options.dry_run else []
    if fetched:
        inputs = Inputs.of(data, config, **given)
    work = Work(data, out, inputs, options)
    expected: dict[str, Any] = {}
    if options.dry_run or options.size.whole:
        looking = replace(work, options=replace(options, dry_run=True), outcomes={})
        run_stages(STAGES, looking, quiet=True)
        expected = estimate(looking)
        if expected:
            print(f"reproduce: {expected['text']}", file=sys.stderr)
    run_stages(STAGES, work)
    result = {
        "truemorph_version": __version__,
        "scale": options.size.share,
        "seed": options.seed,
        "stages": [
            {
                "name": one.name,
                "title": one.title,
                "status": one.status,
                "text": one.text,
                "seconds": one.seconds,
                "folder": None if one.folder is None else str(one.folder.relative_to(out)),
            }
            for one in (*fetched, *work.outcomes.values())
        ],
        "estimate": expected or None,
        **{name: work.result(name) for name in _TOLD if work.have(name)},
        "reasons": work.result("reasons")["reasons"] if work.have("reasons") else [],
        "answer": work.result("page")["answer"] if work.have("page") else "",
        "files": {},
    }
    if not options.dry_run:
        earlier = earlier_result(out)
        result["published"] = publish(work, earlier.get("published", {}))
        result["files"] = {name: str(out / name) for name in dict.fromkeys(map(top, result["published"]))}
        # Of stages that nobody asked for this time, what was found before stays.
        left = [name for name, one in work.outcomes.items() if one.status == LEFT_OUT]
        keys = {"reasons": "reasons", "page": "answer", **{name: name for name in _TOLD}}
        kept = {keys[name]: earlier[keys[name]] for name in left if name in keys and keys[name] in earlier}
        result |= {**kept, "of_an_earlier_run": list(kept)}
    result = plain(result)
    if not options.dry_run:
        write_json(out / RESULT, result)
    return result
