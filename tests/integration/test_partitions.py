"""deploy/partitions.sql: the audit is the same in months, and a month can be put aside and taken back."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine

from bench.fill import DAYS, ENVIRONMENT, FIRST_DAY, FIRST_ORDER, fill, jobs
from migrations.views_0001 import VIEWS
from tests.parts.cancels import a_row_everywhere, a_start, record, writing
from tests.parts.databases import empty_database_beside
from worker.audit import surface
from worker.audit.engine import open_engine
from worker.audit.migrating import migrate
from worker.audit.order_story import order_story
from worker.audit.schema import require_head, require_writer
from worker.audit.seals import Sealer
from worker.audit.verify import verify
from worker.audit.writer import Stored

SCRIPT = (Path(__file__).parents[2] / "deploy" / "partitions.sql").read_text()
JANUARY = "2026-01-01 00:00+00"


@pytest.fixture
def url(postgres: object, postgres_template: str) -> Iterator[str]:
    server_url = postgres.url(postgres_template)  # type: ignore[attr-defined]
    fresh = empty_database_beside(server_url)
    migrate(fresh)
    with psycopg.connect(fresh) as connection:
        connection.execute(SCRIPT.encode())
    yield fresh
    name = fresh.partition("?")[0].rpartition("/")[2]
    postgres.run(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[attr-defined]


@pytest.fixture
def audit(url: str) -> Iterator[Engine]:
    engine = open_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def owner(url: str) -> Iterator["psycopg.Connection"]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def test_writer_fence_and_views_are_as_before(audit: Engine, owner: "psycopg.Connection") -> None:
    require_head(audit)
    require_writer(audit)
    record(audit, *a_row_everywhere())
    with writing(audit, "writer-2") as other:
        assert other.commit([a_start()]) == [Stored.ENDED]
    assert verify(audit).fault is None
    assert {name: len(list(surface.rows(audit, name))) for name in VIEWS}["audit_jobs"] == 1
    with pytest.raises(psycopg.errors.UniqueViolation):
        owner.execute(
            "INSERT INTO outcomes SELECT 'w', 1, prev, digest, environment, job_id, outcome, evidence, "
            "detail, filled_qty, finished_at FROM outcomes"
        )


def test_a_month_is_put_aside_and_taken_back(audit: Engine, owner: "psycopg.Connection") -> None:
    owner.execute(
        "SELECT cancelq_make_month(month) FROM generate_series(%s, %s::timestamptz, '1 month') AS month",
        (FIRST_DAY, datetime(2026, 10, 1, tzinfo=UTC)),
    )
    fill(audit, DAYS * 5)
    whole = verify(audit)
    seal = Sealer(audit, ENVIRONMENT).seal(whole.heads)
    assert seal is not None
    owner.execute("SELECT cancelq_put_aside(%s)", (JANUARY,))
    assert order_story(audit, FIRST_ORDER).jobs == ()
    assert "is named by seal 1" in str(verify(audit).fault)  # whoever put it aside must have it
    for statement in (
        "DELETE FROM audit_jobs_2026_01",
        "UPDATE audit_starts_2026_02 SET worker = ''",
        "TRUNCATE audit_outcomes_rest",
    ):
        with pytest.raises(psycopg.errors.RestrictViolation):
            owner.execute(statement.encode())
    owner.execute("SELECT cancelq_take_back(%s)", (JANUARY,))
    assert verify(audit, expect=seal.digest).fault is None
    assert verify(audit).heads == whole.heads
    assert len(list(surface.rows(audit, "audit_jobs"))) == jobs(DAYS * 5)


def test_an_audit_with_rows_is_left_alone(audit: Engine, owner: "psycopg.Connection") -> None:
    record(audit, *a_row_everywhere())
    with pytest.raises(psycopg.errors.RaiseException, match="holds rows already"):
        owner.execute(SCRIPT.encode())
