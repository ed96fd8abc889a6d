"""One line of the tables, and the short ways to write it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Step = Mapping[str, Any]

ACCEPTED, TRANSIENT, AMBIGUOUS, REFUSED = "accepted", "transient", "ambiguous", "refused"
ANY = object()


@dataclass(frozen=True)
class Case:
    """One order. Each verdict is one POST; the first may be told more exactly."""

    name: str
    posts: Sequence[Step]
    verdicts: Sequence[str]
    outcome: str = "canceled"
    evidence: str = "order_read"  # one word, or the whole text's beginning
    transport: str = "answered"
    rule: str | None = None
    reason: Any = ANY
    order: Mapping[str, Any] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    filled: Any = ANY
    known: bool = True
    # Whether the simulator knows which id its answer carried: not of raw texts, nor of what did not get across.
    heard: bool = True


def settled(name: str, post: Step, **more: Any) -> Case:
    """Ambiguous, but the order shows that the cancel took effect: one POST is all."""
    return Case(name, [post], [AMBIGUOUS], **more)


def repeated(name: str, post: Step, **more: Any) -> Case:
    """Ambiguous, and the order still works: read, then POSTed again."""
    return Case(name, [post], [AMBIGUOUS, ACCEPTED], **more)


def refused(name: str, post: Step, **more: Any) -> Case:
    """Refused, and the order still works when it is read once more."""
    return Case(name, [post], [REFUSED], **({"outcome": "refused", "evidence": "reply"} | more))


def unresolved(name: str, posts: Sequence[Step], verdicts: Sequence[str], evidence: str, **more: Any) -> Case:
    """The deadline passes without proof; late enough for four POSTs on a machine that stands still now and then."""
    return Case(name, posts, verdicts, "unresolved", evidence, **({"request": {"deadline": 12}} | more))
