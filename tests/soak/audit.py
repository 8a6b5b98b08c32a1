"""What was done, beside what was put: each query returns what should not be, a text for each."""

from __future__ import annotations

from typing import Any

from .roles import RUNNING, SCHEDULES, execute

#: Of each kind of job, of each producer: numbers 1, 2, 3 … up to what was promised, each once.
LEDGER = """
    select format('%s of %s: %s promised, %s done, of which %s are different, from %s to %s', coalesce(p.kind, l.kind),
        coalesce(p.who, l.who), p.numbers, l.n, l.numbers, l.first, l.last)
    from (select * from promised where kind not in ('event', 'performed') and numbers > 0) as p full join (
        select kind, who, count(*) as n, count(distinct number) as numbers, min(number) as first, max(number) as last
        from ledger where kind <> 'order' group by kind, who
    ) as l using (kind, who)
    where (l.n, l.numbers, l.first, l.last) is distinct from (p.numbers, p.numbers, 1::bigint, p.numbers)
"""

#: The same of events, for each subscription.
EVENTS = """
    select format('%s of %s for %s: %s promised, %s seen, of which %s are different', p.kind, p.who, s.subscription,
        p.numbers, s.n, s.numbers)
    from promised as p cross join (values ('block'), ('parted'), ('worker')) as of (subscription) left join (
        select subscription, kind, who, count(*) as n, count(distinct number) as numbers, max(number) as last
        from seen group by subscription, kind, who
    ) as s using (subscription, kind, who)
    where p.kind in ('event', 'performed') and p.numbers > 0 and (of.subscription <> 'worker' or p.kind = 'performed')
    and (s.n, s.numbers, s.last) is distinct from (p.numbers, p.numbers, p.numbers)
"""

#: Every order has one mail, and one job that told of it.
DJANGO = """
    select format('order %s: %s mails, %s times told of', o.id, o.mails, l.n)
    from shop_order as o full join (
        select number as id, count(*) as n from ledger where kind = 'order' group by number
    ) as l using (id)
    where (o.mails, l.n) is distinct from (1, 1::bigint)
"""

#: Jobs of a key, and events of a key or of all keys, in the order of their puts; of each producer.
KEYS = """
    select format('%s of %s, key %s: %s before %s', kind, who, key, before, number) from (
        select *, lag(number) over (partition by kind, who, key order by id) as before from ledger where kind = 'keyed'
    ) as done where number < before
"""
STREAM = """
    select format('%s for %s, of %s: %s before %s', kind, subscription, who, before, number) from (
        select *, lag(number) over (
            partition by subscription, kind, who, case when subscription <> 'block' then key end order by id
        ) as before from seen
    ) as done where number < before
"""

EARLY = "select format('%s of %s: %s s early', kind, who, -waited) from ledger where kind = 'later' and waited < 0"

AFTER = """
    select format('%s of %s before the one that it follows', number, who) from ledger as f
    join ledger as t using (who, number) where f.kind = 'first' and t.kind = 'then' and t.id < f.id
"""

LIMIT = """
    select format('%s at once', n) from (
        select sum(d) over (order by at, d) as n from (
            select began as at, 1 as d from ledger where kind = 'limited'
            union all select at, -1 from ledger where kind = 'limited'
        ) as changes
    ) as running where n > {running} order by n desc limit 1
"""

#: Each time of a schedule put one job: none twice, and none left out.
FIRED = """
    select format('%s: %s, and then %s', name, before, due) from (
        select name, due, lag(due) over (partition by name order by due) as before from fired
    ) as times
    where due is null or due - before <> make_interval(secs => case name {every} end)
"""

LEFT = """
    select format('%s: %s that are not finished', q_name, count(*)) from queue
    where (dequeued_at is null or due_at is not null) and due_at is distinct from '200000-01-02 00:00:00+00'
    group by q_name
"""
DEAD = """
    select format('%s: %s dead', q_name, count(*)) from queue
    where error is not null and dequeued_at is not null and due_at is null and q_name <> 'poison' group by q_name
"""
OLD = """
    select format('%s finished jobs that should have been pruned', count(*)) from queue
    where dequeued_at is not null and due_at is null and finished_at < now() - make_interval(secs => {pruned})
    having count(*) > 1000
"""
OLD_EVENTS = """
    select format('%s events that should be gone', count(*)) from queue_stream_events
    where at < now() - make_interval(secs => {rotated}) having count(*) > 0
"""

QUERIES = {
    "jobs": LEDGER, "events": EVENTS, "django": DJANGO, "order of keys": KEYS, "order of events": STREAM,
    "early": EARLY, "after": AFTER, "limit": LIMIT, "schedules": FIRED, "left": LEFT, "dead": DEAD, "retention": OLD,
    "retention of events": OLD_EVENTS,
}  # fmt: skip

COUNTS = """
    select (select count(*) from ledger), (select sum(numbers)::bigint from promised
        where kind = 'event'), (select count(*) from seen), (select count(*) from fired),
        (select count(*) from shop_order)
"""
WAITED = """
    select kind, count(*), round(percentile_cont(0.5) within group (order by waited)::numeric, 4)::float,
        round(percentile_cont(0.99) within group (order by waited)::numeric, 3)::float,
        round(max(waited)::numeric, 3)::float
    from ledger group by kind order by kind
"""


def audit(dsn: str, retain: float) -> dict[str, list[str]]:
    """Return what is wrong, by kind.

    :param dsn: of the server's owner.
    :param retain: seconds for which finished jobs, and events that all have read, are kept.
    """
    words = {
        "every": " ".join(f"when '{name}' then {seconds}" for name, seconds in SCHEDULES.items()),
        "running": RUNNING,
        # workers prune each minute; an event goes within another `retain`, when a consumer looks, each minute
        "pruned": retain + 180,
        "rotated": 2 * retain + 180,
    }
    found = {name: [text for (text,) in execute(dsn, query.format(**words))] for name, query in QUERIES.items()}
    return {name: texts for name, texts in found.items() if texts}


def counted(dsn: str) -> dict[str, Any]:
    """Return how much was done, and how long it waited: p50, p99 and the longest, in seconds, by kind."""
    ((done, events, seen, fired, orders),) = execute(dsn, COUNTS)
    waited = {kind: {"n": n, "p50": p50, "p99": p99, "max": most} for kind, n, p50, p99, most in execute(dsn, WAITED)}
    return {"jobs": done + fired, "events": events, "read": seen, "fired": fired, "orders": orders, "waited": waited}
