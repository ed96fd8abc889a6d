"""Any interleaving of requests, claims, crashes, answers, fills, pauses and lapses ends in the model's truth.

Real: the ledger's functions in a Valkey, the worker's shift, settler and duties, the policy, the audit on SQLite. Modelled:
the exchange, and time. A run is the same each time and shows a failure as it was found, at once.
CANCELQ_PROPERTY_EXAMPLES=2000 looks longer, with other luck each time, and shrinks what it finds; that prints how to
repeat it.
"""

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from tests.parts.ledger import NO_TIME, PLACES, Door, clocked_library, settle_in
from tests.property.book import FATES, NOT_SENT, Book
from tests.property.process import LEASE, Process, Scene
from tests.property.strands import Luck, Stage, Strand
from tests.property.truth import CLOCK_KEY, Clock, Truth, faults_of_the_ledger
from worker.audit.engine import open_engine
from worker.audit.verify import verify
from worker.clock import to_micros
from worker.embedded.valkey import ensure
from worker.job import JobId, Steering
from worker.ledger.client import Ledger
from worker.ledger.receipt import Letter
from worker.policy import Policy
from worker.reasons import DEFAULT_TRANSIENT
from worker.reply import Answered
from worker.work.sweep import SWEEP_INTERVAL

LOOK_LONGER = "CANCELQ_PROPERTY_EXAMPLES"
EXAMPLES = int(os.environ.get(LOOK_LONGER, "0"))
KNOWN, YOUNG = (1, 2), 3  # orders; the young one is not on the book at first
GOOD = [Luck.GOOD.value]
CALL_LUCK = [*GOOD * 6, Luck.NOTHING_DONE.value, Luck.ANSWER_LOST.value]
READ_LUCK = [*GOOD * 3, Luck.LATE_VIEW.value, Luck.OLD_VIEW.value, Luck.NOTHING_DONE.value]
SPANS = [timedelta(seconds=s) for s in (0.05, 0.3, 1.2, 2.5, 7, 30, 100, 350)]
ORDERS = st.sampled_from([1, 1, 1, *KNOWN, YOUNG])
DEADLINES = st.sampled_from([None, None, 0, 20, 3600])
STATES = ["Filled", "Canceled", "Expired", "Rejected", "PendingCancel", "Suspended", "Working"]
DUTIES = ["renew", "sweep", "register", "witness", "compare"]
# Far more than any run has needed: a job that is not done by then never ends.
LAST_ROUNDS = 300

