"""What must be true: a second, simple account of every request, claim, POST and end, and the checks against it."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.parts.ledger import PLACES, Door
from tests.property.book import ENDS, Book, Post
from worker.audit.facts import Fact
from worker.audit.writer import Stored
from worker.clock import to_micros
from worker.job import ClaimId, Evidence, JobId, Joiner, Outcome, Step
from worker.ledger.words import Claimed, Closing, Settlement, Swept
from worker.policy import Policy
from worker.reasons import Meaning
from worker.reply import Answered
from worker.verdict import classify

if TYPE_CHECKING:
    from redis import Redis

BEGIN = datetime(2026, 11, 24, tzinfo=UTC)
CLOCK_KEY = "machine:clock"
# The contract's own numbers, not the program's: how many POSTs a transient reply may be followed by without a read, and
# how long after the last answer a read must be taken to permit one.
UNREAD_REPOSTS = 3
PERMISSION_AGE = timedelta(seconds=1)
A_MICROSECOND = timedelta(microseconds=1)


class Clock:
    """The time of ledger, exchange and workers alike: stands still unless it is moved."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self.listeners: list[Callable[[timedelta], None]] = []
        self._now = BEGIN
        self.pass_by(A_MICROSECOND)

    def now(self) -> datetime:
        return self._now

    def pass_by(self, span: timedelta) -> None:
        self._now += span
        self._redis.set(CLOCK_KEY, to_micros(self._now))
        for listener in self.listeners:
            listener(span)


@dataclass(slots=True)
class Wanted:
    """What the model knows of one job."""

    id: str
    order: int
    first_request: str
    redrive: bool
    deadline: datetime | None
    urgent: bool
    requests: list[str]
    end: tuple[str, str] | None = None  # outcome and evidence, once they are on disk
    first_claim: datetime | None = None


