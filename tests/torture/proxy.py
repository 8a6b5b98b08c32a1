"""The network between the processes and the server: it can be cut, go silent, or break exactly at a commit."""

from __future__ import annotations

import re
import select
import socket
import threading
from typing import Any

#: A message that may commit something: COMMIT itself, or a statement outside of a transaction.
COMMIT = re.compile(rb"\bcommit\b", re.IGNORECASE)
CHANGE = re.compile(rb"\b(insert into|update)\b", re.IGNORECASE)

TICK = 0.2


class Proxy:
    """Forwards connections from a port of its own to another one. A context manager."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        self._pairs: set[Pair] = set()
        self._lock = threading.Lock()
        self._armed: list[tuple[re.Pattern[bytes], bool, threading.Event]] = []
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
        self.cut()

    def cut(self) -> int:
        """End all connections, as a firewall that is restarted; says how many."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            pair.cut()
        return len(pairs)

    def arm(self, pattern: re.Pattern[bytes], after: bool) -> threading.Event:
        """Cut the next connection on which a message of that pattern comes by.

        :param after: when the server has answered it, else before it gets there.
        :returns: is set when that has been done.
        """
        done = threading.Event()
        with self._lock:
            self._armed.append((pattern, after, done))
        return done

    def armed_for(self, message: bytes) -> bool | None:
        """What to do with this message: None: forward it; else cut before it (False) or after it (True)."""
        if not self._armed:
            return None
        with self._lock:
            for rule in self._armed:
                pattern, after, done = rule
                if pattern.search(message):
                    self._armed.remove(rule)
                    done.set()
                    return after
        return None

    def forget(self, pair: Pair) -> None:
        with self._lock:
            self._pairs.discard(pair)

    def _accept(self) -> None:
        while not self._stopped:
            if not select.select([self._listener], [], [], TICK)[0]:
                continue
            client, _ = self._listener.accept()
            try:
                server = socket.create_connection(self._target)
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
        ready: list[Any] = select.select([self._client, self._server], [], [], TICK)[0]
        if self._proxy.silent:
            threading.Event().wait(TICK)
            return True
        if self._server in ready:
            answer = self._server.recv(65536)
            if not answer:
                return False
            self._client.sendall(answer)
        if self._client in ready:
            message = self._client.recv(65536)
            if not message:
                return False
            after = self._proxy.armed_for(message)
            if after is not False:
                self._server.sendall(message)
            if after:
                self._server.recv(1)
            return after is None
        return True
