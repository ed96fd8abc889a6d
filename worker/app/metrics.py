"""What Prometheus is told of one worker process. Labels come from closed sets only, never from a request or an answer."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import product
from math import inf
from typing import assert_never

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily

from worker.clock import EPOCH, from_micros
from worker.errors import CancelqError, LedgerUnavailable
from worker.job import Evidence, Outcome
from worker.ledger.client import Ledger
from worker.ledger.encoding import Gauges
from worker.ledger.words import Claimed, Swept
from worker.policy import End
from worker.reasons import RULES, TABLE, Meaning, RuleName
from worker.reply import Answered, NotSent, Unanswered
from worker.work.happening import Happening, Replied, Settled

# From a quick wire to the longest proof: two to three a decade.
BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)


class Stage(StrEnum):
    """The parts of a cancel's way, in order."""

    CLAIM = "claim"  # enqueued → first claimed
    WIRE = "wire"  # taken in hand → first byte, of each attempt
    ANSWER = "answer"  # first byte → whole answer, or its end without one
    PROOF = "proof"  # last answer → outcome on disk
    WHOLE = "whole"  # enqueued → outcome on disk


class Reading(StrEnum):
    """Gauges of this process that others provide; one without a source is left out."""

    IN_HAND = "cancelq_in_hand"
    FLOWER_DROPPED = "cancelq_flower_dropped"
    JOURNAL_DEPTH = "cancelq_journal_depth"
    SEALING_FAILING = "cancelq_sealing_failing_seconds"


SAYS = {
    Reading.IN_HAND: "claims that this process holds",
    Reading.FLOWER_DROPPED: "news for Flower that were dropped since the start",
    Reading.JOURNAL_DEPTH: "rows that wait for the database in this host's journal",
    Reading.SEALING_FAILING: "for how long this worker could not seal the audit, 0 while it can",
}
Sources = Mapping[Reading, Callable[[], float | None]]


