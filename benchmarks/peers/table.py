"""The table that pq, pq 1.9.1 and the bare loop have in common."""

from __future__ import annotations

from .base import QUEUE, TEXT, Peer


def call(task: str) -> str:
    """A call of a task in noop.py, as both versions of pq store it; where 1.9.1 finds the function, too."""
    return (
        f'{{"function": "peers.noop.{task}", "args": [], "kwargs": {{}},'
        ' "retried": 0, "retry_in": "30s", "max_retries": 0}'
    )


CALL = call("noop")


class TablePeer(Peer):
    """States of the table are made by SQL, in a session in which triggers do not fire.

    :ivar due: what a scheduled row has besides.
    """

    tables = "queue"
    fill = f"insert into queue (q_name, data) select '{QUEUE}', '{CALL}' from generate_series(1, %(n)s)"
    hanging = f"insert into queue (q_name, data) select '{QUEUE}', '{call('hang')}' from generate_series(1, %(n)s)"
    remaining = "select count(*) from queue where dequeued_at is null"
    due = True

    ready = f"insert into queue (q_name, data) select '{QUEUE}', '{TEXT}' from generate_series(1, %(n)s)"

    finished = (
        "insert into queue (q_name, data, dequeued_at)"
        f" select '{QUEUE}', '{TEXT}', now() from generate_series(1, %(n)s)"
    )

    #: Half of them with a priority.
    mixed = (
        "insert into queue (q_name, data, expected_at)"
        f" select '{QUEUE}', '{TEXT}', case when n %% 2 = 0 then now() + n %% 1000 * interval '1 minute' end"
        " from generate_series(1, %(n)s) as n"
    )

    #: Ten jobs in each of so many queues.
    queues = (
        "insert into queue (q_name, data)"
        f" select 'other ' || n / 10, '{TEXT}' from generate_series(1, %(n)s * 10) as n"
    )

    #: Tomorrow, half of them with a priority.
    @property
    def future(self) -> str:
        columns, value = (", due_at", ", now() + interval '1 day'") if self.due else ("", "")
        return (
            f"insert into queue (q_name, data, expected_at, schedule_at{columns})"
            f" select '{QUEUE}', '{TEXT}', case when n %% 2 = 0 then now() + n %% 1000 * interval '1 minute' end,"
            f" now() + interval '1 day'{value} from generate_series(1, %(n)s) as n"
        )

    #: Take the oldest jobs, for those that pass between two measurements.
    passing = (
        "update queue set dequeued_at = now() where id = any (array("
        "select id from queue where dequeued_at is null order by id limit %(n)s))"
    )
