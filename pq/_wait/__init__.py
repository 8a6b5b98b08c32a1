"""Waiting for jobs: nobody polls as long as all is well, and no put is missed.

NOTIFY takes a lock of the whole server at commit, so a put notifies only if somebody waits for its queue. Waiters say
that they are there by an advisory lock, the *gate* of the queue, which all of them hold shared.

    put (trigger, after the insert)             waiter
    P1  insert                                W1  take the gate, shared
    P2  is the gate free?                     W2  LISTEN
        (take it exclusively, give it back)   W3  note which transactions are writing
    P3  if not: NOTIFY                        W4  look for a job, in the same snapshot
    P4  commit: row and NOTIFY at once        W5  sleep until notified, a row is due, or time to look again: soon
                                                  (5 ms, doubling) while noted transactions still run

*Why no put is missed.* Take a put that W4 did not see: it commits after W4, hence after W2. If it found the gate taken
at P2, it notifies at P4, after W2: W5 wakes. If it found the gate free, P2 was before W1, and its transaction was
writing (P1 is before P2) from before W1 until after W4: so W3 noted it, and W5 looks again until it has ended. A
transaction that begins to write after W3 finds the gate taken.

W3 notes one number, the transaction id that is to be given out next: all transactions that are writing have lower ones.
They have ended when the oldest running one in a snapshot is not lower any more, and then that snapshot shows their
rows. Such a transaction may have nothing to do with queues, and may last. It costs looks, at most one in each poll
interval.

A waiter that finds at W4 that the queue is paused leaves the gate, so that puts need not notify. It goes on listening:
the end of the pause is notified whether the gate is taken or not, and commits after W4, hence after W2. W1 is the next
step.

*The bound.* In each poll interval one waiter of each queue claims, on its own connection, whatever the listening
session saw or believes. That bounds what no notification tells: rows that come back by another consumer's rollback,
rows that are updated by hand, a listening session whose search path leads to another table, or one that hangs. A thread
that waits for many queues finds out by one statement on its own connection which of them have jobs, and claims from
these.

*Jobs that are seen and can't be had* are locked: by a claim that is just making them ready, or by a transaction that
lasts. Who finds that looks again after a short pause, and after longer and longer ones, up to the poll interval.

*Many queues.* Gates are advisory locks, and the server's table of locks is small. So a session holds a bounded number
of gates (`most_gates` in waiting.sql). The queues beyond that number are looked at in each poll interval, no more. The
gates of several queues are taken, and left, by one statement each.

One session per PQ and process serves all waiting threads. One of these, the *leader*, sleeps on its socket; each other
one sleeps on a condition of its own. An event calls one waiter of the queue, not all. When that one has found a job, or
has gone away, the session looks whether there are more, and the leader calls the next waiter. Behind a transaction
pooler, where gates and LISTEN would land on somebody else's server session, the session only looks.

A thread that has got a job mostly comes back for the next. So a gate is kept for a moment when the last waiter has
gone, except on a session of the application's. If no thread is there that could leave it then, one is started, and
ends.
"""

from .polling import Polling
from .room import WaitingRoom
from .waiter import Waiter, wait_for

__all__ = ["Polling", "Waiter", "WaitingRoom", "wait_for"]
