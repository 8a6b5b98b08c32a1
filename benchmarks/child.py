"""A process in which a peer is measured."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .peers import Peer

HERE = Path(__file__).parent

#: Seconds that a killed process may take to end.
PATIENCE = 20

#: The peers' package comes last on the path, so that nothing here is taken for something of the library's.
START = f"import sys; sys.path.append({str(HERE)!r}); from peers.__main__ import main; main()"


class Failed(Exception):
    """The peer could not do what it was asked to."""


class Child:
    """
    :param folder: first on its path.
    """

    def __init__(self, peer: type[Peer], folder: Path, dsn: str) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        if peer.node:
            command = ["node", str(HERE / "peers" / "graphile.js"), dsn]
            environment["NODE_PATH"] = str(folder / "node_modules")
        else:
            command = [sys.executable, "-c", START, peer.name, dsn]
            environment |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 -- close() does it
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, cwd="/", env=environment,
            encoding="utf-8", start_new_session=True,  # Ctrl-C is for us
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, command: str, **arguments: Any) -> None:
        """A command, whose answer is to be read later, or is not awaited at all."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([command, arguments]) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self._last_words()) from None

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Failed(self._last_words())
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["answer"]

    def ask(self, command: str, **arguments: Any) -> Any:
        self.tell(command, **arguments)
        return self.answer()

    def check(self) -> None:
        """
        :raises Failed: it has ended.
        """
        if self._process.poll() is not None:
            raise Failed(self._last_words())

    def close(self, gently: bool = False) -> None:
        """
        :param gently: by SIGTERM; a worker gives back what it has not begun.
        """
        if gently:
            self._process.terminate()
            # it ends, or says that what it was told to do has ended
            select.select([self._process.stdout], [], [], PATIENCE)
        self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._errors):
            try:
                file.close()  # type: ignore[union-attr]
            except BrokenPipeError:
                pass

    def _last_words(self) -> str:
        self._process.wait(PATIENCE)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"ended with {self._process.returncode}"
