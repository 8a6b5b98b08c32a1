"""Events of streams, which become jobs in a worker: `pq.tasks.Stream.on`."""

from __future__ import annotations

import hashlib
from typing import Any

from ..sql import stream_object


def put_jobs_of_events(queue: Any) -> None:
    """Put the jobs of events, if the queue is one of a subscription.

    A subscription reads what is committed. So in the transaction of a test the events that this has published are taken
    from the log itself, each once.
    """
    intake = queue._intake
    if intake is None:
        return
    table = queue._table
    if not table.database.in_transaction:
        intake.subscribe()
        while intake.take():
            pass
        return
    stream = intake.stream.name
    sql = table.statements("testing_stream.sql", stream)
    if not table.execute(sql["has_log"], {"log": stream_object(table.quoted, "log", stream)})[0][0]:
        return
    setting = f"pq.performed_{hashlib.sha256(queue.name.encode()).hexdigest()[:32]}"
    for (id,) in table.execute(sql["published"], {"setting": setting}):
        queue.put_many(intake.jobs_of(intake.stream.read(id - 1, 1)))
        table.execute(sql["performed"], {"setting": setting, "id": id})
