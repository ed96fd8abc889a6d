"""Threads that repeat a duty, and an alarm for parked work. Knows no ledger."""

import heapq
import threading
from collections.abc import Callable
from datetime import timedelta

import structlog
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from worker.clock import monotonic
from worker.errors import CancelqError, LedgerUnavailable

log = structlog.get_logger()
SWEEP_EVERY = timedelta(milliseconds=250)
# The sweep function itself runs at most this often, however many processes call it.
SWEEP_INTERVAL = timedelta(milliseconds=200)
# For what must be done once, before all else: a Redis whose disk is busy may stand still for a second or two, and
# that must not cost the host its worker.
AT_FIRST = Retrying(
    retry=retry_if_exception_type(LedgerUnavailable),
    stop=stop_after_delay(5),
    wait=wait_fixed(0.2),
    reraise=True,
)


class Every:
    """Runs `duty` in a thread of its own, each `interval`, whatever it raises."""

    def __init__(self, name: str, interval: timedelta, duty: Callable[[], None]) -> None:
        self._name = name
        self._interval = interval
        self._duty = duty
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.began_at = monotonic()  # the latest turn

    def start(self) -> None:
        self._thread.start()

    def stop(self, bound: timedelta) -> None:
        self._stopped.set()
        self._thread.join(bound.total_seconds())

    def _run(self) -> None:
        while not self._stopped.wait(self._interval.total_seconds()):
            self.began_at = monotonic()
            try:
                self._duty()
            except CancelqError as error:
                log.warning("duty.failed", duty=self._name, error=str(error))
            except Exception:
                log.exception("duty.broke", duty=self._name)


class Alarm:
    """Starts a shift when work that this process parked comes due; a bell would come a sweep later."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._changed = threading.Condition()
        self._times: list[timedelta] = []
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="alarm", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, bound: timedelta) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(bound.total_seconds())

    def after(self, delay: timedelta) -> None:
        """Ring once `delay` has passed; delays longer than a sweep are the sweep's business."""
        if delay > SWEEP_EVERY:
            return
        with self._changed:
            heapq.heappush(self._times, monotonic() + delay)
            self._changed.notify()

    def _run(self) -> None:
        while self._wait():
            self._ring()

    def _wait(self) -> bool:
        """Block until the earliest time has come and forget all that came with it; False at the end."""
        with self._changed:
            while not self._stopped:
                now = monotonic()
                if self._times and self._times[0] <= now:
                    while self._times and self._times[0] <= now:
                        heapq.heappop(self._times)
                    return True
                self._changed.wait((self._times[0] - now).total_seconds() if self._times else None)
            return False
