"""Settings that are each allowed and yet work against each other."""

from collections.abc import Iterator
from datetime import timedelta

from worker.doctor.finding import Finding, ok, warning
from worker.policy import READ_WAITS
from worker.reasons import RULES, Rule, RuleName
from worker.settings import Settings, names_live

LONG_LEASE_SECONDS = 15
WHAT = "settings"


def look(settings: Settings) -> Iterator[Finding]:
    """Each contradiction with its mend; one line of praise when there is none."""
    found = [*_timeouts(settings), *_budgets(settings), *_choices(settings)]
    yield from found or [ok(WHAT, "valid, and none works against another")]


def _timeouts(settings: Settings) -> Iterator[Finding]:
    total, lease = settings.total_timeout, settings.lease
    if total >= settings.retry_budget:
        yield warning(
            f"{WHAT}: retry budget",
            f"one request may take {_s(total)} (CANCELQ_TOTAL_TIMEOUT), the retries of a job only "
            f"{_s(settings.retry_budget)} (CANCELQ_RETRY_BUDGET): one lost answer uses it up",
            f"raise CANCELQ_RETRY_BUDGET above {_s(3 * total)}, or lower CANCELQ_TOTAL_TIMEOUT",
        )
    if settings.connect_timeout >= lease:
        yield warning(
            f"{WHAT}: lease",
            f"connecting may take {_s(settings.connect_timeout)} (CANCELQ_CONNECT_TIMEOUT), longer than a lease "
            f"of {_s(lease)} (CANCELQ_LEASE): if a renewal fails meanwhile, the right to send is gone",
            f"set CANCELQ_CONNECT_TIMEOUT below {_s(lease)}",
        )
    if lease.total_seconds() > LONG_LEASE_SECONDS:
        yield warning(
            f"{WHAT}: lease",
            f"when a worker dies, its cancels stand still for {_s(lease)} (CANCELQ_LEASE)",
            "set CANCELQ_LEASE to 2.25 unless Redis often answers late",
        )


def _budgets(settings: Settings) -> Iterator[Finding]:
    retry, confirm = settings.retry_budget, settings.confirm_budget
    waits = {name: rule.first for name in settings.transient_reasons if (rule := _rule(name)) is not None}
    late = sorted(name for name, first in waits.items() if first >= retry)
    if late:
        yield warning(
            f"{WHAT}: retry budget",
            f"CANCELQ_RETRY_BUDGET ({_s(retry)}) is over before the first retry after {', '.join(late)}",
            f"raise CANCELQ_RETRY_BUDGET above {_s(max(waits.values()))}, or take the reason off "
            "CANCELQ_TRANSIENT_REASONS",
        )
    if confirm < max(sum(READ_WAITS[1:], READ_WAITS[0]), settings.total_timeout):
        needed = max(sum(READ_WAITS[1:], READ_WAITS[0]), settings.total_timeout)
        yield warning(
            f"{WHAT}: confirm budget",
            f"CANCELQ_CONFIRM_BUDGET ({_s(confirm)}) ends before all reads of an order are made: "
            "cancels end as unresolved that a later read would prove",
            f"raise CANCELQ_CONFIRM_BUDGET above {_s(needed)}",
        )
    if settings.dedupe_life < retry + confirm:
        yield warning(
            f"{WHAT}: dedupe life",
            f"a request id is forgotten after {_s(settings.dedupe_life)} (CANCELQ_DEDUPE_LIFE), a job may live for "
            f"{_s(retry + confirm)}: a repeated request may become a second job",
            f"raise CANCELQ_DEDUPE_LIFE above {_s(retry + confirm)}",
        )


def _choices(settings: Settings) -> Iterator[Finding]:
    if settings.max_attempts == 1:
        yield warning(f"{WHAT}: attempts", "CANCELQ_MAX_ATTEMPTS is 1: nothing is ever retried", "raise it")
    if not settings.transient_reasons:
        yield warning(
            f"{WHAT}: transient reasons",
            "CANCELQ_TRANSIENT_REASONS is empty: every refusal for now is read before it is repeated",
            "unset it for the default, or name the reasons",
        )
    unknown = sorted(name for name in settings.transient_reasons if _rule(name) is None)
    if unknown:
        yield warning(
            f"{WHAT}: transient reasons",
            f"{', '.join(unknown)} in CANCELQ_TRANSIENT_REASONS: no such reason of the exchange is known",
            "see `cancelq policy` for the known ones",
        )
    if settings.dry_run:
        yield warning(
            f"{WHAT}: dry run",
            "CANCELQ_DRY_RUN is on: nothing is POSTed, open orders stay open",
            "unset CANCELQ_DRY_RUN when cancels shall be sent",
        )
    if settings.confirm == "off":
        yield warning(
            f"{WHAT}: confirmation",
            "CANCELQ_CONFIRM is off: `accepted` then means that the exchange took the cancel, not that the order is gone",
            "set CANCELQ_CONFIRM=on",
        )
    if names_live(settings.exchange_url) and settings.lockout.total_seconds() < 3600:
        yield warning(
            f"{WHAT}: lock-out",
            f"CANCELQ_LOCKOUT is {_s(settings.lockout)}; the exchange locks out for an hour, and each call within it may "
            "start the hour anew",
            "set CANCELQ_LOCKOUT=3600",
        )


def _rule(reason: str) -> Rule | None:
    return RULES.get(RuleName(f"reason:{reason}"))


def _s(span: timedelta) -> str:
    return f"{span.total_seconds():g} s"
