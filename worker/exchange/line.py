"""Sends one prepared request over guarded connections and tells what came of it. Knows no API."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from requests import PreparedRequest
from requests.structures import CaseInsensitiveDict

from worker.clock import utc_now
from worker.errors import Withheld
from worker.exchange.quoted import body_without_token, text_without_token
from worker.exchange.transport import Bounds, GuardedAdapter
from worker.exchange.wire import HERE, Watchdog, Wire
from worker.gaps import Gap, reached
from worker.reply import Answered, NotSent, Reply, Unanswered

if TYPE_CHECKING:
    from worker.exchange.answer import Answer

# Of an error's text, as of an attempt's row.
MOST_SAID = 500
KEPT_HEADERS = frozenset({"content-type", "content-encoding", "retry-after", "location", "date"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Bounds of one request: per connect, per byte, and over all."""

    connect: timedelta
    read: timedelta
    total: timedelta


class Line:
    """A pool of guarded connections; thread-safe."""

    def __init__(self, timeouts: Timeouts) -> None:
        bounds = Bounds(timeouts.connect.total_seconds(), timeouts.read.total_seconds())
        self._adapter = GuardedAdapter(bounds)
        self._watchdog = Watchdog()

    def close(self) -> None:
        self._adapter.close()
        self._watchdog.stop()

    def send(self, request: PreparedRequest, wire: Wire, cap: int) -> Reply:
        """At most `cap` bytes of the answer's body are kept; never raises for what happens on the wire."""
        HERE.wire = wire
        self._watchdog.guard(wire)
        try:
            return self._exchange_bytes(request, wire, cap)
        except Exception as error:  # noqa: BLE001 - the seam to the driver: whatever it raises says nothing about the order
            return _failed(wire, text_without_token(f"{type(error).__name__}: {error}", request), error)
        finally:
            HERE.wire = None
            self._watchdog.release(wire)

    def _exchange_bytes(self, request: PreparedRequest, wire: Wire, cap: int) -> Reply:
        response = self._adapter.send(request)
        answer = cast("Answer", response.raw)
        reached(Gap.ANSWER_HALF_READ)
        try:
            body = answer.read_up_to(cap + 1)
        finally:
            wire.finish()  # before somebody else may have the connection
            answer.release_conn()
        if wire.is_cut and answer.ends_with_connection:
            raise TimeoutError("the wire bound passed before the answer's end")
        truncated = len(body) > cap
        answered_at = utc_now()
        return Answered(
            status=response.status_code,
            headers=_kept(response.headers, request),
            body=body_without_token(body[:cap], request, cut=truncated),
            truncated=truncated,
            sent_at=wire.sent_at or answered_at,
            answered_at=answered_at,
        )


def _failed(wire: Wire, said: str, error: Exception) -> Reply:
    """Whether a byte left decides; no exception class can say that reliably."""
    said = said[:MOST_SAID]
    if not wire.started:
        return NotSent(error=said, withheld=isinstance(error, Withheld))
    return Unanswered(error=said, sent_at=wire.sent_at, ended_at=utc_now())


def _kept(headers: CaseInsensitiveDict[str], request: PreparedRequest) -> Mapping[str, str]:
    lower = headers.lower_items()
    return MappingProxyType({k: text_without_token(v, request) for k, v in lower if k in KEPT_HEADERS})
