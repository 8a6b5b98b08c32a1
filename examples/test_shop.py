"""Tests of ``shop.py``: ``python -m pytest examples/test_shop.py``. None of them commits anything."""

import psycopg2
import pytest
import shop

from pq import PQ
from pq.testing import assert_not_put, assert_put, drain, inline

pytest_plugins = ["pq.testing.fixtures"]


@pytest.fixture(scope="session")
def database(pq_server):
    """The DSN of a database with the tables of pq, which the tests share."""
    with PQ(pq_server) as pq:
        pq.create()
        pq.streams["orders"].create()
    return pq_server


@pytest.fixture
def conn(database):
    """A transaction that is rolled back when the test is over; all that the shop does is in there."""
    shop.sent.clear()
    with psycopg2.connect(database) as conn, shop.pq.using(conn):
        with conn.cursor() as cursor:
            shop.prepare(cursor)
            cursor.execute("insert into article values ('pen', 2), ('ink', 1)")
        yield conn
        conn.rollback()
    conn.close()


@pytest.fixture
def cursor(conn):
    with conn.cursor() as cursor:
        yield cursor


def stock_of(cursor, article):
    cursor.execute("select stock from article where name = %s", (article,))
    return cursor.fetchone()[0]


def test_an_order_puts_its_jobs(cursor, conn):
    shop.order(cursor, "ann@example.org", ["pen", "ink"])
    assert_put(shop.reserve, count=2)
    assert [job.state for job in assert_put(shop.send, {"to": "ann@example.org"})] == ["held"]


def test_a_customer_gets_a_mail_when_all_is_reserved(cursor, conn):
    shop.order(cursor, "ann@example.org", ["pen", "ink"])
    drain(shop.pq, conn)
    assert shop.sent == [("ann@example.org", "Order 1 is on its way")]
    assert (stock_of(cursor, "pen"), stock_of(cursor, "ink")) == (1, 0)


def test_an_order_that_is_undone_sends_nothing(cursor, conn):
    cursor.execute("savepoint before")
    shop.order(cursor, "ann@example.org", ["pen"])
    cursor.execute("rollback to before")
    assert_not_put(shop.send)
    assert drain(shop.pq, conn) == []


def test_what_is_sold_out_is_not_sold(cursor, conn):
    shop.order(cursor, "ann@example.org", ["ink"])
    shop.order(cursor, "bob@example.org", ["ink"])
    performed = drain(shop.pq, conn, raises=False)
    assert [str(each.error) for each in performed if each.error] == ["no ink left"]
    assert [to for to, _ in shop.sent] == ["ann@example.org"]
    assert stock_of(cursor, "ink") == 0


def test_an_error_of_a_task_fails_the_test(cursor, conn):
    shop.order(cursor, "ann@example.org", ["paper"])
    with pytest.raises(ValueError, match="no paper left"):
        drain(shop.pq, conn)


def test_a_mail_is_tried_three_times(cursor, conn):
    job = shop.send("nobody", "Hello")
    performed = drain(shop.pq, conn, until="11m", raises=False)
    assert [each.outcome for each in performed] == ["retry", "retry", "dead"]
    assert shop.mails[job].state == "dead"


def test_the_second_mail_comes_late_enough(cursor, conn):
    shop.send("nobody", "Hello")
    assert len(drain(shop.pq, conn, until="4m", raises=False)) == 1
    assert len(drain(shop.pq, conn, until="2m", raises=False)) == 1


def test_the_report_comes_once_a_day(cursor, conn):
    drain(shop.pq, conn, until="3d")
    subjects = ["0 mails were sent", "1 mails were sent", "2 mails were sent"]
    assert shop.sent == [("boss@example.org", subject) for subject in subjects]


def test_who_pays_is_thanked(cursor, conn):
    shop.pay("ann@example.org", 1)
    drain(shop.pq, conn)
    assert shop.sent == [("ann@example.org", "Thank you")]


def test_with_inline_jobs_are_performed_as_they_are_put(cursor, conn):
    with inline(shop.pq, conn):
        shop.order(cursor, "ann@example.org", ["pen"])
        assert shop.sent == [("ann@example.org", "Order 1 is on its way")]
