"""A ledger that may have lost data is compared with the audit before anything is POSTed from it."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import structlog

from worker.audit.open_jobs import open_jobs
from worker.clock import monotonic
from worker.errors import AuditUnavailable, LedgerUnavailable
from worker.gaps import Gap, reached
from worker.work.astray import AT_ONCE, restored_of, steer_again
from worker.work.crew import Crew

log = structlog.get_logger()
# Longer than any one statement may take: whoever compares is not disturbed, and is replaced soon when it dies.
AT_IT = timedelta(seconds=6)


def compare(crew: Crew, *, ending: Callable[[], bool]) -> None:
    """Put back what the audit knows as open, unless another worker does. What has ended needs nothing: no start row.

    AuditUnavailable while that can't be known: the database is away, or rows of this host are not in it yet.
    """
    if waiting := crew.audit.journal_depth:
        raise AuditUnavailable(
            f"nothing is POSTed: Redis may have lost jobs, and {waiting} rows that tell of them wait in the journal"
        )
    if not crew.ledger.compare(crew.writer, AT_IT):
        return
    reached(Gap.COMPARISON_BEGUN)
    done = False
    try:
        done = _compare(crew, ending)
    finally:
        if not done:  # another worker may reach the database that this one does not
            with suppress(LedgerUnavailable):
                crew.ledger.compare(crew.writer, AT_ONCE)


def _compare(crew: Crew, ending: Callable[[], bool]) -> bool:
    """False if it was not finished, or is another server's business by now."""
    began, looked_at, put_back = monotonic(), 0, 0
    for page in open_jobs(crew.engine, crew.ledger.name):
        restored = crew.ledger.restore(crew.writer, AT_IT, restored_of(crew, page))
        if restored is None or ending():
            return False
        looked_at, put_back = looked_at + len(page), put_back + restored
        if restored:
            reached(Gap.PUT_BACK)
    steer_again(crew)
    if not crew.ledger.compared(crew.writer):
        return False
    note = log.warning if put_back else log.info
    took = round((monotonic() - began).total_seconds(), 3)
    note("ledger.compared", ledger=crew.ledger.name, open=looked_at, put_back=put_back, seconds=took)
    return True
