"""The child process: a command as a line of JSON on stdin, its answer as another on stdout."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from typing import Any

from . import PEERS


def main() -> None:
    name, dsn = sys.argv[1:]
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # whatever the library prints
        peer = PEERS[name](dsn)
        commands: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=listen, args=[commands], daemon=True).start()
        while True:
            command, arguments = commands.get()
            try:
                answer = {"answer": getattr(peer, command)(**arguments)}
            except Exception as error:
                traceback.print_exc()
                answer = {"error": f"{type(error).__name__}: {error}"}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def listen(commands: queue.SimpleQueue[Any]) -> None:
    """In a thread: when whoever commands is gone, so are we, whatever we are doing."""
    for line in os.fdopen(os.dup(0)):
        commands.put(json.loads(line))
    os._exit(0)


if __name__ == "__main__":
    main()
