"""``pq web``, and the pages inside of Flask, Django and FastAPI, as the documentation has it."""

from __future__ import annotations

import base64
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pq as package
from pq import PQ
from pq._cli.main import main
from pq.web.serve import Password, is_loopback, read_passwords, serve

ROOT = Path(package.__file__).parents[1]


class Web:
    """A process of ``pq web``."""

    def __init__(self, dsn: str, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pq", "web", "--port", "0", *options],
            env={**os.environ, "PQ_DSN": dsn, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.match(r"Serving on http://(\S+):(\d+)/", line)
        assert match, self.process.communicate()
        self.port = int(match[2])

    def get(self, path: str = "/", **headers: str) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            sent = {name.lower(): text for name, text in answer.getheaders()}
            return answer.status, sent, answer.read().decode()
        finally:
            connection.close()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.process.communicate(timeout=30)
        return self.process.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_stopped(pq: PQ, dsn: str, number: int) -> None:
    pq["apples"].put(1)
    web = Web(dsn)
    try:
        status, headers, text = web.get()
        assert status == 200 and "apples" in text
        assert "server" not in headers
        assert web.get(Host="evil.example")[0] == 421
        assert web.get(Host="127.0.0.1")[0] == 200
    finally:
        assert web.stop(number) in (0, 130)


def test_the_command_asks_for_a_password(dsn: str, tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text("# who may come\nann:pass:word\nzoë:ü\n", "utf-8")
    file.chmod(0o600)
    web = Web(dsn, "--host", "0.0.0.0", "--password-file", str(file))
    try:
        status, headers, text = web.get(Host="queues.example")
        assert status == 401 and headers["www-authenticate"].startswith("Basic ") and "footer" not in text
        for pair, expected in (
            ("ann:pass:word", 200), ("zoë:ü", 200), ("ann:wrong", 401), ("bob:", 401), ("ann", 401), (":", 401),
        ):  # fmt: skip
            code = base64.b64encode(pair.encode()).decode()
            status, _, text = web.get(Authorization=f"Basic {code}", Host="queues.example")
            assert status == expected, pair
            assert expected != 200 or f"· {pair.partition(':')[0]}</footer>" in text
        for header in ("Basic !", "Basic", "Bearer x", "Basic //8="):
            assert web.get(Authorization=header)[0] == 401
    finally:
        web.stop()


def test_what_is_too_large_is_not_even_kept(dsn: str, tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text("ann:secret\n")
    file.chmod(0o600)
    web = Web(dsn, "--password-file", str(file))
    try:
        with socket.create_connection(("127.0.0.1", web.port), timeout=30) as client:
            client.sendall(b"POST /do/pause HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 413 ")  # without a login, and though nothing was sent yet
    finally:
        assert web.stop() == 0


def test_the_command_lets_everyone_look(dsn: str) -> None:
    web = Web(dsn, "--host", "0.0.0.0", "--read-only", "--name", "queues.example")
    try:
        assert "read-only" in web.get(Host="queues.example")[2]
        assert web.get(Host="evil.example")[0] == 421
    finally:
        web.stop()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--host", "0.0.0.0"], "can be reached from other machines"),
        (["--host", "::"], "can be reached from other machines"),
        (["--host", "pq.example"], "can be reached from other machines"),
        (["--port", "65536"], "--port must be from 0 to 65535: 65536"),
        (["--port", "-1"], "--port must be from 0 to 65535: -1"),
    ],
)
def test_wrong_options_are_refused(dsn: str, options: list[str], why: str, capsys: Any) -> None:
    assert main(["web", "--dsn", dsn, *options]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        ("ann:x", 0o644, "can be read by others"), ("ann", 0o600, "each line must be"), ("", 0o600, "no line"),
        (":x", 0o600, "each line must be"), ("ann:", 0o600, "each line must be"),
    ],
)  # fmt: skip
def test_password_files_are_checked(tmp_path: Path, text: str, mode: int, why: str) -> None:
    file = tmp_path / "passwords"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(ValueError, match=why):
        read_passwords(str(file))


def test_a_port_that_is_taken_is_an_error(pq: PQ, dsn: str) -> None:
    web = Web(dsn)
    try:
        with pytest.raises(OSError, match="in use"):
            serve(pq, port=web.port)
    finally:
        web.stop()


def test_loopback_is_told_from_other_addresses() -> None:
    own = ["127.0.0.1", "127.1.2.3", "::1", "localhost"]
    others = ["0.0.0.0", "::", "10.0.0.1", "pq.example", "localhost.example", ""]
    assert [host for host in [*own, *others] if is_loopback(host)] == own


def test_the_name_that_a_request_claims_counts_for_nothing() -> None:
    seen: list[Any] = []
    asked = Password(lambda environ, start: seen.append(environ["REMOTE_USER"]) or [b""], {"ann": "x"})
    code = base64.b64encode(b"ann:x").decode()
    asked({"REMOTE_USER": "bob"}, lambda *_: None)
    asked({"REMOTE_USER": "bob", "HTTP_AUTHORIZATION": f"Basic {code}"}, lambda *_: None)
    assert seen == ["ann"]


# -- as the documentation has it


@pytest.fixture
def page(dsn: str) -> Iterator[dict[str, Any]]:
    """What the Python of the documentation's page defines."""
    source = (ROOT / "docs" / "howto" / "web.rst").read_text("utf-8")
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?: {3}.*\n|\n)+)", source, re.MULTILINE)
    assert len(blocks) == 3
    defined: dict[str, Any] = {"__name__": "page"}
    code = "\n".join(map(textwrap.dedent, blocks)).replace("postgresql://localhost/example", dsn)
    exec(compile(code, "web.rst", "exec"), defined)
    defined["pq"]["apples"].put({"kind": "Cox"})
    yield defined
    defined["pq"].close()


