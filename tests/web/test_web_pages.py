"""The pages: that each is there, says what is so, and is well made."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urljoin

import pytest
from shop import SCRIPT, call
from support import take
from visitor import Page, Visitor

from pq import PQ, Schedule, StatementTimeout

Sql = Callable[..., list[tuple[Any, ...]]]

PAGES = [
    "/", "/running", "/retrying", "/dead", "/finished", "/workers", "/schedules", "/limits", "/streams", "/health",
    "/search",
]  # fmt: skip

LOADED = {"script": "src", "link": "href", "img": "src"}


def check(page: Page) -> None:
    """A page runs no script and has no style but our own, and loads nothing from elsewhere."""
    assert page.source.count("<script") == page.source.count("pq.js") <= 1
    for tag, found in page.tags:
        assert tag not in ("style", "iframe", "object", "embed", "base"), tag
        assert not any(name == "style" or name.startswith("on") for name in found), (tag, found)
        if tag in LOADED:
            assert re.fullmatch(r"\S*/static/pq\.(css|js|svg)\?[0-9a-f]{12}", found[LOADED[tag]] or ""), found
        if tag == "input" and found.get("type") != "hidden":
            assert "aria-label" in found or "name" in found
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert int(page.headers["Content-Length"]) == len(page.source.encode())


def test_an_empty_table_has_pages(visitor: Visitor) -> None:
    for url in PAGES:
        page = visitor.get(url)
        assert page.status == 200, url
        check(page)


def test_each_link_leads_to_a_page(shop: PQ, visitor: Visitor) -> None:
    shop.streams["orders"].create()
    shop.streams["orders"].subscribe("billing")
    shop.streams["orders"].publish({"id": 1}, type="made")
    left, seen = ["/"], set[str]()
    while left and len(seen) < 120:
        url = left.pop(0)
        if url not in seen:
            seen.add(url)
            page = visitor.get(url)
            assert page.status == 200, (url, page.text)
            check(page)
            left += [urljoin(url, link) for link in page.links() if not link.startswith("#")]
    assert {*PAGES} - {"/search"} <= {url.partition("?")[0] for url in seen}
    assert {"/queue", "/job"} <= {url.partition("?")[0] for url in seen}


def test_the_overview_has_the_figures_of_the_queues(shop: PQ, visitor: Visitor) -> None:
    text = visitor.get("/").text
    assert "thumbnails limited 1,000+" in text  # cut, and said so
    assert "imports paused 1" in text
    assert re.search(r"payments 0 – 0 4 0 34 ", text), text
    assert re.search(r"Finished per minute 1,\d\d\d and 9 dead .* Longest wait before that 40 s", text), text


def test_queues_are_sorted_filtered_and_paged(pq: PQ, visitor: Visitor) -> None:
    for number in range(130):
        pq[f"queue {number:03}"].put_many([1] * (number % 7))
    first = visitor.get("/")
    names = [link for link in first.links() if link.startswith("/queue?q=") and "state" not in link]
    assert len(names) == 100
    assert "1 to 100 of 111 queues" in first.text  # the others have no jobs
    (more,) = [str(found["href"]) for tag, found in first.tags if found.get("rel") == "next"]
    assert "101 to 111 of 111 queues" in visitor.get(more).text
    assert "queue 006" in visitor.get("/?sort=ready").text.rpartition("Consumers")[2][:200]
    assert "/queue?q=queue+127" in visitor.get("/?name=E%2012").source
    assert "/queue?q=queue+131" not in visitor.get("/?name=E%2012").source


def test_a_queue_shows_each_state_page_by_page(shop: PQ, visitor: Visitor) -> None:
    seen: list[str] = []
    url = "/queue?q=thumbnails"
    for _ in range(3):
        page = visitor.get(url)
        seen += [link for link in page.links() if link.startswith("/job?")]
        (url,) = [str(found["href"]) for tag, found in page.tags if found.get("rel") == "next"]
    assert len(seen) == len(set(seen)) == 150
    for queue, state, what in (
        ("mails", "scheduled", "in 40 min"),
        ("shipping", "held", "customer 81"),
        ("thumbnails", "running", "shop.thumbnails.make"),
        ("payments", "dead", "gateway.CardDeclined: card of order 5000 was declined: 51"),
        ("mails", "finished", "shop.mails.send"),
    ):
        assert what in visitor.get(f"/queue?q={queue}&state={state}").text, state


def test_dead_jobs_come_newest_first_page_by_page(pq: PQ, visitor: Visitor) -> None:
    ids = pq["a"].put_many(range(120))
    for job in pq["a"].get_many(120, lease="1h"):
        job.fail("no")
    found: list[int] = []
    url: str | None = "/queue?q=a&state=dead"
    while url:
        page = visitor.get(url)
        found += [int(link.rpartition("=")[2]) for link in page.links() if link.startswith("/job?")]
        url = next((str(found["href"]) for tag, found in page.tags if found.get("rel") == "next"), None)
    assert found == ids[::-1]


def test_running_jobs_show_who_has_them_and_how_far_they_are(shop: PQ, visitor: Visitor) -> None:
    page = visitor.get("/running")
    assert "shop.invoices.make app-" in page.text
    assert "62 % 1,240 of 2,000 customers" in page.text
    assert 'width="62.0"' in page.source


PROGRESS = [
    ("0.5", "50 %"), ("1", "100 %"), ('{"done": 0.25}', "25 %"), ('{"done": 0.25, "text": "a"}', "25 % a"), ("7", "7"),
    ('{"text": "<b>"}', "<b>"), ('{"text": {"a": 1}}', '{"a": 1}'), ('{"text": null}', ""), ("[1, 2]", "[1, 2]"),
    ('{"items": 1}', '{"items": 1}'), ('"word"', "word"), ("null", ""), ("true", "true"),
    ('{"done": 2}', '{"done": 2}'), ("1e999", "Infinity"),
]  # fmt: skip


def test_progress_of_any_form(pq: PQ, sql: Sql, visitor: Visitor) -> None:
    for number, (progress, shown) in enumerate(PROGRESS):
        sql(
            "insert into queue (q_name, data, result, dequeued_at, due_at, attempts)"
            " values ('a', '1', %s, now() + %s * interval '1 s' - interval '1 h', now() + interval '1 h', 1)",
            (progress, number),
        )
        ((id,),) = sql("select max(id) from queue")
        assert visitor.get(f"/job?id={id}").status == 200, progress
        page = visitor.get("/running")
        assert page.status == 200, progress
        assert re.search(rf"{re.escape(shown)} (Cancel…|pq · times)", page.text), (progress, page.text[-300:])


def test_groups_of_dead_jobs(shop: PQ, visitor: Visitor) -> None:
    text = visitor.get("/dead").text
    assert "gateway.CardDeclined card of order # was declined: # shop.payments.charge payments 34" in text
    only = visitor.get("/dead?q=webhooks").text
    assert "requests.HTTPError" in only and "CardDeclined" not in only


def test_a_job_shows_its_life_error_and_data(shop: PQ, visitor: Visitor, sql: Sql) -> None:
    ((id,),) = sql("select max(id) from queue where q_name = 'payments' and error is not null and due_at is null")
    page = visitor.get(f"/job?id={id}")
    for what in ("dead", "Put", "First failure", "Died", "after 17 min", "gateway.CardDeclined", "File \"/srv/shop"):
        assert what in page.text, what
    assert '"order": 50' in page.text
    assert "pq put payments '{" in page.text and f"pq try payments {id}" in page.text
    ((id,),) = sql("select min(id) from queue where finished_at is not null")
    page = visitor.get(f"/job?id={id}")
    assert re.search(r"Put .* Taken .* Finished ", page.text)


def test_commands_name_the_table_and_are_for_a_shell(dsn: str) -> None:
    with PQ(dsn, table="other", schema="public") as pq:
        pq.create()
        id = pq["it's"].put(call("app.task", "a'b"), key="k")
        from pq.web import App

        text = Visitor(App(pq, can=lambda *_: True)).get(f"/job?id={id}").text
    assert f"""pq try 'it'"'"'s' {id} --table other --schema public""" in text
    assert "--key k --table other --schema public" in text


def test_a_job_shows_its_trace_and_who_had_it(pq: PQ, sql: Sql, visitor: Visitor) -> None:
    id = pq["a"].put(1)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    sql("update queue set headers = %s", (json.dumps({"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}),))
    take(pq["a"]).done()
    text = visitor.get(f"/job?id={id}").text
    assert f"Trace {trace}" in text and re.search(r"Worker \S+:\d+", text)


def test_a_job_says_why_it_does_not_run(shop: PQ, visitor: Visitor) -> None:
    (job,) = shop["imports"].list("ready")
    assert "Why it does not run" in visitor.get(f"/job?id={job.id}").text
    assert "paused" in visitor.get(f"/job?id={job.id}").text


def test_the_reasons_lead_to_the_jobs_that_they_name(pq: PQ, visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (pq["a"].put(number, key="<k> job 7") for number in range(2))
    page = visitor.get(f"/job?id={second}")
    assert f'<a href="/job?id={first}">{first}</a>' in page.source and "&lt;k&gt;" in page.source
    from pq.web.jobs import Shown

    def slow(self: Any, id: int) -> Any:
        raise StatementTimeout(seconds=1)

    monkeypatch.setattr(Shown, "why", slow)
    page = visitor.get(f"/job?id={second}")
    assert page.status == 200 and "did not finish a statement" in page.text


def test_numbers_keep_their_digits_and_texts_their_letters(pq: PQ, sql: Sql, visitor: Visitor) -> None:
    data = '{"amount": 12345678901234567.890, "name": "Zo\\u00eb", "far": 1e999, "none": [], "last": {"a": [1, {}]}}'
    sql("insert into queue (q_name, data) values ('a', %s)", (data,))
    page = visitor.get(f"/job?id={pq['a'].list()[0].id}")
    for what in ("12345678901234567.890", "Zoë", "1e999", "[]", "{}"):
        assert what in page.text


def test_large_data_is_cut_and_the_page_says_so(pq: PQ, visitor: Visitor) -> None:
    id = pq["a"].put({"text": "x" * 5_000_000})
    for url in ("/queue?q=a", f"/job?id={id}", "/search?text=xxxx", "/search?text=xxxx&q=a&state=ready"):
        assert len(visitor.get(url).source) < 200_000
    page = visitor.get(f"/job?id={id}")
    assert "Only the beginning is shown" in page.text and "4.8 MB" in page.text
    assert 65_000 < page.text.count("x") < 66_000
    assert "from a shell" not in page.text


def test_all_of_the_data_is_put_again(pq: PQ, visitor: Visitor, sql: Sql) -> None:
    id = pq["a"].put("x" * 200_000)
    pq["a"].get()
    visitor.submit(visitor.get(f"/job?id={id}"), "Put again")
    assert sql("select octet_length(data::text) from queue") == [(200_002,)] * 2


def test_search_finds_ids_and_texts(shop: PQ, visitor: Visitor, sql: Sql) -> None:
    ((id,),) = sql("select id from queue where q_name = 'payments' and error like '%%order 5007 %%'")
    found = visitor.request("GET", f"/search?text=%23{id}", b"")
    assert (found.status, found.headers["Location"]) == (303, f"/job?id={id}")
    for more in ("", "&q=imports&state=dead", "&q=imports", "&state=dead"):
        url = f"/search?text=Stock.CSV{more}"
        assert visitor.get(url).source.count("/job?id=") == 1, url
    assert "Nothing was found" in visitor.get("/search?text=nonsense").text
    assert "Nothing was found" in visitor.get("/search?text=stock&q=mails").text


NOT_THERE = [
    ("/nothing", 404), ("/queue", 404), ("/queue?q=", 404), (f"/queue?q={'x' * 3000}", 404),
    ("/queue?q=a%00b", 400), ("/queue?q=a&state=odd", 404), ("/queue?q=a&after=x", 400), ("/queue?q=a&after=1", 404),
    ("/job", 404),
    ("/job?id=1", 404), ("/job?id=x", 400), ("/job?id=99999999999999999999", 400), ("/job?id=-1", 400),
    ("/search?text=x&before=x", 400), ("/search?state=odd", 404), ("/static/nothing", 404), ("/static/", 404),
    ("/do/pause", 405), ("/do/nothing", 404), ("/?from=x", 400), ("/static/../app.py", 404),
]  # fmt: skip


def test_what_is_not_there_is_said(visitor: Visitor) -> None:
    for url, status in NOT_THERE:
        page = visitor.get(url)
        assert page.status == status, url
        check(page)


def test_a_queue_that_is_empty_has_a_page(visitor: Visitor) -> None:
    for state in ("ready", "scheduled", "held", "running", "dead", "finished"):
        page = visitor.get(f"/queue?q=nobody&state={state}")
        assert page.status == 200 and f"No {state} jobs" in page.text


NAMES = [
    "a/b", "a/pickle", "a&b=c?d#e", "ü 漢", "/", "..", " ", "%41", SCRIPT, "'\"", "{{ 7 * 11117 }}", "\u202e\x1b[1m",
    "x" * 2000,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_any_name_and_any_text_is_shown_as_it_is(pq: PQ, sql: Sql, visitor: Visitor, name: str) -> None:
    """In the name of a queue, a key, a task, arguments, errors, results and schedules."""
    sql(
        "insert into queue (q_name, data, key, error, dequeued_at, attempts, worker, result)"
        " values (%s, %s, %s, %s, now(), 1, %s, %s)",
        (
            name, json.dumps(call(name, name, **{name: name})), name[:500],
            json.dumps({"type": name, "message": name, "traceback": name}), name, json.dumps(name),
        ),
    )  # fmt: skip
    sql("insert into queue (q_name, data) values (%s, %s)", (name, json.dumps(name)))
    pq.schedules["s" + name[:200]] = Schedule("plain", name, every="1h")
    ((dead,), (ready,)) = sql("select id from queue where q_name = %s order by id", (name,))
    field = quote(name, safe="")
    urls = [f"/job?id={dead}", f"/job?id={ready}", "/", "/dead", f"/dead?q={field}", "/schedules"]
    urls += [f"/search?text={field}", f"/queue?q={field}", f"/queue?q={field}&state=dead"]
    for url in urls:
        page = visitor.get(url)
        assert page.status == 200, url
        check(page)
        if url.startswith(("/queue", "/job")) or url == "/":
            shown = " ".join(name.split())[:100]
            assert not shown or shown in page.text or not name.isprintable(), url
        assert "77819" not in page.text
    page = visitor.submit(visitor.get(f"/queue?q={field}"), "Pause")
    assert page.status == 200 and "is paused" in page.text
    assert "Resume" in [button["text"] for form in page.forms for button in form["buttons"]]
    assert sql("select count(*) from queue where q_name = %s and due_at > '100000-01-01'", (name,)) == [(1,)]


class Bomb:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


def test_a_pickle_is_never_loaded(pq: PQ, visitor: Visitor, tmp_path: Path, sql: Sql) -> None:
    mark = tmp_path / "loaded"
    text = json.dumps(pickle.dumps(Bomb(mark), 0).decode("latin-1"))
    for name in ("jobs", "jobs/pickle"):
        sql("insert into queue (q_name, data) values (%s, %s)", (name, text))
        sql(
            "insert into queue (q_name, data, result, dequeued_at, due_at, attempts)"
            " values (%s, %s, %s, now(), now() + interval '1 h', 1)",
            (name, text, text),
        )
        sql("insert into queue (q_name, data, result, dequeued_at) values (%s, %s, %s, now())", (name, text, text))
        for state in ("ready", "running", "finished"):
            page = visitor.get(f"/queue?q={quote(name, safe='')}&state={state}")
            (link,) = [link for link in page.links() if link.startswith("/job?")]
            page = visitor.get(link)
            assert str(mark) in page.text, (name, state)
        assert "Put again" in visitor.submit(page, "Put again").text
    for url in ("/", "/running", "/finished", "/search?text=open", "/workers"):
        assert visitor.get(url).status == 200
    assert not mark.exists()
    assert sql("select count(*) from queue where data::text = %s", (text,)) == [(8,)]


def test_without_a_table_the_page_says_what_to_do(empty_dsn: str) -> None:
    from pq.web import App

    with PQ(empty_dsn) as pq:
        page = Visitor(App(pq, can=lambda *_: True)).get("/")
    assert page.status == 500 and "create()" in page.text
    check(page)


def test_without_a_database_the_page_says_so() -> None:
    from pq.web import App

    with PQ("postgresql://me:secret@127.0.0.1:1/nothing") as pq:
        page = Visitor(App(pq, can=lambda *_: True)).get("/")
    assert page.status == 503 and "No answer from the database" in page.text
    assert "secret" not in page.source


def test_times_are_words() -> None:
    from pq.web import words

    now = datetime(2030, 1, 1, tzinfo=timezone.utc)
    cases = [
        (0.35, "350 ms"), (4.21, "4.2 s"), (42, "42 s"), (200, "3 min"), (19260, "5 h 21 min"), (90000, "25 h"),
        (9e5, "10 d"),
    ]  # fmt: skip
    assert [words.span(seconds) for seconds, _ in cases] == [text for _, text in cases]
    assert ">5 h 21 min ago<" in words.when(now - timedelta(seconds=19260), now)
    assert ">in 3 min<" in words.when(now.replace(tzinfo=None) + timedelta(seconds=200), now)
    assert words.size(4_800_000) == "4.6 MB"


#: What PostgreSQL can't hold, and what is odd otherwise; as it stands in an address.
ODD = ["%00", "a%00b", "%ed%a0%80", "%ff", "x" * 5000, "%2500", "9" * 30, "-1", "%27%22%25s", "%0d%0a", "a&q=b", "[]"]

FIELDS = {
    "/": ("name", "sort", "from", "say", "sign"), "/queue": ("q", "state", "after"), "/dead": ("q", "group"),
    "/finished": ("before",), "/search": ("text", "q", "state", "before"), "/job": ("id",), "/running": ("x",),
}  # fmt: skip

SENT = {
    "queue": "a", "id": "1", "group": "1", "rate": "1/s", "target": "b", "schedule": "s", "back": "/", "token": ""
}  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_no_text_of_a_visitor_is_an_error_of_ours(shop: PQ, visitor: Any, odd: str) -> None:
    """In no field of a page and of a form, whatever PostgreSQL can hold."""
    from pq.web import actions

    for page, fields in FIELDS.items():
        usual = {"q": "mails", "state": "dead", "text": "a"}
        for field in fields:
            rest = "".join(f"&{name}={usual[name]}" for name in fields if name in usual and name != field)
            found = visitor.get(f"{page}?{field}={odd}{rest}")
            assert found.status < 500, (page, field, found.text)
    assert visitor.get(f"/{odd}").status in (400, 404)
    token = next(
        str(found["value"]) for _, found in visitor.get("/queue?q=mails").tags if found.get("name") == "token"
    )
    for action in actions.ACTIONS:
        for field in SENT:
            sent = {**SENT, "token": token, field: unquote(odd)}
            assert visitor.post(f"/do/{action}", sent).status < 500, (action, field)


def download_of(visitor: Any) -> str:
    """The link of the one group."""
    (link,) = (link for link in visitor.get("/dead").links() if "/dead/download" in link)
    return str(link)


def lines_of(visitor: Any) -> list[dict[str, Any]]:
    answer = visitor.get(download_of(visitor))
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("application/x-ndjson")
    assert re.fullmatch(r'attachment; filename="dead-[0-9a-f]{8}\.jsonl"', answer.headers["Content-Disposition"])
    return [json.loads(line) for line in answer.source.splitlines()]


def test_a_group_can_be_downloaded(pq: PQ, visitor: Any, sql: Callable[..., Any]) -> None:
    ids = pq["a"].put_many([{"n": 1}, {"n": 2}, "x" * 70_000])
    sql("update queue set data = '{\"n\":\n12345678901234567.890}' where id = %s", (ids[1],))
    for job in pq["a"].get_many(3, lease="1h"):
        job.fail(ValueError(f"row {job.id}"))
    found = {line["id"]: line for line in lines_of(visitor)}
    assert sorted(found) == ids
    assert found[ids[0]]["data"] == {"n": 1} and found[ids[0]]["queue"] == "a"
    assert found[ids[0]]["error"]["message"] == f"row {ids[0]}"
    assert found[ids[2]]["beginning_of_data"] == '"' + "x" * 65_535 and "data" not in found[ids[2]]
    link = download_of(visitor)
    assert '"data": {"n": 12345678901234567.890}' in visitor.get(link).source
    pq["a"].dead.retry(ids[0])
    assert visitor.get(link).source.count("\n") == 2
    pq["a"].dead.discard(all=True)
    assert visitor.get(link).status == 404


def test_a_download_is_bounded(pq: PQ, visitor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pq.web import download

    monkeypatch.setattr(download, "LARGEST", 1)
    ids = pq["a"].put_many(range(120))
    for job in pq["a"].get_many(120, lease="1h"):
        job.fail("no")
    *jobs, last = lines_of(visitor)
    assert [job["id"] for job in jobs] == ids[:-51:-1] and last == {"left_out": 70}


def test_who_may_not_look_downloads_nothing(pq: PQ) -> None:
    from pq.web import App

    pq["a"].put(1)
    take(pq["a"]).fail("no")
    (group,) = pq.dead_groups()
    visitor = Visitor(App(pq, can=lambda user, action, queue: queue is None))
    assert visitor.get(f"/dead/download?q=a&group={group.key}").status == 403


def test_the_name_with_a_suffix_is_another_queue(pq: PQ, sql: Sql) -> None:
    """So whoever may see the one only, neither sees nor changes the groups of the other."""
    from pq.web import App

    for name in ("a", "a/pickle"):
        error = json.dumps({"type": "KeyError", "message": name})
        sql("insert into queue (q_name, data, error, dequeued_at) values (%s, '1', %s, now())", (name, error))
    visitor = Visitor(App(pq, can=lambda user, action, queue: queue != "a"))
    other, ours = sorted(pq.dead_groups(), key=lambda group: group.queue)
    page = visitor.get("/dead?q=a/pickle")
    assert page.text.count("KeyError") == 1 and "a/pickle" in page.text
    assert visitor.get(f"/dead/download?q=a/pickle&group={other.key}").status == 404
    assert '"queue": "a/pickle"' in visitor.get(f"/dead/download?q=a/pickle&group={ours.key}").source
    token = page.forms[-1]["fields"][0]["value"]
    for action in ("retry-group", "discard-group"):
        sent = {"token": token, "queue": "a/pickle", "group": other.key, "back": "/"}
        assert visitor.post(f"/do/{action}", sent).status == 404
    visitor.submit(page, "Retry 1 jobs")
    assert sql("select q_name, error is null from queue order by id") == [("a", False), ("a/pickle", True)]


def test_a_queue_is_opened_where_it_has_jobs(pq: PQ, visitor: Any) -> None:
    """Who looks for a job that does not run is not to see "No ready jobs" first."""
    pq["a"].put_many([1, 2], schedule_at="1h")
    assert "No ready jobs" not in visitor.get("/queue?q=a").text and "Run chosen now" in visitor.get("/queue?q=a").text
    id = pq["a"].put(3)
    page = visitor.get("/queue?q=a&say=")
    assert f">{id}</a>" in page.source or "Run chosen now" in page.text  # the overview may be a second old
    assert "No ready jobs" in visitor.get("/queue?q=b").text
    assert "No held jobs" in visitor.get("/queue?q=a&state=held").text


def test_the_doctor_of_the_page_health_is_asked_anew(
    pq: PQ, visitor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the page of all queues shows for a while what it has said before."""
    from pq.web import pages

    monkeypatch.setattr(pages, "HEALTH", 0.0)
    assert "dead_jobs" not in visitor.get("/health").text
    pq["a"].put(1)
    take(pq["a"]).fail("no")
    assert "dead_jobs" in visitor.get("/health").text


def test_the_tasks_of_a_queue(pq: PQ, visitor: Any) -> None:
    for name, count in (("shop.send", 3), ("shop.über", 2)):
        pq["a"].put_many([call(name, order=number) for number in range(count)])
    pq["a"].put(1)
    assert "shop.send 3 · shop.über 2 · no task 1, of the first 6" in visitor.get("/queue?q=a").text
    assert "of the first" not in visitor.get("/queue?q=a&state=dead").text
