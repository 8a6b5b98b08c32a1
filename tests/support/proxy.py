"""A TCP proxy in front of PostgreSQL that does what networks do: cut, or swallow."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable

import torture.proxy
from psycopg2.extensions import make_dsn, parse_dsn
from torture.proxy import Action, cut_after, cut_before, readable

from support import wait_until

__all__ = ["Proxy", "cut_after", "cut_before", "dropped", "swallow"]


class Proxy(torture.proxy.Proxy):
    """Forwards until told otherwise.

    :ivar dsn: how to get to the server through the proxy.
    :ivar seen: the queries that went by.
    :ivar keep_open: let through what the server says, but not that it has closed the connection.
    """

    def __init__(self, dsn: str) -> None:
        self.seen: list[str] = []
        self.keep_open = False
        target = parse_dsn(dsn)
        super().__init__(target["host"], int(target["port"]))
        self.dsn = make_dsn(dsn, host="127.0.0.1", port=self.port, sslmode="disable", gssencmode="disable")

    def on(self, text: str, action: Action) -> threading.Event:
        """`when`, of a query with this text."""
        return self.when(re.compile(re.escape(text.encode()), re.IGNORECASE), action)

    def query(self, client: socket.socket, server: socket.socket, message: bytes) -> bool:
        self.seen.append(message[5:-1].decode())
        return super().query(client, server, message)

    def hung_up(self, client: socket.socket) -> None:
        if self.keep_open:
            wait_until(lambda: self._stopped or readable(client), "the client's next word")


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
