"""What the forms do, and who may send them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from support import take
from visitor import Page, Visitor

from pq import PQ, Schedule
from pq.web import App

Sql = Callable[..., list[tuple[Any, ...]]]

ACTIONS = [
    "pause", "resume", "retry", "discard", "retry-group", "discard-group", "cancel", "run", "move", "put", "fire",
    "pause-schedule", "resume-schedule",
]  # fmt: skip


def said(page: Page) -> str:
    """What the page says of the last action."""
    assert page.status == 200, page.text
    match = re.search(r'<p class="said" role="status">(.*?)</p>', page.source)
    assert match, page.text
    return match[1].replace("&#39;", "'")


def dead_jobs(pq: PQ, count: int, queue: str = "a") -> list[int]:
    ids = pq[queue].put_many(range(count))
    for number, job in enumerate(pq[queue].get_many(count, lease="1h")):
        job.fail(f"order {number} is wrong")
    return list(ids)


def retried_job(pq: PQ) -> int:
    """The id of a job that has failed, and will be tried again in an hour."""
    id = pq["a"].put(1)
    take(pq["a"]).retry("1h", "no")
    return id


def test_pause_and_resume(pq: PQ, visitor: Visitor) -> None:
    pq["a"].put(1)
    page = visitor.submit(visitor.get("/"), "Pause")
    assert said(page) == "Queue 'a' is paused: none of its jobs is started." and pq["a"].paused
    assert page.url.startswith("/?")
    page = visitor.submit(visitor.get("/queue?q=a&state=dead"), "Resume")
    assert said(page) == "Queue 'a' goes on." and not pq["a"].paused
    assert page.url.startswith("/queue?q=a&state=dead&")


def test_a_name_is_what_it_was_though_browsers_change_the_ends_of_lines(pq: PQ, visitor: Visitor) -> None:
    pq["a\nb %2F é"].put(1)
    visitor.submit(visitor.get("/"), "Pause")
    assert pq["a\nb %2F é"].paused and list(pq) == ["a\nb %2F é"]


def test_chosen_dead_jobs_are_retried_or_deleted(pq: PQ, visitor: Visitor) -> None:
    ids = dead_jobs(pq, 5)
    page = visitor.get("/queue?q=a&state=dead")
    assert said(visitor.submit(page, "Retry chosen")) == "No job was chosen."
    assert said(visitor.submit(page, "Retry chosen", id=ids[:2])) == "2 of 2 jobs tried again."
    told = said(visitor.submit(page, "Retry chosen", id=ids[:3]))
    assert told == "1 of 3 jobs tried again; the others are not dead any more."
    assert said(visitor.submit(page, "Delete chosen", id=ids[3:])) == "2 of 2 jobs deleted."
    assert (pq["a"].count("ready"), pq["a"].count("dead")) == (3, 0)


def test_a_dead_job_is_retried_or_deleted_from_its_page(pq: PQ, visitor: Visitor) -> None:
    first, second = dead_jobs(pq, 2)
    page = visitor.get(f"/job?id={first}")
    assert said(visitor.submit(page, "Retry")) == f"Job {first} tried again."
    assert said(visitor.submit(page, "Retry")) == f"Job {first} is not tried again: not dead any more."
    page = visitor.submit(visitor.get(f"/job?id={second}"), "Delete job")
    assert page.status == 404  # it is gone, and so is its page
    assert pq["a"].find(second) is None


def test_groups_are_retried_or_deleted(pq: PQ, visitor: Visitor) -> None:
    dead_jobs(pq, 30)
    dead_jobs(pq, 4, "b")
    page = visitor.get("/dead")
    assert said(visitor.submit(page, "Retry 30 jobs")) == "30 jobs of queue 'a' are tried again."
    assert said(visitor.submit(page, "Delete 4 jobs")) == "4 jobs of queue 'b' were deleted."
    assert visitor.submit(page, "Retry 30 jobs").status == 404
    assert pq["a"].count("ready") == 30
    assert pq["b"].count() == 0


def test_a_group_is_retried_at_a_rate(pq: PQ, visitor: Visitor) -> None:
    dead_jobs(pq, 10)
    page = visitor.get("/dead")
    assert visitor.submit(page, "Retry 10", rate="many").status == 400
    assert pq["a"].count("dead") == 10
    assert said(visitor.submit(page, "Retry 10", rate="5/m")) == "10 jobs of queue 'a' are tried again, 5/m."
    assert pq["a"].count("dead") == 0
    assert pq["a"].count("scheduled") >= 5


def test_jobs_are_cancelled_run_and_moved(pq: PQ, visitor: Visitor) -> None:
    ids = pq["a"].put_many(range(6), schedule_at="1h")
    page = visitor.get("/queue?q=a&state=scheduled")
    assert said(visitor.submit(page, "Run chosen now", id=ids[:2])) == "2 of 2 jobs ready."
    assert said(visitor.submit(page, "Move chosen", id=ids[2:4], target="b")) == "2 of 2 jobs moved to queue 'b'."
    assert said(visitor.submit(page, "Cancel chosen", id=ids[4:])) == "2 of 2 jobs cancelled."
    assert visitor.submit(page, "Move chosen", id=ids[:1], target="").status == 404
    assert visitor.submit(page, "Move chosen", id=ids[:1], target="x" * 3000).status == 404
    assert visitor.submit(page, "Cancel chosen", id="x").status == 400
    assert pq["a"].counts() == {"ready": 2, "scheduled": 0, "held": 0, "running": 0, "dead": 0, "finished": 2}
    assert pq["b"].count("scheduled") == 2


def test_a_retry_comes_at_once(pq: PQ, visitor: Visitor) -> None:
    id = retried_job(pq)
    assert said(visitor.submit(visitor.get("/retrying"), "Run now")) == f"Job {id} ready."
    assert pq["a"].count("ready") == 1


def test_a_running_job_is_cancelled(pq: PQ, visitor: Visitor) -> None:
    pq["a"].put(1)
    job = take(pq["a"])
    assert said(visitor.submit(visitor.get("/running"), "Cancel job")) == f"Job {job.id} cancelled."
    found = pq["a"].find(job.id)
    assert found is not None and found.cancelled


def test_a_finished_job_is_put_again_as_it_was(pq: PQ, visitor: Visitor, sql: Sql) -> None:
    sql("insert into queue (q_name, data, key, dequeued_at) values ('a', '{\"n\": 1.50}', 'k', now())")
    ((id,),) = sql("select id from queue")
    page = visitor.submit(visitor.get(f"/job?id={id}"), "Put again")
    assert said(page) == f"Put again, as job {id + 1}."
    assert sql("select q_name, data::text, key from queue where id > %s", (id,)) == [("a", '{"n": 1.50}', "k")]


def test_schedules_are_fired_and_paused(pq: PQ, visitor: Visitor) -> None:
    pq.schedules["nightly"] = Schedule("a", 1, every="1h")
    page = visitor.get("/schedules")
    assert said(visitor.submit(page, "Put now")).startswith("Schedule 'nightly' has put job ")
    page = visitor.submit(page, "Pause")
    assert said(page) == "Schedule 'nightly' is paused." and pq.schedules["nightly"].paused
    assert said(visitor.submit(page, "Resume")) == "Schedule 'nightly' goes on."
    assert pq["a"].count() == 1
    del pq.schedules["nightly"]
    assert visitor.submit(page, "Put now").status == 404


def test_each_action_is_logged_without_data(pq: PQ, visitor: Visitor, caplog: pytest.LogCaptureFixture) -> None:
    ids = pq["a"].put_many(["secret"] * 30)
    with caplog.at_level(logging.INFO, "pq.web"):
        page = visitor.get("/queue?q=a")
        visitor.submit(page, "Cancel chosen", id=ids)
        Visitor(App(pq, can=lambda *_: True), REMOTE_USER="Ann\n").submit(
            Visitor(App(pq, can=lambda *_: True, secret="s"), REMOTE_USER="Ann\n").get("/queue?q=a"), "Pause"
        )
    assert [record.getMessage() for record in caplog.records] == [
        f"somebody: cancel in queue 'a': {', '.join(map(str, ids[:20]))} and 10 more"
    ]


def test_what_the_page_says_can_not_be_made_up(pq: PQ, visitor: Visitor) -> None:
    pq["a"].put(1)
    page = visitor.submit(visitor.get("/"), "Pause")
    assert 'class="said"' in page.source
    assert 'class="said"' not in visitor.get(page.url.replace("paused", "gone")).source
    assert 'class="said"' not in visitor.get("/?say=Call+0900&sign=").source


# -- who may send them


@pytest.mark.parametrize("token", [None, "", "1.2", "9999999999.00", "x" * 5000, "9999999999.\u00e9"])
def test_without_a_token_nothing_is_done(pq: PQ, visitor: Visitor, token: str | None) -> None:
    pq["a"].put(1)
    for action in ACTIONS:
        fields = {"queue": "a", "id": "1", "back": "/", **({} if token is None else {"token": token})}
        page = visitor.post(f"/do/{action}", fields)
        assert page.status == 403 and "too old" in page.text
    assert not pq["a"].paused and pq["a"].count("ready") == 1


def test_a_token_is_for_one_user_and_one_day(pq: PQ, monkeypatch: pytest.MonkeyPatch) -> None:
    from pq.web import security

    pq["a"].put(1)
    app = App(pq, can=lambda *_: True)
    ann, bob = Visitor(app, REMOTE_USER="ann"), Visitor(app, REMOTE_USER="bob")
    page = ann.get("/")
    assert bob.submit(page, "Pause").status == 403
    other = Visitor(App(pq, can=lambda *_: True), REMOTE_USER="ann")
    assert other.submit(page, "Pause").status == 403, "another process, without a secret that they share"
    now = security.time.time()
    monkeypatch.setattr(security.time, "time", lambda: now + security.TOKEN_LIFE + 1)
    assert ann.submit(page, "Pause").status == 403
    monkeypatch.undo()
    assert said(ann.submit(page, "Pause"))


def test_processes_with_one_secret_take_each_others_forms(pq: PQ) -> None:
    pq["a"].put(1)
    first, second = (Visitor(App(pq, can=lambda *_: True, secret="of the site")) for _ in range(2))
    assert said(second.submit(first.get("/"), "Pause"))


#: What a browser says of a form, and the status of the answer.
SENT = [
    ({"HTTP_SEC_FETCH_SITE": "same-origin"}, 200),
    ({"HTTP_SEC_FETCH_SITE": "same-origin", "HTTP_ORIGIN": "https://outside.example"}, 200),  # behind a proxy
    ({"HTTP_ORIGIN": "http://["}, 403),  # which can't be parsed
    ({"HTTP_SEC_FETCH_SITE": "same-site"}, 403),
    ({"HTTP_SEC_FETCH_SITE": "cross-site"}, 403),
    ({"HTTP_SEC_FETCH_SITE": "none"}, 403),
    ({"HTTP_ORIGIN": "http://localhost"}, 200),
    ({"HTTP_ORIGIN": "http://localhost:81"}, 403),
    ({"HTTP_ORIGIN": "https://evil.example"}, 403),
    ({"HTTP_ORIGIN": "null"}, 403),
    ({"CONTENT_TYPE": "text/plain"}, 415),
    ({"CONTENT_TYPE": "multipart/form-data; boundary=x"}, 415),
    ({"CONTENT_LENGTH": "x"}, 400),
    ({"CONTENT_LENGTH": "999999999"}, 413),
    ({"CONTENT_LENGTH": "-1"}, 413),
]


def test_a_form_must_come_from_these_pages(pq: PQ, app: Any) -> None:
    pq["a"].put(1)
    page = Visitor(app).get("/")
    fields = {each["name"]: each["value"] for each in page.forms[-1]["fields"]}
    for headers, status in SENT:
        done = Visitor(app).post("/do/pause", fields, **headers)
        assert done.status == status, (headers, done.text)
        assert pq["a"].paused is (status == 200), headers
        pq["a"].resume()


def test_a_form_leads_back_to_these_pages_only(pq: PQ, visitor: Visitor) -> None:
    pq["a"].put(1)
    fields = {each["name"]: each["value"] for each in visitor.get("/").forms[-1]["fields"]}
    for back in ("//evil.example/", "https://evil.example/", "/\\evil.example", "", "/\r\nX: 1", "/\u00e9"):
        assert visitor.post("/do/pause", {**fields, "back": back}).status == 400
    assert not pq["a"].paused


def test_too_many_fields_are_refused(visitor: Visitor) -> None:
    assert visitor.post("/do/cancel", [("id", "1")] * 2001).status == 400


def test_a_user_sees_and_does_what_can_allows(shop: PQ) -> None:
    asked = set()

    def can(user: str | None, action: str, queue: str | None) -> bool:
        asked.add((user, action, queue))
        return user is not None and queue in (None, "mails", "payments") and action in ("look", "retry")

    app = App(shop, can=can)
    assert Visitor(app).get("/").status == 403
    ann = Visitor(app, REMOTE_USER="ann")
    for url in (
        "/", "/health", "/running", "/retrying", "/dead", "/finished", "/schedules", "/limits", "/workers",
        "/search?text=order", "/?name=t",
    ):  # fmt: skip
        page = ann.get(url)
        assert page.status == 200
        for hidden in ("thumbnails", "imports", "webhooks", "shipping", "invoices"):
            assert hidden not in page.text.partition("counted up")[0], (url, hidden)
        assert not {button["text"] for form in page.forms for button in form["buttons"]} & {"Pause", "Resume"}
    assert ann.get("/queue?q=imports").status == 403
    assert ann.get("/dead?q=imports").status == 403
    ((hidden, *_),) = [(job.id,) for job in shop["imports"].list("ready")]
    assert ann.get(f"/job?id={hidden}").status == 404
    assert "Nothing was found" in ann.get(f"/search?text={hidden}&q=mails").text
    page = ann.get("/dead")
    assert said(ann.submit(page, "Retry 34"))
    token = page.forms[-1]["fields"][0]["value"]
    for action in set(ACTIONS) - {"retry", "retry-group", "fire", "pause-schedule", "resume-schedule"}:
        done = ann.post(f"/do/{action}", {"token": token, "queue": "mails", "id": 1, "back": "/", "target": "payments"})
        assert done.status == 403 and "You may not do that" in done.text, action
    for action in ("fire", "pause-schedule", "resume-schedule"):
        sent = {"token": token, "schedule": "refresh rates", "back": "/"}
        assert ann.post(f"/do/{action}", sent).status == 403
    done = ann.post("/do/retry", {"token": token, "queue": "imports", "id": 1, "back": "/"})
    assert done.status == 403
    assert ("ann", "cancel", "mails") in asked and (None, "look", None) in asked


def test_moving_needs_both_queues(pq: PQ) -> None:
    id = pq["a"].put(1)
    visitor = Visitor(App(pq, can=lambda user, action, queue: action == "look" or queue != "b"))
    page = visitor.get(f"/job?id={id}")
    assert visitor.submit(page, "Move job", target="b").status == 403
    assert said(visitor.submit(page, "Move job", target="c"))


def test_read_only_pages_have_no_buttons_and_do_nothing(shop: PQ) -> None:
    visitor = Visitor(App(shop, can=lambda *_: True, read_only=True))
    (job,) = shop["imports"].list("dead")
    urls = ["/", "/dead", "/queue?q=mails", "/queue?q=payments&state=dead", "/schedules", "/running"]
    for url in (*urls, f"/job?id={job.id}"):
        page = visitor.get(url)
        assert page.status == 200 and "read-only" in page.text
        assert [form for form in page.forms if form["tag"].get("method") == "post" and form["buttons"]] == []
    page = Visitor(App(shop, can=lambda *_: True, secret="s")).get("/")
    reader = Visitor(App(shop, can=lambda *_: True, read_only=True, secret="s"))
    done = reader.submit(page, "Pause")
    assert done.status == 403 and "read-only" in done.text


#: The host that a request names, those that are allowed, and the status of the answer.
HOSTS = [
    ("evil.example", None, 200), ("evil.example", [], 421), ("localhost", [], 200), ("localhost:8420", [], 200),
    ("127.0.0.1:80", [], 200), ("[::1]:80", [], 200), ("10.1.2.3", [], 200), ("PQ.example:80", ["pq.Example"], 200),
    ("pq.example.evil", ["pq.example"], 421), ("", ["pq.example"], 200), ("[::1", [], 421),
    ("127.0.0.1.evil.example", [], 421),
]  # fmt: skip


def test_other_names_are_refused(pq: PQ) -> None:
    """A page of any site could read ours by a name of its own that leads here."""
    for host, hosts, status in HOSTS:
        page = Visitor(App(pq, can=lambda *_: True, hosts=hosts)).get("/", HTTP_HOST=host)
        assert page.status == status, (host, hosts)


def test_arguments_are_checked(pq: PQ) -> None:
    made: Any = App
    with pytest.raises(TypeError, match="can"):
        made(pq)
    with pytest.raises(TypeError, match="pq must be a PQ, not str"):
        made("dsn", can=print)
    with pytest.raises(TypeError, match="can must be a function"):
        made(pq, can=True)
    with pytest.raises(TypeError, match="hosts must be a list"):
        made(pq, can=print, hosts="a")
    with pytest.raises(TypeError, match="secret must be a str or bytes, not int"):
        made(pq, can=print, secret=3)
    for empty in ("", b""):
        with pytest.raises(ValueError, match="secret must not be empty"):
            made(pq, can=print, secret=empty)


def test_the_user_is_whom_the_application_names(pq: PQ) -> None:
    app = App(pq, can=lambda user, *_: user == "zoë", user=lambda environ: environ.get("HTTP_X_USER"))
    assert Visitor(app).get("/", HTTP_X_USER="zoë").status == 200
    assert Visitor(app).get("/", REMOTE_USER="zoë").status == 403
    answer = app.answer({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, user="zoë")
    assert answer.status == 200 and b"zo\xc3\xab" in answer.body


def test_the_path_of_a_view_is_taken_off(pq: PQ) -> None:
    app = App(pq, can=lambda *_: True)
    for path, at, status, link in (
        ("/jobs", "/jobs", 200, "/jobs/queue"), ("/jobs/", "/jobs/", 200, "/jobs/queue"), ("", "", 200, "/queue"),
        ("/jobs/running", "/jobs", 200, "/jobs/running"), ("/jobsx", "/jobs", 404, ""), ("/", "/jobs", 200, "/running"),
    ):  # fmt: skip
        pq["a"].put(1)
        answer = app.answer({"REQUEST_METHOD": "GET", "PATH_INFO": path}, at=at)
        assert answer.status == status, path
        assert f'href="{link}' in answer.body.decode(), path


def test_a_function_of_the_application_that_fails_is_an_error_of_the_page(
    pq: PQ, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> Any:
        raise LookupError("secret")

    for app in (App(pq, can=fails), App(pq, can=lambda *_: True, user=fails)):
        page = Visitor(app).get("/")
        assert page.status == 500 and "secret" not in page.source
        assert "secret" in caplog.text


def test_head_and_other_methods(visitor: Visitor) -> None:
    page = visitor.request("HEAD", "/static/pq.css", b"")
    assert page.status == 200 and page.source == "" and int(page.headers["Content-Length"]) > 1000
    assert visitor.request("PUT", "/", b"").status == 405
    assert visitor.request("POST", "/", b"", CONTENT_TYPE="application/x-www-form-urlencoded").status == 405


def test_jobs_are_rescheduled(pq: PQ, visitor: Visitor) -> None:
    first, second = pq["a"].put_many([1, 2])
    page = visitor.get("/queue?q=a&state=ready")
    told = said(visitor.submit(page, "Reschedule chosen", id=[first, second], at="1h30m"))
    assert told == "2 of 2 jobs scheduled, in 1h30m." and pq["a"].count("scheduled") == 2
    assert said(visitor.submit(visitor.get(f"/job?id={first}"), "Reschedule job", at="2d")) == (
        f"Job {first} scheduled, in 2d."
    )
    assert said(visitor.submit(visitor.get(f"/job?id={first}"), "Reschedule job")) == f"Job {first} ready."
    refused = visitor.submit(visitor.get(f"/job?id={second}"), "Reschedule job", at="soon")
    assert refused.status == 400 and "soon" in refused.text
    assert pq["a"][second].state == "scheduled"


def test_a_job_that_is_to_be_tried_again_is_cancelled(pq: PQ, visitor: Visitor) -> None:
    id = retried_job(pq)
    assert said(visitor.submit(visitor.get("/retrying"), "Cancel job")) == f"Job {id} cancelled."
    assert pq["a"][id].cancelled
