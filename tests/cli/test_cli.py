"""The command line, as a user calls it: a process with arguments and variables."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import make_dsn, parse_dsn
from support import PATIENCE, execute, wait_until

import pq
from pq import PQ
from pq import sql as _sql
from pq._table import migrations

ROOT = Path(pq.__file__).parents[1]
COMMAND = [sys.executable, "-m", "pq"]
NOWHERE = "postgresql://postgres:s3cret@127.0.0.1:1/nowhere"
V1 = migrations.steps()[0].sql.replace(":table", "queue")


def environment(**given: str) -> dict[str, str]:
    """The variables of this process without those that name a database or unbuffer output, and the given ones."""
    unwanted = re.compile("PG|PQ_|DATABASE_URL|PYTHONUNBUFFERED")
    kept = {key: value for key, value in os.environ.items() if not unwanted.match(key)}
    return {**kept, "COLUMNS": "120", **given}


def call(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *args], env=environment(**env), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )


def libpq(dsn: str) -> dict[str, str]:
    """A DSN as libpq's variables."""
    return {"PGDATABASE" if key == "dbname" else f"PG{key.upper()}": value for key, value in parse_dsn(dsn).items()}


# -- create, version, sql


def test_create_makes_the_table_and_may_be_repeated(empty_dsn: str) -> None:
    for _ in range(2):
        done = call("create", "--dsn", empty_dsn)
        assert (done.returncode, done.stdout, done.stderr) == (0, f'table "queue": version {migrations.VERSION}\n', "")
    with PQ(empty_dsn) as pq:
        pq["a"].put(1)


def test_create_upgrades(empty_dsn: str) -> None:
    execute(empty_dsn, V1)
    assert "version 1" in call("version", "--dsn", empty_dsn).stdout
    assert call("create", "--dsn", empty_dsn).returncode == 0
    assert f'table "queue": version {migrations.VERSION}\n' in call("version", "--dsn", empty_dsn).stdout


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (["--table", "Jobs"], "jobs"),
        (["--table", 'my "jobs"'], '"my ""jobs"""'),
        (["--schema", "app"], "app.queue"),
        (["--table", "app.jobs"], "app.jobs"),
    ],
)
def test_table_and_schema_are_named(empty_dsn: str, args: list[str], name: str) -> None:
    assert call("create", "--dsn", empty_dsn, *args).returncode == 0
    assert execute(empty_dsn, "select to_regclass(%s) is not null", (name,)) == [(True,)]
    assert f": version {migrations.VERSION}\n" in call("version", "--dsn", empty_dsn, *args).stdout


def test_version_tells_that_the_table_is_missing(empty_dsn: str) -> None:
    done = call("version", "--dsn", empty_dsn)
    assert done.returncode == 0
    assert re.match(rf'pq {pq.__version__}, .*; table "queue": missing', done.stdout)


@pytest.mark.parametrize("since", range(migrations.VERSION))
def test_the_sql_that_is_printed_does_what_create_does(empty_dsn: str, since: int) -> None:
    for step in migrations.steps()[:since]:
        execute(empty_dsn, migrations.for_table(step.sql, _sql.TableName("queue")))
    done = call("sql", "--since", str(since))
    assert (done.returncode, done.stderr) == (0, "")
    execute(empty_dsn, done.stdout)
    with PQ(empty_dsn) as pq:
        assert pq.version() == migrations.VERSION
        pq["a"].put(1)


@pytest.mark.parametrize("options", [[], ["--down"], ["--stream", "orders"]], ids=" ".join)
def test_the_sql_can_be_for_a_transaction_of_somebody_elses(empty_dsn: str, options: list[str]) -> None:
    whole, inner = (call("sql", *options, *more).stdout for more in ([], ["--no-transaction"]))
    assert whole == f"begin;\n\n{inner}\ncommit;\n"
    assert not re.search(r"^(begin|commit);", inner, re.MULTILINE)


def test_the_sql_is_for_the_table_that_is_named() -> None:
    script = call("sql", "--table", "jobs", "--schema", "app").stdout
    assert 'create table if not exists "app"."jobs"' in script
    assert not re.search(r"\bqueue\b", re.sub(r"--.*", "", script))


# -- which database


@pytest.mark.parametrize("chosen", range(4))
def test_the_database_is_that_of_dsn_then_pq_dsn_then_database_url_then_libpq(empty_dsn: str, chosen: int) -> None:
    """What comes after the chosen one leads nowhere, so that it would fail if it were asked."""
    dsns = [empty_dsn if place == chosen else NOWHERE if place > chosen else "" for place in range(4)]
    args = ["--dsn", dsns[0]] if dsns[0] else []
    done = call("create", *args, PQ_DSN=dsns[1], DATABASE_URL=dsns[2], **libpq(dsns[3]))
    assert (done.returncode, done.stderr) == (0, "")
    assert execute(empty_dsn, "select to_regclass('queue') is not null") == [(True,)]


# -- what goes wrong

BAD_NAMES = [["--table", ""], ["--schema", ""], ["--table", "x" * 64]]


@pytest.mark.parametrize("args", BAD_NAMES, ids=lambda args: args[0] + args[1][:3])
def test_wrong_names_are_wrong_usage(dsn: str, args: list[str]) -> None:
    done = call("create", "--dsn", dsn, *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"pq: .*\n", done.stderr)


