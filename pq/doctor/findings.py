"""The texts of the doctor's findings, and their remedies. Pure.

Words in braces are columns of the statement with the finding's name in ``sql/doctor.sql``.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from .._times import age_text

Severity = Literal["error", "warning", "note"]


class Finding(NamedTuple):
    """Something that is wrong.

    :ivar name: the kind of the finding; these words do not change.
    :ivar severity: ``'error'``: jobs are lost or not taken, or soon will be; ``'warning'``: a loss of time or space, or
        something that may become an error; ``'note'``: nothing is wrong, but the doctor could not see something, or
        something works with a restriction.
    :ivar what: what is wrong, in a sentence.
    :ivar remedy: what to do, in a sentence, or a command to execute.
    :ivar data: the figures and names in the texts, as JSON represents them.
    """

    name: str
    severity: Severity
    what: str
    remedy: str
    data: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.severity}: {self.name}: {self.what}\n  {self.remedy}"


class Check(NamedTuple):
    """The text for each row that the statement with this name returns."""

    name: str
    severity: Severity
    what: str
    remedy: str

    def finding(self, data: dict[str, Any], words: dict[str, Any]) -> Finding:
        """Return the finding for one row.

        :param data: the row.
        :param words: the words of the texts that are not in `data`.
        """
        words = {**words, **data}
        if "age" in data:
            words["age"] = "unknown" if data["age"] is None else age_text(data["age"])
        return Finding(self.name, self.severity, self.what.format_map(words), self.remedy.format_map(words), data)


_SESSION = "session {pid} (role {role}, application {application!r})"
_TERMINATE = "select pg_terminate_backend({pid});"

#: Findings about the table as a whole. If it is missing, unknown or outdated, most others are not looked for.
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
    "Upgrade the pq that reports this, too.",
)
NOT_SEEN = Check(
    "not_seen",
    "note",
    "The doctor could not look for {finding}: {error}.",
    "Run it again as the owner of the table, or as a role that has pg_monitor; after a timeout, when load is lower.",
)
CLOCK_SKEW = Check(
    "clock_skew",
    "warning",
    "The clocks of this machine and of the server differ by {seconds} s. pq uses the server's clock, but a datetime"
    " that the application computes for schedule_at= or expected_at= is wrong by that much.",
    "Set the clocks of both machines by NTP; or pass a relative time, such as '5m', which the server adds to its own.",
)
POOLER = Check(
    "pooler",
    "note",
    "The connection goes through a transaction pooler: waiting consumers get no notifications, and look every"
    " poll_interval.",
    "Name a direct connection by PQ(…, listen_dsn=…), unless you do so already.",
)

#: About locks of the table, or of one beside it. With some of them nobody can even look at the jobs.
TABLE_LOCKED = Check(
    "table_locked",
    "error",
    "{who} {has} {mode} on the table {name} since {since} ({age}): {effect}. Its statement: {query}",
    "Let it end, or end it: {command}",
)

#: Findings about the tables beside it, the indexes and the triggers that a table of this version must have.
PARTS = (
    Check(
        "beside_missing",
        "error",
        "The table {name} beside it is missing: jobs with keys, limits or schedules can't be put or taken.",
        "python -m pq sql{arguments} | psql",
    ),
    Check(
        "index_missing",
        "error",
        "The index {name} is missing: pq searches the whole table {place}.",
        "{definition}",
    ),
    Check(
        "index_invalid",
        "error",
        "The index {name} is invalid, because its creation was interrupted: the server updates it, but never uses it.",
        "reindex index concurrently {name};",
    ),
    Check(
        "trigger_missing",
        "error",
        "The trigger {name} is missing: jobs that plain SQL schedules are taken at once, or waiting consumers do not"
        " wake.",
        "python -m pq sql{arguments} | psql",
    ),
    Check(
        "trigger_disabled",
        "error",
        "The trigger {name} is disabled: jobs that plain SQL schedules are taken at once, or waiting consumers do not"
        " wake.",
        "alter table {table} enable trigger {quoted};",
    ),
    Check(
        "trigger_obsolete",
        "warning",
        "The trigger {name} of pq 1.9.1 exists again, because a process of that version called create(): each put"
        " sends a notification, and so commits wait for each other.",
        "drop trigger {quoted} on {table};",
    ),
    Check(
        "index_obsolete",
        "warning",
        "The index {name} is of pq 1.9.1, and no later version uses it: each put and get has to write it.",
        "When no process of pq 1.9.1 uses the table any more: drop index concurrently {name};",
    ),
)

#: Findings about the server.
SERVER = (
    Check(
        "not_durable",
        "error",
        "{name} is off: a crash of the machine may lose jobs, or the whole database.",
        "alter system set {name} = on; select pg_reload_conf();",
    ),
    Check(
        "table_unlogged",
        "error",
        "The table is unlogged: the server empties it after a crash.",
        "alter table {table} set logged;",
    ),
    Check(
        "synchronous_commit_off",
        "warning",
        "synchronous_commit is off (set by: {source}): a crash of the server loses the last commits. Jobs that were put"
        " in that time are gone, and jobs that were handled are handled again.",
        "Leave it so if that is intended; otherwise: alter system set synchronous_commit = on; select"
        " pg_reload_conf();",
    ),
    Check(
        "old_transaction",
        "warning",
        f"A transaction of {_SESSION} in database {{database}} has been open since {{since}} ({{age}}): rows that died"
        " after that can't be removed, and claims become slower.",
        f"End it: {_TERMINATE}",
    ),
    Check(
        "old_prepared_transaction",
        "warning",
        "The transaction {quoted} was prepared by {role} in database {database} at {since} ({age} ago), and not"
        " committed: rows that died after that can't be removed, and claims become slower.",
        "As role {role} in database {database}, unless you want to commit it: rollback prepared {quoted};",
    ),
    Check(
        "old_replication_slot",
        "warning",
        "The {kind} replication slot {slot} ({state}) keeps dead rows {rows} that {transactions} transactions have"
        " left.",
        "Let its consumer catch up; if it no longer has one: select pg_drop_replication_slot({quoted});",
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
        f"A transaction of {_SESSION} has been {{state}} since {{since}} ({{age}}), and has taken or put jobs: no other"
        " consumer gets these before it ends.",
        f"Take long jobs under a lease, and set idle_in_transaction_session_timeout; for now: {_TERMINATE}",
    ),
    Check("autovacuum_off", "warning", "Autovacuum is off {scope}: dead rows are never removed.", "{command}"),
    Check(
        "dead_rows",
        "warning",
        "The table has {dead} dead rows beside {live} live ones; autovacuum should begin at {due}. The table was"
        " {last}; {workers} of {max_workers} autovacuum workers are busy.",
        "If all workers are busy, raise autovacuum_max_workers and autovacuum_vacuum_cost_limit. If the following says"
        " that many rows can't be removed yet, look for old transactions: vacuum (verbose) {table};",
    ),
    Check(
        "notify_queue",
        "warning",
        "The server's queue of notifications is {percent} % full; when it is full, puts that notify fail. A session"
        " that listens, in any database, has had a transaction open since the notifications were sent.",
        "End that transaction. The server logs its pid when the queue is half full; before that, try the oldest one:"
        " select pid, datname, xact_start from pg_stat_activity order by xact_start;",
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
        "Role {role} may not see the transactions of {sessions} sessions of other roles; these may be old.",
        "grant pg_read_all_stats to {quoted};",
    ),
)