POLICY = Policy(
    transient=DEFAULT_TRANSIENT,
    max_attempts=6,
    retry_budget=timedelta(seconds=600),
    confirm=True,
    confirm_budget=timedelta(seconds=300),
    lockout=timedelta(seconds=120),
    jitter=lambda: 0.5,
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the machine plays: a server and a migrated database of its own."""

    redis_url: str
    template: Path
    database: Path


class LedgerMachine(RuleBasedStateMachine):
    """Two worker processes and the world around them."""

    place: ClassVar[Place]

    def __init__(self) -> None:
        super().__init__()
        here = self.place
        self.redis = Redis.from_url(here.redis_url, decode_responses=True)
        self.redis.flushall()
        self.redis.function_load(clocked_library(CLOCK_KEY), replace=True)
        for leftover in here.database.parent.glob(f"{here.database.name}*"):
            leftover.unlink()
        shutil.copyfile(here.template, here.database)
        self.engine = open_engine(f"sqlite:///{here.database}")
        self.audit = sqlite3.connect(here.database, isolation_level=None, check_same_thread=False)
        self.ledger = Ledger(here.redis_url, "machine", timeout=timedelta(seconds=10))
        clock = Clock(self.redis)
        settle_in(self.ledger)
        self.book = Book(clock.now)
        self.door = Door(self.redis, "machine")
        self.truth = Truth(clock, self.book, self.door, self.audit, POLICY)
        self.book.on_post = self.truth.judge_post
        self.stage = Stage()
        scene = Scene(self.stage, self.truth, self.engine, self.ledger, POLICY)
        self.processes = [Process(scene, name) for name in ("ann", "bob")]
        for order in KNOWN:
            self.book.place(order)
        self.logs = structlog.testing.capture_logs([structlog.processors.format_exc_info])
        self.said = self.logs.__enter__()
        self.wishes = 0
        self.mood = "taken"

    # --- producers

    @initialize(order=st.sampled_from(KNOWN), deadline=DEADLINES)
    def at_first_somebody_wants_a_cancel(self, order: int, deadline: int | None) -> None:
        self.somebody_wants_a_cancel(order, None, deadline, None)

    @rule(
        order=ORDERS,
        priority=st.sampled_from([None, "urgent"]),
        deadline=DEADLINES,
        armed=st.sampled_from([None, None, None, 40]),
    )
    def somebody_wants_a_cancel(
        self, order: int, priority: str | None, deadline: int | None, armed: int | None
    ) -> None:
        self.wishes += 1
        wish: dict[str, Any] = {"requestId": f"request-{self.wishes}", "clOrdId": f"request-{self.wishes}"}
        if priority is not None:
            wish["priority"] = priority
        if deadline is not None:
            wish["deadline"] = deadline
        if armed is not None:
            wish["activationTime"] = (self.truth.clock.now() + timedelta(seconds=armed)).isoformat()
        self.truth.told_receipt(order, wish, self.door.enqueue(order, **wish))

    @precondition(lambda self: self.truth.requests)
    @rule(data=st.data(), order=ORDERS)
    def somebody_repeats_a_request(self, data: st.DataObject, order: int) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.truth.requests)), "request")
        wish = {"requestId": request_id}
        self.truth.told_receipt(order, wish, self.door.enqueue(order, **wish))

    @precondition(lambda self: self._badly_ended())
    @rule(data=st.data())
    def somebody_redrives(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(self._badly_ended()), "job")
        self.wishes += 1
        wish = {"requestId": f"request-{self.wishes}", "clOrdId": f"request-{self.wishes}"}
        order = self.truth.jobs[job_id].order
        letter = Letter(wish["requestId"], json.dumps({"orderId": order} | wish))
        receipt = self.ledger.redrive(letter, JobId(job_id))
        self.truth.told_receipt(order, wish, receipt.to_dict(), redrive=True)

    def _badly_ended(self) -> list[str]:
        bad = {"refused", "unresolved"}
        return [job.id for job in self.truth.jobs.values() if job.end is not None and job.end[0] in bad]

    # --- operators

    @rule(
        kind=st.sampled_from([Steering.PAUSE, Steering.RESUME, Steering.DRAIN]),
        noticed=st.booleans(),
    )
    def an_operator_steers(self, kind: Steering, *, noticed: bool) -> None:
        if kind is Steering.DRAIN and self.truth.paused:
            return
        self.wishes += 1
        survey = self.ledger.steer(kind, action_id=f"action-{self.wishes}", by="op", because=None)
        if kind is Steering.PAUSE:
            self.truth.paused = True
        elif kind is Steering.DRAIN:
            self.truth.draining = True
        else:
            self.truth.paused = self.truth.draining = False
            self.truth.end_hold()
        assert (survey.paused, survey.draining) == (self.truth.paused, self.truth.draining)
        assert survey.open == sum(self.door.job(job)["state"] != "done" for job in self.truth.jobs)
        for process in self.processes if noticed else []:
            process.begin_duty("sweep")
            self._run(process, "sweep")

    # --- the exchange

    @rule(order=ORDERS, status=st.sampled_from(STATES))
    def the_order_changes(self, order: int, status: str) -> None:
        if self.book.status(order) is None:
            self.book.place(order)
        else:
            self.book.move(order, status)

    @rule(fate=st.sampled_from([*FATES, NOT_SENT]))
    def the_exchange_changes_its_mood(self, fate: str) -> None:
        """What POSTs meet while workers work well."""
        self.mood = fate

    @precondition(lambda self: self.book.actable())
    @rule()
    def a_command_acts_at_last(self) -> None:
        self.book.act(self.book.actable()[0])

    # --- time and trouble

    @rule(span=st.sampled_from(SPANS))
    def time_passes(self, span: timedelta) -> None:
        self.truth.clock.pass_by(span)

    @rule(renews=st.sampled_from([None, 0, 1]), takes_over=st.sampled_from([None, 0, 1]))
    def all_leases_lapse(self, renews: int | None, takes_over: int | None) -> None:
        """Whoever holds anything was frozen; one of them may wake and renew, the other take over."""
        self.truth.clock.pass_by(LEASE)
        self.truth.told_swept(self.ledger.sweep(NO_TIME))
        if renews is not None:
            self.a_worker_does_its_duty(renews, "renew", at_once=True)
        if takes_over is not None:
            self.processes[takes_over].begin_round()
            self._run(self.processes[takes_over], "round")
            for strand in self.stage.strands(self.processes[takes_over].name, "send")[-1:]:
                self._run_strand(strand)

    @rule(noticed=st.booleans())
    def redis_is_another_server(self, *, noticed: bool) -> None:
        """With the same data, which nobody can know before the comparison."""
        self.redis.hset(self.door.key("meta"), "compared", "another one")
        self.truth.uncompared = True
        for process in self.processes if noticed else []:
            process.begin_duty("sweep")
            self._run(process, "sweep")

    @rule(noise=st.sampled_from(["a bell is lost", "bells are doubled", "the functions are loaded again"]))
    def something_means_nothing(self, noise: str) -> None:
        bells = self.door.key("bells")
        match noise:
            case "a bell is lost":
                self.redis.rpop(bells)
            case "bells are doubled":
                self.redis.lpush(bells, *(self.redis.lrange(bells, 0, -1) or ["no bell at all"]))
            case _:
                self.redis.function_load(clocked_library(CLOCK_KEY), replace=True)

    # --- workers

    @rule(who=st.integers(0, 1), at_once=st.booleans())
    def a_worker_claims(self, who: int, *, at_once: bool) -> None:
        self.processes[who].begin_round()
        if at_once:
            self._run(self.processes[who], "round")

    @rule(who=st.integers(0, 1), duty=st.sampled_from(DUTIES), at_once=st.booleans())
    def a_worker_does_its_duty(self, who: int, duty: str, *, at_once: bool) -> None:
        self.processes[who].begin_duty(duty)
        if at_once:
            self._run(self.processes[who], duty)

    @precondition(lambda self: self.stage.strands())
    @rule(data=st.data(), well=st.integers(0, 3))
    def a_strand_goes_on(self, data: st.DataObject, well: int) -> None:
        """Some good steps, then one that meets its fate."""
        strand = data.draw(st.sampled_from(self.stage.strands()), "strand")
        for _ in range(well):
            self._step(strand, Luck.GOOD)
        self._step(strand, data.draw(st.sampled_from(_lucks(strand)), "luck"))

    @precondition(lambda self: self.stage.strands(name="send"))
    @rule(data=st.data())
    def a_post_or_read_meets_its_fate(self, data: st.DataObject) -> None:
        strand = data.draw(st.sampled_from(self.stage.strands(name="send")), "strand")
        while strand.place not in {None, "post", "answer", "read"}:
            self._step(strand, Luck.GOOD)
        self._step(strand, data.draw(st.sampled_from(_lucks(strand)), "luck"))

    @rule(who=st.integers(0, 1), steps=st.sampled_from([5, 15, 50]))
    def a_worker_works_well(self, who: int, steps: int) -> None:
        """Time passes when it has nothing to do."""
        process = self.processes[who]
        for _ in range(steps):
            if not self._work_well(process):
                self.truth.clock.pass_by(self._until_next_due())
                process.begin_round()

    @rule(who=st.integers(0, 1))
    def a_worker_dies(self, who: int) -> None:
        self.processes[who].die()

    def _run(self, process: Process, name: str) -> None:
        for strand in self.stage.strands(process.name, name):
            self._run_strand(strand)

    def _run_strand(self, strand: Strand) -> None:
        while strand.place is not None:
            self._step(strand, self.mood if strand.place == "post" else Luck.GOOD)

    def _step(self, strand: Strand, luck: str) -> None:
        if strand.place is not None:
            strand.step(luck)
        for process in self.processes:
            process.begin_settling()

    def _work_well(self, process: Process) -> bool:
        """One step of this process; False when nothing is under way."""
        strands = self.stage.strands(process.name)
        if strands:
            self._step(strands[0], self.mood if strands[0].place == "post" else Luck.GOOD)
        return bool(strands)

    # --- what holds at every instant

    @invariant()
    def all_is_well(self) -> None:
        assert not list(faults_of_the_ledger(self.truth))
        self._nothing_broke()

    def _nothing_broke(self) -> None:
        broken = [entry for entry in self.said if entry.get("exception") or entry["event"].endswith("broke")]
        assert not broken, broken

    # --- how it ends

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self._finish()
        finally:
            for process in self.processes:
                process.stop()
            self.logs.__exit__(None, None, None)
            self.audit.close()
            self.engine.dispose()
            self.ledger.close_connections()
            self.redis.close()

    def _finish(self) -> None:
        """Healthy workers and a healthy exchange: every job comes to its end, and the audit tells the truth."""
        if self.truth.paused or self.truth.draining:
            self.an_operator_steers(Steering.RESUME, noticed=True)
        self.mood, rounds = "taken", 0
        while self._open_jobs() or self.stage.strands():
            rounds += 1
            assert rounds < LAST_ROUNDS, f"never ends: {self._open_jobs()}, {self.stage.strands()}"
            self._one_good_moment()
            self._nothing_broke()
        for duty in DUTIES:
            self.processes[0].begin_duty(duty)
            while self._work_well(self.processes[0]):
                pass
        self.all_is_well()
        self._audit_tells_the_truth()

    def _open_jobs(self) -> list[dict[str, str]]:
        found = [self.door.job(job) for job in self.truth.jobs]
        return [job for job in found if job["state"] != "done"]

    def _one_good_moment(self) -> None:
        """Everything under way and everything due is done; then time passes until something is due again."""
        for command in self.book.actable():
            self.book.act(command)
        for duty in ("sweep", "compare"):
            self.processes[0].begin_duty(duty)
        for process in self.processes:
            while self._work_well(process):
                pass
            process.begin_round()
            while self._work_well(process):
                pass
        locked = self.truth.locked_until - self.truth.clock.now()
        # Never by nothing: a lease that is over since this very moment waits for the next sweep.
        self.truth.clock.pass_by(max(self._until_next_due(), locked, SWEEP_INTERVAL))

    def _until_next_due(self) -> timedelta:
        now = to_micros(self.truth.clock.now())
        scores = [
            score
            for name in PLACES
            for _, score in self.redis.zrange(self.door.key(name), 0, 0, withscores=True)
        ]
        return timedelta(microseconds=max(0, min(scores, default=now) - now))

    def _audit_tells_the_truth(self) -> None:
        witnessed = self.ledger.heads()
        checked = verify(self.engine, witnessed)
        assert checked.ok, checked.fault
        jobs = dict(self.audit.execute("SELECT job_id, outcome FROM audit_jobs"))
        assert jobs == {job.id: job.end and job.end[0] for job in self.truth.jobs.values()}
        requests = sorted(self.audit.execute("SELECT request_id, job_id FROM audit_requests"))
        assert requests == sorted((request, job) for request, (_, job) in self.truth.requests.items())
        self._every_answer_is_on_disk()
        unclosed = self.audit.execute(
            "SELECT job_id, attempt FROM audit_attempts WHERE transport IS NULL OR verdict IS NULL"
        ).fetchall()
        assert not unclosed, unclosed
        for job_id, attempts, outcome in self.audit.execute(
            "SELECT job_id, attempts, outcome FROM audit_jobs"
        ):
            told = self.door.status(jobId=job_id)
            assert (told["attempts"], told["outcome"]) == (attempts, outcome)

    def _every_answer_is_on_disk(self) -> None:
        """Of every POST that arrived, and every command id that came back to a worker that lived on."""
        transports = {
            (job, attempt): transport
            for job, attempt, transport in self.audit.execute(
                "SELECT job_id, attempt, transport FROM audit_attempts"
            )
        }
        commands = "SELECT command_id FROM audit_attempts UNION SELECT command_id FROM late_replies"
        known = {command for (command,) in self.audit.execute(commands)}
        for post in self.book.posts:
            assert transports[self.truth.job_of(post), post.attempt] != "not_sent", post
            told = isinstance(post.reply, Answered) and not post.cut_off
            assert not told or post.command is None or post.command in known, post


def _lucks(strand: Strand) -> list[str]:
    match strand.place:
        case None:
            return GOOD
        case "post":
            return [*FATES, NOT_SENT]
        case "answer":
            return [*GOOD * 2, Luck.ANSWER_LOST.value]
        case "read" | "commands" | "reports" | "fills":
            return READ_LUCK if strand.place == "read" else CALL_LUCK
        case "start" | "sleep":
            return GOOD
        case _:
            return CALL_LUCK


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("machine")
    with ensure(folder / "valkey") as server:
        yield Place(server.url, sqlite_template, folder / "audit.sqlite3")


@pytest.mark.timeout(0 if EXAMPLES else 300)
def test_any_interleaving_ends_in_the_truth(place: Place) -> None:
    LedgerMachine.place = place
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=EXAMPLES or 50,
            stateful_step_count=50,
            derandomize=not EXAMPLES,
            print_blob=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if EXAMPLES else [])],
        ),
    )
