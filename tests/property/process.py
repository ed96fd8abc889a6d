"""One worker process on stage: the real shift, settler, upkeep, hand, client and audit writer; the exchange is a model.

Every call to the ledger, the audit and the exchange stops first; what it meets there is the machine's to say.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine

from tests.property.book import Book, ModelExchange
from tests.property.strands import Luck, Stage, judging
from tests.property.truth import Clock, Truth
from worker.audit.facts import Fact
from worker.audit.stamp import stamp_writer
from worker.audit.writer import AuditWriter, Stored
from worker.errors import AuditUnavailable, LedgerUnavailable
from worker.exchange.clients import Clients
from worker.exchange.governor import Governor, Rulings
from worker.ledger.client import Ledger, Post
from worker.ledger.words import Rules
from worker.logins import Login
from worker.policy import Policy, hold_of
from worker.work.crew import Crew
from worker.work.duty import Alarm
from worker.work.hand import Hand, Held
from worker.work.settle import Settler
from worker.work.shift import Shift
from worker.work.sweep import SWEEP_INTERVAL, Upkeep

LEASE = timedelta(seconds=100)
WORK_BOUND = timedelta(seconds=1000)
SENDERS = 3
URL = "http://127.0.0.1:8080/v1"
PLENTY = 20.0


@dataclass(slots=True)
class Scene:
    """What all worker processes share."""

    stage: Stage
    truth: Truth
    engine: Engine
    ledger: Ledger
    policy: Policy

    @property
    def book(self) -> Book:
        return self.truth.book

    @property
    def clock(self) -> Clock:
        return self.truth.clock


class SteppedLedger:
    """The real ledger, one call at a time; tells the model what took effect."""

    def __init__(self, scene: Scene, holder: str) -> None:
        self._scene = scene
        self._holder = holder
        self.name = scene.ledger.name

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            luck = self._scene.stage.stand(f"ledger.{name}")
            if luck == Luck.NOTHING_DONE:
                raise LedgerUnavailable("the call was lost")
            answer = getattr(self._scene.ledger, name)(*given, **named)
            with judging():
                self._tell(name, given, answer)
            if luck == Luck.ANSWER_LOST:
                raise LedgerUnavailable("the answer was lost")
            if name in {"claim", "sweep"} and answer.held:
                self._scene.truth.knows_of_hold.add(self._holder)
            return answer

        return call

    def _tell(self, name: str, given: Sequence[Any], answer: Any) -> None:
        truth = self._scene.truth
        match name:
            case "claim":
                truth.told_claim(self._holder, given[0], answer)
            case "settle":
                truth.told_settled(given[0], answer)
            case "close":
                truth.told_closed(given[0], answer)
            case "finish":
                truth.told_finished(given[0], answer)
            case "sweep":
                truth.told_swept(answer)
            case "restore" | "compared":
                truth.told_compared(name, answer)
            case "hold":
                truth.locked_until = answer


class SteppedAudit:
    """The real group commit, one call at a time; a commit that returned is on disk. There is no journal."""

    mark = ""
    journaling = False
    journal_depth = 0

    def __init__(self, scene: Scene, writer: AuditWriter) -> None:
        self._scene = scene
        self._writer = writer

    def head(self) -> Any:
        return self._writer.head()

    def submit(
        self, facts: Sequence[Fact], *, timeout: timedelta = timedelta(0), urgent: bool = False
    ) -> "Future[list[Stored]]":
        answer: Future[list[Stored]] = Future()
        try:
            answer.set_result(self.commit(facts))
        except AuditUnavailable as error:
            answer.set_exception(error)
        return answer

    def wait(self, answer: "Future[list[Stored]]", *, timeout: timedelta) -> list[Stored]:
        """Of a retry in hand; what was submitted has its answer by then."""
        return answer.result(timeout=0)

    def commit(self, facts: Sequence[Fact], *, timeout: timedelta = timedelta(0)) -> list[Stored]:
        if not facts:
            return []
        luck = self._scene.stage.stand(f"audit {'+'.join(fact.table for fact in facts)}")
        if luck == Luck.NOTHING_DONE:
            raise AuditUnavailable("nothing was stored")
        fates = self._writer.submit(facts).result(PLENTY)
        with judging():
            self._scene.truth.told_stored(facts, fates)
        if luck == Luck.ANSWER_LOST:
            raise AuditUnavailable("the facts may have been stored")
        return fates


class OnStageSenders:
    """Sender threads are strands; those that are spoken for and not at work yet have no strand."""

    def __init__(self, stage: Stage, owner: str) -> None:
        self._stage = stage
        self._owner = owner
        self._reserved = 0

    @property
    def free(self) -> int:
        return SENDERS - self._reserved - len(self._stage.strands(self._owner, "send"))

    def reserve(self, count: int = 1) -> None:
        self._reserved += count

    def release(self) -> None:
        self._reserved -= 1

    def hand(self, work: Callable[[], None]) -> None:
        self.release()
        self._stage.begin(self._owner, "send", work)


class StageClock:
    """Every worker's estimate of the ledger's time is exact."""

    def __init__(self, clock: Clock) -> None:
        self.now = clock.now

    def observe(self, server_now: datetime, asked_at: timedelta) -> None:
        assert server_now <= self.now()


@dataclass(slots=True)
class Process:
    """A worker process: `rounds`, `settles` and duties begin as strands; it may die and be started anew."""

    scene: Scene
    name: str
    number: int = 0
    crew: Crew = field(init=False)
    shift: Shift = field(init=False)
    settler: Settler = field(init=False)
    upkeep: Upkeep = field(init=False)
    _writer: AuditWriter = field(init=False)

    def __post_init__(self) -> None:
        self.scene.clock.listeners.append(self._age)
        self._start()

    @property
    def holder(self) -> str:
        return f"{self.name}/{self.number}"

    def die(self) -> None:
        """All that was only in memory is gone."""
        self.stop()
        self.number += 1
        self._start()

    def stop(self) -> None:
        for post in self.scene.book.posts:
            post.cut_off = post.cut_off or (post.sender == self.holder and post.strand.place is not None)
        self.scene.stage.kill(self.name)
        self._writer.stop()

    # --- what may begin

    def begin_round(self) -> None:
        free = self.shift._senders.free
        if free > 0 and not self.scene.stage.strands(self.name, "round"):
            self._begin("round", lambda: self.shift._round(free))

    def begin_settling(self) -> None:
        waiting = self.settler._waiting
        if not waiting.empty() and not self.scene.stage.strands(self.name, "settle"):
            batch, _ = self.settler._next_round()
            self._begin("settle", lambda: self.settler._settle_safely(batch))

    def begin_duty(self, duty: str) -> None:
        if not self.scene.stage.strands(self.name, duty):
            self._begin(duty, getattr(self.upkeep, duty))

    def _begin(self, name: str, work: Callable[[], object]) -> None:
        def forgiving() -> None:
            with suppress(LedgerUnavailable, AuditUnavailable):  # whoever repeats it tries again
                work()

        self.scene.stage.begin(self.name, name, forgiving)

    # --- its parts

    def _start(self) -> None:
        scene = self.scene
        self._writer = AuditWriter(scene.engine, writer=self.holder, environment=URL)
        self._writer.start()
        stamp_writer(self._writer, self.holder, scene.ledger.name)
        clock, ledger = StageClock(scene.clock), SteppedLedger(scene, self.holder)
        rulings = Rulings(
            now=clock.now,
            ask=lambda: ledger.sweep(SWEEP_INTERVAL),
            grant=ledger.grant,
            tell=lambda login, hold: ledger.hold(login, hold.span, lockout=hold.lockout),
            hold_of=lambda verdict: hold_of(verdict, scene.policy),
        )
        governor = Governor(rulings, limited=False)
        self.crew = Crew(
            name=self.holder,
            writer=self.holder,
            ledger=ledger,  # type: ignore[arg-type]
            audit=SteppedAudit(scene, self._writer),  # type: ignore[arg-type]
            engine=scene.engine,
            journal=None,
            clients=Clients(
                URL,
                [Login(name="all")],
                {"all": ModelExchange(scene.book, scene.stage, self.holder, governor)},  # type: ignore[dict-item]
            ),
            policy=scene.policy,
            hand=Hand(lease=LEASE, work_bound=WORK_BOUND),
            clock=clock,  # type: ignore[arg-type]
            lease=LEASE,
            concurrency=SENDERS,
            governor=governor,
            rules=Rules(dedupe_life=timedelta(days=1)),
            post=Post(exchange=URL),
        )
        self.settler = Settler(self.crew, lambda _delay: None)
        self.shift = Shift(self.crew, self.settler, lambda _delay: None)
        self.shift._senders = OnStageSenders(scene.stage, self.name)  # type: ignore[assignment]
        self.upkeep = Upkeep(self.crew, self.shift, Alarm(lambda: None), end=lambda _fault: None)
        for passes in (
            self.settler._ledger_calls,
            self.shift._attempts._passes,
            self.shift._attempts._until_on_disk,
        ):
            passes.sleep = self._sleep

    def _sleep(self, seconds: float) -> None:
        """Time passes for everybody."""
        until = self.scene.clock.now() + timedelta(seconds=seconds)
        self.scene.stage.stand("sleep")
        left = until - self.scene.clock.now()
        if left > timedelta(0):
            self.scene.clock.pass_by(left)

    def _age(self, span: timedelta) -> None:
        """The model's time is not this machine's: what the hand holds grows older by it."""
        hand = self.crew.hand
        hand._held = {
            job: Held(held.claim, held.valid_until - span, held.works_until - span)
            for job, held in hand._held.items()
        }
