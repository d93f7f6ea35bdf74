"""Process parts on a Ray cluster; actors that die are restarted and their parts repeated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from truemorph.errors import TruemorphError, require_extra
from truemorph.progress import progress


def on_actors(actor: type, arguments: tuple[Any, ...], parts: Sequence[int], address: str | None) -> Iterator[int]:
    """Process parts on a cluster and yield the number of each finished part.

    An actor is made from `arguments`, called with `{"part": [number]}`, and returns this with `{"problem": [text]}`,
    which is raised here if it is not empty. `address` is that of the cluster; default a local one.
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
                for number, problem in zip(batch["part"], batch["problem"], strict=True):
                    if problem:
                        raise TruemorphError(problem)
                    yield int(number)
                    bar.update(1)
    except ray.exceptions.RayError as error:
        raise TruemorphError(f"the cluster failed: {str(error).strip().splitlines()[-1]}") from error
