"""The network between the processes and the server: it can be cut, go silent, or break exactly at a commit."""

from __future__ import annotations

import re
import select
import socket
import threading
import time
from collections.abc import Callable

#: What is done about a query, given the client's socket, the server's and the message; says whether to forward more.
Action = Callable[[socket.socket, socket.socket, bytes], bool]

TICK = 0.05


class Proxy:
    """Forwards connections from a port of its own to another one. A context manager.

    :ivar target: host and port that new connections lead to.
    :ivar silent: nothing comes through.
    """

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        self._pairs: set[Pair] = set()
        self._lock = threading.Lock()
        self._rules: list[tuple[re.Pattern[bytes], Action, threading.Event]] = []
        self._stopped = False
        self.silent = False
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped = True
        self._thread.join()
        self._listener.close()
        for pair in self.cut():
            pair.join()

    def cut(self) -> list[Pair]:
        """End all connections, as a firewall that is restarted."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            pair.cut()
        return pairs

    def when(self, pattern: re.Pattern[bytes], action: Action) -> threading.Event:
        """Do something, once, about the next query with that pattern; the event tells that it was done."""
        done = threading.Event()
        with self._lock:
            self._rules.append((pattern, action, done))
        return done

    # -- what connections call

    def message(self, client: socket.socket, server: socket.socket, message: bytes) -> bool:
        """What a client says; returns whether to forward more."""
        if message[:1] == b"Q":
            return self.query(client, server, message)
        server.sendall(message)
        return True

    def query(self, client: socket.socket, server: socket.socket, message: bytes) -> bool:
        with self._lock:
            rule = next((rule for rule in self._rules if rule[0].search(message)), None)
            if rule is not None:
                self._rules.remove(rule)
        if rule is None:
            server.sendall(message)
            return True
        _, action, done = rule
        try:
            return action(client, server, message)
        finally:
            done.set()

    def hung_up(self, client: socket.socket) -> None:
        """The server has closed a connection; afterwards the client hears of it."""

    def forget(self, pair: Pair) -> None:
        with self._lock:
            self._pairs.discard(pair)

    def _accept(self) -> None:
        while not self._stopped:
            if not readable(self._listener):
                continue
            client, _ = self._listener.accept()
            try:
                server = socket.create_connection(self.target)
            except OSError:  # it is down
                client.close()
                continue
            pair = Pair(self, client, server)
            with self._lock:
                self._pairs.add(pair)
            pair.start()


class Pair(threading.Thread):
    """A connection through the proxy."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        super().__init__(daemon=True)
        self._proxy, self._client, self._server = proxy, client, server
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def run(self) -> None:
        try:
            with self._client, self._server:
                while self._forward():
                    pass
        except (OSError, ValueError):  # one of them hung up; or we closed them
            pass
        finally:
            self._proxy.forget(self)

    def cut(self) -> None:
        for end in (self._client, self._server):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is gone already

    def _forward(self) -> bool:
        ready = readable(self._client, self._server)
        if self._proxy.silent:
            time.sleep(TICK)
            return True
        if self._server in ready:
            answer = self._server.recv(65536)
            if not answer:
                self._proxy.hung_up(self._client)
                return False
            self._client.sendall(answer)
        if self._client in ready:
            message = self._client.recv(65536)  # libpq sends one, then waits; ours are short
            if not message:
                return False
            return self._proxy.message(self._client, self._server, message)
        return True


def readable(*sockets: socket.socket) -> list[socket.socket]:
    return select.select(sockets, [], [], TICK)[0]


def cut_before(client: socket.socket, server: socket.socket, message: bytes) -> bool:
    """The query does not reach the server."""
    return False


def cut_after(client: socket.socket, server: socket.socket, message: bytes) -> bool:
    """The server has done it, but the client does not hear of it."""
    server.sendall(message)
    server.recv(1)
    return False
