"""A decorated function, and what the job of a call holds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from .._after import After
from .._table.bulk import NewJob
from .._text import describe
from .._times import TimeSpec, when
from .._unique import JobId, Unique, digest
from ..worker.call import Options
from .names import MAIN
from .pauses import retry_in_text
from .signature import Signature
from .tags import Key, Tags, UniqueSpec

if TYPE_CHECKING:
    from .._queue import Queue as BaseQueue

P = ParamSpec("P")
R = TypeVar("R")

#: What a queue's encoder raises for data that it refuses.
REFUSED = (TypeError, ValueError, RecursionError)


class Task(Generic[P, R]):
    """A decorated function. Calling it puts a job; `pq.Queue.task` makes one.

    :ivar name: what jobs name it by.
    :ivar options: how workers run it.
    """

    name: str
    options: Options

    def __init__(
        self,
        queue: BaseQueue,
        handler: Callable[Concatenate[Any, P], R],
        name: str,
        schedule_at: TimeSpec,
        expected_at: TimeSpec,
        options: Options,
        key: Key = None,
        unique: UniqueSpec = None,
    ) -> None:
        self._signature = Signature(handler)
        update_wrapper(self, handler)
        self.name = name
        self.options = options
        self._queue = queue
        self._schedule_at = schedule_at
        self._expected_at = expected_at
        self._tags = Tags(name, self._signature, key, unique)
        self._retry_in = retry_in_text(options.retry_in)
        self._is_hidden = name.partition(".")[0] in MAIN
        # the names of 1.9.1, on both
        self._handler: Callable[..., R] = handler
        self._path = name
        try:
            handler.__dict__.update(_handler=handler, _path=name, _task=self)
        except AttributeError:  # a method, or a function in C
            pass

    @overload
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> int: ...
    @overload
    def __call__(
        self, /, *args: Any, _schedule_at: TimeSpec = ..., _expected_at: TimeSpec = ..., _key: str | None = ...,
        _unique: str | bool | Unique, _conn: Any = ..., **kwargs: Any,
    ) -> JobId: ...  # fmt: skip
    @overload
    def __call__(
        self, /, *args: Any, _schedule_at: TimeSpec, _expected_at: TimeSpec = ..., _key: str | None = ...,
        _conn: Any = ..., **kwargs: Any,
    ) -> int: ...  # fmt: skip
    @overload
    def __call__(
        self, /, *args: Any, _expected_at: TimeSpec, _key: str | None = ..., _conn: Any = ..., **kwargs: Any
    ) -> int: ...
    @overload
    def __call__(self, /, *args: Any, _key: str | None, _conn: Any = ..., **kwargs: Any) -> int: ...
    @overload
    def __call__(
        self, /, *args: Any, _after: After | int | Iterable[int], _expected_at: TimeSpec = ..., _key: str | None = ...,
        _conn: Any = ..., **kwargs: Any,
    ) -> int: ...  # fmt: skip
    @overload
    def __call__(self, /, *args: Any, _conn: Any, **kwargs: Any) -> int: ...

    def __call__(  # type: ignore[misc]  # a ParamSpec leaves no room for pq's own arguments
        self,
        /,
        *args: Any,
        _schedule_at: TimeSpec = None,
        _expected_at: TimeSpec = None,
        _key: str | None = None,
        _unique: str | bool | Unique | None = None,
        _after: After | int | Iterable[int] | None = None,
        _conn: Any = None,
        **kwargs: Any,
    ) -> int:
        """Put a job that calls the function with these arguments.

        :param _schedule_at: not to be run before, instead of the task's own `schedule_at`; forms as for `Queue.put`.
        :param _expected_at: its priority, instead of the task's own `expected_at`.
        :param _key: its key, instead of the task's own `key`; likewise `_unique`.
        :param _after: the jobs after which it is to run, as for `Queue.put`.
        :param _conn: put it in the transaction that is open there: a connection, cursor or session; see `PQ.using`.
        :returns: the id of the job; a `JobId` if it was put with a token.
        :raises TypeError: the function does not take these arguments; one can't be encoded as JSON; a time of another
            type.
        :raises ValueError: an argument that JSON does not have, such as NaN; a time of another form.

        The other errors are those of `Queue.put`.
        """
        data = self._envelope(args, kwargs)
        try:
            key, unique = self._tags_of(data, _key, _unique)
            return self._queue.put(
                data,
                self._schedule_at if _schedule_at is None else _schedule_at,
                self._expected_at if _expected_at is None else _expected_at,
                key=key,
                unique=unique,
                after=_after,
                conn=_conn,
            )
        except REFUSED as error:
            self._tell_of_arguments(error, args, kwargs)
            raise

    @overload
    def new_job(self, /, *args: P.args, **kwargs: P.kwargs) -> NewJob: ...
    @overload
    def new_job(
        self, /, *args: Any, _schedule_at: TimeSpec, _expected_at: TimeSpec = ..., _key: str | None = ...,
        _unique: str | bool | Unique | None = ..., **kwargs: Any,
    ) -> NewJob: ...  # fmt: skip
    @overload
    def new_job(
        self, /, *args: Any, _expected_at: TimeSpec, _key: str | None = ...,
        _unique: str | bool | Unique | None = ..., **kwargs: Any,
    ) -> NewJob: ...  # fmt: skip
    @overload
    def new_job(
        self, /, *args: Any, _key: str | None, _unique: str | bool | Unique | None = ..., **kwargs: Any
    ) -> NewJob: ...
    @overload
    def new_job(self, /, *args: Any, _unique: str | bool | Unique | None, **kwargs: Any) -> NewJob: ...

    def new_job(  # type: ignore[misc]
        self, /, *args: Any, _schedule_at: TimeSpec = None, _expected_at: TimeSpec = None, _key: str | None = None,
        _unique: str | bool | Unique | None = None, **kwargs: Any,
    ) -> NewJob:  # fmt: skip
        """Return the job that a call with these arguments would put, for `put_many` and `load` of tasks and of queues.

        The arguments and errors are those of a call, but the data is encoded only when it is put.
        """
        when("_schedule_at", _schedule_at)
        when("_expected_at", _expected_at)
        return self._job(args, kwargs, _schedule_at, _expected_at, _key, _unique)

    def put_many(self, calls: Iterable[Any], *, conn: Any = None) -> list[int]:
        """Put a job for each call, all of them or none, as `Queue.put_many` does.

        :param calls: for each a tuple or list of arguments, a dict of keyword arguments, or what `new_job` returned.
        :param conn: put them in the transaction that is open there; see `PQ.using`.
        :returns: the ids of the jobs, in order.
        :raises TypeError: something else; arguments that the function does not take, or that can't be encoded.

        The other errors are those of `Queue.put_many`.
        """
        source = _Last(self._jobs(calls))
        try:
            return self._queue.put_many(source, conn=conn)
        except REFUSED as error:
            source.tell(self, error)
            raise

    def load(self, calls: Iterable[Any]) -> int:
        """Put a job for each call by COPY, all of them or none, as `Queue.load` does: faster, but without ids.

        :param calls: as for `put_many`; so are the errors.
        :returns: how many jobs were put.
        """
        source = _Last(self._jobs(calls))
        try:
            return self._queue.load(source)
        except REFUSED as error:
            source.tell(self, error)
            raise

    def call(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now, with None for the job's id, and return what it returns."""
        return self._handler(None, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<pq.Task {self.name!r} of queue {self._queue.name!r}>"

    # -- inside

    def _envelope(self, args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the data of a job; the documentation of tasks describes it."""
        self._signature.check(args, kwargs, self.name)
        if self._is_hidden:
            self._is_hidden = False  # told once
            warnings.warn(
                f"task `{self.name}` is defined in a program that no other program can import, so only a worker in "
                "this process finds it: move it into a module, or give it a name= and decorate it in the worker's, too",
                stacklevel=3,
            )
        return {
            "function": self.name,
            "args": args,
            "kwargs": kwargs,
            "retried": 0,
            "retry_in": self._retry_in,
            "max_retries": self.options.max_retries,
        }

    def _job(
        self, args: Any, kwargs: Mapping[str, Any], schedule_at: TimeSpec = None, expected_at: TimeSpec = None,
        key: str | None = None, unique: str | bool | Unique | None = None,
    ) -> NewJob:  # fmt: skip
        data = self._envelope(args, kwargs)
        return NewJob(
            data,
            self._schedule_at if schedule_at is None else schedule_at,
            self._expected_at if expected_at is None else expected_at,
            *self._tags_of(data, key, unique),
        )

    def _tags_of(
        self, data: dict[str, Any], key: str | None, unique: str | bool | Unique | None
    ) -> tuple[str | None, Unique | None]:
        if self._tags.is_plain and key is None and unique is None:
            return None, None
        args, kwargs = data["args"], data["kwargs"]
        key, found = self._tags.of(args, kwargs, key, unique)
        if found is not None and found.token is True:
            call = [self.name, self._signature.named(args, kwargs)]
            found = found.of(digest(self._queue.name, self._queue.encode(self._queue.dumps(call))))
        if found is not None and found.on_duplicate == "merge":
            data["args"], data["kwargs"] = (), self._signature.by_name(args, kwargs)
        return key, found

    def _jobs(self, calls: Iterable[Any]) -> Iterator[NewJob]:
        for call in calls:
            if isinstance(call, NewJob):
                yield call
            elif isinstance(call, Mapping):
                yield self._job((), call)
            elif isinstance(call, (tuple, list)):
                yield self._job(call, {})
            else:
                raise TypeError(
                    f"a call of task {self.name} must be a tuple or list of arguments, a dict of keyword arguments, or "
                    f"what new_job() returned, not {type(call).__name__}"
                )

    def _tell_of_arguments(self, error: Exception, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Raise an error that names the argument which can't be encoded, if that is what went wrong."""
        named = [(self._signature.argument(number), value) for number, value in enumerate(args)]
        for name, value in [*named, *kwargs.items()]:
            try:
                self._queue.encode(self._queue.dumps(value))
            except REFUSED as refused:
                kind = TypeError if isinstance(refused, TypeError) else ValueError
                raise kind(
                    f"argument {name} of task {self.name} can't be stored: {describe(refused)}; pass what JSON can "
                    "hold, or give the PQ an encode= and a decode= that know this type"
                ) from error


class _Last:
    """Iterates jobs, and remembers the last one: the one that could not be encoded."""

    def __init__(self, jobs: Iterator[NewJob]) -> None:
        self._jobs = jobs
        self._job: NewJob | None = None

    def __iter__(self) -> Iterator[NewJob]:
        for job in self._jobs:
            self._job = job
            yield job

    def tell(self, task: Task[Any, Any], error: Exception) -> None:
        data = self._job.data if self._job is not None else None
        if isinstance(data, dict) and data.keys() >= {"args", "kwargs"}:
            task._tell_of_arguments(error, data["args"], data["kwargs"])
