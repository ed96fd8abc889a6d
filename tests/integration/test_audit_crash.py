"""Two processes at once, a process killed in the middle of commits, a database that goes away in COMMIT."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text

from tests.parts.audit_child import ATTEMPTS
from tests.parts.cancels import a_job, a_start, writing
from tests.parts.databases import PostgresServer
from worker.audit.engine import open_engine
from worker.audit.facts import job_fact
from worker.audit.verify import verify
from worker.audit.writer import Stored
from worker.errors import AuditUnavailable

ROOT = Path(__file__).parents[2]


@contextmanager
def child(url: str, writer: str, role: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.parts.audit_child", url, writer, role],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with process:
        yield process
        process.kill()


def test_two_processes_racing_for_the_same_attempts_get_each_once(
    database_url: str, audit_engine: Engine
) -> None:
    with child(database_url, "one", "race") as one, child(database_url, "two", "race") as two:
        for process in (one, two):
            assert process.stdout.readline() == "ready\n"
        for process in (one, two):
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [[process.stdout.readline().split() for _ in range(ATTEMPTS)] for process in (one, two)]
        assert (one.wait(20), two.wait(20)) == (0, 0)
    for first, second in zip(*said, strict=True):
        assert sorted((first[1], second[1])) == ["new", "there"]
    checked = verify(audit_engine)
    assert (checked.fault, checked.rows) == (None, ATTEMPTS + 1)


@pytest.mark.parametrize("after", [1, 40, 200])
def test_a_process_killed_in_the_middle_of_commits_leaves_a_chain_that_verifies(
    database_url: str, audit_engine: Engine, after: int
) -> None:
    with child(database_url, "victim", "pour") as process:
        said = [process.stdout.readline() for _ in range(after)]
        process.send_signal(signal.SIGKILL)
        said += process.stdout.readlines()
    promised = {line.strip() for line in said if line.endswith("\n")}
    checked = verify(audit_engine)
    assert checked.fault is None
    with audit_engine.connect() as connection:
        stored = set(connection.execute(text("SELECT job_id FROM starts")).scalars())
    assert len(promised) >= after
    assert promised <= stored


@pytest.fixture
def private_engine(private_postgres: PostgresServer) -> Iterator[Engine]:
    engine = open_engine(private_postgres.url("audit"), statement_bound=timedelta(seconds=1))
    yield engine
    engine.dispose()


def test_a_database_that_restarts_is_waited_for(
    private_engine: Engine, private_postgres: PostgresServer
) -> None:
    with writing(private_engine) as audit:
        audit.commit([job_fact(a_job())])
        private_postgres.restart()
        assert audit.commit([a_start()]) == [Stored.NEW]
    assert verify(private_engine).fault is None


def test_a_frozen_database_is_given_up_within_the_bound_and_taken_up_again(
    private_engine: Engine, private_postgres: PostgresServer
) -> None:
    with writing(private_engine) as audit:
        audit.commit([job_fact(a_job())])
        private_postgres.freeze()
        with pytest.raises(AuditUnavailable):
            audit.commit([a_start(attempt=1)], timeout=timedelta(seconds=1))
        private_postgres.thaw()
        # The rows of the call that was given up are in doubt no longer: they are there, or are written now.
        assert audit.commit([a_start(attempt=1)])[0] in {Stored.NEW, Stored.THERE}
        assert audit.commit([a_start(attempt=2)]) == [Stored.NEW]
    assert verify(private_engine).fault is None


@pytest.mark.parametrize("arrived", [True, False])
def test_a_commit_whose_answer_is_lost_is_settled_by_looking(audit_engine: Engine, *, arrived: bool) -> None:
    lost = []

    @event.listens_for(audit_engine, "commit")
    def lose_the_answer(connection: object) -> None:
        if not lost:
            lost.append(True)
            driver = connection.connection.driver_connection
            driver.commit() if arrived else driver.rollback()
            raise audit_engine.dialect.loaded_dbapi.OperationalError("the connection is gone")

    with writing(audit_engine) as audit:
        assert audit.commit([job_fact(a_job()), a_start()]) == [Stored.NEW, Stored.NEW]
        assert audit.commit([a_start(attempt=2)]) == [Stored.NEW]
    assert lost
    checked = verify(audit_engine)
    assert (checked.fault, checked.rows) == (None, 3)
