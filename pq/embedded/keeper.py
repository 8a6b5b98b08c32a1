"""The keeper: a small process beside an embedded server, which stops the server after its last user.

pq.embedded runs this file as a script in an interpreter that sees the standard library only,
and imports the locks from it. Four files in the folder hold the whole state, each by an flock:

=========== ================================== ==============================================
file        held by                            means
=========== ================================== ==============================================
start.lock  a process that starts or stops it  one at a time
users.lock  every user, shared                 a process needs the server
keeper.lock the keeper                         a process will stop the server
server.lock every process of the server        it runs; inherited, so no pid is ever trusted
=========== ================================== ==============================================
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import threading
import time

ORPHANS = 10.0  # seconds that the processes of a killed server have to notice that and end
SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"  # a request that needs no user or database
MAX_INTERRUPTS = 60  # SIGINTs, one a second, before a server that does not stop gets a SIGQUIT


class Lock:
    """An flock on a file. The kernel drops it with the last process that has the descriptor, even after kill -9.

    :param path: the file; if it is missing it is made, readable by its owner only.
    :raises OSError: the file can't be made or opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # O_NOFOLLOW: in a folder that others can write to, a link could lead to any file
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd: int = os.open(path, flags, 0o600)

    def take(self, kind: int, end: float = 0.0) -> bool:
        """Lock as `kind` (LOCK_SH, LOCK_EX), trying until time.monotonic() is `end`; return whether that succeeded."""
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
        """Close the descriptor; a process that has inherited it still holds the lock."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def release(self) -> None:
        """Unlock for every process that shares the descriptor, then close it."""
        if self.fd >= 0:
            fcntl.flock(self.fd, fcntl.LOCK_UN)
            self.close()


def held(path: str | os.PathLike[str]) -> bool:
    """Return whether a process holds the lock `path` exclusively."""
    lock = Lock(path)
    try:
        return not lock.take(fcntl.LOCK_SH)
    finally:
        lock.release()


class Postmaster:
    """A server as its postmaster.pid describes it, whether it still runs or not.

    :param data: its data folder. Without a postmaster.pid all attributes are empty.
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
        """Return whether a process has that pid; only server.lock says that it is the server."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return self.pid > 0

    def answers(self) -> bool:
        """Return whether a server replies on its socket."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(f"{self.sockets}/.s.PGSQL.{self.port}")
                # the socket of a server that is being killed still accepts, but never replies
                probe.sendall(SSL_REQUEST)
                return probe.recv(1) != b""
            except OSError:
                return False


class Keeper:
    """The keeper of one folder.

    :param folder: the folder of the embedded server.
    :param sockets: the folder of its socket; it is removed when the server has been stopped.
    :param uid, gid: the user to run a new server as; -1 for the current one.
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
        """Start the server, or adopt a running one; return after its last process has ended."""
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
        """Return the pid of the running server, or 0 if none runs and the keeper has taken its lock."""
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
            for _ in range(MAX_INTERRUPTS):
                os.kill(pid, signal.SIGINT)  # fast shutdown: clients are cut off, everything is written
                time.sleep(1)
            os.kill(pid, signal.SIGQUIT)  # immediate shutdown: the next start recovers from the log
        except ProcessLookupError:
            pass


def main(folder: str, sockets: str, uid: str, gid: str, *command: str) -> None:
    keeper = Lock(os.path.join(folder, "keeper.lock"))
    if not keeper.take(fcntl.LOCK_EX):
        return
    # The process that started the keeper waits for this first process. It then knows that the lock
    # is held, and has no child left to reap.
    if os.fork():
        os._exit(0)
    # A service manager that stops a whole group signals the keeper, too: the users go first.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    Keeper(folder, sockets, int(uid), int(gid), list(command)).keep()


if __name__ == "__main__":
    main(*sys.argv[1:])
