"""The public query surface, row by row: what the views say, as plain mappings."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Engine, Table, func, select

from worker.audit.engine import reading
from worker.audit.views import audit_actions, audit_attempts, audit_jobs, audit_overlaps, audit_requests

VIEWS: dict[str, Table] = {
    view.name: view for view in (audit_jobs, audit_attempts, audit_requests, audit_actions, audit_overlaps)
}


def rows(engine: Engine, view: str) -> Iterator[dict[str, Any]]:
    """Every row of one of the views, streamed."""
    with reading(engine) as connection:
        found = connection.execution_options(yield_per=1000).execute(select(VIEWS[view]))
        for row in found.mappings():
            yield dict(row)


def finished(engine: Engine) -> int:
    """How many jobs have their outcome."""
    query = select(func.count()).select_from(audit_jobs).where(audit_jobs.c.outcome.is_not(None))
    with reading(engine) as connection:
        return int(connection.execute(query).scalar_one())
