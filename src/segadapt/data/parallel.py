"""Many files, several processes, flat memory: for `data check` and `data prepare`."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from segadapt.errors import SegadaptError
from segadapt.plugin_loading import Loaded
from segadapt.processes import leave_signals_to_parent, signals_held, usable_cores

WORTH = 32
"""Files that a process must have to do to be worth its start: it imports for some seconds."""
Result = TypeVar("Result")

_job: Callable[[int], Any]  # what this worker process does, set once when it starts


def worthwhile_workers(files: int) -> int:
    """One process a core, as far as each gets `WORTH` files."""
    return max(1, min(usable_cores(), files // WORTH))


def map_unordered(job: Callable[[int], Result], items: Sequence[int], workers: int | None) -> Iterator[Result]:
    """`job(item)` for all items, in the order in which they are done; in this process when `workers` is 1.

    `workers` None: as many as are worthwhile.

    `job` travels to each process once and must be picklable. Only a few items are under way at any time. Processes
    are spawned, not forked, so that threads of this one (progress bars, torch) cannot leave them locked; a script that
    calls this therefore needs `if __name__ == "__main__":`. Raises SegadaptError when the system kills a process.
    """
    workers = worthwhile_workers(len(items)) if workers is None else min(workers, len(items))
    if workers <= 1:
        yield from map(job, items)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(Loaded(), job)) as pool:
        try:
            pending: set[Future[Result]] = set()
            for item in items:
                with signals_held():  # `submit` starts processes
                    pending.add(pool.submit(_run, item))
                if len(pending) >= 4 * workers:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BrokenProcessPool as failure:
            raise SegadaptError(
                "a worker process was killed, most likely because memory ran out",
                remedy="Try again with fewer --workers.",
            ) from failure
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start(plugins: Loaded, job: Callable[[int], Any]) -> None:
    global _job
    leave_signals_to_parent()
    _job = job


def _run(item: int) -> Any:
    return _job(item)
