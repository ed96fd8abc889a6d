"""Between the ledger's texts and our nouns; the key names stand here and in functions/prelude.lua only."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from worker.clock import from_micros
from worker.errors import Refused
from worker.job import (
    Action,
    CancelRequest,
    FirstWish,
    Job,
    JobId,
    Joiner,
    Memory,
    OrderId,
    Outcome,
    Priority,
    Steering,
    Step,
)


def prefix(ledger: str) -> str:
    """The hash tag keeps all keys of a ledger in one slot."""
    return f"{{{ledger}}}"


def bells_key(ledger: str) -> str:
    """The Celery queue's name, and the key of its list."""
    return f"{prefix(ledger)}:bells"


def meta_key(ledger: str) -> str:
    return f"{prefix(ledger)}:meta"


def pairs(flat: Sequence[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def moment(micros: str | None) -> datetime | None:
    return from_micros(int(micros)) if micros else None


def instant(micros: str) -> datetime:
    return from_micros(int(micros))


def job_from(fields: Mapping[str, str]) -> Job:
    return Job(
        id=JobId(fields["id"]),
        request=_request_from(fields),
        first_wish=_first_wish_from(fields),
        enqueued_at=instant(fields["enqueued_at"]),
        step=Step(fields["step"]),
        attempts=int(fields["attempts"]),
        joiners=int(fields["joiners"]),
        lapsed="lapsed" in fields,
        redrive_of=JobId(fields["redrive_of"]) if "redrive_of" in fields else None,
        outcome=Outcome(fields["outcome"]) if "outcome" in fields else None,
        evidence=fields.get("evidence"),
        memory=Memory.from_json(fields.get("memory")),
    )


def _request_from(fields: Mapping[str, str]) -> CancelRequest:
    return CancelRequest(
        account=fields["account"],
        order_id=OrderId(int(fields["order_id"])),
        request_id=fields["request_id"],
        requested_by=fields.get("requested_by"),
        cl_ord_id=fields.get("cl_ord_id"),
        activation_time=moment(fields.get("activation_time")),
        custom_tag50=fields.get("custom_tag50"),
        is_automated=fields["is_automated"] == "1",
        priority=Priority(fields["priority"]),
        deadline=moment(fields.get("deadline")),
    )


def _first_wish_from(fields: Mapping[str, str]) -> FirstWish | None:
    if "first_priority" not in fields:
        return None
    return FirstWish(
        priority=Priority(fields["first_priority"]),
        deadline=moment(fields.get("first_deadline")),
        activation_time=moment(fields.get("first_activation_time")),
    )


def joiner_from(text: str) -> Joiner:
    fields = json.loads(text)
    return Joiner(
        request_id=fields["request_id"],
        requested_by=fields["requested_by"],
        priority=Priority(fields["priority"]),
        deadline=None if fields["deadline"] is None else from_micros(fields["deadline"]),
        requested_at=from_micros(fields["requested_at"]),
    )


def action_from(action_id: str, text: str) -> Action:
    fields = json.loads(text)
    return Action(
        id=action_id,
        kind=Steering(fields["kind"]),
        by=fields["by"],
        because=fields["because"],
        at=from_micros(fields["at"]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """How a ledger stands; `open` counts the jobs that have not ended, `posting` those in hand for a POST."""

    paused_at: datetime | None
    draining: bool
    open: int
    posting: int
    locked_out_until: datetime | None
    exchange: str | None

    @property
    def paused(self) -> bool:
        return self.paused_at is not None


def survey_from(text: str) -> Survey:
    """Refused, with the ledger's own words, when it would not do what it was asked."""
    told = json.loads(text)
    if told.get("status") == "refused":
        raise Refused(told["error"])
    return Survey(
        paused_at=_time(told["pausedAt"]),
        draining=told["draining"],
        open=told["open"],
        posting=told["posting"],
        locked_out_until=_time(told["lockedOutUntil"]),
        exchange=told["exchange"],
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def storable(text: str) -> str:
    """Text that Redis and its JSON reader take: a lone surrogate becomes a visible escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def fields_json(fields: Mapping[str, str | None]) -> dict[str, str | None]:
    return {name: None if text is None else storable(text) for name, text in fields.items()}


def compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
