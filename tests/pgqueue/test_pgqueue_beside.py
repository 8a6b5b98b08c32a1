"""pq.pgqueue beside pgqueue 0.6: the same programs, and what they say."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest
from support.pgqueue import Package

import pq as this_library

#: By name: a program of which all that it says must be the same.
PROGRAMS = {
    "readme": """
        conn = psycopg2.connect(sys.argv[1])
        conn.autocommit = True
        cursor = conn.cursor()

        first_q = pgqueue.Queue('first_queue')
        first_q.create(cursor, ticker_max_lag='4 seconds')

        consum_q = pgqueue.Consumer('first_queue', 'consumer_one')
        consum_q.register(cursor)

        first_q.insert_event(cursor, 'announce', 'Hello ...')
        first_q.insert_event(cursor, 'announce', 'Hello world!')

        tick()

        conn.autocommit = False
        for event in consum_q.next_events(cursor, commit=True):
            say(str(event))
    """,
    "queues": """
        queue = pgqueue.Queue("q")
        say(queue.create(curs, ticker_max_count=100, ticker_paused=False))
        say(queue.create(curs))
        say(queue.set_config(curs, "rotation_period", "1 hour"))
        say(queue.set_config(curs, "ticker_idle_period", "10 s"))
        say([error(queue.set_config, curs, "nothing", 1) is not None])
        say([error(pgqueue.Queue("p").create, curs, nothing=1) is not None])
        none = pgqueue.Queue("none")
        say([error(none.drop, curs), error(none.set_config, curs, "ticker_paused", 1)])
        say([error(none.insert_event, curs, "t", "d")])
        info = queue.get_info(curs)
        say([type(info).__name__, len(info), info[0], info[3:4], info[5:10]])
        say(pgqueue.Queue("none").get_info(curs))
        named = queue.get_info(conn.cursor(cursor_factory=psycopg2.extras.DictCursor))
        say([type(named).__name__, named["queue_name"], named["queue_ticker_max_count"], sorted(dict(named))])
        say([row[0] for row in pgqueue.Queue.get_all_queues_info(curs) if row[0] != "p"])
        say(queue.drop(curs))
        say(queue.get_info(curs))
        say(pgqueue.Queue.version(curs)[0])
        class Mine(pgqueue.Queue):
            queue_name = "mine"
            def __init__(self):
                pgqueue.Queue.__init__(self, None)
        say([Mine().create(curs), Mine().queue_name, [row[0] for row in Mine.get_all_queues_info(curs)][0]])
    """,
    "consumers": """
        queue = pgqueue.Queue("q")
        queue.create(curs)
        one = pgqueue.Consumer("q", "one")
        say([one.register(curs), one.register(curs), queue.register_consumer(curs, "two"), str(one)])
        say([queue.register_consumer(curs, one), one.queue.queue_name, one.batch_info])
        info = one.get_info(conn.cursor(cursor_factory=psycopg2.extras.DictCursor))
        say([sorted(info.keys()), info["queue_name"], info["consumer_name"]])
        say([info["current_batch"], info["pending_events"]])
        say([row[:2] for row in queue.get_consumer_info(curs)])
        say([queue.get_consumer_info(curs, "one")[1], queue.get_consumer_info(curs, one)[1]])
        say(queue.get_consumer_info(curs, "x"))
        say([row[:2] for row in pgqueue.Queue.get_all_consumers_info(curs)])
        say([fails(queue.drop, curs), queue.unregister_consumer(curs, "x")])
        say([one.unregister(curs), one.unregister(curs), queue.unregister_consumer(curs, "two")])
        say([fails(pgqueue.Consumer("none", "c").register, curs)])
        conn.autocommit = False
        say([fails(lambda: list(pgqueue.Consumer("q", "nobody").next_batches(curs)))])
        conn.autocommit = True
        say(queue.register_consumer(curs, "two"))
        say(queue.drop(curs, force=True))
    """,
    "events": """
        queue = pgqueue.Queue("q")
        queue.create(curs)
        consumer = pgqueue.Consumer("q", "c")
        consumer.register(curs)
        ids = [queue.insert_event(curs, "a", "1", "e1", "e2", "e3", "e4"), pgqueue.insert_event(curs, "q", None, None)]
        say(ids)
        ids.append(queue.insert_event(curs, "t'\\\\\\t%", "\\u20ac \\n %s", extra3="x"))
        tick()
        conn.autocommit = False
        (batch,) = list(consumer.next_batches(curs, limit=1)) or [None]
        conn.rollback()
        for batch in consumer.next_batches(curs, commit=True):
            say([len(batch), bool(batch), repr(batch) == "<Batch q:%d>" % batch.batch_id, batch.fetch_status])
            events = list(batch)
            say([parts(event) for event in events])
            say([[event.id for event in events] == ids, type(events[0].time).__name__, type(events[0].txid).__name__])
            say([len(batch), batch.fetch_status, batch.queue_name, batch.consumer_name])
            say(error(list, batch))
            info = consumer.batch_info
            say([info["batch_id"] == batch.batch_id, info["tick_id"] == info["cur_tick_id"], sorted(info)])
            event = events[0]
            say([len({event, events[1], event}), hash(event) == hash(event), isinstance(event, tuple), len(event)])
            say([sorted(vars(event)), str(event), repr(event), event._fields])
            say([event.failed, event.retry_time, event[0] == event.id, event == events[0]])
            say(error(setattr, event, "data", "x"))
        say(consumer.batch_info["batch_id"])
        say(list(consumer.next_events(curs)))
    """,
    "predicates": """
        queue = pgqueue.Queue("q")
        queue.create(curs)
        class Some(pgqueue.Consumer):
            queue_name = "q"
            consumer_name = "some"
            predicate = "ev_extra1 in ('x', 'y') or ev_type like 'k%'"
        consumers = [Some(), Some(None, "lazy", "ev_data::int > 4"), pgqueue.Consumer("q", "now", "ev_type = 'k1'")]
        consumers[2].pgq_lazy_fetch = 0
        for consumer in consumers:
            consumer.register(curs)
        for number in range(9):
            queue.insert_event(curs, "k%d" % (number % 3) if number % 2 else "t", str(number), "xyz"[number % 3])
        tick()
        conn.autocommit = False
        for consumer in consumers:
            say([event.data for event in consumer.next_events(curs, commit=True)])
            say([event.data for event in consumer.next_events(curs, commit=True)])
        consumers[0].predicate = "no sql"
        conn.autocommit = True
        queue.insert_event(curs, "t", "d")
        tick()
        conn.autocommit = False
        say(error(lambda: list(consumers[0].next_events(curs))))
        consumers[0].predicate = None
        say(len(list(consumers[0].next_events(curs))))
    """,
    "batches": """
        queue = pgqueue.Queue("q")
        queue.create(curs)
        consumer = pgqueue.Consumer("q", "c")
        consumer.register(curs)
        for number in range(4):
            queue.insert_event(curs, "t", str(number))
            queue.insert_event(curs, "t", str(number))
            tick()
        say(error(lambda: list(consumer.next_batches(curs))))
        conn.autocommit = False
        # partly read: not finished
        for event in consumer.next_events(curs, commit=True):
            break
        conn.commit()
        for batch in consumer.next_batches(curs, commit=True):
            break
        conn.commit()
        # read to its end, and left: finished
        for batch in consumer.next_batches(curs, commit=True):
            say([event.data for event in batch])
            break
        # rolled back
        for batch in consumer.next_batches(curs):
            say([event.data for event in batch])
        conn.rollback()
        say([[event.data for event in batch] for batch in consumer.next_batches(curs, limit=2, commit=True)])
        # by hand
        batches = consumer.next_batches(curs)
        batch = next(batches)
        say([batch.finish(), batch.fetch_status, batch.finish()])
        conn.commit()
        say([list(batch) for batch in consumer.next_batches(curs, commit=True)])
        queue.insert_event(curs, "t", "with")
        conn.commit()
        tick()
        conn.commit()
        found = consumer._load_next_batch(conn.cursor(cursor_factory=psycopg2.extras.DictCursor))
        try:
            with found as batch:
                for event in batch:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            say(found.fetch_status)
        conn.rollback()
        found = consumer._load_next_batch(conn.cursor(cursor_factory=psycopg2.extras.DictCursor))
        with found as batch:
            say([event.data for event in batch])
        say(found.fetch_status)
        conn.commit()
        say(list(consumer.next_batches(curs)))
    """,
    "ends of batches": """
        queue = pgqueue.Queue("q")
        queue.create(curs)
        consumer = pgqueue.Consumer("q", "c")
        consumer.register(curs)
        def more(*data):
            conn.autocommit = True
            for each in data:
                queue.insert_event(curs, "t", each)
            tick()
            conn.autocommit = False
        more("1", "2")
        # partly read, not read at all: not finished
        for event in consumer.next_events(curs, commit=True):
            break
        conn.rollback()
        for batch in consumer.next_batches(curs, commit=True):
            number = batch.batch_id
            break
        conn.commit()
        # in another session, which is the same to a server
        other = psycopg2.connect(sys.argv[1])
        for batch in consumer.next_batches(other.cursor()):
            say([batch.batch_id == number, [event.data for event in batch]])
        other.rollback()
        other.close()
        # read to its end, and left: finished
        for batch in consumer.next_batches(curs, commit=True):
            say([[event.data for event in batch], len(batch), error(list, batch)])
            break
        conn.commit()
        say(list(consumer.next_batches(curs, commit=True)))
        more("3")
        for batch in consumer.next_batches(curs):
            say([event.data for event in batch])
        conn.rollback()
        say([[event.data for event in batch] for batch in consumer.next_batches(curs, limit=1, commit=True)])
        more("4")
        batches = consumer.next_batches(curs)
        batch = next(batches)
        say([batch.finish(), batch.fetch_status, batch.finish(), len(batch)])
        conn.commit()
        say(list(consumer.next_batches(curs, commit=True)))
        more("5")
        batches = consumer.next_batches(curs)
        batch = next(batches)
        try:
            with batch:
                for event in batch:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            say(batch.fetch_status)
        conn.rollback()
        batches = consumer.next_batches(curs)
        batch = next(batches)
        with batch:
            say([event.data for event in batch])
        say(batch.fetch_status)
        conn.commit()
        say(list(consumer.next_batches(curs)))
    """,
    "kinds of rows": """
        queue = pgqueue.Queue("q")
        queue.create(curs, ticker_max_count=7, ticker_paused=True, rotation_period="3 hours", ticker_max_lag="1 min")
        queue.register_consumer(curs, "c")
        columns = ["name", "rotation_period", "external_ticker", "ticker_paused", "ticker_max_count", "ticker_max_lag"]
        for factory in (psycopg2.extras.DictCursor, psycopg2.extras.RealDictCursor):
            named = conn.cursor(cursor_factory=factory)
            info = queue.get_info(named)
            say([sorted(info.keys()), [info["queue_" + name] for name in columns]])
            say([sorted(row.keys()) for row in pgqueue.Queue.get_all_consumers_info(named)])
            say([row["consumer_name"] for row in queue.get_consumer_info(named)])
            say([row["queue_name"] for row in pgqueue.Queue.get_all_queues_info(named)])
        say([queue.set_config(curs, "ticker_paused", False), queue.set_config(curs, "ticker_max_lag", "2 s")])
        say([queue.create(curs, external_ticker=1), fails(queue.set_config, curs, "ticker_max_count", "many")])
        info = queue.get_info(conn.cursor(cursor_factory=psycopg2.extras.DictCursor))
        say([info["queue_" + name] for name in columns])
        say([queue.get_info(curs)[0], pgqueue.Queue("none").get_info(curs), queue.get_consumer_info(curs, "none")])
    """,
    "many": """
        queue = pgqueue.Queue("q")
        queue.create(curs)
        consumer = pgqueue.Consumer("q", "c")
        consumer.pgq_lazy_fetch = 10
        consumer.register(curs)
        conn.autocommit = False
        for count in (9, 10, 11, 20, 35):
            for number in range(count):
                queue.insert_event(curs, "t", str(number))
            conn.commit()
            tick()
            conn.commit()
            lengths = []
            for batch in consumer.next_batches(curs, commit=True):
                found = [(len(batch), event.data) for event in batch]
                lengths.append([len(batch), sorted({length for length, _ in found})])
                say([data for _, data in found] == [str(number) for number in range(count)])
            say(lengths)
        conn.autocommit = True
        consumer.pgq_lazy_fetch = 0
        for number in range(35):
            queue.insert_event(curs, "t", str(number))
        tick()
        for batch in consumer.next_batches(curs):
            say([len(list(batch)), len(batch)])
    """,
    "retries": """
        queue = pgqueue.Queue("q")
        queue.create(curs)
        consumer, other = pgqueue.Consumer("q", "c"), pgqueue.Consumer("q", "other")
        consumer.register(curs)
        other.register(curs)
        for number in range(5):
            queue.insert_event(curs, "t", "d'%d\\\\n" % number, "1", None, "", "4")
        tick()
        conn.autocommit = False
        for batch in consumer.next_batches(curs, commit=True):
            events = list(batch)
            for number in (3, 1, 0, 4):
                events[number].tag_retry(0)
            events[2].tag_done()
            events[0].tag_done()
            events[4].tag_retry()
            events[4].tag_retry(0.5)
            say([[event.data[2], event.failed, event.retry_time] for event in events])
            say([[event.data[2], time] for event, time in batch.failed])
            say([len(batch.failed), events[0] in batch.failed, events[1] in batch.failed])
        conn.autocommit = True
        columns = "ev_data, ev_retry, ev_extra1, ev_extra2, ev_extra3, ev_retry_after - now()"
        retried = f"select {columns} from pgq.retry_queue"
        say([[*row[:5], row[5].total_seconds() < 1] for row in sql(retried + " order by ev_id")])
        sql("update pgq.retry_queue set ev_retry_after = now() - interval '1 s'")
        ticker.run_retry(curs)
        say(ticker.n_retry)
        tick()
        conn.autocommit = False
        again = []
        for event in consumer.next_events(curs, commit=True):
            again.append(parts(event))
            event.tag_retry(3600)
        say(again)
        conn.autocommit = True
        say([[*row[:5], row[5].total_seconds() > 3500] for row in sql(retried + " order by ev_id")])
        conn.autocommit = False
        say([parts(event) for event in other.next_events(curs, commit=True)])
        conn.autocommit = True
        say(consumer.unregister(curs))
        say(sql("select count(*) from pgq.retry_queue")[0][0])
    """,
    "waiting for more": """
        queue = pgqueue.Queue("q")
        queue.create(curs, ticker_max_count=1, ticker_max_lag="0 s", ticker_idle_period="0 s")
        class Counting(pgqueue.Consumer):
            queue_name = "q"
            consumer_name = "count"
            pgq_min_count = 3
        class Lagging(pgqueue.Consumer):
            queue_name = "q"
            consumer_name = "lag"
            pgq_min_lag = "1 hour"
        class Long(pgqueue.Consumer):
            queue_name = "q"
            consumer_name = "long"
            pgq_min_interval = "1 hour"
        consumers = [Counting(), Lagging(), Long()]
        for consumer in consumers:
            consumer.register(curs)
        for number in range(4):
            queue.insert_event(curs, "t", str(number))
            tick()
            conn.autocommit = False
            say([[len(list(batch)) for batch in consumer.next_batches(curs, commit=True)] for consumer in consumers])
            conn.autocommit = True
        sql("update pgq.tick set tick_time = tick_time - interval '2 hours'")
        conn.autocommit = False
        say([len(list(batch)) for batch in consumers[1].next_batches(curs, commit=True)])
    """,
    "positions": """
        queue = pgqueue.Queue("q")
        queue.create(curs)
        consumer = pgqueue.Consumer("q", "c")
        consumer.register(curs)
        start = queue.get_info(conn.cursor(cursor_factory=psycopg2.extras.DictCursor))["last_tick_id"]
        queue.insert_event(curs, "t", "1")
        tick()
        conn.autocommit = False
        say([event.data for event in consumer.next_events(curs, commit=True)])
        conn.autocommit = True
        say(consumer.register(curs, start))
        say(error(queue.register_consumer, curs, consumer, 10**6))
        say(queue.register_consumer(curs, "other", start))
        conn.autocommit = False
        say([event.data for event in consumer.next_events(curs, commit=True)])
        say([event.data for event in pgqueue.Consumer("q", "other").next_events(curs, commit=True)])
    """,
    "external ticks": """
        queue = pgqueue.Queue("q")
        queue.create(curs)
        say(error(queue.external_tick, curs, 100, "2026-01-01", 1000))
        say(queue.set_config(curs, "external_ticker", True))
        say(queue.external_tick(curs, 100, "2026-01-01", 1000))
        say([str(x) for x in sql("select tick_id, tick_event_seq from pgq.tick order by 1 desc limit 1")[0]])
    """,
    "the ticker": """
        queue = pgqueue.Queue("q")
        queue.create(curs, ticker_max_count=1, rotation_period="0 s")
        queue.register_consumer(curs, "c")
        queue.insert_event(curs, "t", "d")
        say([ticker.check_period, ticker.maint_period, ticker.retry_period, ticker.stats_period, ticker.ticker_period])
        say([ticker.n_ticks, ticker.n_maint, ticker.n_retry, str(ticker)])
        own = ticker.cursor()
        say([ticker.check_pgq(own), ticker.try_lock(own), pgqueue.Ticker(sys.argv[1]).try_lock(curs)])
        ticker.do_ticker(own)
        say([ticker.n_ticks, ticker.do_ticker(own), ticker.n_ticks])
        ticker.run_once(own)
        say([ticker.n_ticks, ticker.n_maint > 0])
        other = pgqueue.Ticker(sys.argv[1], {"ticker_period": 3, "check_period": 4, "stats_period": None})
        say([other.ticker_period, other.check_period, other.maint_period])
        say(sql("select application_name, count(*) from pg_stat_activity where application_name ~ 'Ticker' group by 1"))
    """,
}


#: Those which depend neither on ticks nor on PgQ's tables.
WITHOUT = ["readme", "consumers", "events", "predicates", "many", "ends of batches", "kinds of rows"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_does_the_same(name: str, real: Package, ours: Package) -> None:
    expected = real.run(PROGRAMS[name])
    assert expected
    assert ours.run(PROGRAMS[name]) == expected


@pytest.mark.parametrize("name", WITHOUT)
def test_a_program_does_the_same_without_the_extension(name: str, real: Package, without: Package) -> None:
    expected = real.run(PROGRAMS[name])
    assert expected
    assert without.run(PROGRAMS[name]) == expected


PAUSE = """
def tick_now():
    other = psycopg2.connect(sys.argv[1])
    other.autocommit = True
    other.cursor().execute("select pgq.force_tick(queue_name), pgq.ticker(queue_name) from pgq.queue")
    other.close()