@dataclass(slots=True)
class Truth:
    """The model's state; `told_…` and `judge_…` are called while the workers work."""

    clock: Clock
    book: Book
    door: Door
    audit: sqlite3.Connection
    policy: Policy
    jobs: dict[str, Wanted] = field(default_factory=dict)
    open: dict[int, str] = field(default_factory=dict)  # order → the job that works on it
    requests: dict[str, tuple[int, str]] = field(default_factory=dict)  # request id → order, job
    claims: dict[str, tuple[str, str]] = field(default_factory=dict)  # job → claim, holder
    finished: dict[str, str] = field(default_factory=dict)  # job → the claim under which it was
    paused: bool = False
    uncompared: bool = False
    draining: bool = False
    locked_until: datetime = BEGIN
    knows_of_hold: set[str] = field(default_factory=set)  # holders that were told

    @property
    def held(self) -> bool:
        """Nothing may be POSTed."""
        return self.paused or self.uncompared

    def end_hold(self) -> None:
        if not self.held:
            self.knows_of_hold.clear()

    # --- requests

    def expected(self, order: int, request_id: str) -> str:
        """What the door has to say to a request."""
        if request_id in self.requests:
            return "duplicate" if self.requests[request_id][0] == order else "refused"
        if self.draining:
            return "refused"
        return "joined" if order in self.open else "accepted"

    def told_receipt(
        self, order: int, wish: dict[str, Any], receipt: dict[str, Any], *, redrive: bool = False
    ) -> None:
        request_id, status = wish["requestId"], receipt["status"]
        assert status == self.expected(order, request_id), (receipt, wish)
        deadline = wish.get("deadline")
        until = None if deadline is None else self.clock.now() + timedelta(seconds=deadline)
        urgent = wish.get("priority") == "urgent"
        match status:
            case "duplicate":
                assert receipt["jobId"] == self.requests[request_id][1]
            case "accepted":
                job_id = receipt["jobId"]
                assert job_id not in self.jobs
                self.jobs[job_id] = Wanted(job_id, order, request_id, redrive, until, urgent, [request_id])
                self.requests[request_id], self.open[order] = (order, job_id), job_id
            case "joined":
                assert receipt["jobId"] == self.open[order]
                job = self.jobs[receipt["jobId"]]
                job.requests.append(request_id)
                job.deadline = None if job.deadline is None or until is None else max(job.deadline, until)
                job.urgent = job.urgent or urgent
                self.requests[request_id] = (order, job.id)

    # --- the workers' calls, as they take effect

    def told_claim(self, holder: str, claim: str, claimed: Claimed) -> None:
        calling = [job for job in claimed.jobs if job.step is not Step.CLOSE]
        assert self.clock.now() >= self.locked_until or not calling, "claimed in a lock-out"
        assert claimed.held == self.held
        for job in claimed.jobs:
            assert not (self.held and job.step is Step.POST), f"{job.id} was to be POSTed in a hold"
            assert job.id not in self.claims, f"{job.id} is held by {self.claims[job.id]}"
            wanted = self.jobs[job.id]
            wanted.first_claim = wanted.first_claim or self.clock.now()
            self.claims[job.id] = (claim, holder)

    def told_settled(self, items: Sequence[Settlement], answers: Sequence[bool]) -> None:
        for item, done in zip(items, answers, strict=True):
            assert done == self._is_held(item.job, item.claim), f"{item} was settled: {done}"
            if done:
                del self.claims[item.job]

    def told_closed(self, items: Sequence[Closing], answers: Sequence[Sequence[Joiner] | None]) -> None:
        for item, joiners in zip(items, answers, strict=True):
            job = self.jobs[item.job]
            wanted_longer = item.outcome is Outcome.UNRESOLVED and item.deadline != job.deadline
            closes = self._is_held(job.id, item.claim) and (
                job.id not in self.open.values() or not wanted_longer
            )
            assert (joiners is not None) == closes, f"{item} was closed: {joiners}"
            if joiners is not None:
                assert [j.request_id for j in joiners] == job.requests[1:], f"{job.id}: joiners are missing"
                if self.open.get(job.order) == job.id:
                    del self.open[job.order]

    def told_finished(
        self, items: Sequence[tuple[JobId, ClaimId, Outcome, str, datetime]], answers: Sequence[bool]
    ) -> None:
        for (job, claim, outcome, _, _), done in zip(items, answers, strict=True):
            right = self._is_held(job, claim) or self.finished.get(job) == claim
            assert done == right, f"{job} was finished under {claim}: {done}"
            if done:
                end = self.jobs[job].end
                assert end is not None, f"{job} is done and no outcome is on disk"
                assert end[0] == outcome, f"{job} is done as {outcome}, on disk as {end}"
                self.claims.pop(job, None)
                self.finished[job] = claim

    def _is_held(self, job: str, claim: str) -> bool:
        return self.claims.get(job, ("", ""))[0] == claim

    def told_compared(self, call: str, answer: int | None) -> None:
        if call == "restore":
            assert not answer, "nothing was lost, and something came back"
        elif answer:
            self.uncompared = False
            self.end_hold()

    def told_swept(self, swept: Swept) -> None:
        """What the ledger took from its holders."""
        assert (swept.held, swept.uncompared) == (self.held, self.uncompared)
        now = str(to_micros(self.clock.now()))
        for job_id in list(self.claims):
            if "claim" not in self.door.job(job_id):
                del self.claims[job_id]
        late = self.door.redis.zrangebyscore(self.door.key("leases"), "-inf", now)
        assert not (swept.ran and late), f"a sweep left lapsed leases: {late}"

    def told_stored(self, facts: Sequence[Fact], fates: Sequence[Stored]) -> None:
        for fact, fate in zip(facts, fates, strict=True):
            if fact.table == "outcomes" and fate is Stored.NEW:
                job = self.jobs[str(fact.values["job_id"])]
                assert job.end is None, f"{job.id} ends twice"
                job.end = (str(fact.values["outcome"]), str(fact.values["evidence"]))
                self._judge_end(job)

    # --- a POST, as it arrives

    def judge_post(self, post: Post) -> None:
        job = self.jobs[self.job_of(post)]
        said = f"{post.sender} POSTs order {post.order} for {job.id}"
        (post.attempt,) = self.audit.execute(
            "SELECT coalesce(max(attempt), 0) FROM starts WHERE job_id = ?", (job.id,)
        ).fetchone()
        earlier = [p for p in self.book.posts if self.job_of(p) == job.id]
        assert post.attempt > 0, f"{said} without a start row"
        assert post.attempt not in {p.attempt for p in earlier}, f"{said}: attempt {post.attempt} again"
        flying = [p for p in self.book.posts if p.order == post.order and p.in_flight]
        assert not flying, f"{said} beside {flying}"
        assert job.deadline is None or self.clock.now() < job.deadline, f"{said} after the deadline"
        assert job.end is None, f"{said} after its end"
        assert post.sender not in self.knows_of_hold, f"{said} in a hold"
        held = self.door.job(job.id)
        claim, holder = self.claims.get(job.id, ("", ""))
        assert holder == post.sender, f"{said}, held by {holder or 'nobody'}"
        assert held.get("claim") == claim
        lease = self.door.redis.zscore(self.door.key("leases"), job.id)
        assert lease is not None, f"{said} without a lease"
        assert lease > to_micros(self.clock.now()), f"{said} after its lease"
        assert post.attempt <= self.policy.max_attempts, f"{said}: too many attempts"
        self._judge_repetition(job, earlier, said)

    def _judge_repetition(self, job: Wanted, earlier: Sequence[Post], said: str) -> None:
        """Only a few transient replies may be followed by a POST without a read that permits it."""
        reads = [
            asked for asked, order, status in self.book.reads if order == job.order and status not in ENDS
        ]
        if not earlier:
            assert not job.redrive or reads, f"{said}: a redrive without a read"
            return
        if any(asked >= earlier[-1].arrived_at + PERMISSION_AGE for asked in reads):
            return
        unread = [p for p in earlier if not any(asked >= p.arrived_at for asked in reads)]
        assert len(unread) <= UNREAD_REPOSTS, f"{said}: {len(unread)} POSTs without a read"
        assert self._was_transient(earlier[-1]), f"{said} after {earlier[-1].reply} without a read"

    def _was_transient(self, post: Post) -> bool:
        reply = post.reply
        return isinstance(reply, Answered) and classify(reply).meaning is Meaning.TRANSIENT

    def job_of(self, post: Post) -> str:
        return self.requests[post.request_id][1]

    # --- an end, as it comes to disk

    def _judge_end(self, job: Wanted) -> None:
        assert job.end is not None
        outcome, evidence = job.end[0], job.end[1].split(" ")[0]
        truth, posts = self.book.status(job.order), [p for p in self.book.posts if self.job_of(p) == job.id]
        said = f"{job.id} ended as {job.end}; order {job.order} is {truth}, POSTs: {posts}"
        match outcome:
            case Outcome.CANCELED | Outcome.FILLED:
                assert truth == outcome.capitalize(), said
            case Outcome.GONE:
                assert truth in {"Expired", "Rejected"}, said
            case Outcome.REFUSED:
                unknown = (
                    truth is None or (self.clock.now() - self.book.orders[job.order].past[0][0]).seconds < 3
                )
                assert (
                    unknown
                    if evidence == Evidence.ORDER_NOT_FOUND
                    else any(map(_was_refusal, posts))
                    or any(c.rejected == "TradingLocked" for c in self.book.commands)
                ), said
            case Outcome.UNRESOLVED:
                self._judge_unresolved(job, evidence, posts, said)
            case _:
                raise AssertionError(said)

    def _judge_unresolved(self, job: Wanted, evidence: str, posts: Sequence[Post], said: str) -> None:
        now, since = self.clock.now(), job.first_claim
        late = job.deadline is not None and now >= job.deadline
        (attempts,) = self.audit.execute("SELECT count(*) FROM starts WHERE job_id = ?", (job.id,)).fetchone()
        match evidence:
            case Evidence.DEADLINE:
                assert late, said
                assert not posts, said
            case Evidence.ORDER_NOT_FOUND:
                assert attempts, said
                assert self.book.status(job.order) is None, said
            case Evidence.SEEN_WORKING | Evidence.UNPROVEN:
                spent = since is not None and now >= since + self.policy.retry_budget
                spent = spent or late or attempts >= self.policy.max_attempts
                assert spent or (since is not None and now >= since + self.policy.confirm_budget), said
            case _:
                raise AssertionError(said)


