"""Times are given alike wherever one is taken: a number of seconds, ``'5s'`` or a timedelta. Signatures say where."""

from __future__ import annotations

import datetime as dt
import inspect
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

import pq as package
from pq import (
    PQ,
    NewJob,
    Queue,
    Retry,
    Schedule,
    Unique,
    Worker,
    embedded,
    pgqueue,
    retry,
    schema,
    tasks,
    testing,
    utils,
)
from pq._db import Database
from pq._table import Table

TIME = re.compile(r"\b(Delay|TimeSpec|Span|RetryIn)\b|\bstr \| timedelta \| float\b")
Place = tuple[str, str]

#: Not for users: these are made by pq.
INNER = ("DeadJob.__init__", "Subscription.__init__", "Task.__init__")


def functions() -> Iterator[Callable[..., Any]]:
    """All public ones, and the methods of public classes, inherited ones included."""
    for module in (package, tasks, testing, retry, utils, embedded, schema, pgqueue):
        for name in module.__all__:
            found = getattr(module, name)
            if inspect.isclass(found):
                names = [each for each in dir(found) if not each.startswith("_") or each in ("__init__", "__call__")]
                found = [getattr(each, "__func__", each) for each in (getattr(found, name) for name in names)]
            for each in found if isinstance(found, list) else [found]:
                if inspect.isfunction(each) and each.__module__.startswith("pq"):
                    yield each


def places() -> set[Place]:
    """The arguments that are times, by the annotations."""
    found = {("NewJob", name) for name, kind in NewJob.__annotations__.items() if TIME.search(str(kind))}
    for function in functions():
        if function.__qualname__ not in INNER:
            for name, parameter in inspect.signature(function).parameters.items():
                if TIME.search(str(parameter.annotation)):
                    found.add((function.__qualname__, name))
    return found


def named(method: str, *before: Any, of: str = "queue") -> Callable[[str], Callable[[Any, Any], Any]]:
    """Return a call of a method of what is there, with arguments in front; of an iterator the start."""

    def call(there: Any, name: str, time: Any) -> Any:
        done = getattr(getattr(there, of), method)(*before, **{name: time})
        if inspect.isgenerator(done) or hasattr(done, "__next__"):
            return next(done)
        return done.__enter__() if hasattr(done, "__enter__") else done

    return lambda name: lambda there, time: call(there, name, time)


def job(id: int) -> None: ...


CALLS: dict[str, Any] = {
    "NewJob": lambda name: lambda there, time: there.queue.put_many([NewJob(1, **{name: time})]),
    "AllJobs.results": named("results", [1], of="pq"),
    "Batch.extend": named("extend", of="batch"),
    "Batch.failed": named("failed", "no", of="batch"),
    "Control.reschedule": named("reschedule", 1),
    "Dead.retry": named("retry", 1, of="dead"),
    "DeadJob.retry": named("retry", of="dead_job"),
    "Event.retry": lambda name: lambda there, time: next(there.events).retry(**{name: time}),
    "Items.item": named("item"),
    "Items.items": named("items"),
    "LeasedEvent.extend": named("extend", of="event"),
    "LeasedEvent.failed": named("failed", "no", of="event"),
    "LeasedJob.extend": named("extend", of="job"),
    "LeasedJob.retry": named("retry", of="job"),
    "PQ.__init__": lambda name: lambda there, time: PQ(there.dsn, **{name: time}).close(),
    "PQ.create": named("create", of="pq"),
    "Policy.__init__": lambda name: lambda there, time: retry.Policy(1, **{name: time}),
    "Queue.batches": named("batches", 2),
    "Queue.get": named("get"),
    "Queue.get_many": named("get_many", 2),
    "Queue.jobs": named("jobs"),
    "Queue.load": named("load", [1]),
    "Queue.put": named("put", 1),
    "Queue.put_many": named("put_many", [1]),
    "Queue.task": lambda name: lambda there, time: there.queue.task(
        **{"jitter": {"every": "1h"}}.get(name, {}), **{name: time}
    )(job),
    "QueueIterator.__init__": lambda name: lambda there, time: next(package.QueueIterator(there.queue, **{name: time})),
    "Results.result": named("result", 1),
    "Retry.__init__": lambda name: lambda there, time: there.job.retry(Retry(time).in_),
    "Schedule.__init__": lambda name: lambda there, time: there.pq.schedules.__setitem__(
        "s", Schedule(there.queue, 1, **({"every": "1h"} | {name: time}))
    ),
    "Stream.create": named("create", of="stream"),
    "Stream.on": lambda name: lambda there, time: there.stream.on(str(uuid4()), subscription="on", **{name: time})(job),
    "Subscribing.subscribe": named("subscribe", "other", of="stream"),
    "Subscribing.subscription": named("subscription", "other", of="stream"),
    "Subscription.batch": named("batch", of="subscription"),
    "Subscription.batches": named("batches", of="subscription"),
    "Subscription.events": named("events", of="subscription"),
    "Task.__call__": named("__call__", of="task"),
    "Task.new_job": named("new_job", of="task"),
    "Unique.__init__": lambda name: lambda there, time: Unique("t", **{name: time}),
    "Worker.__init__": lambda name: lambda there, time: Worker(there.queue, **{name: time}),
    "advance": lambda name: lambda there, time: testing.advance(there.pq, time),
    "convert_time_spec": lambda name: lambda there, time: utils.convert_time_spec(time),
    "drain": lambda name: lambda there, time: testing.drain(there.pq, **{name: time}),
    "exponential": lambda name: lambda there, time: retry.exponential(**{name: time}),
}


