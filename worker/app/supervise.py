"""Keeps the parts of `cancelq up` running: one that ends is started again, later each time that it ends soon."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from worker.errors import CancelqError

log = structlog.get_logger()
POLL = 0.05
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0
# A part that was up for so long ended for a new reason.
SETTLED_AFTER = 60.0


class Part(Protocol):
    """Something that runs beside us and may end by itself."""

    @property
    def name(self) -> str: ...

    @property
    def pid(self) -> int | None: ...

    def start(self) -> None:
        """Start it, also after it ended; CancelqError or OSError if it can't be."""

    def exit_code(self) -> int | None:
        """What it ended with; None while it runs."""

    def stop(self) -> None:
        """End it within a bound; nothing of it stays behind."""


class Supervisor:
    """One part and the thread that watches it. `is_final` says of an end that nobody asked for whether it is the last."""

    def __init__(self, part: Part, is_final: Callable[[int], bool] = lambda _code: False) -> None:
        self._part = part
        self._is_final = is_final
        self._asked = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"watch-{part.name}", daemon=True)

    def start(self) -> None:
        """Start the part, or raise what it raised; from then on it is kept up."""
        self._part.start()
        log.info("part.started", part=self._part.name, pid=self._part.pid)
        self._thread.start()

    def stop(self) -> None:
        """Keep it up no longer, and end it."""
        self._asked.set()
        self._thread.join()
        self._part.stop()
        log.info("part.stopped", part=self._part.name)

    def _watch(self) -> None:
        pause, began = FIRST_PAUSE, time.monotonic()
        while not self._asked.wait(POLL):
            code = self._part.exit_code()
            if code is None:
                continue
            if time.monotonic() - began > SETTLED_AFTER:
                pause = FIRST_PAUSE
            if self._is_final(code):
                tell = log.error if code else log.info
                tell("part.ended", part=self._part.name, exit=code)
                return
            log.error("part.ended", part=self._part.name, exit=code, again_in=pause)
            if self._asked.wait(pause):
                return
            pause, began = min(2 * pause, LONGEST_PAUSE), time.monotonic()
            self._start_again()

    def _start_again(self) -> None:
        """A start that fails is an end: it is met by the next, longer pause."""
        try:
            self._part.start()
        except (CancelqError, OSError) as error:
            log.warning("part.failed", part=self._part.name, error=str(error))
        else:
            log.warning("part.restarted", part=self._part.name, pid=self._part.pid)
