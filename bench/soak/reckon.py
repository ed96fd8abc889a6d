"""What one round came to: the broken promises, and how soon the cancels of the dead were on the wire again."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from bench.soak.plan import Blow
from bench.soak.play import Hand, Record
from tests.parts.fleet import Fleet
from tests.parts.kills import Books, Faults, books, faults

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One line of the table, and what is behind it."""

    database: str
    seed: int
    record: Record
    faults: Faults
    again: int  # POSTs beyond the first of their order
    overlaps: int
    outcomes: Mapping[str, int]
    in_hand: int  # cancels that a killed worker held
    recoveries: Sequence[float]  # seconds from the kill to the next wire, of those that nothing else held up
    returns: Mapping[Blow, Sequence[float]]  # seconds from a part's return to the next newly claimed POST

    @property
    def is_clean(self) -> bool:
        return not self.faults and not self.record.unfit


def reckon(fleet: Fleet, record: Record, *, database: str, seed: int) -> Round:
    found = books(fleet)
    outcomes: dict[str, int] = defaultdict(int)
    for job in found.jobs:
        outcomes[str(job["outcome"])] += 1
    held = [(hand, job) for hand in record.hands for job in _unended(hand, found)]
    wires = _wires(found)
    return Round(
        database=database,
        seed=seed,
        record=record,
        faults=faults(found, record.orders),
        again=found.again,
        overlaps=len(found.overlaps),
        outcomes=dict(outcomes),
        in_hand=len(held),
        recoveries=[took for hand, job in held if (took := _recovery(record, hand, job, wires)) is not None],
        returns={
            blow: list(_returns(record, found, blow)) for blow in (Blow.VALKEY, Blow.EXCHANGE, Blow.DATABASE)
        },
    )


def _unended(hand: Hand, found: Books) -> Iterator[str]:
    """The jobs in hand that had no outcome yet: nothing is owed to the others."""
    ended = {job["job_id"]: job["finished_at"].timestamp() for job in found.jobs if job["finished_at"]}
    return (job for job in hand.jobs if ended.get(job, float("inf")) > hand.at)


def _wires(found: Books) -> Mapping[str, Sequence[tuple[float, int]]]:
    """By job, in order: each POST (as it was written to the socket), answered read and end; and who POSTed."""
    wires: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for row in found.attempts:
        if row["sent_at"] is not None and row["transport"] != "not_sent":
            wires[row["job_id"]].append((row["sent_at"].timestamp(), _pid(row)))
    for job, reads in found.reads.items():
        wires[job].extend((at.timestamp(), 0) for at in reads)
    for row in found.jobs:
        if row["finished_at"] is not None:
            wires[row["job_id"]].append((row["finished_at"].timestamp(), 0))
    return {job: sorted(moments) for job, moments in wires.items()}


def _recovery(
    record: Record, hand: Hand, job: str, wires: Mapping[str, Sequence[tuple[float, int]]]
) -> float | None:
    """None where its new holder was hit as well, or a part was away meanwhile: that is another matter."""
    later = [at for at, pid in wires.get(job, ()) if at > hand.at and pid != hand.worker]
    if not later:
        return None
    again = any(other.at > hand.at and other.at < later[0] and job in other.jobs for other in record.hands)
    away = any(outage.began < later[0] and outage.ended > hand.at for outage in record.outages)
    return None if again or away else later[0] - hand.at


def _returns(record: Record, found: Books, blow: Blow) -> Iterator[float]:
    """Until a POST whose start row is younger than the return: claims flow again. Or until the next part goes away."""
    sent = sorted(
        (row["started_at"].timestamp(), row["sent_at"].timestamp())
        for row in found.attempts
        if row["sent_at"] is not None and row["transport"] != "not_sent"
    )
    begun = [started for started, _ in sent]
    for outage in record.outages:
        after = bisect_right(begun, outage.ended)
        if outage.blow is blow and after < len(sent) and sent[after][0] < record.loaded_until:
            next_one = min(
                (other.began for other in record.outages if other.began > outage.ended), default=inf
            )
            yield min(sent[after][1], next_one) - outage.ended


def _pid(row: Row) -> int:
    return int(row["worker"].rpartition("/")[2])
