"""The pages in a real browser: what a person does there, and the pictures of the documentation."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from shop import SCRIPT, call
from support import wait_until
from support.chromium import Chromium, find

import pq as package
from pq import PQ
from pq.web import App

Sql = Callable[..., list[tuple[Any, ...]]]

DOCS = Path(package.__file__).parents[1] / "docs" / "howto"

PHONE = (375, 812)

#: What the doctor finds at each server of tests, which may lose what it likes.
SERVER_OF_TESTS = {"not_durable", "synchronous_commit_off"}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    program = find()
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium, or set PQ_TEST_CHROMIUM")
    browser = Chromium(program)
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium: Chromium) -> Iterator[Chromium]:
    """It as it is when it is new; at the end nothing has been refused or has failed."""
    chromium.size(1280, 900)
    chromium.scripts(True)
    chromium.told.clear()
    yield chromium
    chromium.open("about:blank")
    assert complaints(chromium) == []


def complaints(browser: Chromium) -> list[str]:
    """What has gone wrong on pages, but for the page and the picture (of `SCRIPT`) that are not to be there."""
    browser.run("1")  # which reads what there is
    told = [str(each) for each in browser.told if each["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
    return [each for each in told if "/nothing'" not in each and "/x'" not in each]


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor finds the server in order."""
    doctor = PQ.doctor
    monkeypatch.setattr(PQ, "doctor", lambda self: [each for each in doctor(self) if each.name not in SERVER_OF_TESTS])


@pytest.fixture
def site(pq: PQ) -> Iterator[str]:
    """The address of the pages."""
    waitress = pytest.importorskip("waitress")
    server = waitress.create_server(App(pq, can=lambda *_: True, hosts=[]), host="127.0.0.1", port=0, threads=4)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield f"http://127.0.0.1:{server.effective_port}"
    # in its thread, whose loop ends when nothing is left open
    with suppress(OSError):  # another thread has woken the loop, which has closed its end before this one wrote to it
        server.trigger.pull_trigger(lambda: [each.close() for each in list(server._map.values())])
    thread.join(10)
    server.task_dispatcher.shutdown()


def fits(browser: Chromium) -> bool:
    """Whether nothing is wider than the window."""
    return bool(browser.run("document.documentElement.scrollWidth <= innerWidth"))


def test_a_queue_is_paused_and_resumed(pq: PQ, site: str, browser: Chromium) -> None:
    pq["apples"].put(1)
    browser.open(site)
    browser.click("td button", "Pause", leaves=True)
    assert "Queue 'apples' is paused" in browser.text and pq["apples"].paused
    wait_until(lambda: "say=" not in browser.run("location.href"), "the address without what was said")
    browser.click("td button", "Resume", leaves=True)
    assert "goes on" in browser.text and not pq["apples"].paused


def test_a_group_is_retried(shop: PQ, site: str, browser: Chromium) -> None:
    browser.open(f"{site}/dead")
    browser.click("summary", "Retry")
    browser.click("button", "Retry 34 jobs", leaves=True)
    assert "34 jobs of queue 'payments' are tried again" in browser.text
    assert shop["payments"].count("dead") == 0


def test_a_job_is_cancelled(pq: PQ, site: str, browser: Chromium) -> None:
    id = pq["apples"].put({"kind": "Cox"}, schedule_at="1h")
    browser.open(site)
    browser.click("a", "1", leaves=True)  # under "Scheduled"
    browser.click("a", str(id), leaves=True)
    browser.click("summary", "Cancel")
    browser.click("button", f"Cancel job {id}", leaves=True)
    assert f"Job {id} cancelled." in browser.text
    found = pq["apples"].find(id)
    assert found is not None and found.cancelled


def test_jobs_are_chosen_and_moved(pq: PQ, site: str, browser: Chromium) -> None:
    pq["apples"].put_many(range(5))
    browser.open(f"{site}/queue?q=apples")
    browser.click("[data-all]")
    browser.click("summary", "Move")
    browser.click("input[name=target]")
    browser.write("pears")
    browser.click("button", "Move chosen", leaves=True)
    assert "5 of 5 jobs moved to queue 'pears'." in browser.text
    assert pq["pears"].count() == 5


def test_scripts_in_data_are_text(pq: PQ, sql: Sql, site: str, browser: Chromium) -> None:
    failure = {"type": SCRIPT, "message": SCRIPT, "traceback": SCRIPT}
    sql(
        "insert into queue (q_name, data, key, error, dequeued_at, attempts, worker, result)"
        " values (%s, %s, %s, %s, now(), 1, %s, %s)",
        (SCRIPT, json.dumps(call(SCRIPT, SCRIPT)), SCRIPT, json.dumps(failure), SCRIPT, json.dumps(SCRIPT)),
    )
    ((id,),) = sql("select id from queue")
    for page in (f"/job?id={id}", "/", "/dead", "/search?text=owned"):
        browser.open(site + page)
        assert "<script>" in browser.text
        assert browser.run("document.title").endswith("pq")
        assert browser.run("document.querySelectorAll('main script, main img').length") == 0
    assert complaints(browser) == []
    # and if one had come in through a hole, the browser would not run it
    browser.run(f"document.querySelector('main').innerHTML = {json.dumps(SCRIPT)}")
    wait_until(lambda: any("Content Security Policy" in each for each in complaints(browser)), "the refusal")
    assert browser.run("document.title").endswith("pq")
    browser.told.clear()