def _was_refusal(post: Post) -> bool:
    reply = post.reply
    return isinstance(reply, Answered) and classify(reply).meaning in {Meaning.REFUSED, Meaning.UNAUTHORIZED}


# --- the ledger, looked at from outside


def faults_of_the_ledger(truth: Truth) -> Iterator[str]:
    """Everything in the ledger that contradicts the model."""
    known = {request for (request,) in truth.audit.execute("SELECT request_id FROM audit_requests")}
    for job, stored, places in _jobs(truth):
        if not stored:
            yield f"{job.id} vanished"
            continue
        yield from _misplaced(job, stored, places)
        yield from _misremembered(truth, job, stored)
        if not known.issuperset(job.requests) and "unregistered" not in places:
            yield f"{job.id}: the audit will not learn of {set(job.requests) - known}"


def _jobs(truth: Truth) -> Iterator[tuple[Wanted, dict[str, str], set[str]]]:
    """Each job with its hash and the names of the sets that it is in, in one round trip."""
    door, names = truth.door, (*PLACES, "unregistered")
    look = door.redis.pipeline(transaction=False)
    for job_id in truth.jobs:
        look.hgetall(door.key(f"job:{job_id}"))
        for name in names:
            look.zscore(door.key(name), job_id)
    found, width = look.execute(), 1 + len(names)
    for number, job in enumerate(truth.jobs.values()):
        stored, *scores = found[number * width : (number + 1) * width]
        yield job, stored, {name for name, score in zip(names, scores, strict=True) if score is not None}


