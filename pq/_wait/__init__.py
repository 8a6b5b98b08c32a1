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

The section "Waiting" of docs/explanation/design.rst proves that no put is missed, and says how waiters for many queues,
on a single connection and behind a pooler differ. The parts:

    room         the threads of this process that wait; one of them is the leader
    leader       what the leader does: it keeps the session, and tells waiters when to claim
    session      the session that listens: its gates, its looks (W1 to W4), what it was notified of
    connections  the connection of that session: of its own, or the application's single one
    waiter       one thread that waits
    waited       one queue that is waited for
    schedules    when the next schedule is due, which a look tells, too
    polling      waiting inside of a transaction, which hears of nothing
    debounce     leaves a gate, or closes a session, a moment after the last waiter has gone
    results      threads that wait for the ends of jobs, which is another protocol
"""

from .polling import Polling
from .results import QUEUE, ResultRoom, Wait, wait_alone
from .room import WaitingRoom
from .waiter import Waiter, wait_for

__all__ = ["QUEUE", "Polling", "ResultRoom", "Wait", "Waiter", "WaitingRoom", "wait_alone", "wait_for"]
