"""Whether this worker does its work: red when work is due and nothing moves. Asks the ledger, changes nothing."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from worker.clock import monotonic
from worker.errors import LedgerUnavailable
from worker.ledger.client import Ledger
from worker.ledger.encoding import Gauges
from worker.ledger.words import Claimed, Swept
from worker.policy import End
from worker.work.happening import Happening, Replied, Settled

# Longer than any pause that a single failure makes: five renewals of a lease, ten calls to a frozen Redis.
SILENCE = timedelta(seconds=10)
# A round that does well may take two requests to their bounds, and a commit to its own and a second more.
REQUESTS_PER_ROUND = 2
COMMIT_OF_A_ROUND = timedelta(seconds=12)


@dataclass(frozen=True, slots=True)
class Health:
    """Green, or red and why; the notes say what holds cancels back on purpose."""

    reasons: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def green(self) -> bool:
        return not self.reasons


class Pulse:
    """Remembers when this process took work, when anything came of it, and when it reached the ledger (monotonic)."""

    def __init__(self, total_timeout: timedelta, now: Callable[[], timedelta] = monotonic) -> None:
        self.patience = REQUESTS_PER_ROUND * total_timeout + COMMIT_OF_A_ROUND
        self.now = now
        self._took = self._moved = self._swept = now()
        self._fruitless_since: timedelta | None = None

    def __call__(self, happening: Happening) -> None:
        match happening:
            case Settled():
                if happening.learned or isinstance(happening.decision, End):
                    self._moved, self._fruitless_since = self.now(), None
            case Claimed():
                if happening.jobs:
                    self._take()
            case Swept():
                self._swept = self.now()
            case Replied():
                pass  # what it led to is settled at once

    def _take(self) -> None:
        now = self.now()
        if self._fruitless_since is None or now - self._took > self.patience:
            self._fruitless_since = now
        self._took = now

    def complaints(self) -> Iterator[str]:
        """What can be said without asking the ledger."""
        now, since = self.now(), self._fruitless_since
        if now - self._swept > SILENCE:
            yield f"the ledger was not reached for {_seconds(now - self._swept)}"
        # What was taken once and went to another worker is no complaint; what is taken again and again is one.
        if since is not None and now - since > self.patience > now - self._took:
            yield f"cancels are taken in hand and nothing came of any for {_seconds(now - since)}"

    def stands_still(self) -> bool:
        return self.now() - self._moved > self.patience


def examine(pulse: Pulse, beats: Mapping[str, timedelta], ledger: Ledger) -> Health:
    """All that can be said now; `beats` is when each duty last began (monotonic)."""
    reasons = list(pulse.complaints())
    for duty, beat in beats.items():
        if pulse.now() - beat > SILENCE:
            reasons.append(f"the duty {duty} has not begun for {_seconds(pulse.now() - beat)}")
    try:
        gauges = ledger.gauges()
    except LedgerUnavailable as error:
        return Health(tuple(reasons), (str(error),))
    if gauges.locked_out_until is None and pulse.stands_still() and _is_overdue(gauges, pulse.patience):
        since = f"{gauges.oldest_due:%FT%TZ}"
        reasons.append(f"{gauges.due} cancels are due, the oldest since {since}, and nothing moves")
    return Health(tuple(reasons), tuple(_held_back(gauges)))


def _is_overdue(gauges: Gauges, patience: timedelta) -> bool:
    return gauges.oldest_due is not None and gauges.now - gauges.oldest_due > patience


def _held_back(gauges: Gauges) -> list[str]:
    notes = []
    if gauges.locked_out_until is not None:
        notes.append(f"locked out by the exchange until {gauges.locked_out_until:%FT%TZ}")
    if gauges.paused:
        notes.append("paused; `cancelq resume` ends it")
    if gauges.draining:
        notes.append("draining; `cancelq resume` ends it")
    return notes


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.0f} s"