def _misplaced(job: Wanted, stored: dict[str, str], places: set[str]) -> Iterator[str]:
    if stored["state"] == "done":
        right = set()
    elif "claim" in stored:
        right = {"leases"}
    elif stored["step"] == "close":
        right = {"closing"}
    elif "lapsed" in stored:
        right = {"lapsed"}
    elif stored["step"] != "post":
        right = {"confirm"}
    else:
        right = {"urgent" if stored["priority"] == "urgent" else "due"}
    if places - {"unregistered"} != right:
        yield f"{job.id} is in {places}, not in {right}: {stored}"
    if "lapsed" in stored and stored["step"] == "post":
        yield f"{job.id} lapsed and would be POSTed without a look"


def _misremembered(truth: Truth, job: Wanted, stored: dict[str, str]) -> Iterator[str]:
    claim = truth.claims.get(job.id, (None, None))[0]
    if stored.get("claim") != claim and stored["state"] != "done":
        yield f"{job.id} is claimed by {stored.get('claim')}, not by {claim}"
    deadline = None if job.deadline is None else str(to_micros(job.deadline))
    if stored.get("deadline") != deadline:
        yield f"{job.id} has the deadline {stored.get('deadline')}, not {deadline}"
    if (stored["priority"] == "urgent") != job.urgent:
        yield f"{job.id} is {stored['priority']}"
    is_open = stored["state"] not in {"closing", "done"}
    if is_open != (truth.open.get(job.order) == job.id):
        yield f"{job.id} is {stored['state']}, and the open job of order {job.order} is {truth.open.get(job.order)}"
    if (stored["state"] == "done") and job.end is None:
        yield f"{job.id} is done without an outcome on disk"
    points_to = truth.door.redis.get(truth.door.key(f"order:{job.order}:default")) if is_open else job.id
    if points_to != job.id:
        yield f"order {job.order} points to {points_to}, not to {job.id}"
    if int(stored["joiners"]) != len(job.requests) - 1:
        yield f"{job.id} has {stored['joiners']} joiners, not {len(job.requests) - 1}"
