"""Worker processes that end when the process that started them does, however it ended."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process

from threadpoolctl import threadpool_limits


def _begin() -> None:
    """Compute in one thread, there is a worker a core; and watch the parent, which can't say stop when it is killed."""
    threadpool_limits(1)
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def worker_pool(jobs: int) -> ProcessPoolExecutor:
    """Fresh processes, none forked from one that has threads."""
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_begin)