def form(text: str, action: str) -> dict[str, str]:
    """The fields of the first form for an action."""
    match = re.search(rf'action="/jobs/do/{action}">(.*?)</form>', text, re.DOTALL)
    assert match, text
    fields = re.findall(r'name="(\w+)" value="([^"]*)"', match[1])
    return {name: value.replace("&amp;", "&") for name, value in fields}


def test_in_flask(page: dict[str, Any]) -> None:
    pytest.importorskip("flask")
    client = page["app"].test_client()
    assert client.get("/jobs/").status_code == 401
    with client.session_transaction() as session:
        session["user"] = "bob"
    answer = client.get("/jobs/")
    assert answer.status_code == 200 and 'href="/jobs/queue?q=apples"' in answer.text
    assert "Pause" not in answer.text
    assert client.get("/jobs/queue?q=apples").status_code == 200
    assert client.get("/jobs/static/pq.css").status_code == 200
    with client.session_transaction() as session:
        session["user"] = "ann"
    sent = form(client.get("/jobs/").text, "pause")
    answer = client.post("/jobs/do/pause", data=sent)
    assert answer.status_code == 303 and answer.location.startswith("/jobs/?say=")
    assert page["pq"]["apples"].paused
    assert "Queue &#39;apples&#39; is paused" in client.get(answer.location).text


def test_in_django(page: dict[str, Any], dsn: str) -> None:
    """In a process of its own: settings are for ever."""
    pytest.importorskip("django")
    program = f"""
        import re, sys
        from django.conf import settings
        settings.configure(
            ROOT_URLCONF="urls", ALLOWED_HOSTS=["*"], SECRET_KEY="secret", DATABASES={{}},
            INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
            MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
                "urls.Login"],
        )
        import django, types
        django.setup()
        source = open({str(ROOT / "docs" / "howto" / "web.rst")!r}, encoding="utf-8").read()
        import textwrap
        blocks = re.findall(r"^\\.\\. code-block:: python\\n\\n((?: {{3}}.*\\n|\\n)+)", source, re.MULTILINE)
        (block,) = [textwrap.dedent(block) for block in blocks if "django" in block]
        urls = sys.modules["urls"] = types.ModuleType("urls")
        from pq import PQ
        from pq.web import App
        urls.pq, urls.App = PQ({dsn!r}), App
        exec(block, urls.__dict__)

        class User:
            is_staff = False
            def get_username(self): return "ann"
        user = User()

        class Login:
            def __init__(self, get_response): self.get_response = get_response
            def __call__(self, request):
                request.user = user
                return self.get_response(request)
        urls.Login = Login

        from django.test import Client
        client = Client(enforce_csrf_checks=True)
        assert client.get("/jobs/").status_code == 302
        user.is_staff = True
        for path in ("/jobs", "/jobs/", "/jobs/queue?q=apples", "/jobs/static/pq.css?1"):
            answer = client.get(path)
            assert answer.status_code == 200, path
        text = client.get("/jobs/").content.decode()
        assert 'href="/jobs/queue?q=apples"' in text and "ann</footer>" in text
        found = re.search(r'action="/jobs/do/pause">(.*?)</form>', text, re.DOTALL)[1]
        sent = dict(re.findall(r'name="(\\w+)" value="([^"]*)"', found))
        from urllib.parse import urlencode
        kind = "application/x-www-form-urlencoded"
        answer = client.post("/jobs/do/pause", urlencode(sent), content_type=kind)
        assert answer.status_code == 303 and answer["Location"].startswith("/jobs/?say="), answer
        assert urls.pq["apples"].paused
        urls.pq.close()
        print("all is well")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "all is well", done.stderr


def test_in_fastapi(page: dict[str, Any]) -> None:
    pytest.importorskip("a2wsgi")
    testclient = pytest.importorskip("starlette.testclient")
    with testclient.TestClient(page["api"], follow_redirects=False) as client:
        assert client.get("/jobs/").status_code == 403
        client.cookies["session"] = "a-random-token"
        answer = client.get("/jobs/")
        assert answer.status_code == 200 and 'href="/jobs/queue?q=apples"' in answer.text
        assert client.get("/jobs/queue?q=apples").status_code == 200
        assert client.get("/jobs/static/pq.css").status_code == 200
        answer = client.post("/jobs/do/pause", data=form(answer.text, "pause"))
        assert answer.status_code == 303 and answer.headers["location"].startswith("/jobs/?say=")
    assert page["pq"]["apples"].paused
    (mounted,) = [route for route in page["api"].routes if getattr(route, "path", "") == "/jobs"]
    mounted.app.executor.shutdown()  # its threads would stay
