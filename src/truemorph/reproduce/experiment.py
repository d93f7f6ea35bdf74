"""Run the experiment: fetch missing data, run the stages, and write the results."""

from pathlib import Path

from truemorph._version import __version__
from truemorph.errors import InputError, TruemorphError
from truemorph.io import lock, read_json, write_file, write_json
from truemorph.progress import tell
from truemorph.reproduce import catalogue, figures, models, table1
from truemorph.reproduce.options import Inputs, ReproduceOptions
from truemorph.reproduce.page import make_page
from truemorph.reproduce.stages import LEFT_OUT, Stage, Values, Work, asked, run_stages, trained_again

RESULT = "reproduce.json"
_BEFORE_PAGE = (*catalogue.STAGES, *models.STAGES, *table1.STAGES, *figures.STAGES)
# Stages that differ between trainings of the networks.
_OF_NETWORKS = (*models.NETWORKS, "table1", "maps")
# Stages whose results are in reproduce.json.
_TOLD = ("catalogue", "table1", "theta", "changed", "figure4", "maps")


def all_stages(trainings: int) -> tuple[Stage, ...]:
    """Return the stages in their order; those of networks once for each training."""
    again = (
        trained_again(stage, number, _OF_NETWORKS)
        for number in range(2, trainings + 1)
        for stage in _BEFORE_PAGE
        if stage.name in _OF_NETWORKS
    )
    before = (*_BEFORE_PAGE, *again)
    return (*before, Stage("page", "this page", make_page, ("catalogue",), tuple(stage.name for stage in before)))


def run_experiment(data: Path, out: Path, options: ReproduceOptions, given: Values) -> Values:
    """Run the experiment and return the content of `reproduce.json`; see `truemorph.reproduce_paper`."""
    if not data.is_dir() and not options.fetch:
        how = f"truemorph fetch gz2 --out {data / 'gz2'}, or with `fetch`"
        raise InputError(f"{data}: no such folder of data; create it with {how}")
    work = Work(data, out, Inputs.of(data, **given), options)
    # Report invalid settings before anything is fetched or computed.
    stages = all_stages(options.trainings)
    names = asked(stages, options.stages)
    plan = models.training_plan(work) if names & set(models.NETWORKS) else "no network is trained"
    galaxies, absent = sum(options.counts), catalogue.missing_archives(work) if options.fetch else []
    if absent:
        plan = f"{catalogue.download_plan(absent)}; {plan}"
    tell(f"reproduce: {len(names)} stages for {galaxies:,} galaxies; results in {out} are used again; {plan}")
    (out / "stages").mkdir(parents=True, exist_ok=True)
    held = lock(out / "stages" / ".lock")
    if held is None:
        raise TruemorphError(
            f"{out}: another process is using this folder; wait for it, or choose another folder (`out`)"
        )
    with held:
        if not options.dry_run:
            for name in absent:
                work.outcomes[f"fetch-{name}"] = catalogue.fetch_archive(name, data)
            work.inputs = Inputs.of(data, **given)
        run_stages(stages, names, work)
        result: Values = {
            "truemorph_version": __version__,
            "scale": options.fraction,
            "seed": options.seed,
            "stages": [
                {key: getattr(outcome, key) for key in ("name", "status", "text", "seconds")}
                | {"folder": None if outcome.folder is None else str(outcome.folder.relative_to(out))}
                for outcome in work.outcomes.values()
            ],
            **{name: work.result(name) for name in _TOLD if work.have(name)},
            **{"reasons": [], "answer": "", "statements": []} | work.result("reasons") | work.result("page"),
        }
        if not options.dry_run:
            result["published"] = _publish(work)
            write_json(out / RESULT, result)
    return result


def _publish(work: Work) -> list[str]:
    """Replace page and figures of an earlier run in the output folder; return the names of all such files."""
    result, page = work.out / RESULT, work.outcomes["page"]
    before: list[str] = read_json(result).get("published", []) if result.is_file() else []
    if page.status == LEFT_OUT:
        return before
    for name in before:
        (work.out / name).unlink(missing_ok=True)
    if page.folder is None:
        return []
    names = list(read_json(page.folder / "stage.json")["files"])
    for name in names:
        write_file(work.out / name, (page.folder / name).read_bytes())
    return names