def test_a_thousand_queues(pq: PQ, sql: Sql, site: str, browser: Chromium) -> None:
    names = "select 'queue ' || lpad(n::text, 4, '0'), '1' from generate_series(1, 1000) as n"
    sql(f"insert into queue (q_name, data) {names}")
    sql("analyze queue")
    browser.open(site)
    assert "1 to 100 of 1,000 queues" in browser.text
    assert browser.run("document.querySelectorAll('tbody tr').length") == 100
    browser.click("a", "Next page", leaves=True)
    assert "queue 0200" in browser.text
    browser.click("input[name=name]")
    browser.write("0042")
    browser.press("Enter", leaves=True)
    assert browser.run("document.querySelectorAll('tbody tr').length") == 1
    assert browser.run("performance.getEntriesByType('navigation')[0].duration") < 5000


@pytest.mark.parametrize("dark", [False, True])
def test_everything_fits_on_a_phone(shop: PQ, sql: Sql, site: str, browser: Chromium, dark: bool) -> None:
    long = "a_very_long_name_of_a_queue_without_any_blanks" * 4
    shop[long].put({"function": f"module.{long}", "args": [long], "kwargs": {}}, key=long)
    ((dead,),) = sql("select max(id) from queue where error is not null and dequeued_at is not null")
    (job,) = shop[long].list()
    browser.size(*PHONE, dark)
    for page in (
        "/", "/queue?q=mails", "/queue?q=payments&state=dead", f"/queue?q={long}", "/running", "/retrying", "/dead",
        "/finished", "/workers", "/schedules", "/limits", "/streams", "/health", "/search?text=shop",
        f"/job?id={dead}", f"/job?id={job.id}", "/nothing",
    ):  # fmt: skip
        browser.open(site + page)
        assert fits(browser), (page, browser.run("document.documentElement.scrollWidth"))
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(", "))) < 200) is dark


def test_the_keyboard_is_enough(pq: PQ, site: str, browser: Chromium) -> None:
    pq["apples"].put(1)
    browser.open(site)
    browser.press("Tab")
    assert browser.run("document.activeElement.textContent") == "Skip to the content"
    seen = []
    for _ in range(40):
        browser.press("Tab")
        seen.append(browser.run("document.activeElement.textContent.trim()"))
        if seen[-1] == "Pause":
            break
        assert browser.run("getComputedStyle(document.activeElement).outlineStyle") != "none"
    browser.press("Enter", leaves=True)
    assert pq["apples"].paused and "Running" in seen


def test_without_scripts_all_works(shop: PQ, site: str, browser: Chromium) -> None:
    browser.scripts(False)
    browser.open(f"{site}/dead")
    browser.click("summary", "Delete")
    browser.click("button", "Delete 34 jobs", leaves=True)
    assert shop["payments"].count("dead") == 0
    assert "Choose all" not in browser.text
    assert browser.run("getComputedStyle(document.querySelector('.said')).display") != "none"


def test_the_page_renews_itself_while_nobody_uses_it(pq: PQ, site: str, browser: Chromium) -> None:
    browser.open(site)
    assert "No queue has jobs" in browser.text
    pq["apples"].put(1)
    wait_until(lambda: "apples" in browser.text, "the new queue on the page")
    id = pq["apples"].put(2)
    browser.open(f"{site}/queue?q=apples")
    browser.click(f"input[value='{id}']")
    pq["apples"].put(3)
    browser.run("refresh()")
    assert browser.run("document.querySelectorAll('tbody tr').length") == 2  # a box is ticked
    browser.click(f"input[value='{id}']")
    browser.run("document.activeElement.blur()")
    browser.run("refresh()")
    wait_until(lambda: browser.run("document.querySelectorAll('tbody tr').length") == 3, "the new job on the page")


def test_the_pictures_of_the_documentation(
    shop: PQ, sql: Sql, healthy: None, site: str, browser: Chromium, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """With ``--pictures`` they replace those that are there."""
    folder = DOCS if request.config.getoption("--pictures") else tmp_path
    ((dead,),) = sql("select max(id) from queue where q_name = 'payments' and error is not null and attempts = 4")
    pictures = {
        "web-overview.png": ("/", 1200, 920, False),
        "web-queue.png": ("/queue?q=mails", 1200, 640, False),
        "web-job.png": (f"/job?id={dead}", 1200, 860, False),
        "web-dead.png": ("/dead", 1200, 400, True),
        "web-phone.png": ("/queue?q=payments&state=dead", *PHONE, True),
    }
    for name, (page, width, height, dark) in pictures.items():
        browser.size(width, height, dark)
        browser.open(site + page)
        browser.picture(folder / name)
        assert 5_000 < (folder / name).stat().st_size < 200_000, name
