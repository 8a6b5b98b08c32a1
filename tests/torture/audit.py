"""What the database notes itself of jobs with keys, tokens and limits: each change that was committed, by a trigger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pq import PQ, Limit

#: The queues of the keyed cast; how many jobs of one key run at a time, at first.
QUEUES = {"keyed": 1, "keytasks": 1, "pairs": 2, "limited": 1, "rated": 1}

#: Places of the queue "limited", at first; jobs of the queue "rated" that begin in a second.
RUNNING = 3
RATE = 20

#: Set in sessions that delete jobs by hand. Else a row that is deleted had ended; or that is its end, or its
#: take, of which nothing is kept.
BY_HAND = "torture.by_hand"

SETUP = f"""
    create table audit (
      n bigserial primary key, at timestamptz not null default clock_timestamp(),
      began timestamptz not null default statement_timestamp(), tx bigint not null, id bigint not null,
      q_name text not null, key text, expected_at timestamptz, dequeued_at timestamptz, due_at timestamptz,
      attempts integer not null, is_taken boolean not null, state text not null, data json
    );
    create table joins (mark text not null);
    grant all on audit, joins to torture;
    grant all on sequence audit_n_seq to torture;
    create function note_change() returns trigger language plpgsql security definer as $$
    declare
      job queue := case tg_op when 'DELETE' then old else new end;
      by_hand boolean := coalesce(current_setting('{BY_HAND}', true), '') <> '';
      state text := case
        when tg_op = 'DELETE' then case when by_hand then 'gone' else 'done' end
        when new.dequeued_at is null then
          case when new.due_at is null then 'ready' when new.due_at = 'infinity' then 'held' else 'scheduled' end
        when new.due_at is not null then 'running'
        when new.error is not null then 'dead'
        when new.failed_at is not null then 'cancelled'
        else 'done'
      end;
    begin
      if tg_op = 'DELETE' and old.dequeued_at is not null and old.due_at is null and not by_hand then
        return null;
      end if;
      insert into audit (
        tx, id, q_name, key, expected_at, dequeued_at, due_at, attempts, is_taken, state, data
      ) values (
        pg_current_xact_id()::text::bigint, job.id, job.q_name, job.key, job.expected_at, job.dequeued_at, job.due_at,
        job.attempts,
        case tg_op
          when 'UPDATE' then state in ('running', 'done') and old.dequeued_at is distinct from job.dequeued_at
          when 'DELETE' then state = 'done' and old.dequeued_at is null
          else false
        end,
        state, job.data
      );
      return null;
    end
    $$;
    create trigger note_change after insert or update or delete on queue for each row
      execute function note_change();
"""

CHANGES = """
    select n, extract(epoch from at)::float8, extract(epoch from began)::float8, tx, id, q_name, key,
      extract(epoch from expected_at)::float8, extract(epoch from dequeued_at)::float8,
      case when due_at < 'infinity' then extract(epoch from due_at)::float8 end,
      attempts, is_taken, state, data, extract(epoch from pg_xact_commit_timestamp(xmin))::float8
    from audit order by n
"""

JOINS = "select mark, extract(epoch from pg_xact_commit_timestamp(xmin))::float8 from joins"

#: What must be found nowhere at the end.
LEFT = {
    "a token twice": """
        select unique_key from queue where unique_key || '' <> '' group by q_name, unique_key having count(*) > 1
    """,
    "places": """
        select name || ' ' || count(slot.n) from queue_limits left join queue_slots as slot using (name)
        where running is not null or rate is not null group by name having count(slot.n) <> coalesce(running, rate)
    """,
    "a place leaked": """
        select name || ' ' || slot.n from queue_slots as slot join queue on queue.id = job and dequeued_at = taken_at
        where kind = 'running' and due_at > now()
    """,
}  # fmt: skip


class Change(NamedTuple):
    """
    :ivar at: when the row was changed; seconds by the server's clock, as all here.
    :ivar began: when the statement began.
    :ivar dequeued: None also where nothing was kept of the row.
    :ivar due: None also for held jobs.
    :ivar taken: whether a delivery began.
    :ivar state: that the job then had: ``'ready'``, ``'held'``, ``'scheduled'``, ``'running'``, ``'done'``, ``'dead'``,
        ``'cancelled'`` or ``'gone'``.
    """

    n: int
    at: float
    began: float
    tx: int
    id: int
    queue: str
    key: str | None
    expected: float | None
    dequeued: float | None
    due: float | None
    attempts: int
    taken: bool
    state: str
    data: Any
    committed: float

    @property
    def name(self) -> str:
        return str(self.data["args"][0] if "args" in self.data else self.data["name"])


class Audit(NamedTuple):
    """All that the database tells at the end.

    :ivar joins: when those transactions were committed that have joined a job, by what they noted.
    :ivar left: what must not be.
    """

    changes: list[Change]
    joins: dict[str, float]
    left: dict[str, list[str]]


def set_up(execute: Callable[[str], Any], dsn: str) -> None:
    with PQ(dsn) as pq:
        pq.limits["limited"] = Limit(running=RUNNING)
        pq.limits["rated"] = Limit(rate=f"{RATE}/s")
        pq.limits["pairs"] = Limit(per_key=QUEUES["pairs"])
    execute(SETUP)


def read(execute: Callable[[str], list[tuple[Any, ...]]], dsn: str) -> Audit:
    with PQ(dsn) as pq:
        pq.limits.update(pq.limits)  # takes away places that were too many when the limit was lowered
    left = {name: [row[0] for row in execute(sql)] for name, sql in LEFT.items()}
    return Audit([Change(*row) for row in execute(CHANGES)], dict(execute(JOINS)), left)
