"""Orders that the audit takes to be open: what a list that lacks them is at odds with. Reads only."""

from datetime import datetime

from sqlalchemy import Engine, and_, func, or_, select

from models import Ended, Enqueued
from worker.audit.engine import reading
from worker.job import Evidence, OrderId, Outcome

# More than that is no forgotten order but a list that is wrong as a whole; the newest say enough.
MOST = 1000


def known_open(engine: Engine, account: str, since: datetime) -> dict[OrderId, str]:
    """The account's orders whose newest cancel since then has not ended, or ended with the order seen open; with its evidence."""
    newest = (
        select(func.max(Enqueued.job_id).label("job_id"))
        .where(Enqueued.account == account, Enqueued.enqueued_at >= since)
        .group_by(Enqueued.order_id)
        .subquery()
    )
    seen_open = and_(
        Ended.outcome == Outcome.UNRESOLVED.value, Ended.evidence.startswith(Evidence.SEEN_WORKING.value)
    )
    statement = (
        select(Enqueued.order_id, Ended.evidence)
        .join(newest, newest.c.job_id == Enqueued.job_id)
        .outerjoin(Ended, Ended.job_id == Enqueued.job_id)
        .where(or_(Ended.outcome.is_(None), seen_open))
        .order_by(Enqueued.job_id.desc())
        .limit(MOST)
    )
    with reading(engine) as connection:
        return {
            OrderId(row.order_id): row.evidence or "a cancel that has not ended"
            for row in connection.execute(statement)
        }
