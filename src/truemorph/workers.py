"""Worker processes that end with the process that started them."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process

from threadpoolctl import threadpool_limits

from truemorph.progress import QUIET


def _begin(quiet: bool) -> None:
    """Use one thread, as there is one worker per core; and stop if the parent is killed."""
    QUIET.set(quiet)
    os.environ["OMP_NUM_THREADS"] = "1"  # for libraries that are imported later
    threadpool_limits(1)
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def worker_pool(jobs: int) -> ProcessPoolExecutor:
    """Start new processes; none is forked from one with threads."""
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_begin, initargs=(QUIET.get(),))
