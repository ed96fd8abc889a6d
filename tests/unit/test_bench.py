"""The bench's own sums: what counts as met, and what the picture shows."""

from xml.etree import ElementTree as ET

import pytest

from bench.bars import OURS, PAIR, WIRE, Bar, arena
from bench.growth import ANSWER, SENDERS, Costs, Fleet, carry
from bench.picture import draw

FIGURES = ("cancels/s", "CPU ms/cancel", "CPU ms of all", "burst s", "p50 ms", "p99/p50")
FOUND: dict[str, dict[str, float | None]] = {
    OURS: dict(zip(FIGURES, (800, 1.2, 2.0, 0.2, 5.0, 2.0), strict=True)),
    PAIR: dict(zip(FIGURES, (900, 1.2, 2.0, 0.2, None, None), strict=True)),
    "Celery threads 64": dict(zip(FIGURES, (200, 3.5, 5.0, 2.0, 4.5, 1.5), strict=True)),
    "Celery prefork 16": dict(zip(FIGURES, (160, 4.0, 6.0, 1.8, 4.8, 1.6), strict=True)),
    "saq": dict(zip(FIGURES, (500, 1.1, 1.7, 0.3, 4.0, 1.6), strict=True)),
    "streaq": dict(zip(FIGURES, (400, 2.2, 3.0, 0.5, 5.0, 1.6), strict=True)),
    WIRE: dict(zip(FIGURES, (1000, 1.0, 1.5, 0.15, None, None), strict=True)),
}
ASIDE = {
    "enqueue_ms": 0.13,
    "set_ms": 0.1,
    "many_per_second": 15_000.0,
    "sets_per_second": 50_000.0,
    "claim_seconds": 1.2,
    "command_seconds": 0.2,
    "import_ms": 10.0,
}


def measured() -> dict[str, float | None]:
    return {bar.name: bar.measured for bar in arena(FOUND, ASIDE)}


def test_the_better_of_the_others_counts() -> None:
    found = measured()
    assert found["cancels/s / plain Celery's"] == pytest.approx(4.0)
    assert found["plain Celery's time for the burst / ours"] == pytest.approx(9.0)
    assert found["cancels/s / the best peer's"] == pytest.approx(1.6)
    assert found["single to the wire p50, ms beyond plain Celery's"] == pytest.approx(0.5)


def test_two_workers_are_held_to_what_two_cores_can_do() -> None:
    assert measured()["two workers: cancels/s x CPU s of all per cancel / 2"] == pytest.approx(0.9)


def test_what_was_not_measured_is_not_met() -> None:
    without_peers = {name: values for name, values in FOUND.items() if name not in {"saq", "streaq"}}
    (peers,) = [bar for bar in arena(without_peers, ASIDE) if "peer" in bar.name]
    assert not peers.met
    assert str(peers).startswith("NO ")
    assert "not measured" in str(peers)


@pytest.mark.parametrize(("measured", "least", "met"), [(2, True, True), (1, True, False), (1, False, True)])
def test_a_bar_is_met_on_its_own_side(*, measured: float, least: bool, met: bool) -> None:
    assert Bar("x", measured, 1.5, least=least).met is met


def test_the_picture_stands_alone_and_leaves_out_what_was_not_measured() -> None:
    root = ET.fromstring(draw(FOUND, "a <title>"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    shown = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert shown.count(WIRE) == 3  # it has no single cancels
    assert shown.count("saq") == 4
    assert not [element for element in root.iter() if element.get("href")]


COSTS = Costs(worker=0.0014, redis=0.00027, fsync=0.0002, database=0.0002)


def test_a_single_worker_carries_what_its_processor_does() -> None:
    carried = carry(COSTS, Fleet(workers=1))
    assert carried.full == "worker"
    assert carried.per_second == pytest.approx(1 / COSTS.worker, rel=0.02)


def test_many_workers_carry_what_their_redis_does_and_a_second_ledger_doubles_it() -> None:
    one = carry(COSTS, Fleet(workers=8, database_cores=8))
    two = carry(COSTS, Fleet(workers=16, ledgers=2, database_cores=16))
    assert {one.full, two.full} == {"redis"}
    assert 0.95 / COSTS.redis < one.per_second <= 1 / COSTS.redis
    assert two.per_second == pytest.approx(2 * one.per_second, rel=0.05)


def test_an_idle_fleet_is_bound_by_the_exchange_and_the_waits_alone() -> None:
    carried = carry(Costs(worker=1e-7, redis=1e-7, fsync=0.001, database=1e-7), Fleet(workers=1))
    # The answer, and two rounds of Redis with their fsyncs; what waits for a round may wait for one more.
    assert SENDERS / (ANSWER + 4 * 0.001) <= carried.per_second <= SENDERS / (ANSWER + 2 * 0.001)
