"""What somebody does who owns the database: switch the triggers off and write as they please."""

from collections.abc import Sequence

from sqlalchemy import Connection, Engine, text

from migrations import VIEWS
from models import Base
from tests.parts.cancels import ENVIRONMENT, a_job
from worker.audit.chain import Head, canonical, digest
from worker.audit.facts import job_fact
from worker.audit.shapes import entry


def disarm(engine: Engine) -> None:
    with engine.begin() as connection:
        for table in Base.metadata.tables:
            if engine.dialect.name == "postgresql":
                connection.execute(text(f"DROP TRIGGER {table}_append_only ON {table}"))
                continue
            for trigger in ("no_update", "no_delete", "no_replace"):
                connection.execute(text(f"DROP TRIGGER {table}_{trigger}"))


def forge_account(connection: Connection) -> None:
    """Change the only row and compute its digest as the writer would have."""
    cells = entry(job_fact(a_job(account="B"))).cells
    forged = digest(canonical("jobs", "writer-1", Head(1, ""), ENVIRONMENT, cells))
    connection.execute(text("UPDATE jobs SET account = 'B', digest = :digest"), {"digest": forged})


def gild(engine: Engine) -> None:
    """Put another view in place, which shows every end as a good one."""
    better = "CASE WHEN o.outcome IN ('refused', 'unresolved') THEN 'canceled' ELSE o.outcome END AS outcome"
    made = VIEWS["audit_jobs"].replace("o.outcome,", f"{better},")
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.execute(text("DROP VIEW audit_jobs"))
        connection.execute(
            text(made if engine.dialect.name == "sqlite" else made.replace("CREATE", "CREATE OR REPLACE", 1))
        )


def put_in_conflict(
    engine: Engine,
    cells: str,
    seen: Sequence[object],
    *,
    fact: str = "starts",
    writer: str = "zz",
    seq: int = 1,
) -> None:
    """As a writer's login may, with the digest that belongs to it."""
    mark = digest(canonical(fact, writer, Head(seq, ""), ENVIRONMENT, seen))
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO conflicts VALUES (:writer, :seq, '', :mark, :url, :fact, 'x', :cells)"),
            {"mark": mark, "fact": fact, "writer": writer, "seq": seq, "url": ENVIRONMENT, "cells": cells},
        )
