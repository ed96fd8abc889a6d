"""A shift works the ledger: claims what is due, writes ahead, hands out, until nothing is due."""

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import accumulate, chain, count
from queue import SimpleQueue
from typing import TYPE_CHECKING

import structlog
from uuid_utils import uuid7

from worker.audit.writer import Stored
from worker.clock import monotonic, utc_now
from worker.errors import AuditUnavailable, CancelqError, FactRejected, LedgerUnavailable
from worker.exchange.client import READ_BATCH, Exchange, cancel_body
from worker.gaps import Gap, reached
from worker.job import ClaimId, Job, Step
from worker.ledger.words import Claimed
from worker.policy import (
    Again,
    Decision,
    Idle,
    held_up,
    instead_of_post,
    may_post,
    resumed,
    unserved,
    without_token,
)
from worker.work.attempt import COMMIT_BOUND, Attempts, Overtaken, Pursuit
from worker.work.crew import Crew
from worker.work.happening import named
from worker.work.prove import prove
from worker.work.recover import ended
from worker.work.settle import Decided, Settler

if TYPE_CHECKING:
    from concurrent.futures import Future

log = structlog.get_logger()
# A job that could not be written ahead is handed back for this long.
AUDIT_AWAY = timedelta(seconds=1)
# A host that gave no thread is asked for one again after this long.
FEWER_FOR = timedelta(seconds=60)
# Then another takes a sender's place. The C library keeps freed memory of all sizes for each thread until it ends, more with
# everything it does: sixty-four of them grew a worker by 10 MB in 60,000 cancels.
WORKS_OF_A_THREAD = 100
# What a host with too few threads must keep for others: a look-up of a name, two bells, one who asks for /health.
SPARE = 4


