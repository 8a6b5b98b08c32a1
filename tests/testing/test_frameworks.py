"""`pq.testing` in the test classes and fixtures of others, and the fixtures that it has itself."""

from __future__ import annotations

import os
import subprocess
import sys
import unittest
from contextlib import closing
from pathlib import Path

import pytest
from support.driver import driver

import pq as package
from pq import PQ
from pq.testing import drain

ROOT = Path(package.__file__).parents[1]


@pytest.fixture()
def send(pq: PQ):
    """A task that fails for one address, after it has written something."""
    sent: list[str] = []

    @pq["mails"].task(name="send")
    def send(job_id, to):
        sent.append(to)
        if to == "bad":
            raise ValueError("bad")

    send.sent = sent
    return send


def test_a_session_in_a_transaction_that_is_rolled_back(pq, dsn, send):
    sa = pytest.importorskip("sqlalchemy", minversion="2")
    orm = pytest.importorskip("sqlalchemy.orm")
    engine = sa.create_engine(f"postgresql+{driver.package}://", creator=lambda: driver.connect(dsn))
    with engine.connect() as connection:
        transaction = connection.begin()
        with orm.Session(connection, join_transaction_mode="create_savepoint") as session:
            session.execute(sa.text("create table account (address text unique)"))
            send("ann", _conn=session)
            session.commit()
            drain(pq, session)
            session.execute(sa.text("insert into account values ('ann')"))
            send("bad", _conn=session)
            performed = drain(pq, session, raises=False)
            assert [each.outcome for each in performed] == ["dead"]
            assert session.scalar(sa.text("select count(*) from account")) == 1
        transaction.rollback()
    engine.dispose()
    assert send.sent == ["ann", "bad"]
    assert list(pq) == []


def test_a_session_whose_statement_fails_in_a_task(pq, dsn):
    """The session undoes its savepoint itself, so a task that writes by it has one of its own."""
    sa = pytest.importorskip("sqlalchemy", minversion="2")
    orm = pytest.importorskip("sqlalchemy.orm")
    engine = sa.create_engine(f"postgresql+{driver.package}://", creator=lambda: driver.connect(dsn))
    with engine.connect() as connection:
        transaction = connection.begin()
        with orm.Session(connection, join_transaction_mode="create_savepoint") as session:

            @pq["mails"].task(name="divide")
            def divide(job_id):
                with session.begin_nested():
                    session.execute(sa.text("select 1 / 0"))

            id = divide(_conn=session)
            performed = drain(pq, session, raises=False)
            assert [each.outcome for each in performed] == ["dead"]
            with pq.using(session):
                assert pq["mails"][id].state == "dead"
        transaction.rollback()
    engine.dispose()


def test_a_test_case_of_unittest(pq, dsn, send):
    class SignupTest(unittest.TestCase):
        def setUp(self):
            self.conn = driver.connect(dsn)
            self.addCleanup(self.conn.close)
            using = pq.using(self.conn)
            using.__enter__()
            self.addCleanup(using.__exit__, None, None, None)

        def test_signup(self):
            send("ann")
            drain(pq, self.conn)

    result = unittest.TestResult()
    SignupTest("test_signup").run(result)
    assert result.wasSuccessful(), result.errors + result.failures
    assert send.sent == ["ann"]
    assert list(pq) == []


def test_the_shop_of_the_examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples")])}
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", str(ROOT / "examples" / "test_shop.py")]
    done = subprocess.run(
        [sys.executable, *command, "-c", os.devnull, f"--rootdir={folder}"],
        cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=300,
    )  # fmt: skip
    assert "10 passed" in done.stdout, done.stdout + done.stderr


def test_the_table_of_pq_clean_is_empty(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    (folder / "test_clean.py").write_text(
        'pytest_plugins = ["pq.testing.fixtures"]\n\n'
        'def test_one(pq_clean):\n    pq_clean["a"].put(1)\n\n'
        'def test_two(pq_clean):\n    assert list(pq_clean) == []\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "-c", os.devnull, "test_clean.py"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, encoding="utf-8", timeout=300,
    )  # fmt: skip
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_nothing_needs_pytest():
    """What is used from unittest, or in production by mistake, does not import it."""
    code = "import sys, pq.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode == 0


def test_a_cursor_is_as_good_as_its_connection(pq, dsn, send):
    with closing(driver.connect(dsn)) as conn, conn.cursor() as cursor:
        send("ann", _conn=cursor)
        drain(pq, cursor)
    assert send.sent == ["ann"]
