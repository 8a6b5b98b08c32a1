"""The findings of `pq.doctor`: what to say of each, and what to do about it. Pure.

Words in braces are columns of the statement of that name in ``sql/doctor.sql``.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Severity = Literal["error", "warning", "note"]


class Finding(NamedTuple):
    """Something that is wrong.

    :ivar name: which of the findings it is, always the same word.
    :ivar severity: ``'error'``: jobs are lost or stay behind, or will; ``'warning'``: it costs time, or space, or may
        become an error; ``'note'``: nothing is wrong, but something could not be seen or works with a restriction.
    :ivar what: a sentence.
    :ivar remedy: a sentence, or what to execute.
    :ivar data: the figures and names in the texts, as JSON has them.
    """

    name: str
    severity: Severity
    what: str
    remedy: str
    data: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.severity}: {self.name}: {self.what}\n  {self.remedy}"


class Check(NamedTuple):
    """What to say of each row of the statement with this name."""

    name: str
    severity: Severity
    what: str
    remedy: str

    def finding(self, data: dict[str, Any], words: dict[str, Any]) -> Finding:
        """
        :param words: those of the texts that are not in `data`.
        """
        words = {**words, **data}
        return Finding(self.name, self.severity, self.what.format_map(words), self.remedy.format_map(words), data)


_SESSION = "session {pid} (role {role}, application {application!r})"
_TERMINATE = "select pg_terminate_backend({pid});"

#: Of the table itself; without the first three the others make no sense.
TABLE_MISSING = Check("table_missing", "error", "There is no table {table}.", "python -m pq create{arguments}")
TABLE_UNKNOWN = Check("table_unknown", "error", "{error}.", "Choose another name, by table= or schema=.")
TABLE_OUTDATED = Check(
    "table_outdated",
    "error",
    "The table has version {version}; this pq works with version {expected}.",
    "python -m pq create{arguments}",
)
TABLE_NEWER = Check(
    "table_newer",
    "warning",
    "The table has version {version}, and this pq knows those up to {expected}: another process has a later pq.",
    "Upgrade pq here, too.",
)
NOT_SEEN = Check(
    "not_seen",
    "note",
    "It could not be looked for {finding}: {error}.",
    "Look again as the owner of the table, or as a role that has pg_monitor; after a timeout, when there is less load.",
)
CLOCK_SKEW = Check(
    "clock_skew",
    "warning",
    "This machine's clock and the server's differ by {seconds} s. pq itself goes by the server's; a datetime that the"
    " application computes for schedule_at= or expected_at= is off by that much.",
    "Have both machines' clocks set by NTP; or give a time from now on, such as '5m', which the server adds.",
)
POOLER = Check(
    "pooler",
    "note",
    "A transaction pooler stands between: nobody who waits through it is notified, so they look every poll_interval.",
    "Name a direct connection, PQ(…, listen_dsn=…), unless you have.",
)

#: The parts of the table that its version has.
PARTS = (
    Check(
        "index_missing",
        "error",
        "The index {name} is missing: jobs are looked for in the whole table.",
        "{definition}",
    ),
    Check(
        "index_invalid",
        "error",
        "The index {name} is invalid, since its creation was broken off: it is kept up to date, and never used.",
        "reindex index concurrently {name};",
    ),
    Check(
        "trigger_missing",
        "error",
        "The trigger {name} is missing: schedules of plain SQL, or waking those who wait, do not work.",
        "python -m pq sql{arguments} | psql",
    ),
    Check(
        "trigger_disabled",
        "error",
        "The trigger {name} is disabled: schedules of plain SQL, or waking those who wait, do not work.",
        "alter table {table} enable trigger {quoted};",
    ),
    Check(
        "trigger_obsolete",
        "warning",
        "The trigger {name} of pq 1.9.1 is there again, since a process of that version called create(): each put"
        " notifies, for which commits wait for each other.",
        "drop trigger {quoted} on {table};",
    ),
)

#: Of the jobs in it, which takes the columns of this version.
JOBS = (
    Check(
        "overdue_job",
        "error",
        "Queue {queue!r}: job {id}, {kind}, is due since {since} ({age}), and nobody has taken it. The queue has no"
        " consumer, or they don't keep up, or a transaction holds the job.",
        "Start a worker for this queue, or more of them; end transactions that have been idle for long.",
    ),
    Check(
        "waiting_job",
        "warning",
        "Queue {queue!r}: the job that is next, {id}, was to be taken from {since} on ({age}), and still is. The queue"
        " has no consumer, or they don't keep up, or it is often tried again, or a transaction holds the job.",
        "Start a worker for this queue, or more of them; end transactions that have been idle for long.",
    ),
    Check(
        "ids",
        "warning",
        "The last id was {last}, and the largest that can be is {largest}: after that no job can be put.",
        "Widen the column, which rewrites the table under a lock, and then the sequence, if that is narrow, too:"
        " alter table {table} alter column id type bigint;",
    ),
)

#: Of its surroundings.
SERVER = (
    Check(
        "not_durable",
        "error",
        "{name} is off: when the machine crashes, jobs may be lost, or the whole database.",
        "alter system set {name} = on; select pg_reload_conf();",
    ),
    Check(
        "table_unlogged",
        "error",
        "The table is unlogged: after a crash of the server it is empty.",
        "alter table {table} set logged;",
    ),
    Check(
        "synchronous_commit_off",
        "warning",
        "synchronous_commit is off (set by: {source}): a crash of the server loses what was committed in the last"
        " moments. Jobs that were put then are gone, and jobs that were handled then are handled again.",
        "Leave it if that was meant; else: alter system set synchronous_commit = on; select pg_reload_conf();",
    ),
    Check(
        "old_transaction",
        "warning",
        f"A transaction of {_SESSION} in database {{database}} is open since {{since}} ({{age}}): no row that died"
        " after that can be removed, and claims become slower.",
        f"End it: {_TERMINATE}",
    ),
    Check(
        "old_prepared_transaction",
        "warning",
        "The transaction {quoted} was prepared by {role} in database {database} at {since} ({age} ago), and not"
        " committed: no row that died after that can be removed, and claims become slower.",
        "As role {role} in database {database}, unless it is to be committed: rollback prepared {quoted};",
    ),
    Check(
        "old_replication_slot",
        "warning",
        "The {kind} replication slot {slot} ({state}) keeps dead rows {rows} that {transactions} transactions have left"
        " behind since.",
        "Have its consumer catch up; if there is none any more: select pg_drop_replication_slot({quoted});",
    ),
    Check(
        "old_standby",
        "warning",
        f"The standby of {_SESSION}, connected since {{since}}, keeps dead rows of {{transactions}} transactions for a"
        " query that runs there (hot_standby_feedback).",
        f"End that query on the standby, or set hot_standby_feedback = off there; to cut it off for now: {_TERMINATE}",
    ),
    Check(
        "idle_in_transaction",
        "warning",
        f"A transaction of {_SESSION} is {{state}} since {{since}} ({{age}}), and has taken or put jobs: nobody else"
        " gets these before it ends.",
        f"Take jobs that last long under a lease, and set idle_in_transaction_session_timeout; for now: {_TERMINATE}",
    ),
    Check("autovacuum_off", "warning", "Autovacuum is off {scope}: dead rows are never removed.", "{command}"),
    Check(
        "dead_rows",
        "warning",
        "The table has {dead} dead rows beside {live} live ones; autovacuum is to begin at {due}. It was {last};"
        " {workers} of {max_workers} workers are busy.",
        "If all workers are busy, raise autovacuum_max_workers and autovacuum_vacuum_cost_limit. If many rows can't be"
        " removed yet, as this says, look for old transactions: vacuum (verbose) {table};",
    ),
    Check(
        "notify_queue",
        "warning",
        "The server's queue of notifications is filled by {percent} %; when it is full, puts that notify fail. A"
        " session that listens, in any database, has had a transaction open since they were sent.",
        "End that transaction: the server's log has its pid when the queue is filled by a half; before that, try the"
        " oldest: select pid, datname, xact_start from pg_stat_activity order by xact_start;",
    ),
    Check(
        "connections",
        "warning",
        "{used} of the {allowed} connections that the server allows are in use.",
        "Use a pooler, or fewer processes or threads, or a smaller max_connections= of PQ; or raise max_connections.",
    ),
    Check(
        "rights",
        "note",
        "Role {role} does not have: {missing}.",
        "If it is to put or take jobs: {command}",
    ),
    Check(
        "read_only",
        "note",
        "Transactions of role {role} are read-only here: {reason}.",
        "To put or take jobs, connect to the primary server (target_session_attrs=read-write), without that setting.",
    ),
    Check(
        "hidden_sessions",
        "note",
        "Role {role} may not see the transactions of {sessions} sessions of other roles, which may be old.",
        "grant pg_read_all_stats to {quoted};",
    ),
)