class Meter:
    """Counts and times what happens; a registry of its own, so that nothing else of the process gets in."""

    def __init__(self, **about: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        stages = Histogram(
            "cancelq_stage_seconds",
            "how long each part of a cancel's way took",
            ["stage"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._stages = {stage: stages.labels(stage) for stage in Stage}
        self._attempts = self._counter("attempts", "POSTs that are over, by verdict", "verdict", "reason")
        self._outcomes = self._counter("outcomes", "cancels that ended", "outcome", "evidence")
        self._lapsed = self._counter("lapsed", "claims taken from holders that fell silent")
        self._begin_at_zero()
        Info("cancelq_worker", "what this worker is there for", registry=self.registry).info(about)

    def _counter(self, name: str, says: str, *labels: str) -> Counter:
        return Counter(f"cancelq_{name}", says, labels, registry=self.registry)

    def _begin_at_zero(self) -> None:
        """What alerts look at is there before it happens: a series that is born at 1 has not increased."""
        for pair in product(Outcome, Evidence):
            self._outcomes.labels(*pair)
        for rule in TABLE:
            if rule.meaning is Meaning.REFUSED:
                self._attempts.labels(rule.meaning, reason_label(rule.name))

    def __call__(self, happening: Happening) -> None:
        match happening:
            case Claimed():
                self._claimed(happening)
            case Replied():
                self._replied(happening)
            case Settled(decision=End()):
                self._ended(happening)
            case Swept():
                self._lapsed.inc(happening.lapsed)

    def _claimed(self, claimed: Claimed) -> None:
        for job in claimed.jobs:
            if job.memory.first_claim_at is None:
                self._time(Stage.CLAIM, claimed.now - job.enqueued_at)

    def _replied(self, replied: Replied) -> None:
        self._attempts.labels(replied.verdict.meaning, reason_label(replied.verdict.rule)).inc()
        match replied.reply:
            case Answered(sent_at=sent_at, answered_at=ended_at):
                self._on_wire(replied.taken_at, sent_at, ended_at)
            case Unanswered(sent_at=datetime() as sent_at, ended_at=ended_at):
                self._on_wire(replied.taken_at, sent_at, ended_at)
            case Unanswered() | NotSent():
                pass
            case _:
                assert_never(replied.reply)

    def _on_wire(self, taken_at: datetime, sent_at: datetime, ended_at: datetime) -> None:
        self._time(Stage.WIRE, sent_at - taken_at)
        self._time(Stage.ANSWER, ended_at - sent_at)

    def _ended(self, settled: Settled) -> None:
        decision, job = settled.decision, settled.job
        if not isinstance(decision, End):
            return
        self._outcomes.labels(decision.outcome, decision.evidence).inc()
        self._time(Stage.WHOLE, settled.at - job.enqueued_at)
        if decision.memory.last_answer_at is not None:
            self._time(Stage.PROOF, settled.at - from_micros(decision.memory.last_answer_at))

    def _time(self, stage: Stage, span: timedelta) -> None:
        """Two hosts' clocks may disagree; a negative time would spoil the sum."""
        self._stages[stage].observe(max(0.0, span.total_seconds()))


def reason_label(rule: RuleName) -> str:
    """The line of the reason table that spoke; what configuration added to it is `other`."""
    return rule.removeprefix("reason:") if rule in RULES else "other"


class LedgerCollector:
    """One look at the ledger and at this process's own readings, for each scrape."""

    def __init__(self, ledger: Ledger, sources: Sources) -> None:
        self._ledger = ledger
        self._sources = sources

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for reading, source in self._sources.items():
            with suppress(CancelqError):  # what can't be read now is left out
                value = source()
                if value is not None:
                    yield GaugeMetricFamily(reading, SAYS[reading], value)
        try:
            gauges = self._ledger.gauges()
        except LedgerUnavailable:
            gauges = None
        yield GaugeMetricFamily("cancelq_ledger_up", "1 if the ledger answered", float(gauges is not None))
        if gauges is not None:
            yield from _of_ledger(gauges)

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing beforehand: registering must not wait for Redis."""
        return []


def _of_ledger(gauges: Gauges) -> Iterator[GaugeMetricFamily]:
    """The same from every worker of the ledger."""
    counts = {
        "open": ("cancels that have not ended", gauges.open),
        "due": ("cancels that may be claimed now", gauges.due),
        "claimed": ("cancels that some worker holds", gauges.in_hand),
        "parked": ("cancels that wait for their next POST", gauges.parked),
        "unknown": ("cancels whose POST may have acted, order not read yet", gauges.unknown),
        "bells": ("messages in the queue", gauges.bells),
        "paused": ("1 while an operator holds all POSTs", gauges.paused),
        "draining": ("1 while new requests are refused", gauges.draining),
        "oldest_due_seconds": ("how long the oldest due cancel waits", _age(gauges, gauges.oldest_due)),
        "oldest_unknown_seconds": (
            "how long ago the oldest such POST left",
            _age(gauges, gauges.oldest_unknown),
        ),
        "locked_out_until_seconds": ("when the lock-out ends, 0 for none", _unix(gauges.locked_out_until)),
        "budget_left": (
            "POSTs that the rate limit still allows the login with the least left",
            inf if gauges.budget_left is None else gauges.budget_left,
        ),
        "token_age_seconds": (
            "since the oldest token was obtained, 0 for none",
            _age(gauges, gauges.oldest_token),
        ),
    }
    for name, (says, value) in counts.items():
        yield GaugeMetricFamily(f"cancelq_ledger_{name}", says, float(value))


def _age(gauges: Gauges, since: datetime | None) -> float:
    return 0.0 if since is None else max(0.0, (gauges.now - since).total_seconds())


def _unix(moment: datetime | None) -> float:
    return 0.0 if moment is None else (moment - EPOCH).total_seconds()
