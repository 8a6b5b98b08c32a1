"""What it costs to look at a large table: ``python -m benchmarks.looks [--folder FOLDER] [LOOK …]``.

The table has 2,242,000 jobs in 20 queues: 1,000,000 ready ones, of which 100,000 have a priority; 200,000 scheduled
ones; 20,000 that wait for their retry; 2,000 that run; 20,000 dead ones with tracebacks; 1,000,000 finished ones. For
each look, each page of ``pq web``, ``pq top`` and a scrape this prints the median and the longest time, the processor
time that the server and this process have used, and whether the median is below 50 ms and the longest below 200 ms.
Overviews are not from memory; the doctor and the history are looked at as often as pages, top and metrics do. With
``--worst`` no page is known to be all visible, as where an old transaction has kept vacuums from their work.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pq import PQ, StatementTimeout
from pq.embedded import Embedded

DATA = """json_build_object('function', 'app.tasks.task_' || i % 7, 'args', json_build_array(i, 'some text'),
  'kwargs', json_build_object(), 'retried', 0, 'retry_in', '30s', 'max_retries', 3)"""

#: A traceback of some length is part of each error.
ERROR = """json_build_object('type', (array['ValueError', 'app.errors.Refused', 'TimeoutError'])[1 + i % 3], 'message',
  'row ' || i || ' of order ' || i * 7 || ': ' || (array['no such customer', 'the card was refused'])[1 + i % 2],
  'traceback', repeat('  File "app/tasks.py", line 12, in eat' || chr(10), 40))::text"""

#: How old the table is, in seconds; its jobs were put one after the other.
AGE = 86_400

FILL = (
    # finished, and each 51st of these dead: they waited for 2 s and ran for 1 s
    f"""
    insert into queue (q_name, data, enqueued_at, dequeued_at, attempts, failed_at, error, finished_at, worker)
    select 'queue_' || i % 20, {DATA}, at, at + case when dies then interval '3 s' else interval '2 s' end,
      1 + (i % 50 = 0)::int, case when dies then at end, case when dies then {ERROR} end, at + interval '3 s',
      'host:' || i % 8
    from (
      select i, i % 51 = 0 as dies, now() - {AGE} * interval '1 s' * (1 - i / 1020000.0) as at
      from generate_series(1, 1020000) as i
    ) as ended
    """,
    f"""
    insert into queue (q_name, data, enqueued_at, dequeued_at, due_at, attempts, worker, result)
    select 'queue_' || i % 20, {DATA}, now() - interval '5 min', now() - i * interval '100 ms', now() + interval '1 d',
      1, 'host:' || i % 8, json_build_object('done', i % 100)
    from generate_series(1, 2000) as i
    """,
    f"""
    insert into queue (q_name, data, enqueued_at, expected_at)
    select 'queue_' || i % 20, {DATA}, now() - interval '1 h' + i * interval '3 ms',
      case when i % 10 = 3 then now() + i * interval '1 s' end
    from generate_series(1, 1000000) as i
    """,
    f"""
    insert into queue (q_name, data, schedule_at, due_at)
    select 'queue_' || i % 20, {DATA}, at, at
    from (select i, now() + interval '1 h' + i * interval '1 s' as at from generate_series(1, 200000) as i) as scheduled
    """,
    f"""
    insert into queue (q_name, data, schedule_at, due_at, attempts, failed_at, error)
    select 'queue_' || i % 20, {DATA}, at, at, 1, now(), {ERROR}
    from (select i, now() + interval '1 h' + i * interval '100 ms' as at from generate_series(1, 20000) as i) as again
    """,
)


@contextmanager
def opened(folder: Path, worst: bool) -> Iterator[PQ]:
    """The table, on a server in that folder; both are made if they are not there.

    :param worst: the server forgets which pages are all visible.
    """
    server = Embedded(folder).start()
    try:
        with PQ(server.dsn, statement_timeout=None) as pq:
            if not pq.version():
                pq.create()
                run = pq._db.execute
                run("alter table queue set (autovacuum_enabled = off)")
                for statement in FILL:
                    run(statement)
            pq._db.execute("vacuum (analyze) queue")
            ((data, path),) = pq._db.execute(
                "select current_setting('data_directory'), pg_relation_filepath('queue')"
            )
        if worst:
            server.close()  # at its end it writes all that it has in memory
            for file in Path(data, path).parent.glob(f"{Path(path).name}_vm*"):
                file.unlink()
            server.start()
        with PQ(server.dsn) as pq:
            yield pq
    finally:
        server.close()


#: The pages of `pq web`; ``{dead}`` and so on are ids.
PAGES = [
    "/", "/?sort=ready", "/queue?q=queue_3&state=ready", "/queue?q=queue_3&state=scheduled",
    "/queue?q=queue_3&state=running", "/queue?q=queue_3&state=dead", "/queue?q=queue_3&state=finished", "/running",
    "/retrying", "/dead", "/dead?q=queue_3", "/finished", "/workers", "/schedules", "/limits", "/streams", "/health",
    "/search?text=nothing", "/search?text=nothing&q=queue_3&state=dead", "/job?id={ready}", "/job?id={dead}",
]  # fmt: skip

#: Milliseconds: the largest median of a page, of top and of a scrape, and the longest time.
MEDIAN, LONGEST = 50, 200


def looks(pq: PQ) -> dict[str, Callable[[], Any]]:
    """What is measured, by name. The overviews are those that are not in memory."""
    from prometheus_client import CollectorRegistry, generate_latest

    from pq._cli.watch import Watch
    from pq._looks import looks as remembered
    from pq._looks import overview, running
    from pq.contrib.prometheus import Collector
    from pq.web import App

    remembered.FRESH = 0.0
    table, queue = pq._table, pq["queue_3"]
    app = App(pq, can=lambda user, action, queue: True)
    registry = CollectorRegistry()
    registry.register(Collector(pq))
    top = Watch(pq, 2.0)
    ids = {state: queue.list(state, 1)[0].id for state in ("ready", "dead")}

    def visit(page: str) -> None:
        path, _, query = page.partition("?")
        answer = app.answer(
            {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": query, "HTTP_HOST": "localhost"}
        )
        if answer.status == 503:
            raise StatementTimeout(seconds=1)
        assert answer.status == 200, (page, answer.body)

    return {
        "overview": lambda: overview.read(table, 1000),
        "overview, cap 10,000": lambda: overview.read(table, 10_000),
        "overview, exact": lambda: overview.read(table, None),
        "queues()": pq.queues,
        "running()": pq.running,
        "workers()": lambda: running.workers(table, 1000),
        "dead_groups()": pq.dead_groups,
        "dead_groups(queue)": lambda: pq.dead_groups("queue_3"),
        "history()": pq.history,
        **{f"page {page}": partial(visit, page.format(**ids)) for page in PAGES},
        "top": top.look,
        "scrape": lambda: generate_latest(registry),
        **{f"list({state})": partial(queue.list, state) for state in ("ready", "scheduled", "running", "dead")},
    }


def measure(pq: PQ, look: Callable[[], Any], seconds: float) -> str:
    """Return what to print of a look."""
    given_up(look)  # what is cached, and planned, the first time
    ((pid,),) = pq._db.execute("select pg_backend_pid()")
    times: list[float] = []
    late = 0
    used, own = processor_time(pid), time.process_time()
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(times) < 3:
        began = time.perf_counter()
        late += given_up(look)
        times.append(1000 * (time.perf_counter() - began))
    used, own = (1000 * spent / len(times) for spent in (processor_time(pid) - used, time.process_time() - own))
    times.sort()
    median = times[len(times) // 2]
    text = f"{median:9.1f} {times[-1]:9.1f} {used:9.1f} {own:9.1f}   "
    text += "yes" if median < MEDIAN and times[-1] < LONGEST else "NO"
    return f"{text}   {late} of {len(times)} given up" if late else text


def given_up(look: Callable[[], Any]) -> bool:
    """Look, and return whether the server has given up: it did not finish within a second."""
    try:
        look()
    except StatementTimeout:
        return True
    return False


def processor_time(pid: int) -> float:
    """The seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.looks", description=__doc__.split("\n\n")[0])
    parser.add_argument("looks", nargs="*", metavar="LOOK", help="the beginnings of their names; default: all")
    parser.add_argument("--folder", type=Path, help="keep the table there (default: a temporary folder)")
    parser.add_argument("--worst", action="store_true", help="no page is all visible")
    parser.add_argument("--seconds", type=float, default=2.0, help="measure each for so long (default: 2)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pq-benchmark-looks-") as folder:
        Path(folder).chmod(0o711)
        with opened(args.folder or Path(folder) / "server", args.worst) as pq:
            wanted = f"wanted: a median below {MEDIAN} ms, the longest below {LONGEST} ms"
            print(f"{wanted}; load {os.getloadavg()[0]:.1f}")
            print(f"{'':42} {'median':>9} {'longest':>9} {'server':>9} {'process':>9}   wanted")
            for name, look in looks(pq).items():
                if not args.looks or name.startswith(tuple(args.looks)):
                    print(f"{name:42} {measure(pq, look, args.seconds)}", flush=True)


if __name__ == "__main__":
    main()
