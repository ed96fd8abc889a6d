"""Seeded faults for orders without steps of their own: same seed and order, same fault, whoever comes first."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from .moments import Span, chance, within
from .steps import FOREVER, Penalty, Step

TRANSIENT = ("AnotherCommandPending", "RiskCheckTimeout", "ExecutionProviderUnavailable")
FINAL = ("AccountClosed", "TradingLocked", "Unauthorized", "ExecutionProviderNotConfigured", "Unsupported")
UNCLEAR = ("UnknownReason", "OtherExecutionRelated", "ParentRejected")


@dataclass(frozen=True, slots=True)
class Draw:
    """The chance numbers of one order."""

    seed: int
    order_id: int

    def number(self, topic: str) -> float:
        return chance(self.seed, self.order_id, topic)

    def one_of(self, names: Sequence[str]) -> str:
        return names[int(self.number("which") * len(names))]


@dataclass(frozen=True, slots=True)
class Mix:
    """Probabilities by fault (at most one fault an order, so together at most 1), and of partial fills."""

    faults: Mapping[str, float] = field(default_factory=dict)
    partial_fill: float = 0.0
    read_error: float = 0.0
    read_drop: float = 0.0
    slow_seconds: Span = (0.5, 2.0)

    def steps(self, seed: int, order_id: int) -> tuple[Step, ...]:
        """The faults of this order's first POSTs; later ones go as the book says."""
        draw = Draw(seed, order_id)
        point = draw.number("fault")
        for name, probability in self.faults.items():
            if point < probability:
                return FAULTS[name](draw, self)
            point -= probability
        return ()

    def fills_partly(self, seed: int, order_id: int) -> bool:
        return self.partial_fill > 0 and chance(seed, order_id, "partial") < self.partial_fill

    def read_step(self, seed: int, order_id: int, ordinal: int) -> Step | None:
        """The fault of an order's nth read, if any."""
        if not self.read_error and not self.read_drop:
            return None
        point = chance(seed, order_id, f"read{ordinal}")
        if point < self.read_error:
            return Step(status=500)
        return Step(drop="before") if point < self.read_error + self.read_drop else None


def _transient(draw: Draw, _mix: Mix) -> tuple[Step, ...]:
    return (Step(reason=draw.one_of(TRANSIENT), repeat=1 + int(draw.number("times") * 3)),)


def _refused(draw: Draw, _mix: Mix) -> tuple[Step, ...]:
    return (Step(reason=draw.one_of(FINAL), repeat=FOREVER),)


def _unclear(draw: Draw, _mix: Mix) -> tuple[Step, ...]:
    return (Step(reason=draw.one_of(UNCLEAR)),)


def _unclear_effect(draw: Draw, _mix: Mix) -> tuple[Step, ...]:
    return (Step(reason=draw.one_of(UNCLEAR), effect="before"),)


def _slow(draw: Draw, mix: Mix) -> tuple[Step, ...]:
    return (Step(delay=within(mix.slow_seconds, draw.number("slow"))),)


def _late_reject(draw: Draw, _mix: Mix) -> tuple[Step, ...]:
    return (Step(late_reject=draw.one_of(TRANSIENT[1:])),)


def _penalty(draw: Draw, _mix: Mix) -> tuple[Step, ...]:
    return (Step(penalty=Penalty(f"ticket-{draw.order_id}", 1)),)


def _always(step: Step) -> Callable[[Draw, Mix], tuple[Step, ...]]:
    return lambda _draw, _mix: (step,)


FAULTS: Mapping[str, Callable[[Draw, Mix], tuple[Step, ...]]] = {
    "transient": _transient,
    "refused": _refused,
    "unclear": _unclear,
    "unclear_effect": _unclear_effect,
    "empty": _always(Step(reply={})),
    "slow": _slow,
    "drop": _always(Step(drop="before")),
    "drop_effect": _always(Step(drop="after")),
    "reset": _always(Step(reset="before")),
    "reset_effect": _always(Step(reset="after")),
    "error": _always(Step(status=500)),
    "error_effect": _always(Step(status=500, effect="before")),
    "late_effect": _always(Step(status=500, effect="after")),
    "cut_body": _always(Step(cut_body=5)),
    "fill_first": _always(Step(fill_first=True)),
    "fill_after": _always(Step(fill_after=True)),
    "late_reject": _late_reject,
    "penalty": _penalty,
    "unauthorized": _always(Step(status=401)),
}

PROFILES = {
    "none": Mix(),
    # What a bad day looks like: a bit less than half of all orders go through at the first try.
    "demo": Mix(
        faults={
            "transient": 0.20,
            "refused": 0.03,
            "unclear": 0.02,
            "unclear_effect": 0.02,
            "slow": 0.05,
            "drop": 0.04,
            "drop_effect": 0.05,
            "error": 0.04,
            "error_effect": 0.04,
            "cut_body": 0.02,
            "fill_first": 0.05,
            "fill_after": 0.03,
            "late_reject": 0.03,
        },
        partial_fill=0.08,
    ),
}
