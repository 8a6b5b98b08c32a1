"""The server of ``pq web``: waitress, on loopback or behind a password."""

from __future__ import annotations

import base64
import hmac
import os
import socket
import stat
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Any

from waitress import create_server  # type: ignore[import-untyped]

from .._manager import PQ
from .app import App
from .request import LARGEST_FORM

#: Threads that make pages; each has a connection to the database.
THREADS = 4


def serve(
    pq: PQ,
    host: str = "127.0.0.1",
    port: int = 8420,
    *,
    read_only: bool = False,
    passwords: Mapping[str, str] | None = None,
    names: Iterable[str] = (),
    started: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve the pages until SIGINT or SIGTERM.

    :param host: the address to listen on.
    :param port: 0 takes a free one.
    :param read_only: allow nothing but to look.
    :param passwords: who may come, by name; None: everyone who reaches the address.
    :param names: names under which browsers reach it, beside ``localhost`` and numbers.
    :param started: called with the address of the pages once they are served.
    :raises ValueError: the address is no address of loopback, and neither a password nor `read_only` protects it.
    :raises OSError: the port can't be had.
    """
    if not (is_loopback(host) or read_only or passwords):
        raise ValueError(
            f"{host} can be reached from other machines: give --password-file, or --read-only to let everyone look"
        )
    # with a password a page of another site gets no further: its domain is not the one that has the login
    hosts = None if passwords else [host, *names]
    app: Any = App(pq, can=lambda user, action, queue: True, read_only=read_only, hosts=hosts)
    if passwords:
        app = Password(app, passwords)
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.create_server(address[:2], family=family) as listening:  # by waitress it would fail with threads left
        # waitress keeps what is sent, in files of up to a gigabyte, before it asks for the password
        most = LARGEST_FORM + 1
        server = create_server(app, sockets=[listening], threads=THREADS, ident=None, max_request_body_size=most)
        try:
            shown = f"[{host}]" if ":" in host else host
            started(f"http://{shown}:{listening.getsockname()[1]}/")
            server.run()
        finally:
            server.close()


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Password:
    """Asks for a name and a password, and passes the name on as ``REMOTE_USER``.

    :param app: an application for WSGI.
    :param passwords: by name.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]], passwords: Mapping[str, str]) -> None:
        self._app = app
        self._passwords = passwords

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request, as WSGI has it."""
        user = self._user(environ.get("HTTP_AUTHORIZATION", ""))
        if user is None:
            body = b"A name and a password are needed.\n"
            headers = [("WWW-Authenticate", 'Basic realm="pq", charset="UTF-8"'), ("Content-Type", "text/plain")]
            start_response("401 Unauthorized", [*headers, ("Content-Length", str(len(body)))])
            return [body]
        return self._app({**environ, "REMOTE_USER": user}, start_response)

    def _user(self, header: str) -> str | None:
        kind, _, code = header.partition(" ")
        if kind.lower() != "basic":
            return None
        try:
            user, _, password = base64.b64decode(code.strip(), validate=True).decode().partition(":")
        except ValueError:
            return None
        known = self._passwords.get(user)
        same = hmac.compare_digest((known or "").encode(), password.encode())
        return user if same and known else None


def read_passwords(path: str) -> dict[str, str]:
    """Read a file of lines ``name:password``.

    :raises ValueError: a line has another form, there is none, or others may read the file.
    :raises OSError: it can't be read.
    """
    with open(path, encoding="utf-8") as file:
        if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ValueError(f"{path} can be read by others: chmod 600 {path}")
        lines = [line.rstrip("\r\n") for line in file if line.strip() and not line.startswith("#")]
    found = {}
    for line in lines:
        user, colon, password = line.partition(":")
        if not (user and colon and password):
            raise ValueError(f"{path}: each line must be name:password")
        found[user] = password
    if not found:
        raise ValueError(f"{path} has no line name:password")
    return found
