"""One job's POSTs: start row → POST → classify → decide → reply and verdict rows, again only for transient reasons."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    stop_after_delay,
    wait_fixed,
)

from worker.audit.facts import (
    Fact,
    job_fact,
    late_reply_fact,
    reply_fact,
    start_fact,
    verdict_fact,
)
from worker.audit.writer import Stored
from worker.clock import to_micros, utc_now
from worker.errors import AuditUnavailable, LeaseLapsed
from worker.exchange.client import Exchange, cancel_body
from worker.gaps import Gap, reached
from worker.job import ClaimId, Job, Step
from worker.policy import Again, Decision, after_reply, is_transient, token_refused
from worker.reply import Answered, NotSent, Reply
from worker.verdict import Verdict, classify
from worker.work.crew import Crew
from worker.work.happening import Replied

# A thread may wait this long for a retry, once, while others are free; longer waits are parked.
IN_HAND_WAIT = timedelta(milliseconds=50)
# How long a caller waits for its rows to be on disk before it gives the job back.
COMMIT_BOUND = timedelta(seconds=10)
# For how long an answer that cannot be recorded is kept in memory and tried again.
ANSWER_HELD = timedelta(hours=1)


@dataclass(slots=True)
class Pursuit:
    """One job while a thread works it: the job grows by one attempt with every pass."""

    job: Job
    claim: ClaimId
    exchange: Exchange  # as the login of the job's account sees it
    body: bytes
    stored: Stored | None = None  # what became of the first start row, which the shift has written
    recording: "Recording | None" = None  # of the newest answer
    verdict: Verdict | None = None
    decision: Decision | None = None
    replied: list[Replied] = field(default_factory=list)  # the passes so far
    sent: bool = False  # a POST was begun: from here on only a read may follow
    posts: int = 0  # whose first byte left
    taken_at: datetime = field(default_factory=utc_now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One answer with what it means, on its way to the disk."""

    job: Job
    reply: Reply
    rows: Sequence[Fact]
    stored: "Future[list[Stored]]"


class Overtaken(LeaseLapsed):
    """SQL knows this attempt already, or the job's end: another holder was here."""

    def __init__(self, stored: Stored) -> None:
        super().__init__(f"start row: {stored}")
        self.stored = stored


