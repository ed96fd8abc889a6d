"""Structured logs to stderr: one event a line, `noun.verbed` with ids, never a token or a header."""

import logging
import os
import select
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal


@contextmanager
def _absent(module: str) -> Iterator[None]:
    """As if it were not installed, for what is imported within; what was imported before stays."""
    before = sys.modules.setdefault(module, None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        if before is None:
            del sys.modules[module]


# It would load it for tracebacks in colours, which no line here has: 5 MB of each worker.
with _absent("rich"):
    import structlog
    from structlog.typing import EventDict

STDERR = 2
# A pipe takes so much whole or not at all (PIPE_BUF), and says that it is writable while it would.
AT_ONCE = 4096


def set_up_logs(form: Literal["json", "text"], level: int = logging.INFO) -> None:
    """Bring our events and the libraries' warnings into one stream."""
    way = _way()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer() if form == "json" else _as_text,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_name: Lines(way),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        level=logging.WARNING, handlers=[_Warnings(Lines(way))], format="%(levelname)s %(name)s %(message)s"
    )
    # It tells of an answer's broken head with a traceback; the attempt's own row and event tell it too.
    logging.getLogger("urllib3").setLevel(logging.ERROR)


class Lines:
    """A line is one write: the senders' threads need no lock, for which they would wait in a cancel's way.

    A line for which there is no room, or no reader, or none who reads on, is gone: no cancel stops for it.
    """

    def __init__(self, way: int) -> None:
        self._way = way

    def msg(self, line: str) -> None:
        way, rest = self._way, line.encode("utf-8", "backslashreplace") + b"\n"
        with suppress(OSError):
            while rest and (way != STDERR or select.select((), (way,), (), 0)[1]):
                rest = rest[os.write(way, rest[:AT_ONCE]) :]

    debug = info = warning = error = exception = msg


class _Warnings(logging.Handler):
    """The libraries' own words go the same way."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.msg(self.format(record))


def _way() -> int:
    """Where lines go: to a pipe or terminal by a description of our own, which never waits.

    On the one that others share, nothing may be switched; elsewhere, and where it cannot be opened anew, whether there is
    room is asked before each write.
    """
    mode = os.fstat(STDERR).st_mode
    if stat.S_ISFIFO(mode) or os.isatty(STDERR):
        with suppress(OSError):
            return os.open(
                f"/proc/self/fd/{STDERR}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            )
    return STDERR


def _as_text(_logger: object, _method: str, event: EventDict) -> str:
    """`time level event key=value …`; what has blanks or is no text is quoted as Python would, a traceback follows."""
    head = f"{event.pop('timestamp')} {event.pop('level'):7} {event.pop('event')}"
    traceback = event.pop("exception", None)
    line = " ".join([head, *(f"{key}={_shown(value)}" for key, value in event.items())])
    return line if traceback is None else f"{line}\n{traceback}"


def _shown(value: object) -> str:
    return (
        value
        if isinstance(value, str) and value.isprintable() and " " not in value and value
        else repr(value)
    )
