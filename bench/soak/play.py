"""One round: cancels flow in while blows fall, then everything stands again and the rest must end by itself."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from redis.exceptions import RedisError
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from bench.processes import BenchError
from bench.soak.plan import OUTAGES, Blow, Moment
from bench.soak.stage import Stage
from tests.parts.fleet import READY, Worker
from worker.audit.engine import open_engine
from worker.audit.surface import finished
from worker.ledger.producer import CancelQueue

FIRST = 1_000_000_001
# Below what two cores can do, so that a backlog comes from outages alone, and goes away.
PER_SECOND = 250
CHUNK = 25
# After a long outage the producer waits: else the last cancels would all come after the last kill.
BACKLOG = 500
# Half of a bad day: transient answers, lost answers, errors, fills that are quicker.
MIX = {
    "transient": 0.08,
    "drop_effect": 0.04,
    "error": 0.03,
    "error_effect": 0.03,
    "fill_first": 0.04,
    "slow": 0.1,
    "cut_body": 0.02,
}
LEFTOVERS_BOUND = 10.0
STOP_BOUND = 20.0  # of a stopped worker; how long it really took is measured
START_BOUND = 60.0
END_BOUND = 300.0
# So many times longer than planned the flow may take among the blows.
LOAD_SLACK = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Hand:
    """What a killed worker held, and when it died (seconds since 1970)."""

    at: float
    worker: int  # its pid
    jobs: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """From when until when a part was away."""

    blow: Blow
    began: float
    ended: float


@dataclass(slots=True)
class Record:
    """What was done in one round, as far as the audit cannot know it."""

    orders: range
    blows: Counter[Blow] = field(default_factory=Counter)
    hands: list[Hand] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)  # seconds from SIGTERM to the end of the process
    unfit: list[str] = field(default_factory=list)  # stopped workers that left something in hand
    loaded_until: float = 0.0  # until then there was always something to do
    seconds: float = 0.0


class Load(threading.Thread):
    """A producer: enqueues each cancel until it is stored, under the same request id, and keeps some waiting."""

    def __init__(self, stage: Stage, orders: range, per_second: float) -> None:
        super().__init__(name="load", daemon=True)
        self._stage, self._orders = stage, orders
        self._every = CHUNK / per_second
        self._pause = threading.Event()

    def run(self) -> None:
        with CancelQueue(self._stage.fleet.redis_url, self._stage.fleet.ledger) as queue:
            for start in range(0, len(self._orders), CHUNK):
                while not self._wanted():
                    self._pause.wait(0.05)
                left = [
                    {"order_id": order, "request_id": f"request-{order}"}
                    for order in self._orders[start : start + CHUNK]
                ]
                while left:
                    receipts = queue.cancel_many(left)
                    left = [w for w, receipt in zip(left, receipts, strict=True) if not receipt.is_stored]
                    self._pause.wait(0.05 if left else self._every)

    def _wanted(self) -> bool:
        try:
            return self._stage.backlog() < BACKLOG
        except (RedisError, OSError):
            return False


def play(
    stage: Stage,
    blows: Iterable[Moment],
    cancels: int,
    *,
    mix: Mapping[str, float] = MIX,
    per_second: float = PER_SECOND,
    to_the_last: bool = False,
) -> Record:
    """Strike while cancels flow, or to the last blow; BenchError unless all that was accepted ends."""
    record = Record(range(FIRST, FIRST + cancels))
    exchange = stage.fleet.exchange
    exchange.defaults(latency=0.02, read_lag=[0, 1], settle=[0, 0.1])
    exchange.faults(dict(mix))
    exchange.add_orders({"from": FIRST, "count": cancels}, account="default")
    began, bound = time.monotonic(), END_BOUND + LOAD_SLACK * cancels / per_second
    load = Load(stage, record.orders, per_second)
    load.start()
    for moment in blows:
        load.join(moment.pause)
        if not load.is_alive() and not to_the_last:
            break
        if time.monotonic() - began > bound:
            raise BenchError(f"{cancels} cancels were not taken within {bound:g} s")
        _supervise(stage, record)
        _strike(stage, record, moment)
    load.join(bound)
    record.loaded_until = time.time()
    _wait_for_ends(stage, record)
    record.seconds = time.monotonic() - began
    return record


def _supervise(stage: Stage, record: Record) -> None:
    """Whoever met a part that was away while it started has said so and left: another one starts."""
    for worker in [worker for worker in stage.workers if worker.process.poll() is not None]:
        if READY in worker.said():
            record.unfit.append(f"pid {worker.process.pid} ended by itself: {worker.said()[-500:]}")
        _replace(stage, worker)


def _strike(stage: Stage, record: Record, moment: Moment) -> None:
    record.blows[moment.blow] += 1
    victim = stage.workers[moment.victim % len(stage.workers)]
    if moment.busy:
        _wait_until_busy(stage, victim)
    match moment.blow:
        case Blow.KILL:
            _kill(stage, record, victim)
        case Blow.STOP:
            _stop(stage, record, victim)
        case Blow.FREEZE:
            with _away(record, moment.blow):
                victim.signal(signal.SIGSTOP)
                time.sleep(moment.span)
                victim.signal(signal.SIGCONT)
        case _:
            with _away(record, moment.blow), _without(stage, moment.blow):
                time.sleep(moment.span)
                if moment.beside:
                    record.blows[Blow.KILL] += 1
                    victim.kill()
                    _replace(stage, victim)


def _wait_until_busy(stage: Stage, victim: Worker) -> None:
    give_up = time.monotonic() + START_BOUND
    while not stage.in_hand(victim):
        if time.monotonic() > give_up:
            raise BenchError(f"a worker had nothing in hand for {START_BOUND:g} s")
        time.sleep(0.01)


def _kill(stage: Stage, record: Record, victim: Worker) -> None:
    at = time.time()
    victim.kill()
    held = frozenset(stage.in_hand(victim))
    record.hands.append(Hand(at=at, worker=victim.process.pid, jobs=held))
    _replace(stage, victim)


def _stop(stage: Stage, record: Record, victim: Worker) -> None:
    """In good order: soon, without an error, and with nothing left to wait for."""
    began = time.monotonic()
    code = victim.terminate(STOP_BOUND)
    record.stops.append(time.monotonic() - began)
    held = stage.in_hand(victim)
    started = READY in victim.said()  # before it listens the signal itself ends it, and nothing was begun
    if code not in ({0} if started else {0, 1, -signal.SIGTERM}) or held or "Traceback" in victim.said():
        record.unfit.append(f"pid {victim.process.pid}: exit code {code}, {len(held)} jobs left in hand")
    _replace(stage, victim)


def _replace(stage: Stage, victim: Worker) -> None:
    stage.workers.remove(victim)
    stage.hire()


@contextmanager
def _away(record: Record, blow: Blow) -> Iterator[None]:
    began = time.time()
    yield
    record.outages.append(Outage(blow=blow, began=began, ended=time.time()))


@contextmanager
def _without(stage: Stage, blow: Blow) -> Iterator[None]:
    """While the part is away; it is back when this is left."""
    assert blow in OUTAGES
    away, back = {
        Blow.VALKEY: (stage.valkey.kill, stage.valkey.start),
        Blow.EXCHANGE: (stage.way.refuse, stage.way.accept),
        Blow.DATABASE: (stage.database.kill, stage.database.come_back),
    }[blow]
    away()
    try:
        yield
    finally:
        back()


def _wait_for_ends(stage: Stage, record: Record) -> None:
    give_up = time.monotonic() + END_BOUND
    engine = open_engine(stage.database.url)
    try:
        while (ended := _finished(engine)) < len(record.orders):
            _supervise(stage, record)
            if time.monotonic() > give_up:
                raise BenchError(f"{ended} of {len(record.orders)} cancels ended within {END_BOUND:g} s")
            time.sleep(0.5)
        while (waiting := stage.rows_in_journal()) > 0:
            if time.monotonic() > give_up:
                raise BenchError(f"{waiting} rows are in the journal still")
            time.sleep(0.5)
        _wait_for_leftovers(engine)
    finally:
        engine.dispose()


def _wait_for_leftovers(engine: Engine) -> None:
    """Whoever carried rows over closes what their holders left open, a turn later; what stays open is counted."""
    give_up = time.monotonic() + LEFTOVERS_BOUND
    query = text("SELECT count(*) FROM audit_attempts WHERE transport IS NULL OR verdict IS NULL")
    while time.monotonic() < give_up:
        with engine.connect() as connection:
            if connection.execute(query).scalar() == 0:
                return
        time.sleep(0.5)


def _finished(engine: Engine) -> int:
    try:
        return finished(engine)
    except SQLAlchemyError:
        return 0
