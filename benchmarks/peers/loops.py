"""Loops in threads and processes that begin at the same moment, and are timed."""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

#: Does something, and returns how many jobs it did it to: 0 if there are no more.
Step = Callable[[], int]

#: What is done before the clock runs: the server plans a prepared statement anew five times.
WARM_STEPS = 10
WARM_SECONDS = 0.5


def warm(step: Step) -> None:
    end = time.monotonic() + WARM_SECONDS
    for _ in range(WARM_STEPS):
        if not step() or time.monotonic() > end:
            return


def timed(step: Step, seconds: float, most: int) -> tuple[int, float, float]:
    """How many, and when that began and ended."""
    begun = now = time.monotonic()
    count = 0
    while count < most and now - begun < seconds:
        done = step()
        now = time.monotonic()
        if not done:
            break
        count += done
    return count, begun, now


def in_threads(steps: list[Step], seconds: float, most: int, barrier: Any) -> list[tuple[int, float, float]]:
    results: list[tuple[int, float, float]] = []
    errors: list[BaseException] = []

    def run(step: Step) -> None:
        try:
            warm(step)
            barrier.wait(60)
            results.append(timed(step, seconds, most))
        except BaseException as error:
            barrier.abort()
            errors.append(error)

    if len(steps) == 1:
        run(steps[0])
    else:
        threads = [threading.Thread(target=run, args=[step]) for step in steps]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return results


def measure(
    make: Callable[[], Callable[[], Step]], seconds: float, most: int, threads: int, processes: int
) -> dict[str, Any]:
    """
    :param make: called once in each process, for what is then called once for each thread.
    :param most: jobs, altogether.
    """
    share = max(1, most // (threads * processes))
    if processes == 1:
        barrier: Any = threading.Barrier(threads)
        connect = make()
        results = in_threads([connect() for _ in range(threads)], seconds, share, barrier)
    else:
        results = in_processes(make, seconds, share, threads, processes)
    count = sum(result[0] for result in results)
    return {"count": count, "seconds": max(r[2] for r in results) - min(r[1] for r in results)}


def in_processes(
    make: Callable[[], Callable[[], Step]], seconds: float, most: int, threads: int, processes: int
) -> list[tuple[int, float, float]]:
    context = multiprocessing.get_context("fork")  # what was imported is there already
    barrier = context.Barrier(processes * threads)
    ends = [context.Pipe(duplex=False) for _ in range(processes)]

    def run(number: int) -> None:
        try:
            connect = make()
            steps = [connect() for _ in range(threads)]
            ends[number][1].send(in_threads(steps, seconds, most, barrier))
        except BaseException as error:
            barrier.abort()
            print(f"a producer failed: {error!r}", file=sys.stderr)
            ends[number][1].send([])

    running = [context.Process(target=run, args=[number], daemon=True) for number in range(processes)]
    for process in running:
        process.start()
    for _, sender in ends:
        sender.close()  # else nothing would tell that one has died
    try:
        found = [receiver.recv() for receiver, _ in ends]
    except EOFError:
        found = [[]]
    finally:
        for process in running:
            process.join(10)
            if process.is_alive():
                process.kill()
    if not all(found):
        raise RuntimeError("a producer failed")
    return [result for results in found for result in results]
