"""A shop's queues in the middle of a day's work, for the tests and for the pictures in the documentation."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from pq import PQ, Limit, Schedule

SCRIPT = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"

TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/payments.py", line 41, in charge
    answer = gateway.charge(order.card, order.total)
  File "/srv/shop/gateway.py", line 88, in charge
    raise CardDeclined(f"card of order {order.id} was declined: {answer.code}")
gateway.CardDeclined: card of order %d was declined: 51
"""


def call(task: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The data of a job that calls a task."""
    return {"function": task, "args": list(args), "kwargs": kwargs}


class Error(Exception):
    """An error of which `Failure` says what is wanted."""


def fill(pq: PQ, sql: Callable[..., Any]) -> None:
    """Put jobs in all states, some of them long ago."""
    chance = random.Random(7)
    for name, count in (("mails", 46), ("thumbnails", 1312), ("invoices", 3), ("reports", 0), ("webhooks", 210)):
        task = f"shop.{name}.{'send' if name in ('mails', 'webhooks') else 'make'}"
        pq[name].put_many([call(task, order=9000 + number) for number in range(count)])
    pq["reports"].put(call("shop.reports.make", "monthly"), schedule_at="6h")
    pq["reports"].put(call("shop.reports.make", "weekly"), schedule_at="2d")
    pq["mails"].put_many([call("shop.mails.send", order=8000 + number) for number in range(12)], schedule_at="40m")
    pq["imports"].put(call("shop.imports.load", "prices.csv"))
    pq["imports"].pause()
    for number in range(3):
        pq["shipping"].put(call("shop.shipping.label", order=7100 + number), key="customer 81")
    pq.limits["thumbnails"] = Limit(running=8)
    pq.limits["webhooks"] = Limit(rate="100/m")
    pq.schedules["nightly invoices"] = Schedule("invoices", call("shop.invoices.run"), every="24h")
    pq.schedules["refresh rates"] = Schedule("imports", call("shop.imports.rates"), every="15m")
    _finished(pq, sql, chance)
    _dead(pq, sql, chance)
    _running(pq, sql)
    sql(
        "update queue set enqueued_at = now() - (3 + id %% 50) * interval '1 s' * (1 + length(q_name))"
        " where dequeued_at is null and error is null",
        (),
    )


def _finished(pq: PQ, sql: Callable[..., Any], chance: random.Random) -> None:
    """An hour of work."""
    rows = []
    for minute in range(1, 60):
        for _ in range(int(12 + 9 * chance.random() + (25 if 18 < minute < 27 else 0))):
            name = chance.choice(["mails", "mails", "thumbnails", "invoices"])
            wait = chance.random() * (3 if not 18 < minute < 27 else 40)
            rows.append((name, minute, wait, 0.05 + chance.random()))
    values = ", ".join("(%s, %s, %s, %s)" for _ in rows)
    sql(
        f"""
        insert into queue (q_name, data, enqueued_at, dequeued_at, finished_at, attempts, worker)
        select name, json_build_object('function', 'shop.' || name || '.send', 'args', '[]'::json, 'kwargs',
            json_build_object('order', 6000 + row_number() over ())), begun - wait * interval '1 s', begun,
            begun + ran * interval '1 s', 1, 'app-' || 1 + (row_number() over ()) %% 3 || ':' || 4170
        from (
            select name, now() - minute * interval '1 m' as begun, wait::float, ran::float
            from (values {values}) as given (name, minute, wait, ran)
        ) as job order by begun
        """,
        [value for row in rows for value in row],
    )


def _dead(pq: PQ, sql: Callable[..., Any], chance: random.Random) -> None:
    pq["payments"].put_many([call("shop.payments.charge", order=5000 + number) for number in range(34)])
    for number, job in enumerate(pq["payments"].get_many(34, lease="10m")):
        job.fail(Error(f"card of order {5000 + number} was declined: 51"))
    pq["webhooks"].put_many([call("shop.webhooks.send", order=number) for number in range(9)], expected_at="0s")
    for number, job in enumerate(pq["webhooks"].get_many(9, lease="10m")):
        job.fail(Error(f"https://example.com/hook/{number} answered 502"))
    pq["imports"].resume()
    pq["imports"].put(call("shop.imports.load", "stock.csv"), expected_at="0s")
    job = pq["imports"].get(lease="10m")
    assert job is not None
    job.fail(Error("line 17 has 6 columns, not 7"))
    pq["imports"].pause()
    kinds = {"payments": "gateway.CardDeclined", "webhooks": "requests.HTTPError", "imports": "ValueError"}
    for queue, kind in kinds.items():
        sql(
            """
            update queue set
                error = json_build_object('type', %s, 'message', error::json ->> 'message', 'traceback',
                    replace(%s, '5011', data #>> '{kwargs,order}'))::text,
                dequeued_at = now() - (id %% 40) * interval '7 m' - interval '3 m',
                finished_at = now() - (id %% 40) * interval '7 m' - interval '3 m',
                failed_at = now() - (id %% 40) * interval '7 m' - interval '20 m', attempts = 4,
                enqueued_at = now() - (id %% 40) * interval '7 m' - interval '20 m 4 s'
            where q_name = %s and error is not null
            """,
            (kind, TRACEBACK % 5011 if queue == "payments" else None, queue),
        )
    pq["payments"].put_many([call("shop.payments.charge", order=5100 + number) for number in range(4)])
    for number, job in enumerate(pq["payments"].get_many(4, lease="10m")):
        job.retry(timedelta(minutes=1 + number), Error(f"gateway did not answer order {5100 + number} within 30 s"))


def _running(pq: PQ, sql: Callable[..., Any]) -> None:
    for name, count, ago in (("thumbnails", 5, "4 s"), ("mails", 2, "1 s"), ("invoices", 1, "9 m")):
        jobs = pq[name].get_many(count, lease="10m")
        sql(
            "update queue set dequeued_at = now() - %s::interval, worker = 'app-' || id %% 3 || ':4170'"
            " where id = any(%s)",
            (ago, [job.id for job in jobs]),
        )
        if name == "invoices":
            sql(
                "update queue set result = %s where id = %s",
                ('{"done": 0.62, "text": "1,240 of 2,000 customers"}', jobs[0].id),
            )


