"""The health of a worker, by HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .._logs import worker_log as logger
from .._loop import Loop
from ..errors import PQError
from .health import Health

#: Seconds for which a request is waited for, until somebody may want to stop; and that a client may take for its own.
TICK = 0.5
TIMEOUT = 5.0

TEXT = "text/plain; charset=utf-8"


class Endpoint:
    """Answers ``/live`` and ``/ready`` with 200 or 503, ``/status`` with JSON, and ``/metrics`` with the registry of
    prometheus_client, if that is installed.

    :param health: of the worker.
    :param host: the address to listen at; ``''``: all.
    :param port: the port; 0: a free one.
    :ivar port: the port.
    :raises PQError: the port can't be had.
    """

    def __init__(self, health: Health, host: str, port: int) -> None:
        self._health = health
        try:
            self._server = _Server((host, port), partial(_Request, self._answer))
        except (OSError, OverflowError) as error:
            raise PQError(f"the port {port} for --health can't be had: {error}") from error
        self.port: int = self._server.server_address[1]
        self.loop: Loop = Loop(self.run_once, "pq health endpoint")

    def run_once(self) -> float:
        """Begin to answer a request, if there is one within half a second."""
        self._server.handle_request()
        return 0.0

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        if path == "/live":
            problems = self._health.problems()
            return 503 if problems else 200, TEXT, "".join(f"{line}\n" for line in problems or ["live"]).encode()
        if path == "/ready":
            return (200, TEXT, b"ready\n") if self._health.ready else (503, TEXT, b"not ready\n")
        if path == "/status":
            return 200, "application/json", json.dumps(self._health.status()).encode()
        if path == "/metrics":
            return _metrics()
        return 404, TEXT, b"there are /live, /ready, /status and /metrics\n"

    def __enter__(self) -> Endpoint:
        self.loop.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.loop.stop(2 * TICK)
        self._server.server_close()


def _metrics() -> tuple[int, str, bytes]:
    try:
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
    except ImportError:
        return 404, TEXT, b"no metrics: pip install '.[prometheus]' in pq's checkout\n"
    return 200, CONTENT_TYPE_LATEST, generate_latest()


class _Server(ThreadingHTTPServer):
    timeout = TICK
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a request to the health endpoint has failed", exc_info=True)


class _Request(BaseHTTPRequestHandler):
    timeout = TIMEOUT
    server_version = "pq"
    sys_version = ""

    def __init__(self, answer: Callable[[str], tuple[int, str, bytes]], *args: Any) -> None:
        self._answer = answer
        super().__init__(*args)

    def do_GET(self) -> None:
        try:
            code, kind, body = self._answer(self.path.partition("?")[0])
        except Exception:
            logger.exception("the health endpoint can't answer")
            code, kind, body = 500, TEXT, b"it can't be told\n"
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Probes come every few seconds: they are not worth a line."""
