"""Labelling on a Ray cluster: actors hold the model and label parts; Ray starts those anew that die."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from truemorph.classifiers.checkpoint import Classifier, load
from truemorph.errors import InputError, TruemorphError, require_extra
from truemorph.labelling.job import Asked, Job, open_job
from truemorph.labelling.output import Account
from truemorph.progress import Silence, progress

_THREADS = 1  # an actor's; of the memory that a model takes each actor needs its own


class PartLabeller:
    """An actor that labels parts, each as a whole: one that died half-way left nothing, and its part is done again."""

    def __init__(self, folder: str, asked: Asked) -> None:
        self._job = open_job(load(folder), asked)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Label the parts of these numbers."""
        for number in batch["part"]:
            part = self._job.source.parts[int(number)]
            if not self._job.results.is_done(part.name):
                self._job.label(part, Silence())
        return batch


def _absolute(asked: Asked) -> Asked:
    """What is asked, for workers that run in folders of their own."""
    paths: dict[str, Any] = {name: getattr(asked, name) for name in ("source", "out", "crowd", "images", "gate")}
    changed: dict[str, Any] = {name: Path(path).resolve() for name, path in paths.items() if path is not None}
    return replace(asked, threads=_THREADS, **changed)


def label_on_cluster(
    model: Classifier,
    asked: Asked,
    job: Job,
    parts: Sequence[int],
    address: str | None,
    finished: Callable[[Account], None],
) -> None:
    """Label parts on all machines of a cluster.

    Parameters
    ----------
    model : Classifier
        From a folder.
    asked, job : Asked, Job
    parts : sequence of int
        Numbers of the source's parts.
    address : str, optional
        Of the cluster; default one on this machine.
    finished : callable
        Told the account of each part when it is there.

    Raises
    ------
    InputError
        If Ray is not installed, or the model is not in a folder that workers could read.
    """
    require_extra("ray")
    import ray

    if model.folder is None:
        raise InputError("engine ray needs a model that was loaded from a folder, which all machines see")
    left = [number for number in parts if not job.results.is_done(job.source.parts[number].name)]
    if not left:
        return
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False, include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    # A core is left for what Ray does itself.
    actors = min(len(left), gpus or max(1, int(resources["CPU"]) - 1))
    options: dict[str, Any] = {"num_gpus": 1} if gpus else {"num_cpus": 1}
    numbers = ray.data.from_items([{"part": number} for number in left], override_num_blocks=len(left))
    done = numbers.map_batches(
        PartLabeller,
        fn_constructor_args=(str(model.folder.resolve()), _absolute(asked)),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
        **options,  # that actors which die are started anew, and parts done again, is how Ray Data is set
    )
    try:
        with progress(len(left), "label", "part") as told:
            for batch in done.iter_batches(batch_size=None):
                for number in batch["part"]:
                    finished(job.results.account(job.source.parts[int(number)].name))
                    told.update(1)
    except ray.exceptions.RayError as problem:
        cause: BaseException | None = problem
        while cause is not None and not isinstance(cause, TruemorphError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if cause is None:
            raise TruemorphError(f"the cluster failed: {str(problem).strip().splitlines()[-1]}") from problem
        raise type(cause)(str(cause).split("\n")[-1]) from problem
