"""Independent pieces of work in several processes at once, each piece on one CPU thread."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any, TypeVar

import torch

from isorobust.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")
_work: Callable[[Any], Any] | None = None  # forked processes inherit it, so it may hold what cannot be pickled


def spread(work: Callable[[Item], Result], items: Iterable[Item], device: torch.device | str = "cpu") -> Iterator[Result]:
    """`work(item)` of every item, in order, made in as many processes at once as torch has CPU threads.

    A small network leaves a second thread little to do; a second process does a second piece of work. However many
    there are, each piece is done on one thread, so no result depends on their number. Work for a GPU `device`, and all
    work once a GPU was used, is done in this process, which cannot be forked then. Items and results go through pipes
    and must be picklable, `work` need not be.
    Errors: the first that `work` raises; UserError when the system ends a process.
    """
    items = list(items)
    alone = torch.device(device).type == "cuda" or torch.cuda.is_initialized()
    count = 1 if alone else min(torch.get_num_threads(), len(items))
    with one_thread():
        yield from map(work, items) if count < 2 else _in_processes(work, items, count)


@contextmanager
def one_thread() -> Iterator[None]:
    """One CPU thread inside, as many as before afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _in_processes(work: Callable[[Item], Result], items: list[Item], count: int) -> Iterator[Result]:
    global _work
    _work = work
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("fork"), _start)
    finished = False
    try:
        pending = deque(pool.submit(_do, item) for item in items)
        while pending:
            yield pending.popleft().result()
        finished = True
    except BrokenProcessPool:
        raise UserError(
            f"one of {count} processes was ended by the system, mostly for lack of memory; allowed: fewer `threads`"
        ) from None
    finally:
        _work = None
        if not finished:  # an error or Ctrl-C: nobody waits for what is under way
            for process in set(multiprocessing.active_children()).difference(others):
                process.kill()
        pool.shutdown(cancel_futures=True)


def _start() -> None:
    """Ctrl-C is the parent's to handle; a process whose parent was killed ends too, instead of waiting for work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _do(item: Any) -> Any:
    return _work(item)
