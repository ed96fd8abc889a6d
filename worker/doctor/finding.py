"""What one check found, as a value, and the way checks are run: each on its own, none hides another."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from worker.errors import CancelqError


class Grade(StrEnum):
    """How bad it is (the words are public)."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor: what was looked at, what was seen, and what mends it."""

    grade: Grade
    what: str
    finding: str
    mend: str | None = None


Check = tuple[str, Callable[[], Iterable[Finding]]]


def ok(what: str, finding: str) -> Finding:
    return Finding(Grade.OK, what, finding)


def warning(what: str, finding: str, mend: str) -> Finding:
    return Finding(Grade.WARNING, what, finding, mend)


def failed(what: str, finding: str, mend: str) -> Finding:
    return Finding(Grade.FAILED, what, finding, mend)


def skipped(what: str, finding: str) -> Finding:
    return Finding(Grade.SKIPPED, what, finding)


def each(checks: Sequence[Check], mend: str) -> Iterator[Finding]:
    """Run the checks in turn; one that cannot be made is its own failure, with the common `mend`."""
    for what, check in checks:
        try:
            yield from check()
        except CancelqError as error:
            yield failed(what, str(error), mend)
        except Exception as error:  # noqa: BLE001 - whatever a driver raises, the other checks go on
            yield failed(what, f"{type(error).__name__}: {_first_line(error)}", mend)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no word about it"])[0]
