"""The findings as a person reads them, and as a program does."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from worker.doctor.finding import Finding, Grade


def lines(findings: Sequence[Finding]) -> Iterator[tuple[Grade | None, str]]:
    """Each line with the grade that colours it: the findings in order, each mend below, the sum at the end."""
    width = max((len(finding.what) for finding in findings), default=0)
    for finding in findings:
        yield finding.grade, f"{finding.grade:<8} {finding.what:<{width}}  {finding.finding}"
        if finding.mend is not None:
            yield None, f"{'':<8} {'':<{width}}  → {finding.mend}"
    yield None, summary(findings)


def summary(findings: Sequence[Finding]) -> str:
    count = Counter(finding.grade for finding in findings)
    return ", ".join(
        f"{count[grade]} {grade}" for grade in (Grade.FAILED, Grade.WARNING, Grade.OK, Grade.SKIPPED)
    )


def as_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    return [{"grade": str(f.grade), "what": f.what, "finding": f.finding, "mend": f.mend} for f in findings]
