"""A shift works the ledger: claims what is due, writes ahead, hands out, until nothing is due."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial

import structlog
from uuid_utils import uuid7

from worker.clock import utc_now
from worker.errors import AuditUnavailable, CancelqError, FactRejected, LedgerUnavailable
from worker.exchange.client import READ_BATCH, cancel_body
from worker.gaps import Gap, reached
from worker.job import ClaimId, Job, Step
from worker.ledger.client import Claimed
from worker.policy import Again, held_up, instead_of_post, may_post, resumed
from worker.work.attempt import Attempts, Overtaken, Pursuit
from worker.work.crew import Crew
from worker.work.prove import prove
from worker.work.recover import ended
from worker.work.settle import Decided, Settler

log = structlog.get_logger()
# A job that could not be written ahead is handed back for this long.
AUDIT_AWAY = timedelta(seconds=1)


class Senders:
    """A bounded pool of threads that knows how many of them are free."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._busy = 0
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="sender")

    @property
    def free(self) -> int:
        return self._threads - self._busy

    def hand(self, work: Callable[[], None]) -> None:
        with self._changed:
            self._busy += 1
        self._pool.submit(self._run, work)

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            log.exception("sender.broke")
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify()

    def wait_for_one(self, bound: timedelta) -> int:
        """How many are free, waiting up to `bound` for the first."""
        with self._changed:
            self._changed.wait_for(lambda: self.free > 0, timeout=bound.total_seconds())
            return self.free

    def stop(self) -> None:
        """Let the running ones finish."""
        self._pool.shutdown(wait=True)


