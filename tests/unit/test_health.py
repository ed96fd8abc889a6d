"""When a worker is red, on a clock that the test turns, beside a ledger that can't be reached."""

from datetime import timedelta

import pytest

from tests.parts.happenings import again, claimed, ended, named, swept, transient
from worker.app.health import SILENCE, Pulse, examine
from worker.job import Step
from worker.ledger.client import Ledger
from worker.work.happening import Happening

TICK = timedelta(seconds=1)
JOB = named("job-1")


class Clock:
    def __init__(self) -> None:
        self.time = timedelta(hours=1)

    def __call__(self) -> timedelta:
        return self.time


class Scene:
    """A pulse whose ledger answers sweeps each second unless it is told otherwise."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pulse = Pulse(timedelta(seconds=8), self.clock)

    def passes(self, seconds: float, *each_second: Happening) -> list[str]:
        for _ in range(int(seconds)):
            self.clock.time += TICK
            for happening in each_second:
                self.pulse(happening)
        return list(self.pulse.complaints())


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_worker_without_work_is_green_for_ever(scene: Scene) -> None:
    assert scene.passes(3600, swept()) == []


def test_work_that_is_taken_again_and_again_without_fruit_is_red_until_something_comes_of_it(
    scene: Scene,
) -> None:
    """So it is while the database is away: claimed, given back, claimed."""
    patience = scene.pulse.patience.total_seconds()
    taken_and_given_back = (swept(), claimed(JOB), again(JOB, step=Step.POST))
    assert scene.passes(patience, *taken_and_given_back) == []
    (complaint,) = scene.passes(3, *taken_and_given_back)
    assert "nothing came of any" in complaint
    assert scene.passes(1, swept(), ended(JOB)) == []


def test_a_cancel_that_is_refused_again_and_again_is_no_stand_still(scene: Scene) -> None:
    assert scene.passes(600, swept(), claimed(JOB), again(JOB, verdict=transient())) == []


def test_work_that_went_to_another_worker_is_no_complaint(scene: Scene) -> None:
    scene.pulse(claimed(JOB))
    assert scene.passes(3600, swept()) == []
    scene.pulse(claimed(JOB))
    assert scene.passes(5, swept()) == []


def test_a_ledger_that_is_not_reached_for_long_is_red_until_it_is(scene: Scene) -> None:
    assert scene.passes(SILENCE.total_seconds()) == []
    (complaint,) = scene.passes(1)
    assert "the ledger was not reached for 11 s" in complaint
    assert scene.passes(1, swept()) == []


def test_a_duty_that_stopped_is_red_by_name(scene: Scene) -> None:
    beats = {"renewal": scene.clock() - SILENCE - TICK, "sweep": scene.clock()}
    with Ledger("redis://127.0.0.1:1/0", "nowhere", timeout=TICK) as ledger:
        health = examine(scene.pulse, beats, ledger)
    assert (health.green, health.reasons) == (False, ("the duty renewal has not begun for 11 s",))
    assert "Redis at redis://127.0.0.1:1/0" in health.notes[0]
