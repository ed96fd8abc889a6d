"""What is done to a round, and when: a pure function of the seed."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Blow(StrEnum):
    KILL = "worker killed"
    STOP = "worker stopped"  # SIGTERM, in good order
    FREEZE = "worker frozen"  # for longer than its lease
    VALKEY = "Valkey killed"
    EXCHANGE = "exchange gone"  # every connection reset, new ones refused
    DATABASE = "database gone"  # PostgreSQL killed; SQLite's file locked


# How often each one comes; workers most, since those alone have cancels in hand.
WEIGHTS = {
    Blow.KILL: 8,
    Blow.STOP: 24,
    Blow.FREEZE: 1,
    Blow.VALKEY: 4,
    Blow.EXCHANGE: 2,
    Blow.DATABASE: 2,
}
OUTAGES = frozenset({Blow.VALKEY, Blow.EXCHANGE, Blow.DATABASE})
LONGEST_PAUSE, LONGEST_OUTAGE = 2.5, 2.0
# A lease is 2.25 s.
FROZEN = 3.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One blow, `pause` seconds after the one before was over."""

    blow: Blow
    pause: float
    victim: int = 0  # which worker, counted from the oldest
    span: float = 0.0  # how long an outage or a freeze lasts
    beside: bool = False  # whether a worker is killed in the midst of an outage
    busy: bool = False  # whether the blow waits until its victim has a cancel in hand


def moments(seed: int) -> Iterator[Moment]:
    chance = random.Random(seed)
    kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
    while True:
        (blow,) = chance.choices(kinds, weights)
        yield Moment(
            blow=blow,
            pause=chance.uniform(0.2, LONGEST_PAUSE),
            victim=chance.randrange(100),
            span=FROZEN if blow is Blow.FREEZE else chance.uniform(0, LONGEST_OUTAGE),
            beside=chance.random() < 0.3,
        )
