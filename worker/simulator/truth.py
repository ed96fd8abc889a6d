"""What really happened: every POST as it was seen, and per order how often it was asked. Never lags, never lies."""

import asyncio
import json
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .book import Book, Order
from .moments import iso, micros, now

# An answer's body longer than this is no use in a log.
KEPT_BODY = 500


@dataclass(slots=True)
class Seen:
    """One POST to cancelorder."""

    seq: int
    at: int
    order_id: int | None
    body: bytes
    peer: str
    status: int | None = None
    answer: bytes = b""
    command_id: int | None = None
    fate: str = "open"
    in_flight: int = 1
    answered_at: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "seq": self.seq,
            "at": self.at,
            "order_id": self.order_id,
            "body": self.body.decode(errors="backslashreplace"),
            "peer": self.peer,
            "status": self.status,
            "answer": self.answer.decode(errors="backslashreplace"),
            "command_id": self.command_id,
            "fate": self.fate,
            "in_flight": self.in_flight,
            "answered_at": self.answered_at,
        }


@dataclass(slots=True)
class Tally:
    """How one order was asked to be cancelled."""

    posts: int = 0
    first: int = 0
    last: int = 0
    max_in_flight: int = 0
    delayed: int = 0
    open: Sequence[asyncio.Transport] = ()


class Truth:
    """Counts and logs. `log_cap` keeps the newest requests only; the file, when there is one, keeps all."""

    def __init__(self, *, log_cap: int, file: Path | None = None) -> None:
        self.seen = 0
        self.tallies: dict[int, Tally] = {}
        self.log: deque[Seen] = deque(maxlen=log_cap)
        self.calls: deque[dict[str, Any]] = deque(maxlen=log_cap)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._file = os.open(file, flags, 0o644) if file is not None else None

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def forget(self) -> None:
        """Starts afresh; the file goes on."""
        self.tallies = {}
        self.log.clear()
        self.calls.clear()
        self.note("reset", {})

    def arrived(self, body: bytes, peer: str, *, order_id: int | None) -> Seen:
        self.seen += 1
        seen = Seen(self.seen, time.time_ns() // 1000, order_id, body, peer)
        self.log.append(seen)
        return seen

    def called(self, path: str) -> None:
        """Any call, POSTs included, as its head arrives."""
        self.calls.append({"at": time.time_ns() // 1000, "path": path})

    def begin(self, seen: Seen, transport: asyncio.Transport) -> Tally:
        """Counts a POST of a known or unknown order as in flight, beside those whose caller is still there."""
        tally = self.tallies.setdefault(seen.order_id or 0, Tally())
        tally.posts += 1
        tally.first = tally.first or seen.at
        tally.last = seen.at
        tally.open = (*(other for other in tally.open if not other.is_closing()), transport)
        seen.in_flight = len(tally.open)
        tally.max_in_flight = max(tally.max_in_flight, seen.in_flight)
        if self._file is not None:
            facts = {
                "seq": seen.seq,
                "id": seen.order_id,
                "body": seen.body.decode(errors="backslashreplace"),
            }
            self.note("post", facts | {"peer": seen.peer, "in_flight": seen.in_flight})
        return tally

    def end(self, seen: Seen, tally: Tally, transport: asyncio.Transport) -> None:
        seen.answered_at = time.time_ns() // 1000
        tally.open = tuple(other for other in tally.open if other is not transport)
        if self._file is not None:
            facts = {"seq": seen.seq, "id": seen.order_id, "status": seen.status, "fate": seen.fate}
            answer = seen.answer.decode(errors="backslashreplace")
            self.note("answer", facts | {"command_id": seen.command_id, "answer": answer})

    def note(self, event: str, facts: Mapping[str, Any]) -> None:
        """Appends one event to the file in a single write, so that a kill leaves whole lines only."""
        if self._file is None:
            return
        line: dict[str, Any] = {"event": event, "logged_at": time.time_ns() // 1000, **facts}
        if "moment" in line:
            line["at"] = micros(line.pop("moment"))
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def requests(self, since: int = 0) -> Iterator[dict[str, Any]]:
        """The kept requests after `since`, oldest first."""
        return (seen.as_json() for seen in list(self.log) if seen.seq > since)

    def orders(self, book: Book) -> Iterator[dict[str, Any]]:
        unasked = Tally()
        return (self.order(o, self.tallies.get(o.id, unasked)) for o in book.all_placed())

    def order(self, order: Order, tally: Tally) -> dict[str, Any]:
        """One order as it is at this moment, without any lag."""
        moment = now()
        return {
            "id": order.id,
            "account": order.account,
            "ordStatus": order.status(moment),
            "qty": order.qty,
            "filled_qty": order.filled(moment),
            "posts": tally.posts,
            "first_post": tally.first or None,
            "last_post": tally.last or None,
            "max_in_flight": tally.max_in_flight,
            "command_ids": [command.id for command in order.commands],
            "cancel_effect": any(command.took_effect(moment) for command in order.commands),
            "pending": tally.delayed > 0 or not order.settled(moment),
            "placed": iso(order.placed_at),
        }


def short(body: bytes) -> bytes:
    return body if len(body) <= KEPT_BODY else body[:KEPT_BODY] + b"..."
