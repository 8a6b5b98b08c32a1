"""The public names of pq, counted. Each one must be documented, kept, and found among the others, for years.

A name that is new or gone makes these tests fail: change `PUBLIC`. To have more than `BUDGET`, say why beside the
number. Better: a noun on `PQ` or on a job in place of another method of `Queue`; one argument in place of two.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import pq
import pq.tasks
import pq.worker

#: How many there may be.
BUDGET = {
    # JobCancelled, JobFailed, JobPending: the ends of a job that somebody waits for are told apart; QueueFull
    # Unique, JobId, Duplicate: what becomes of a second job of a kind, and whether there was one
    # Schedule, ScheduleInfo, ScheduleNotFound: what is given, what is stored, and that there is none
    # Limit: what pq.limits maps names to
    # After, Group: jobs that run after others
    # Stream, Subscription, Batch, Event, NewEvent, what they tell (StreamInfo, SubscriptionInfo, Lag) and their errors
    # LeasedEvent: what Subscription.events yields
    # Overview and the others up to WorkerOverview, Why: what looks at all queues, and at one job, return
    "pq": 73,
    # key_state; limits, schedules: nouns with a mapping behind; results: one wait for jobs of many queues
    # streams: likewise
    # overview, running, workers, dead_groups, history: what the page, top and metrics show
    # instrument: the one hook for traces, metrics and what else is to be told of puts and calls
    "pq.PQ": 27,
    # progress: of a running job; result waits, and is for the end alone. max_ready: a limit of the queue's own
    "pq.Queue": 54,  # why, try_
    "pq.Job": 9,  # key, headers, queue
    # track: progress of a loop, at most once a second; step: what a retry does not do again; key_state
    "pq.LeasedJob": 27,
    "pq.DeadJob": 15,
    "pq.Dead": 4,
    "pq.Worker": 9,
    "pq.Stream": 15,
    "pq.Subscription": 13,
    "pq.Batch": 9,
    "pq.Event": 11,
    "pq.LeasedEvent": 16,
    "pq.tasks": 5,
    "pq.tasks.PQ": 0,
    "pq.tasks.Queue": 0,
    "pq.tasks.Task": 6,
    "pq.PQ()": 13,
    "pq.Queue.put()": 7,  # after
    "pq.Queue.get()": 4,
    # types, partitions, shared, max_retries, ordered: what is stored of a subscription
    "pq.Stream.subscribe()": 9,
    "pq.Worker()": 12,
    # cron, rrule, every, zone, missed, jitter: the task of a schedule needs nothing else; max_attempts: as queues
    "pq.tasks.Queue.task()": 18,
}

PUBLIC = {
    "pq": """
        After Batch BatchLost BlockError CommitUnknown ConnectionFailed ConnectionLost Count Dead DeadGroup DeadJob
        DecodeError Discard Duplicate EmbeddedError Event EventsLeft EventsLost Failure ForkedConnection Group History
        Job JobCancelled JobFailed JobId JobInfo JobNotFound JobPending JobsLeft Lag LeaseExpired LeaseLost
        LeasedEvent LeasedJob LeasesLost Limit LoopLeft Minute NewEvent NewJob Overview PQ PQError Queue QueueFull
        QueueInfo QueueIterator QueueOverview Retry RowsDropped RunningJob Schedule ScheduleInfo ScheduleNotFound
        SchemaError StatementTimeout Stream StreamInfo StreamMissing StreamRestored Subscription SubscriptionInfo
        SubscriptionNotFound TableMissing TableOverview TaskNotFound TaskTimeout Unique Why Worker WorkerOverview
        retry
    """,
    "pq.PQ": """
        bind close create dead_groups debug doctor done drop embedded history instrument key_state limits overview
        prune queue_class queues reset results retention running schedules settle streams using version workers
    """,
    "pq.Queue": """
        batches cancel clear close conn converters count counts cursor_kwargs dead decode done dumps encode fail find
        get get_many group handler_registry item items jobs keep_traceback list load loads logger max_attempts max_ready
        max_retries max_size move name pause paused peek perform pool progress put put_many reschedule result resume
        retry_in settle table task timeout try_ update why work
    """,
    "pq.Job": "data enqueued_at expected_at headers id key queue schedule_at size",
    "pq.LeasedJob": """
        attempts cancelled cursor data dequeued_at done enqueued_at expected_at expiries extend fail headers id key
        key_state lease policy progress queue release retry schedule_at settle settled size step track
    """,
    "pq.DeadJob": """
        attempts data died_at enqueued_at error expected_at first_failed_at headers id key queue retry
        schedule_at size text
    """,
    "pq.Dead": "discard get list retry",
    "pq.Worker": "events name on queues run run_once status stop threads",
    "pq.Stream": """
        create drop info load name on publish publish_many read rebase rotate subscribe subscription subscriptions
        version
    """,
    "pq.Subscription": """
        batch batches drop events info lag name pause resume retry_in seek stream take
    """,
    "pq.Batch": "attempts count cursor done extend failed index release settled",
    "pq.Event": "as_dict at attempts data fail headers id key of retry type",
    "pq.LeasedEvent": """
        as_dict at attempts data done extend fail failed headers id key of release retry settled type
    """,
    "pq.tasks": "PQ Queue Task Worker current",
    "pq.tasks.PQ": "",
    "pq.tasks.Queue": "",
    "pq.tasks.Task": "call load name new_job options put_many",
    "pq.PQ()": """
        conn debug decode encode listen_dsn max_connections pickle_key poll_interval pool queue_class schema
        statement_timeout table
    """,
    "pq.Queue.put()": "after conn data expected_at key schedule_at unique",
    "pq.Queue.get()": "block conn lease timeout",
    "pq.Stream.subscribe()": "conn max_retries name ordered partitions retry_in shared start types",
    "pq.Worker()": "batch burst capture_signals lease max_idle max_jobs name pq queues shutdown_timeout strict threads",
    "pq.tasks.Queue.task()": """
        cron every expected_at jitter key lease max_attempts max_retries missed name result retry_in rrule
        schedule_at timeout transactional unique zone
    """,
}


def attributes(cls: type) -> set[str]:
    """Those of the class, and those that its methods give to ``self``."""
    names = set(dir(cls))
    for base in cls.__mro__:
        if base.__module__.split(".")[0] == "pq":
            for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(base)))):
                if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self":
                    names |= {node.attr} if isinstance(node.ctx, ast.Store) else set()
    return {name for name in names if not name.startswith("_")}


def arguments(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self", "options"}


def found() -> dict[str, set[str]]:
    return {
        "pq": set(pq.__all__),
        "pq.PQ": attributes(pq.PQ),
        "pq.Queue": attributes(pq.Queue),
        "pq.Job": attributes(pq.Job),
        "pq.LeasedJob": attributes(pq.LeasedJob),
        "pq.DeadJob": attributes(pq.DeadJob),
        "pq.Dead": attributes(pq.Dead),
        "pq.Worker": attributes(pq.Worker),
        "pq.Stream": attributes(pq.Stream),
        "pq.Subscription": attributes(pq.Subscription),
        "pq.Batch": attributes(pq.Batch),
        "pq.Event": attributes(pq.Event),
        "pq.LeasedEvent": attributes(pq.LeasedEvent),
        "pq.tasks": set(pq.tasks.__all__),
        "pq.tasks.PQ": attributes(pq.tasks.PQ) - attributes(pq.PQ),
        "pq.tasks.Queue": attributes(pq.tasks.Queue) - attributes(pq.Queue),
        "pq.tasks.Task": attributes(pq.tasks.Task),
        "pq.PQ()": arguments(pq.PQ),
        "pq.Queue.put()": arguments(pq.Queue.put),
        "pq.Queue.get()": arguments(pq.Queue.get),
        "pq.Stream.subscribe()": arguments(pq.Stream.subscribe),
        "pq.Worker()": arguments(pq.Worker),
        "pq.tasks.Queue.task()": arguments(pq.tasks.Queue.task),
    }


def test_these_names_are_public() -> None:
    listed = {where: set(names.split()) for where, names in PUBLIC.items()}
    there = found()
    assert {where: (there[where] - names, names - there[where]) for where, names in listed.items()} == {
        where: (set(), set()) for where in there
    }, "new, and gone"


def test_there_are_not_more_than_the_budget() -> None:
    assert {where: len(names.split()) for where, names in PUBLIC.items()} == BUDGET