@pytest.mark.parametrize(
    "args",
    [["none"], ["create", "--none"], ["sql", "--since", "-1"], ["sql", "--since", str(migrations.VERSION + 1)]],
    ids=" ".join,
)
def test_wrong_arguments_are_wrong_usage(args: list[str]) -> None:
    done = call(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(r"usage: pq .*\n(?:.*\n)*pq.* error: ", done.stderr)


@pytest.mark.parametrize(
    ("before", "options", "message"),
    [
        ("create table queue (x int)", "", "is not a queue table"),
        ("select 1", "-c default_transaction_read_only=on", "read-only transaction"),
    ],
    ids=["another table", "not allowed"],
)
def test_a_failure_is_one_line(empty_dsn: str, before: str, options: str, message: str) -> None:
    execute(empty_dsn, before)
    done = call("create", "--dsn", empty_dsn, PGOPTIONS=options)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"pq: .*{message}.*\n", done.stderr)


@pytest.mark.parametrize("command", ["create", "version"])
def test_no_connection_is_one_line_and_has_a_code_of_its_own(command: str) -> None:
    done = call(command, "--dsn", NOWHERE)
    assert (done.returncode, done.stdout) == (3, "")
    assert re.fullmatch(r"pq: no connection: .*refused.*\n", done.stderr)


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["version", "--dsn", NOWHERE], 3),
        (["version", "--dsn", "host=127.0.0.1 port=1 password=s3cret"], 3),
        (["version", "--dsn", "postgresql://postgres:s3cret%zz@127.0.0.1/app"], 2),
        (["version", "--dsn", "host=127.0.0.1 password='s3cret"], 2),
        (["version", "--dsn", "postgresql://postgres:s3cret/x@127.0.0.1:1/app"], 2),
        (["version", "--dsn", "postgresql://postgres:x@s3cret@127.0.0.1:1/app"], 2),
        (["version", "--dsn", "mysql://root:s3cret@127.0.0.1/app"], 2),
        (["version", "--dns=password='s3cret'"], 2),
        (["version", "--dns", "password=s3cret"], 2),
        (["version", NOWHERE], 2),
        ([NOWHERE, "version"], 2),
    ],
    ids=str,
)
def test_no_password_is_shown(args: list[str], code: int) -> None:
    done = call(*args)
    assert done.returncode == code
    assert done.stderr
    assert "s3cret" not in done.stdout + done.stderr


def test_no_password_is_shown_that_the_server_is_told(dsn: str) -> None:
    done = call("version", "--dsn", make_dsn(dsn, dbname="nowhere", password="s3cret"))
    assert done.returncode == 3
    assert "nowhere" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr


# -- the process


def test_without_a_driver_it_is_one_line() -> None:
    code = "import sys; sys.modules |= {'psycopg2': None, 'psycopg': None}; from pq._cli.main import main; exit(main())"
    command = [sys.executable, "-c", code, "version", "--dsn", NOWHERE]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "pq: none of these can be imported: psycopg2, psycopg\n"


def test_without_a_command_the_help_is_shown() -> None:
    done = call()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == call("--help").stdout
    for word in ("create", "sql", "version", "demo", "PQ_DSN", "DATABASE_URL", "exit codes"):
        assert word in done.stdout


def test_the_version_of_pq() -> None:
    assert call("--version").stdout == f"pq {pq.__version__}\n"


@pytest.mark.parametrize("arg", ["sql", "--help"])
def test_a_reader_that_is_gone_is_no_news(arg: str) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [*COMMAND, arg], env=environment(), cwd=ROOT, stdout=write, stderr=subprocess.PIPE, timeout=PATIENCE
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_failure_stays_one_where_the_reader_is_gone(empty_dsn: str) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [*COMMAND, "list", "a", "--dsn", empty_dsn], env=environment(), cwd=ROOT, stdout=write,
            stderr=subprocess.PIPE, timeout=PATIENCE,
        )  # fmt: skip
    finally:
        os.close(write)
    assert done.returncode == 1
    assert done.stderr.startswith(b"pq: ")


@pytest.mark.parametrize("errors", ["gone", "closed"])
@pytest.mark.parametrize(
    ("args", "code", "output"),
    [
        (["show", "a", "1"], 1, b""),
        (["cancel", "a", "1", "--yes"], 1, b"0 cancelled\n"),
        (["list", "a", "--json"], 0, b"[]\n"),
        (["nosuch"], 2, b""),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_errors_that_nobody_reads_change_neither_the_output_nor_the_exit_code(
    dsn: str, errors: str, args: list[str], code: int, output: bytes
) -> None:
    command = [*COMMAND, *args] if errors == "gone" else ["sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND, *args]
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            command, env=environment(PQ_DSN=dsn), cwd=ROOT, stdout=subprocess.PIPE, stderr=write, timeout=PATIENCE
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stdout) == (code, output)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_output_that_cannot_be_written_is_a_failure() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "sql"], env=environment(), cwd=ROOT, stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE
        )
    assert done.returncode == 1
    assert re.fullmatch(rb"pq: .*No space left.*\n", done.stderr)


def test_ctrl_c_ends_it_without_a_traceback(empty_dsn: str) -> None:
    execute(empty_dsn, V1)
    with closing(psycopg2.connect(empty_dsn)) as blocker, blocker.cursor() as cursor:
        cursor.execute("lock table queue")
        with subprocess.Popen(
            [*COMMAND, "create", "--dsn", empty_dsn], env=environment(), cwd=ROOT, stderr=subprocess.PIPE
        ) as process:
            waiting = "select 1 from pg_locks where not granted and relation = 'queue'::regclass"
            wait_until(lambda: execute(empty_dsn, waiting), "the wait for the lock")
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (130, b"")
