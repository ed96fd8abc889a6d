"""When a job comes back: reads that wait fall due together, POSTs at their own time."""

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from worker.clock import EPOCH
from worker.work.settle import READ_BEAT, on_the_beat

MOMENTS = st.integers(1, 2**51).map(lambda micros: EPOCH + timedelta(microseconds=micros))


@given(MOMENTS, st.integers(1, 10**8))
def test_a_read_that_waits_falls_due_on_the_next_beat(now: datetime, micros: int) -> None:
    wanted = timedelta(microseconds=micros)
    delay = on_the_beat(wanted, now)
    assert wanted <= delay < wanted + READ_BEAT
    assert (now + delay - EPOCH) % READ_BEAT == timedelta(0)


@given(MOMENTS)
def test_a_read_that_cannot_wait_does_not(now: datetime) -> None:
    assert on_the_beat(timedelta(0), now) == timedelta(0)