class Shift:
    """One at a time per process; a bell that finds it running only leaves word."""

    def __init__(self, crew: Crew, settler: Settler) -> None:
        self._crew = crew
        self._settler = settler
        self._senders = Senders(crew.concurrency)
        self._attempts = Attempts(
            crew,
            others_are_free=lambda: self._senders.free > 0 and not self.stopping,
            ending=lambda: self.stopping,
        )
        self._rung = threading.Event()
        self._working = threading.Lock()
        self.stopping = False

    def run(self) -> None:
        """Answer a bell: work until nothing is due, or return at once if somebody does already."""
        self._rung.set()
        while self._rung.is_set() and self._working.acquire(blocking=False):
            try:
                self._rung.clear()
                self._until_nothing_is_due()
            except LedgerUnavailable as error:
                log.warning("shift.no_ledger", error=str(error))
            except Exception:
                log.exception("shift.broke")
            finally:
                self._working.release()

    def leave_word(self) -> bool:
        """Tell a running shift of one more bell; False if none runs and the bell still has to be answered."""
        self._rung.set()
        return self._working.locked()

    @property
    def idle(self) -> bool:
        return not self._working.locked()

    def stop(self) -> None:
        """Claim nothing more; finish what is on the wire; hand the rest back."""
        self.stopping = True
        with self._working:
            self._senders.stop()
        reached(Gap.SENDERS_ENDED)

    def _until_nothing_is_due(self) -> None:
        due_left = True
        while due_left and not self.stopping:
            free = self._senders.wait_for_one(timedelta(seconds=1))
            if free > 0:
                due_left = self._round(free)

    def _round(self, free: int) -> bool:
        """Claim for the free senders and hand out; whether more is due."""
        crew = self._crew
        claim = ClaimId(uuid7().hex)
        claimed = crew.ledger.claim(claim, crew.name, lease=crew.lease, jobs=free, confirms=READ_BATCH)
        reached(Gap.CLAIMED)
        crew.clock.observe(claimed.now, claimed.asked_at)
        crew.hand.paused = claimed.paused
        crew.hand.take(claimed.jobs, claim, claimed.asked_at)
        try:
            self._hand_out(_with_budgets(claimed), claim)
        except BaseException:
            crew.hand.drop((job.id, claim) for job in claimed.jobs)  # what was not handed out must lapse
            raise
        return claimed.due_left

    def _hand_out(self, jobs: Sequence[Job], claim: ClaimId) -> None:
        posts = [job for job in jobs if job.step is Step.POST]
        reads = [job for job in jobs if job.step in {Step.RECONCILE, Step.CONFIRM}]
        for job in jobs:
            if job.step is Step.CLOSE and job.outcome is not None:
                self._settler.put(
                    Decided(job=job, claim=claim, decision=ended(job.outcome, job.evidence, job))
                )
        if reads:
            self._senders.hand(lambda: self._prove(reads, claim))
        self._begin_posts(posts, claim)

    def _begin_posts(self, jobs: Sequence[Job], claim: ClaimId) -> None:
        """Submit all start rows, for one commit; each sender waits for its own. The rest is proved instead."""
        now = self._crew.clock.now()
        begun: list[Pursuit | None] = []
        for job in jobs:
            if may_post(job, self._crew.policy, now):
                begun.append(self._pursuit(job, claim))
            else:
                self._settler.put(Decided(job=job, claim=claim, decision=instead_of_post(job, now)))
        for pursuit in begun:
            if pursuit is not None:
                self._senders.hand(partial(self._pursue, pursuit, claim))

    def _pursuit(self, job: Job, claim: ClaimId) -> Pursuit | None:
        """The body is fixed before the start row that records it; a penalty's ticket rides in it."""
        body = cancel_body(job)
        pursuit = Pursuit(job=job, claim=claim, body=body, started=None)
        try:
            pursuit.started = self._attempts.submit_start(replace(job, attempts=job.attempts + 1), body, [])
        except (AuditUnavailable, FactRejected) as error:
            self._hand_back(pursuit, claim, error)
            return None
        return pursuit

    def _pursue(self, pursuit: Pursuit, claim: ClaimId) -> None:
        try:
            self._attempts.pursue(pursuit)
        except Overtaken as error:
            log.warning("attempt.overtaken", job=pursuit.job.id, stored=str(error.stored))
            if pursuit.sent:  # the claim is another's by now, and so is the job
                self._crew.hand.drop([(pursuit.job.id, claim)])
            else:
                self._prove([replace(pursuit.job, lapsed=True, step=Step.RECONCILE)], claim)
        except (AuditUnavailable, FactRejected, TimeoutError) as error:
            self._hand_back(pursuit, claim, error)
        except Exception:
            log.exception("attempt.broke", job=pursuit.job.id)
            self._crew.hand.drop([(pursuit.job.id, claim)])  # it lapses, and the order is read
        else:
            self._decided(pursuit, claim)

    def _decided(self, pursuit: Pursuit, claim: ClaimId) -> None:
        if pursuit.decision is not None:
            self._settler.put(
                Decided(
                    job=pursuit.job,
                    claim=claim,
                    decision=pursuit.decision,
                    facts=pursuit.unwritten,
                    verdict=pursuit.verdict,
                )
            )

    def _hand_back(self, pursuit: Pursuit, claim: ClaimId, error: Exception) -> None:
        """The database is away. Not sent → due again soon; sent → the lease lapses and the order is read."""
        log.error("audit.unavailable", job=pursuit.job.id, error=str(error) or type(error).__name__)
        if pursuit.sent:
            self._crew.hand.drop([(pursuit.job.id, claim)])
            return
        memory = held_up(pursuit.job.memory, utc_now() - pursuit.taken_at + AUDIT_AWAY)
        again = Again(step=Step.POST, delay=AUDIT_AWAY, memory=memory)
        self._settler.put(Decided(job=pursuit.job, claim=claim, decision=again))

    def _prove(self, jobs: Sequence[Job], claim: ClaimId) -> None:
        try:
            proven = prove(self._crew, jobs)
        except Exception as error:  # noqa: BLE001 - whatever it is, the claims must not stay in hand
            note = log.warning if isinstance(error, CancelqError) else log.exception
            note("prove.failed", jobs=len(jobs), error=str(error))
            self._crew.hand.drop((job.id, claim) for job in jobs)
            return
        for job, decision, facts in proven:
            self._settler.put(Decided(job=job, claim=claim, decision=decision, facts=facts))


def _with_budgets(claimed: Claimed) -> list[Job]:
    """The jobs with their budgets as of this claim."""
    return [
        replace(
            job,
            memory=resumed(
                job.memory, claimed.now, stood_still=claimed.stood_still, held_back=claimed.held_back
            ),
        )
        for job in claimed.jobs
    ]
