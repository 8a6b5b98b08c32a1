"""The keeper: a small process beside an embedded server, which stops it after its last user.

pq.embedded runs this file as a script in an interpreter that sees the standard library only,
and imports the locks from it. Four files in the folder say everything, each by an flock:

=========== =============================== ==============================================
file        held by                         means
=========== =============================== ==============================================
start.lock  whoever starts or stops         one at a time
users.lock  every user, shared              somebody needs the server
keeper.lock the keeper                      somebody will stop the server
server.lock every process of the server     it runs; inherited, so no pid is ever trusted
=========== =============================== ==============================================
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import threading
import time

ORPHANS = 10.0  # seconds for the processes of a server that was killed to notice and end
SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"  # a question that needs no user or database
PATIENCE = 60  # SIGINTs, one a second, before a server that does not stop is made to


class Lock:
    """An flock on a file: gone with the last process that has the descriptor, even by kill -9.

    :param path: the file; made, readable to its owner only, if it is missing.
    :raises OSError: the file cannot be made or opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # O_NOFOLLOW: in a folder that others can write to, a link would make us touch its target
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd: int = os.open(path, flags, 0o600)

    def take(self, kind: int, end: float = 0.0) -> bool:
        """Lock as `kind` (LOCK_SH, LOCK_EX), trying until time.monotonic() is `end`."""
        while True:
            try:
                fcntl.flock(self.fd, kind | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() >= end:
                    return False
                time.sleep(0.005)

    def wait(self) -> None:
        """Lock exclusively, however long that takes."""
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def close(self) -> None:
        """Let go of our descriptor; a process that inherited it goes on holding the lock."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def release(self) -> None:
        """Unlock for every process that shares the descriptor, then close ours."""
        if self.fd >= 0:
            fcntl.flock(self.fd, fcntl.LOCK_UN)
            self.close()


def held(path: str | os.PathLike[str]) -> bool:
    """Whether somebody holds the lock `path` exclusively."""
    lock = Lock(path)
    try:
        return not lock.take(fcntl.LOCK_SH)
    finally:
        lock.release()


class Postmaster:
    """A server as its postmaster.pid describes it, be it running or long gone.

    :param data: its data folder. Where there is no postmaster.pid, all is empty.
    """

    def __init__(self, data: str | os.PathLike[str]) -> None:
        try:
            with open(os.path.join(data, "postmaster.pid"), "rb") as file:
                lines = os.fsdecode(file.read()).split("\n")
        except FileNotFoundError:
            lines = []
        lines += [""] * 8
        self.pid: int = int(lines[0]) if lines[0].isdigit() else 0
        self.port: str = lines[3]
        self.sockets: str = lines[4]
        self.ready: bool = lines[7].strip() == "ready"

    def lives(self) -> bool:
        """Whether there is a process of that number; only server.lock says that it is a server."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return self.pid > 0

    def answers(self) -> bool:
        """Whether a server replies on its socket."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(f"{self.sockets}/.s.PGSQL.{self.port}")
                # the socket of one that is just being killed still accepts, but never replies
                probe.sendall(SSL_REQUEST)
                return probe.recv(1) != b""
            except OSError:
                return False


class Keeper:
    """The keeper of one folder.

    :param folder: the folder of the embedded server.
    :param sockets: the folder of its socket, removed once the server was stopped.
    :param uid, gid: whom to run a new server as; -1 for whoever we are.
    :param command: the program and arguments of a new server.
    """

    def __init__(self, folder: str, sockets: str, uid: int, gid: int, command: list[str]) -> None:
        self.folder: str = folder
        self.sockets: str = sockets
        self.command: list[str] = command
        self.uid: int = uid
        self.gid: int = gid
        self.users: Lock = self.lock("users.lock")
        self.unused: bool = False

    def lock(self, name: str) -> Lock:
        return Lock(os.path.join(self.folder, name))

    def keep(self) -> None:
        """Start the server or adopt the one that runs; return after its last process has ended."""
        server = self.lock("server.lock")
        adopted = self.adopt(server)
        pid = adopted or self.spawn(server)
        if not adopted:
            server.close()
            server = self.lock("server.lock")
        threading.Thread(target=self.stop, args=(pid,), daemon=True).start()
        server.wait()
        if not adopted:
            os.waitpid(pid, 0)
        if self.unused:
            try:
                os.rmdir(self.sockets)
            except OSError:
                pass

    def adopt(self, server: Lock) -> int:
        """Return the pid of the server that runs; or 0 when none does, and we have its lock."""
        end = time.monotonic() + ORPHANS
        while not server.take(fcntl.LOCK_EX):
            running = Postmaster(os.path.join(self.folder, "data"))
            if running.lives():
                return running.pid
            if time.monotonic() > end:
                sys.exit("pq: processes of the former server are still running")
            time.sleep(0.01)
        return 0

    def spawn(self, server: Lock) -> int:
        """Start the server, which inherits the lock `server`; return its pid."""
        pid = os.fork()
        if pid:
            return pid
        try:
            os.set_inheritable(server.fd, True)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            if self.uid >= 0:
                os.setgroups([])
                os.setgid(self.gid)
                os.setuid(self.uid)
            os.execvp(self.command[0], self.command)
        except OSError as error:
            print(f"pq: {self.command[0]}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(127)

    def stop(self, pid: int) -> None:
        """Wait for the last user to go, then stop the server."""
        self.users.wait()
        self.unused = True
        try:
            for _ in range(PATIENCE):
                os.kill(pid, signal.SIGINT)  # fast: clients are cut off, everything is written
                time.sleep(1)
            os.kill(pid, signal.SIGQUIT)  # at once: the next start recovers from the log
        except ProcessLookupError:
            pass


def main(folder: str, sockets: str, uid: str, gid: str, *command: str) -> None:
    keeper = Lock(os.path.join(folder, "keeper.lock"))
    if not keeper.take(fcntl.LOCK_EX):
        return
    # Whoever started us waits for this first process, and so knows that the lock is held and
    # has no child left that it would have to reap.
    if os.fork():
        os._exit(0)
    # A service manager that stops a whole group signals us too: the users go first.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    Keeper(folder, sockets, int(uid), int(gid), list(command)).keep()


if __name__ == "__main__":
    main(*sys.argv[1:])