class Attempts:
    """tenacity around `attempt`: one pass is one wire request with its own rows."""

    def __init__(
        self, crew: Crew, *, others_are_free: Callable[[], bool], ending: Callable[[], bool]
    ) -> None:
        self._crew = crew
        self._others_are_free = others_are_free
        self._passes = Retrying(
            retry=retry_if_result(is_transient),
            wait=lambda state: _next_delay(state).total_seconds(),
            stop=self._parking_is_kinder,
            retry_error_callback=_give_up_waiting,
        )

        held_long_enough = stop_after_delay(ANSWER_HELD.total_seconds())
        # An answer exists nowhere but here until it is on disk: it is held as long as the process may live.
        self._until_on_disk = Retrying(
            retry=retry_if_exception_type(AuditUnavailable),
            wait=wait_fixed(0.5),
            stop=lambda state: ending() or held_long_enough(state),
            reraise=True,
        )

    def pursue(self, pursuit: Pursuit) -> None:
        """Run passes until one is not transient or waiting is better done parked; results stay in `pursuit`."""
        self._passes(self.attempt, pursuit)

    def attempt(self, pursuit: Pursuit) -> Verdict:
        """One pass; its start row is on disk before its POST, and its answer before the next pass."""
        crew = self._crew
        job = self._write_ahead(pursuit)
        pursuit.sent = True
        permit = crew.hand.permit(job, pursuit.claim, clock=crew.clock)
        reply = pursuit.exchange.cancel(pursuit.body, permit, partial(crew.hand.holds, job.id, pursuit.claim))
        reached(Gap.ANSWERED)
        pursuit.posts += not isinstance(reply, NotSent)
        job = _noting_token(_noting_first_byte(job, reply), reply)
        verdict = classify(reply, crew.policy.transient)
        decision = after_reply(job, verdict, crew.policy, crew.clock.now())
        pursuit.recording = self._record(job, reply, verdict)
        pursuit.job = job._replace(memory=decision.memory)
        pursuit.verdict, pursuit.decision = verdict, decision
        pursuit.replied.append(Replied(job, pursuit.taken_at, reply, verdict, decision))
        return verdict

    def _write_ahead(self, pursuit: Pursuit) -> Job:
        """The committed start row, or no POST: an attempt that SQL will not take anew belongs to another."""
        stored, pursuit.stored = pursuit.stored, None
        if stored is None:
            self.finish_record(pursuit)
            reached(Gap.RETRY_IN_HAND)
            pursuit.body = cancel_body(pursuit.job, pursuit.job.attempts + 1)
            stored = self._crew.audit.commit(self.start_rows(pursuit), timeout=COMMIT_BOUND)[-1]
        if stored is not Stored.NEW:
            raise Overtaken(stored)
        reached(Gap.START_ON_DISK)
        # Asked only now: rows that went to the journal are in the database once it is not used any more.
        shared = pursuit.job.recorded or not self._crew.audit.journaling
        return pursuit.job._replace(attempts=pursuit.job.attempts + 1, recorded=shared)

    def start_rows(self, pursuit: Pursuit) -> list[Fact]:
        """The rows that must be on disk before the next POST; its start row comes last."""
        job, attempt = pursuit.job, pursuit.job.attempts + 1
        start = start_fact(
            job.id,
            attempt,
            worker=self._crew.name,
            started_at=utc_now(),
            policy_version=self._crew.policy.version,
            body=pursuit.body.decode(),
        )
        reached(Gap.START_DUE)
        return [start] if job.recorded or pursuit.sent else [job_fact(job), start]

    def _record(self, job: Job, reply: Reply, verdict: Verdict) -> Recording:
        """Hand both rows to the audit; nobody waits for them here."""
        rows = [
            reply_fact(job.id, job.attempts, reply, recorded_at=utc_now()),
            self._verdict_row(job, verdict),
        ]
        try:
            stored = self._crew.audit.submit(rows, timeout=COMMIT_BOUND)
        except AuditUnavailable as error:
            stored = Future()
            stored.set_exception(error)
        return Recording(job=job, reply=reply, rows=rows, stored=stored)

    def finish_record(self, pursuit: Pursuit) -> None:
        """Wait until the newest answer is on disk, however long it takes; Overtaken if another holder spoke for it."""
        recording = pursuit.recording
        if recording is None:
            return
        try:
            fates = self._crew.audit.wait(recording.stored, timeout=COMMIT_BOUND)
        except AuditUnavailable:
            fates = self._until_on_disk(self._crew.audit.commit, recording.rows, timeout=COMMIT_BOUND)
        if fates[0] is not Stored.NEW:
            self._record_late(recording.job, recording.reply)

    def _record_late(self, job: Job, reply: Reply) -> None:
        """Another holder has written this attempt off meanwhile; what came back is kept as testimony."""
        reached(Gap.LATE_REPLY_DUE)
        command_id = classify(reply, self._crew.policy.transient).command_id
        row = late_reply_fact(job.id, job.attempts, reply, command_id=command_id, recorded_at=utc_now())
        self._until_on_disk(self._crew.audit.commit, [row], timeout=COMMIT_BOUND)
        raise Overtaken(Stored.THERE)

    def _verdict_row(self, job: Job, verdict: Verdict) -> Fact:
        return verdict_fact(
            job.id,
            job.attempts,
            verdict,
            policy_version=self._crew.policy.version,
            decided_at=utc_now(),
        )

    def _parking_is_kinder(self, state: RetryCallState) -> bool:
        """Keep the thread only for one short wait, for a POST that its claim has paid, while others are free."""
        decision = _decision(state)
        posts_again = isinstance(decision, Again) and decision.step is Step.POST
        first_wait = state.attempt_number == 1
        pursuit: Pursuit = state.args[0]
        paid = pursuit.job.calls is None or pursuit.job.calls > state.attempt_number
        soon = first_wait and _next_delay(state) <= IN_HAND_WAIT
        return not (posts_again and soon and paid and self._others_are_free())


def _give_up_waiting(_state: RetryCallState) -> None:
    """Not an error: the policy goes on later, from the attempt count in the job."""


def _noting_first_byte(job: Job, reply: Reply) -> Job:
    if isinstance(reply, NotSent) or reply.sent_at is None or job.memory.first_sent_at is not None:
        return job
    return job._replace(memory=job.memory._replace(first_sent_at=to_micros(reply.sent_at)))


def _noting_token(job: Job, reply: Reply) -> Job:
    if isinstance(reply, Answered) and reply.status in {400, 401} and reply.revision > 0:
        return job._replace(memory=token_refused(job.memory, reply.revision))
    return job


def _decision(state: RetryCallState) -> Decision | None:
    pursuit: Pursuit = state.args[0]
    return pursuit.decision


def _next_delay(state: RetryCallState) -> timedelta:
    decision = _decision(state)
    return decision.delay if isinstance(decision, Again) else timedelta(0)