#: What has times in it, but does not show them alike, or at all.
OBJECTS: set[type] = {Worker, Unique, retry.Policy, tasks.Task, NewJob, dt.datetime}


class Sent(Exception):
    """Something was to be sent to the server."""


@pytest.fixture(scope="module")
def made(shared_dsn: str) -> Iterator[Any]:
    with PQ(shared_dsn, max_attempts=1) as pq:
        queue: Queue = pq["a"]
        queue.put(1)
        with pytest.raises(ZeroDivisionError), queue.item():
            raise ZeroDivisionError
        queue.put(2)
        stream = pq.streams["s"]
        stream.create()
        for name in ("one", "two"):
            stream.subscribe(name)
        for _ in range(20):
            stream.publish(1)
        batch = next(stream.subscription("one").batches(lease="1h"))
        yield SimpleNamespace(
            dsn=shared_dsn, pq=pq, queue=queue, job=queue.get(lease="1h"),
            dead=queue.dead, dead_job=queue.dead.list()[0], stream=stream,
            subscription=stream.subscription("one"), task=queue.task()(job),
            batch=batch, events=iter(batch), event=next(stream.subscription("two").events(lease="1h")),
        )  # fmt: skip


@pytest.fixture
def there(made: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    def sent(self: Any, *given: Any, **more: Any) -> Any:
        raise Sent(given, more)

    monkeypatch.setattr(Table, "heal", lambda self, *args, **options: 0)  # which is done now and then
    for name in ("execute", "transaction", "copy"):
        monkeypatch.setattr(Database, name, sent)
    return made


def test_each_place_that_takes_a_time_is_tried() -> None:
    assert {function for function, _ in places()} == set(CALLS)


@pytest.mark.parametrize("place", sorted(places()), ids=" ".join)
def test_a_time_is_a_number_of_seconds_or_text_or_a_timedelta(there: Any, place: Place) -> None:
    """They reach the same statement with the same values, or are kept as the same."""
    function, name = place
    seen = []
    for time in (5, 5.0, "5s", dt.timedelta(seconds=5)):
        try:
            seen.append(CALLS[function](name)(there, time))
        except Sent as sent:
            seen.append(re.sub(r"4\.999\d*", "5.0", str(sent)))  # what is left of a timeout
    kinds = {type(each) for each in seen}
    assert len(set(map(repr, seen))) == 1 or (len(kinds) == 1 and kinds <= OBJECTS)


@pytest.mark.parametrize("place", sorted(places()), ids=" ".join)
@pytest.mark.parametrize(("time", "error"), [("5 months", ValueError), ("5", ValueError), (True, TypeError)], ids=str)
def test_what_is_no_time_is_refused_before_anything_is_sent(
    there: Any, place: Place, time: Any, error: type[Exception]
) -> None:
    function, name = place
    with pytest.raises(error) as caught:
        CALLS[function](name)(there, time)
    assert type(caught.value) is error
    assert name.strip("_") in str(caught.value)
    assert repr(time) in str(caught.value)


#: Documentation that is elsewhere.
ELSEWHERE = re.compile(r"\b(as|those|instead|see) (for|of|in|the|`)|\b(likewise|same values|same forms)\b|\bsee `")


def text_of(function: Callable[..., Any], name: str) -> str:
    """What a docstring says of an argument, or all of it if it has nothing about that one."""
    text = inspect.getdoc(function) or ""
    if function.__name__ in ("__init__", "__call__"):
        owner = function.__globals__[function.__qualname__.partition(".")[0]]
        text = f"{inspect.getdoc(owner)}\n{text}"
    found = re.search(rf":param {name}:(.*?)(?=^\s*:|\Z)", text, re.DOTALL | re.MULTILINE)
    return found[1] if found else text


FUNCTIONS = {each.__qualname__: each for each in functions() if each.__qualname__ not in INNER}


@pytest.mark.parametrize("name", sorted({function for function, _ in places()} & set(FUNCTIONS)))
def test_the_docstring_says_so(name: str) -> None:
    for argument, parameter in inspect.signature(FUNCTIONS[name]).parameters.items():
        if TIME.search(str(parameter.annotation)):
            text = " ".join(text_of(FUNCTIONS[name], argument).split())
            says = {"timedelta", "second"} <= set(re.findall(r"timedelta|second", text))
            assert says or ELSEWHERE.search(text), f"{argument}: {text}"
