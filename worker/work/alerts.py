"""Delivers what a person must hear of: unresolved, refused, lock-out. Never in a cancel's way."""

import json
from collections.abc import Callable
from datetime import timedelta

import structlog

from worker.gaps import Gap, reached
from worker.settings import names_live
from worker.work.crew import Crew

log = structlog.get_logger()
# An alert that its receiver did not take is tried again so often, twenty times in all (cancelq_alert counts).
AGAIN_AFTER = timedelta(seconds=30)
# Delivered in one go; the rest comes with the next one.
ROUND = 20


def deliver(crew: Crew, *, ending: Callable[[], bool]) -> None:
    """Post the alerts that are due, one POST each; one that fails, or the worker's end, ends the round."""
    if crew.webhook is None:
        return
    for _ in range(ROUND):
        if ending():
            return
        alert = crew.ledger.next_alert(AGAIN_AFTER)
        if alert is None:
            return
        reached(Gap.ALERT_TAKEN)
        trouble = crew.webhook.post(_body(crew, alert))
        if trouble is not None:
            log.warning("alert.not_delivered", error=trouble)
            return
        reached(Gap.ALERT_SENT)
        crew.ledger.alerted(alert)


def _body(crew: Crew, alert: str) -> bytes:
    """What happened, and where."""
    place = {
        "ledger": crew.ledger.name,
        "exchange": crew.post.exchange,
        "live": names_live(crew.post.exchange),
        "dryRun": crew.post.dry_run,
    }
    return json.dumps(json.loads(alert) | place).encode()
