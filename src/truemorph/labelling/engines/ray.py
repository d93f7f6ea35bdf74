"""Process parts on a Ray cluster; actors that die are restarted and their parts repeated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from truemorph.errors import TruemorphError, require_extra
from truemorph.progress import progress


def on_actors(actor: type, arguments: tuple[Any, ...], parts: Sequence[int], address: str | None) -> Iterator[int]:
    """Process parts on a cluster and yield the number of each finished part.

    An actor is made from `arguments` and called with batches `{"part": numbers}`. `address` is that of the cluster;
    default a local one. Errors of truemorph in an actor are raised here as they are.
    """
    require_extra("ray")
    import ray

    if not parts:
        return
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False, include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    # Leave one core for Ray itself.
    actors = min(len(parts), gpus or max(1, int(resources["CPU"]) - 1))
    options: dict[str, Any] = {"num_gpus": 1} if gpus else {"num_cpus": 1}
    done = ray.data.from_items([{"part": number} for number in parts], override_num_blocks=len(parts)).map_batches(
        actor,
        fn_constructor_args=arguments,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
        **options,
    )
    try:
        with progress(len(parts), "label", "part") as bar:
            for batch in done.iter_batches(batch_size=None):
                for number in batch["part"]:
                    yield int(number)
                    bar.update(1)
    except ray.exceptions.RayError as problem:
        cause: BaseException | None = problem
        while cause is not None and not isinstance(cause, TruemorphError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if cause is None:
            raise TruemorphError(f"the cluster failed: {str(problem).strip().splitlines()[-1]}") from problem
        raise type(cause)(str(cause).split("\n")[-1]) from problem
