"""The steps of a script: what happens to one POST or one read. Nouns only; `cancel.py` and `wire.py` play them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Effect = Literal["before", "after", "none"]
Side = Literal["before", "after"]
ReadKind = Literal["order", "command", "report", "fill"]


@dataclass(frozen=True, slots=True)
class Drip:
    """The answer comes a byte at a time: all of it, or the body only."""

    bytes_per_second: float = 1.0
    part: Literal["headers", "body"] = "headers"


@dataclass(frozen=True, slots=True)
class Penalty:
    """A p-ticket: nothing is handled until the same body comes again with the ticket, not before its time."""

    ticket: str
    time: float
    captcha: bool = False

    def as_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {"p-ticket": self.ticket, "p-time": self.time}
        return body | {"p-captcha": True} if self.captcha else body


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One POST or one read of an order. Whatever is None goes as the book says."""

    # what is said
    reply: Any = None
    reason: str | None = None
    failure_text: str | None = None
    with_command: bool = False
    status: int | None = None
    text: str | None = None
    headers: Mapping[str, str] | None = None
    location: str | None = None
    penalty: Penalty | None = None
    # what happens to the order
    effect: Effect | None = None
    effect_delay: float = 0.5
    settle: float | None = None
    late_reject: str | None = None
    quiet: bool = False  # the command changes nothing that a read of the order shows
    fill_first: bool = False
    fill_after: bool = False
    partial_fill: int | None = None
    # how the answer travels
    delay: float = 0.0
    drop: Side | None = None
    reset: Side | None = None
    drip: Drip | None = None
    body_bytes: int | None = None
    content_length: int | None = None
    cut_body: int | None = None
    garbage: str | None = None
    gzip: bool = False
    # how often, and for a read: of what
    repeat: int = 1
    not_found: bool = False
    shows: tuple[
        Mapping[str, Any], ...
    ] = ()  # a row for each, with these fields changed; null leaves one out
    of: ReadKind = "order"

    @property
    def takes_effect(self) -> Effect:
        """Whether and when the cancel is really done."""
        if self.effect is not None:
            return self.effect
        side = self.drop or self.reset
        if side is not None:
            return "before" if side == "after" else "none"
        return "none" if self.own_answer else "before"

    @property
    def own_answer(self) -> bool:
        """The answer is the step's, not the book's."""
        said = (self.reply, self.reason, self.status, self.text, self.location, self.garbage)
        return any(part is not None for part in said)


NATURAL = Step()
FOREVER = 2**62
