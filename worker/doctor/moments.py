"""Times and clocks as the doctor tells them."""

from datetime import timedelta

from worker.clock import Offset
from worker.doctor.finding import Finding, failed, ok, warning

# Latencies across two clocks are this wrong before anybody is told …
TOLERATED = timedelta(milliseconds=500)
# … and by then a deadline means another moment here than there.
UNBEARABLE = timedelta(seconds=10)
MEND = "run an NTP client (chrony, systemd-timesyncd) on both machines"


def milliseconds(span: timedelta) -> str:
    return f"{span.total_seconds() * 1000:.3g} ms"


def clock_finding(what: str, offset: Offset, *, unbearable: timedelta = UNBEARABLE) -> Finding:
    """How far another clock is from ours; only what exceeds the error of the measurement counts."""
    certain = abs(offset.ahead) - offset.error
    direction = "ahead of" if offset.ahead >= timedelta(0) else "behind"
    said = f"{_shown(abs(offset.ahead))} {direction} this host's clock (± {_shown(offset.error)})"
    if certain > unbearable:
        return failed(what, f"{said}: deadlines and times of the audit are wrong", MEND)
    return warning(what, said, MEND) if certain > TOLERATED else ok(what, said)


def _shown(span: timedelta) -> str:
    return milliseconds(span) if span < timedelta(seconds=1) else f"{span.total_seconds():.1f} s"
