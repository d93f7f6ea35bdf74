"""Worker processes that end with the process that started them, and functions that use one thread."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context, parent_process

from threadpoolctl import ThreadpoolController, threadpool_limits

from truemorph.progress import QUIET

# Looked up once, because that takes as long as a small fit.
_linear_algebra = cache(lambda: ThreadpoolController().select(user_api="blas"))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let numpy and scipy use one thread, in a function that optimises few parameters.

    Several threads would wait for each other at every step, for long if another process keeps a core busy.
    """
    with _linear_algebra().limit(limits=1):
        yield


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
