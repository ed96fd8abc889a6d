"""What this process holds: claims in hand with their leases, and the ledger's clock. No I/O."""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from worker.clock import EPOCH, monotonic, utc_now
from worker.errors import LeaseLapsed
from worker.gaps import Gap, reached
from worker.job import ClaimId, Job, JobId

# A write that starts this close to the lease's end could reach the wire after it: the margin of the
# one-POST-in-flight promise.
LEASE_MARGIN = timedelta(milliseconds=250)
# Clocks drift by tens of microseconds a second: an estimate is renewed before that counts.
ESTIMATE_LIFE = timedelta(seconds=30)


class LedgerClock:
    """The ledger server's time, carried on between two answers by the monotonic clock.

    Deadlines and budgets are the ledger's, so they are measured by its clock. The times in the audit are this
    host's own: rows of one attempt must not contradict each other by the error of an estimate.
    """

    def __init__(self) -> None:
        self._offset = utc_now() - EPOCH - monotonic()
        self._error = timedelta.max
        self._observed_at = monotonic()

    def observe(self, server_now: datetime, asked_at: timedelta) -> None:
        """The server said `server_now` to a question asked at `asked_at`; the quickest answer is the best."""
        now = monotonic()
        error = (now - asked_at) / 2
        if error <= self._error or now - self._observed_at > ESTIMATE_LIFE:
            self._offset = server_now - EPOCH - (asked_at + now) / 2
            self._error, self._observed_at = error, now

    def now(self) -> datetime:
        return EPOCH + self._offset + monotonic()


@dataclass(frozen=True, slots=True)
class Held:
    """One claim: valid until (monotonic) unless renewed, and renewed only while it is worked."""

    claim: ClaimId
    valid_until: timedelta
    works_until: timedelta


class Hand:
    """The claims that this process holds; whatever is not in it is nobody's business here."""

    def __init__(self, *, lease: timedelta, work_bound: timedelta) -> None:
        self._lease = lease
        self._work_bound = work_bound
        self._lock = threading.Lock()
        self._held: dict[JobId, Held] = {}
        self.on_hold = False  # as the ledger last said; what is in hand stops before its first byte

    def take(self, jobs: Sequence[Job], claim: ClaimId, asked_at: timedelta) -> None:
        """Validity counts from before the claim was sent: the server cannot have granted more."""
        held = Held(claim, asked_at + self._lease, monotonic() + self._work_bound)
        with self._lock:
            self._held.update((job.id, held) for job in jobs)

    def renewable(self) -> list[tuple[JobId, ClaimId]]:
        """The claims to name in a renewal: a job past its work bound is stuck and must lapse."""
        now = monotonic()
        with self._lock:
            return [(job, held.claim) for job, held in self._held.items() if now < held.works_until]

    def renewed(
        self, named: Iterable[tuple[JobId, ClaimId]], lost: frozenset[JobId], asked_at: timedelta
    ) -> None:
        with self._lock:
            for job, claim in named:
                held = self._held.get(job)
                if held is not None and held.claim == claim:
                    until = timedelta(0) if job in lost else asked_at + self._lease
                    self._held[job] = Held(claim, until, held.works_until)

    def drop(self, done: Iterable[tuple[JobId, ClaimId]]) -> None:
        """Let go of claims; a job that was claimed anew in the meantime stays under its new claim."""
        with self._lock:
            for job, claim in done:
                held = self._held.get(job)
                if held is not None and held.claim == claim:
                    del self._held[job]

    def permit(self, job: Job, claim: ClaimId, *, clock: LedgerClock) -> Callable[[], None]:
        """The check that is the last statement before the first byte of a POST, under this claim and no later one."""

        def check() -> None:
            held = self._held.get(job.id)
            if held is None or held.claim != claim or monotonic() + LEASE_MARGIN >= held.valid_until:
                raise LeaseLapsed("the lease lapsed before the first byte")
            if self.on_hold:
                raise LeaseLapsed("the ledger was put on hold before the first byte")
            deadline = job.request.deadline
            if deadline is not None and clock.now() >= deadline:
                raise LeaseLapsed("the deadline passed before the first byte")
            reached(Gap.PERMITTED)

        return check

    def holds(self, job: JobId, claim: ClaimId) -> bool:
        """Whether the lease still stands; once it does not, another holder may be sending."""
        held = self._held.get(job)
        return held is not None and held.claim == claim and monotonic() < held.valid_until

    def __len__(self) -> int:
        return len(self._held)
