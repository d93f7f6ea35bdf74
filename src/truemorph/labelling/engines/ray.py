"""Label parts on a Ray cluster; actors that die are restarted and their parts repeated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from truemorph.errors import TruemorphError, require_extra
from truemorph.progress import progress


def on_actors(actor: type, arguments: tuple[Any, ...], parts: Sequence[int], address: str | None) -> Iterator[int]:
    """Label parts on a cluster and yield the number of each finished part.

    An actor is made from `arguments`; its method `label` takes and returns the number of a part. `address` is that of
    the cluster; default a local one.
    """
    require_extra("ray")
    import ray
    from ray.util import ActorPool

    if not parts:
        return
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False, include_dashboard=False)
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    # Leave one core for Ray itself.
    size = min(len(parts), gpus or max(1, int(resources["CPU"]) - 1))
    options: dict[str, Any] = {"num_gpus": 1} if gpus else {"num_cpus": 1}
    remote: Any = ray.remote(max_restarts=-1, max_task_retries=-1, **options)(actor)
    pool = ActorPool([remote.remote(*arguments) for _ in range(size)])
    try:
        with progress(len(parts), "label", "part") as bar:
            for number in pool.map_unordered(lambda one, part: one.label.remote(part), list(parts)):
                yield number
                bar.update(1)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise TruemorphError(f"the cluster failed: {str(error).strip().splitlines()[-1]}") from error