class Senders:
    """A bounded number of threads that knows how many of them are free."""

    def __init__(self, threads: int) -> None:
        self._wanted = self._threads = threads
        self._ask_again = timedelta(0)  # (monotonic) while there are fewer than wanted
        self._started: list[threading.Thread] = []
        self._busy = 0
        self._changed = threading.Condition()
        self._waiting: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    @property
    def free(self) -> int:
        return self._threads - self._busy

    def start(self) -> None:
        """The first one; RuntimeError where the host gives no thread: without any, nothing could ever be sent."""
        self._start_one()

    def reserve(self, count: int = 1) -> None:
        """So many are spoken for; each is given work by `hand`, or let go by `release`.

        Where the host gives fewer threads than are wanted, work waits for those that there are.
        """
        with self._changed:
            self._busy += count
            if self._threads < self._wanted and monotonic() >= self._ask_again:
                self._threads = self._wanted
            while len(self._started) < min(self._busy, self._threads):
                try:
                    self._start_one()
                except RuntimeError as error:
                    self._make_do(error)

    def _start_one(self) -> None:
        thread = threading.Thread(target=self._run, name=f"sender-{len(self._started)}", daemon=True)
        thread.start()
        self._started.append(thread)

    def _make_do(self, error: RuntimeError) -> None:
        """With fewer than there are even now: senders that take the last threads could look up no name."""
        for _ in range(min(SPARE, len(self._started) - 1)):
            self._waiting.put(None)
        self._threads = max(len(self._started) - SPARE, 1)
        self._ask_again = monotonic() + FEWER_FOR
        log.error("senders.fewer", threads=self._threads, wanted=self._wanted, reason=str(error))

    def hand(self, work: Callable[[], None]) -> None:
        """Let a reserved thread do this; then it is free."""
        self._waiting.put(work)

    def release(self) -> None:
        with self._changed:
            self._busy -= 1
            self._changed.notify()

    def wait_for_one(self, bound: timedelta) -> int:
        """How many are free, waiting up to `bound` for the first."""
        with self._changed:
            self._changed.wait_for(lambda: self.free > 0, timeout=bound.total_seconds())
            return self.free

    def stop(self, bound: timedelta) -> None:
        """Let those that are spoken for finish, if they do within `bound`; what they leave lapses."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._busy == 0, timeout=bound.total_seconds()):
                log.error("senders.left", busy=self._busy)
                return
        started = list(self._started)
        for _ in started:
            self._waiting.put(None)
        for thread in started:
            thread.join()

    def _run(self) -> None:
        for done in count(1):
            work = self._waiting.get()
            if work is None:
                break
            try:
                work()
            except Exception:
                log.exception("sender.broke")
            is_replaced = done >= WORKS_OF_A_THREAD and self._is_replaced()
            self.release()
            if is_replaced:
                return
        with self._changed:
            self._started.remove(threading.current_thread())

    def _is_replaced(self) -> bool:
        """By another thread, while this one still counts as busy: no work may wait for a thread that is not there."""
        with self._changed:
            try:
                self._start_one()
            except RuntimeError:
                return False
            self._started.remove(threading.current_thread())
            return True


class Shift:
    """One at a time per process; a bell that finds it running only leaves word."""

    def __init__(self, crew: Crew, settler: Settler, wake_after: Callable[[timedelta], None]) -> None:
        self._crew = crew
        self._wake_after = wake_after
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

    def start(self) -> None:
        """Have a sender; RuntimeError if this host gives no thread."""
        self._senders.start()

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

    def stop(self, bound: timedelta) -> None:
        """Claim nothing more; finish what is on the wire; hand the rest back. What is not done within `bound` lapses."""
        self.stopping = True
        until = monotonic() + bound
        if self._working.acquire(timeout=bound.total_seconds()):
            self._senders.stop(max(until - monotonic(), timedelta(0)))
            self._working.release()
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
        claimed = crew.ledger.claim(
            claim, f"{crew.name} {crew.writer}", lease=crew.lease, jobs=free, confirms=READ_BATCH
        )
        reached(Gap.CLAIMED)
        crew.clock.observe(claimed.now, claimed.asked_at)
        crew.hand.on_hold = claimed.held
        crew.governor.hear(claimed)
        if claimed.for_budget and claimed.next_due is not None:
            self._wake_after(claimed.next_due - claimed.now)
        crew.hand.take(claimed.jobs, claim, claimed.asked_at)
        crew.tell(claimed)
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
            self._senders.reserve()
            self._senders.hand(lambda: self._prove(reads, claim))
        self._begin_posts(posts, claim)

    def _begin_posts(self, jobs: Sequence[Job], claim: ClaimId) -> None:
        """Write all start rows ahead, in one commit. What may not be POSTed any more is proved instead."""
        now = self._crew.clock.now()
        pursuits: list[Pursuit] = []
        for job in jobs:
            exchange = self._crew.clients.of(job.request.account)
            decision = self._unable(job, exchange, now)
            if exchange is not None and decision is None:
                # The body is fixed before the start row that records it; a penalty's ticket rides in it.
                pursuits.append(
                    Pursuit(job=job, claim=claim, exchange=exchange, body=cancel_body(job, job.attempts + 1))
                )
            elif decision is not None:
                self._settler.put(Decided(job=job, claim=claim, decision=decision))
        if pursuits:
            self._senders.reserve(len(pursuits))
            self._write_ahead(pursuits)

    def _unable(self, job: Job, exchange: Exchange | None, now: datetime) -> Decision | None:
        """What follows where nothing may be POSTed now."""
        if exchange is None:
            return unserved(job, self._crew.policy, now)
        token = exchange.bearer.token()
        if token is None or token.revision < job.memory.token_floor:
            return without_token(job, exchange.bearer.patience, now)
        return None if may_post(job, self._crew.policy, now) else instead_of_post(job, now)

    def _write_ahead(self, pursuits: Sequence[Pursuit]) -> None:
        """A sender is woken only for a start row that is on disk."""
        rows = [self._attempts.start_rows(pursuit) for pursuit in pursuits]
        try:
            facts = list(chain.from_iterable(rows))
            stored = self._crew.audit.submit(facts, timeout=COMMIT_BOUND, urgent=True)
        except (AuditUnavailable, FactRejected) as error:
            self._not_written(pursuits, error)
        else:
            ends = list(accumulate(map(len, rows)))
            stored.add_done_callback(lambda answer: self._written(pursuits, ends, answer))

    def _written(
        self, pursuits: Sequence[Pursuit], ends: Sequence[int], answer: "Future[list[Stored]]"
    ) -> None:
        error = answer.exception()
        if error is not None:
            self._not_written(pursuits, error)
            return
        fates = answer.result()
        for pursuit, end in zip(pursuits, ends, strict=True):
            pursuit.stored = fates[end - 1]
            self._senders.hand(partial(self._pursue, pursuit))

    def _not_written(self, pursuits: Sequence[Pursuit], error: BaseException) -> None:
        """Nothing was sent. One refused fact must not keep the others of its round from leaving."""
        if isinstance(error, FactRejected) and len(pursuits) > 1:
            for pursuit in pursuits:
                self._write_ahead([pursuit])
            return
        for pursuit in pursuits:
            self._hand_back(pursuit, error)
            self._senders.release()

    def _pursue(self, pursuit: Pursuit) -> None:
        if self._done(self._attempts.pursue, pursuit) and pursuit.recording is not None:
            self._senders.reserve()  # until the answer is on disk: it counts as work under way
            pursuit.recording.stored.add_done_callback(partial(self._recorded, pursuit))

    def _recorded(self, pursuit: Pursuit, answer: "Future[list[Stored]]") -> None:
        """In the audit's thread, which must not wait: what is not simply on disk is finished by a sender."""
        if answer.exception() is not None or answer.result()[0] is not Stored.NEW:
            self._senders.hand(partial(self._finish_record, pursuit))
            return
        self._decided(pursuit)
        self._senders.release()

    def _finish_record(self, pursuit: Pursuit) -> None:
        if self._done(self._attempts.finish_record, pursuit):
            self._decided(pursuit)

    def _done(self, step: Callable[[Pursuit], None], pursuit: Pursuit) -> bool:
        """Whether the step was done; if not, the job is given up or handed back."""
        claim = pursuit.claim
        try:
            step(pursuit)
        except Overtaken as error:
            log.warning("attempt.overtaken", **named(pursuit.job), stored=str(error.stored))
            if pursuit.sent:  # the claim is another's by now, and so is the job
                self._crew.hand.drop([(pursuit.job.id, claim)])
            else:
                self._prove([pursuit.job._replace(lapsed=True, step=Step.RECONCILE)], claim)
        except (AuditUnavailable, FactRejected, TimeoutError) as error:
            self._hand_back(pursuit, error)
        except Exception:
            log.exception("attempt.broke", **named(pursuit.job))
            self._crew.hand.drop([(pursuit.job.id, claim)])  # it lapses, and the order is read
        else:
            return True
        return False

    def _decided(self, pursuit: Pursuit) -> None:
        reached(Gap.REPLY_ON_DISK)
        # Its Future knows whom to call, so the two would keep each other until the collector comes: a worker grew by that.
        pursuit.recording = None
        if pursuit.decision is not None:
            self._settler.put(
                Decided(
                    job=pursuit.job,
                    claim=pursuit.claim,
                    decision=pursuit.decision,
                    verdict=pursuit.verdict,
                    replied=pursuit.replied,
                    posts=pursuit.posts,
                )
            )

    def _hand_back(self, pursuit: Pursuit, error: BaseException) -> None:
        """The database is away. Not sent → due again soon; sent → the lease lapses and the order is read."""
        log.error("audit.unavailable", **named(pursuit.job), error=str(error) or type(error).__name__)
        if pursuit.sent:
            self._crew.hand.drop([(pursuit.job.id, pursuit.claim)])
            return
        memory = held_up(pursuit.job.memory, utc_now() - pursuit.taken_at + AUDIT_AWAY)
        again = Again(step=Step.POST, delay=AUDIT_AWAY, memory=memory)
        self._settler.put(Decided(job=pursuit.job, claim=pursuit.claim, decision=again))

    def _prove(self, jobs: Sequence[Job], claim: ClaimId) -> None:
        try:
            proven = prove(self._crew, jobs)
        except Exception as error:  # noqa: BLE001 - whatever it is, the claims must not stay in hand
            note = log.warning if isinstance(error, CancelqError) else log.exception
            note("prove.failed", jobs=[job.id for job in jobs], error=str(error))
            self._crew.hand.drop((job.id, claim) for job in jobs)
            return
        for job, decision, facts in proven:
            self._settler.put(Decided(job=job, claim=claim, decision=decision, facts=facts))


def _with_budgets(claimed: Claimed) -> list[Job]:
    """The jobs with their budgets as of this claim."""
    idle = {
        name: Idle(held=login.stood_still, paused=login.held_back, dry=login.ran_dry)
        for name, login in claimed.logins.items()
    }
    return [job._replace(memory=resumed(job.memory, claimed.now, idle[job.login])) for job in claimed.jobs]
