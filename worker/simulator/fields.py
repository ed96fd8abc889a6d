"""Checks of single values in a script: each says where it is and what would be right."""

import json
from collections.abc import Callable
from typing import Any

from .moments import Span

Reader = Callable[[Any, str], Any]


class ScriptError(ValueError):
    """A script or an admin request says something the simulator does not know."""


def wrong(value: Any, where: str, right: str) -> ScriptError:
    return ScriptError(f"{where}: {json.dumps(value)[:60]} is not possible; right would be {right}")


def number(low: float, high: float = float("inf")) -> Callable[[Any, str], float]:
    def read(value: Any, where: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            limit = f"at least {low}" if high == float("inf") else f"from {low} to {high}"
            raise wrong(value, where, f"a number {limit}")
        return value

    return read


def at_least(low: float) -> Callable[[Any, str], float]:
    return number(low)


def whole(low: int, high: int = 2**63 - 1) -> Callable[[Any, str], int]:
    def read(value: Any, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise wrong(value, where, f"a whole number from {low} to {high}")
        return value

    return read


def text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise wrong(value, where, "a text")
    return value


def flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise wrong(value, where, "true or false")
    return value


def text_map(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise wrong(value, where, "an object of texts")
    return {name: text(part, f"{where}.{name}") for name, part in value.items()}


def one_of(*names: str) -> Callable[[Any, str], str]:
    def read(value: Any, where: str) -> str:
        if not isinstance(value, str) or value not in names:
            raise wrong(value, where, f"one of: {', '.join(sorted(names))}")
        return value

    return read


def span(value: Any, where: str) -> Span:
    """A number of seconds, or two: the least and the most."""
    pair = value if isinstance(value, list) else [value, value]
    if len(pair) != 2:
        raise wrong(value, where, "a number of seconds or a list of two")
    low, high = (number(0)(part, where) for part in pair)
    if low > high:
        raise wrong(value, where, "the smaller number first")
    return low, high
