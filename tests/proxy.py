"""A TCP proxy in front of PostgreSQL that does what networks do: cut, or swallow."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from typing import Any

from conftest import wait_until
from psycopg2.extensions import make_dsn, parse_dsn

#: What is done about a query, given both sockets and the message; it returns whether to forward more after that.
Action = Callable[[socket.socket, socket.socket, bytes], bool]


class Proxy:
    """Forwards until told otherwise. A context manager.

    :ivar dsn: how to get to the server through the proxy.
    :ivar seen: the queries that went by.
    :ivar keep_open: let through what the server says, but not that it has closed the connection.
    """

    def __init__(self, dsn: str) -> None:
        self._target = parse_dsn(dsn)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.dsn = make_dsn(dsn, host="127.0.0.1", port=self.port, sslmode="disable", gssencmode="disable")
        self.seen: list[str] = []
        self.keep_open = False
        self._rules: list[tuple[str, Action, threading.Event]] = []
        self._stopped = False
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def on(self, text: str, action: Action) -> threading.Event:
        """Do something, once, when a query with this (lower-case) text comes by; the event tells that it was done."""
        done = threading.Event()
        self._rules.append((text, action, done))
        return done

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped = True
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopped:
            if readable(self._listener):
                thread = threading.Thread(target=self._forward, args=[self._listener.accept()[0]])
                self._threads.append(thread)
                thread.start()

    def _forward(self, client: socket.socket) -> None:
        address = str(self._target["host"]), int(self._target["port"])
        with client, socket.create_connection(address) as server:
            try:
                while not self._stopped and self._forward_some(client, server):
                    pass
            except OSError:
                pass  # one of them hung up

    def _forward_some(self, client: socket.socket, server: socket.socket) -> bool:
        ready = readable(client, server)
        if server in ready:
            answer = server.recv(65536)
            if not answer:
                if self.keep_open:
                    wait_until(lambda: self._stopped or readable(client), "the client's next word")
                return False
            client.sendall(answer)
        if client in ready:
            message = client.recv(65536)  # libpq sends one, then waits; the tests' are short
            if not message:
                return False
            if message[:1] == b"Q":
                return self._query(client, server, message)
            server.sendall(message)
        return True

    def _query(self, client: socket.socket, server: socket.socket, message: bytes) -> bool:
        query = message[5:-1].decode()
        self.seen.append(query)
        for rule in self._rules:
            text, action, done = rule
            if text in query.lower():
                self._rules.remove(rule)
                try:
                    return action(client, server, message)
                finally:
                    done.set()
        server.sendall(message)
        return True


def readable(*sockets: socket.socket) -> list[Any]:
    return select.select(sockets, [], [], 0.02)[0]


def cut_before(client: socket.socket, server: socket.socket, message: bytes) -> bool:
    """The query does not reach the server."""
    return False


def cut_after(client: socket.socket, server: socket.socket, message: bytes) -> bool:
    """The server has done it, but the client does not hear of it."""
    server.sendall(message)
    server.recv(1)
    return False


def swallow(client: socket.socket, server: socket.socket, message: bytes) -> bool:
    """From here on there is only silence."""
    while client.recv(65536):
        pass
    return False


def dropped(terminate: Callable[[], None]) -> Action:
    """The server ends the session while the query is on its way."""

    def action(client: socket.socket, server: socket.socket, message: bytes) -> bool:
        terminate()
        client.sendall(server.recv(65536))  # its last words, for an answer
        return False

    return action
