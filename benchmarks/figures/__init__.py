"""What is measured."""

from __future__ import annotations

from ..run import Figure
from . import backlog, keyed, limited, profile, recovery, settings, single, upkeep, waiting, working

FIGURES = [
    Figure("put", "put, by so many producers", "jobs/s", single.put),
    Figure("put-consumed", "put, while a consumer waits for the jobs", "jobs/s", single.put_consumed, brief=False),
    Figure("put-many", "put_many(1000)", "jobs/s", single.put_many),
    Figure("get", "get, one consumer, from a small backlog", "jobs/s", single.get),
    Figure("get-many", "get_many(100), one consumer", "jobs/s", single.get_many),
    Figure("stream", "events through a stream, one by one and by 1,000", "events/s", single.stream),
    Figure("work", "tasks through workers, no-op handlers", "jobs/s", working.work, 3),
    Figure("wakeup", "from the call of put to the return of get, in another process", "ms", waiting.wakeup, 3),
    Figure("idle", "a process that waits", "", waiting.idle, 1),
    Figure("statements", "statements for each put, by consumers that wait in one process", "", waiting.statements, 2),
    Figure("recovery", "from the end of a process until its jobs are elsewhere", "", recovery.recovery, 1, brief=False),
    Figure("backlog", "get, one consumer, by what else is in the table", "jobs/s", backlog.backlog),
    Figure("queues", "get, one consumer, by other queues in the table, with ten jobs each", "jobs/s", backlog.queues),
    Figure("keys", "get under a lease and done, one consumer, by keys of the jobs", "jobs/s", backlog.keys),
    Figure("crowd", "put, one producer, by consumers that wait", "jobs/s", waiting.crowd),
    Figure("xmin", "get, while an old snapshot is held and jobs pass", "jobs/s", backlog.xmin, 2, brief=False),
    Figure("keyed", "jobs with keys and tokens, rates", "", keyed.keyed, 3),
    Figure("limited", "jobs a second with a limit of 10 running, 16 consumers, 5 ms of work", "", limited.limited, 1),
    Figure("profile", "where the time goes, a call", "µs", profile.profile, 3),
    Figure("size", "table and indexes, retain=0", "MB", upkeep.size, 1),
    Figure("memory", "memory of a worker process", "MB", upkeep.memory),
    Figure("settings", "pq, with other settings of the server", "jobs/s", settings.settings, 2, brief=False),
]
