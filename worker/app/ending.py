"""What SIGTERM and SIGINT do to a worker: the first one ends it in good order, further ones change nothing."""

import os
import signal
from collections.abc import Callable
from types import FrameType


class AskedToEnd(BaseException):
    """A request to end, raised where the program waits.

    Not KeyboardInterrupt: one that passes through `exec` (every dataclass is made by it) marks the interpreter for
    good, and the process then dies of SIGINT however cleanly it ended (CPython, `unhandled_keyboard_interrupt`).
    """


def leave() -> None:
    """While the program is being loaded: nothing is open yet, and an import can't be interrupted cleanly."""
    os._exit(0)


def interrupt() -> None:
    """While the parts are being started: leave whatever it is waiting for."""
    raise AskedToEnd


def go_on() -> None:
    """While it is ending."""


class Ending:
    """One request to end, met by what is right at the time."""

    def __init__(self) -> None:
        self._act: Callable[[], None] = leave
        self._asked = False

    def listen(self) -> None:
        """As early as possible: in a container a process without a handler ignores SIGTERM."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._on_signal)

    def means(self, act: Callable[[], None]) -> None:
        """From here on a request to end calls `act`; one that came before does so now."""
        self._act = act
        if self._asked:
            act()

    def over(self) -> None:
        """Last of all: the interpreter takes handlers away while it ends, and one more signal would be death by it.

        Not sooner: of two signals that come together the second would find its handler gone, and Python says so aloud.
        """
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, signal.SIG_IGN)

    def _on_signal(self, _name: int, _frame: FrameType | None) -> None:
        if not self._asked:
            self._asked = True
            self._act()
