"""What was last done with a whole ledger, as the audit knows it. Reads only."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, func, select

from models import Acted
from worker.audit.engine import reading
from worker.job import Steering


@dataclass(frozen=True, slots=True, kw_only=True)
class Steered:
    """How pause, drain and resume left a ledger; `at` and `by` are of the newest of them."""

    at: datetime
    by: str
    paused_at: datetime | None
    draining: bool


def last_steered(engine: Engine, ledger: str) -> Steered | None:
    """None while nothing was done. A resume ends both the others, so that nothing before the last one counts."""
    resumed = select(func.max(Acted.acted_at)).where(Acted.ledger == ledger, Acted.action == Steering.RESUME)
    with reading(engine) as connection:
        since = connection.execute(resumed).scalar()
        wanted = select(Acted.action, Acted.acted_by, Acted.acted_at).where(Acted.ledger == ledger)
        wanted = wanted if since is None else wanted.where(Acted.acted_at >= since)
        rows = connection.execute(wanted.order_by(Acted.acted_at)).all()
    if not rows:
        return None
    held = {row.action: row.acted_at for row in rows if since is None or row.acted_at > since}
    return Steered(
        at=rows[-1].acted_at,
        by=rows[-1].acted_by,
        paused_at=held.get(Steering.PAUSE),
        draining=Steering.DRAIN in held,
    )
