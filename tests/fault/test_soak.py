"""The short form of `make soak`: every blow once, on both databases, while cancels flow."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.soak.plan import Blow, Moment, moments
from bench.soak.play import play
from bench.soak.reckon import Round, reckon
from bench.soak.stage import stage

CANCELS = 240
# The blows together take a little longer than cancels flow.
PER_SECOND = 40
# Slow answers, so that whoever is killed has something in hand; no waits of many seconds for a "later".
MIX = {
    "slow": 0.3,
    "drop_effect": 0.05,
    "error": 0.03,
    "error_effect": 0.03,
    "fill_first": 0.05,
    "cut_body": 0.02,
}
BLOWS = [
    Moment(blow=Blow.KILL, pause=0.4, busy=True),
    Moment(blow=Blow.KILL, pause=0.4, victim=1),
    Moment(blow=Blow.VALKEY, pause=0.6, span=0.5),
    Moment(blow=Blow.STOP, pause=0.6, victim=1),
    Moment(blow=Blow.FREEZE, pause=0.3, span=2.8),
    Moment(blow=Blow.DATABASE, pause=0.3, span=0.5),
    Moment(blow=Blow.EXCHANGE, pause=0.3, span=0.5, beside=True),
]


def one_round(kind: str) -> Round:
    with stage(kind, seed=1) as parts:
        record = play(parts, BLOWS, CANCELS, mix=MIX, per_second=PER_SECOND, to_the_last=True)
        return reckon(parts.fleet, record, database=kind, seed=1)


def test_nothing_is_lost_whatever_is_killed_stopped_frozen_or_cut_off() -> None:
    with ThreadPoolExecutor(2) as pool:
        rounds = list(pool.map(one_round, ("postgresql", "sqlite")))
    assert sum(found.in_hand for found in rounds) > 0
    for found in rounds:
        assert found.is_clean, (found.faults, found.record.unfit)
        assert set(found.record.blows) == set(Blow)
        assert sum(found.outcomes.values()) == CANCELS
        assert set(found.outcomes) == {"canceled", "filled"}
        assert found.again > 0


@pytest.mark.parametrize("seed", [1, 2])
def test_a_seed_always_brings_the_same_blows(seed: int) -> None:
    first, again, other = (moments(each) for each in (seed, seed, seed + 1))
    found = [next(first) for _ in range(50)]
    assert found == [next(again) for _ in range(50)]
    assert found != [next(other) for _ in range(50)]
