"""How many calls a login may make in a window of time, as CANCELQ_RATE_LIMIT says it. Counts nothing."""

import re
from dataclasses import dataclass
from datetime import timedelta

WINDOWS = {"s": timedelta(seconds=1), "min": timedelta(minutes=1), "h": timedelta(hours=1)}
RIGHT = "must be N/s, N/min or N/h, several with commas, such as 80/min,5000/h; empty for no limit"
# Beyond that a limit limits nothing, and the ledger's numbers would lose digits.
MOST_CALLS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Limit:
    """So many calls in any window of this length; all of them at once is allowed."""

    calls: int
    window: timedelta


def limits_from(text: str) -> tuple[Limit, ...]:
    """Read `80/min,5000/h`; ValueError says what would be right."""
    found: dict[timedelta, int] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        said = re.fullmatch(r"([0-9]{1,10})\s*/\s*(s|min|h)", part)
        if said is None or not 0 < int(said[1]) <= MOST_CALLS:
            msg = f"{part[:40]!r}: {RIGHT}"
            raise ValueError(msg)
        if WINDOWS[said[2]] in found:
            msg = f"{said[2]} is limited twice; {RIGHT}"
            raise ValueError(msg)
        found[WINDOWS[said[2]]] = int(said[1])
    return tuple(Limit(calls, window) for window, calls in found.items())