"""


def test_the_snippets_of_the_page_run_on_the_extension_and_on_pgqueue(real: Package, ours: Package) -> None:
    """Of each pair those that come first. (test_docs.py runs both, on streams.)"""
    page = Path(this_library.__file__).parents[1] / "docs" / "howto" / "pgqueue.rst"
    if not page.exists():
        pytest.skip("tested as installed, without the source tree")
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", page.read_text("utf-8"), re.MULTILINE)
    start, pairs = blocks[1], blocks[3:]
    assert "pgqueue.Queue" in pairs[0] and len(pairs) % 2 == 0
    program = PAUSE + "".join(dedent(block) + "\ntick_now()\n" for block in (start, *pairs[::2]))
    program = program.replace('psycopg2.connect("postgresql://localhost/example")', "psycopg2.connect(sys.argv[1])")
    program = program.replace("conn.autocommit = False\nfor", "conn.autocommit = False\ntick_now()\nfor")
    without_copy = re.sub(r"^queue\.insert_events\(.*", "", program, flags=re.MULTILINE)  # theirs does not work
    for package, code, count in ((real, without_copy, 1), (ours, program, 3)):
        process = package.start(code)
        out, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
        lines = [line for line in out.splitlines() if line != "0 True"]  # two ticks with nothing between them
        assert lines[:3] == ["announce Hello ...", "announce Hello world!", f"{count} True"]
        assert lines[-1].startswith("('old', 'billing')")
