"""All checks at once: each dependency in a thread of its own, all within one bound, no secret in any word."""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from urllib.parse import unquote, urlsplit

from worker.clock import monotonic
from worker.doctor import database_checks, exchange_checks, host_checks, limits, redis_checks
from worker.doctor.finding import Finding, Grade, each, failed
from worker.doctor.login_checks import configured
from worker.logins import secrets_in
from worker.settings import Settings

# Whoever asks a doctor waits for the answer; what takes longer is itself a finding.
BOUND = timedelta(seconds=15)
PARTS: dict[str, Callable[[Settings], Iterator[Finding]]] = {
    "settings": limits.look,
    "host": host_checks.look,
    "redis": redis_checks.look,
    "database": database_checks.look,
    "exchange": exchange_checks.look,
}


def examine(settings: Settings, bound: timedelta = BOUND) -> list[Finding]:
    """What every check found, part by part; a part that does not end in time says so."""
    give_up = monotonic() + bound
    parts = [_Part(name, look, settings) for name, look in PARTS.items()]
    found = [finding for part in parts for finding in part.findings(give_up, bound)]
    hide = secrets_of(settings)
    return [without(finding, hide) for finding in found]


def is_well(findings: Sequence[Finding]) -> bool:
    return all(finding.grade is not Grade.FAILED for finding in findings)


class _Part:
    """One dependency under examination. A daemon: a name look-up has no bound of its own."""

    def __init__(self, name: str, look: Callable[[Settings], Iterator[Finding]], settings: Settings) -> None:
        self._name = name
        self._found: list[Finding] = []
        self._thread = threading.Thread(target=self._look, args=(look, settings), daemon=True)
        self._thread.start()

    def findings(self, give_up: timedelta, bound: timedelta) -> list[Finding]:
        self._thread.join(max(0.0, (give_up - monotonic()).total_seconds()))
        found = list(self._found)
        if self._thread.is_alive():
            mend = "see whether it is frozen, overloaded, or cut off by a firewall that drops packets"
            found.append(
                failed(self._name, f"the checks did not end within {bound.total_seconds():g} s", mend)
            )
        return found

    def _look(self, look: Callable[[Settings], Iterator[Finding]], settings: Settings) -> None:
        for finding in each([(self._name, lambda: look(settings))], "mend what is said here, then ask again"):
            self._found.append(finding)


def secrets_of(settings: Settings) -> re.Pattern[str] | None:
    """Drivers quote what they were given; this is what must never be quoted."""
    logins = configured(settings)
    secrets = secrets_in(logins) if isinstance(logins, tuple) else set()
    for url in (settings.redis_url, settings.database_url, settings.alert_url):
        if url is not None:
            secrets |= _passwords(url.get_secret_value())
    words = "|".join(re.escape(secret) for secret in sorted(secrets, key=len, reverse=True) if secret)
    return re.compile(rf"(?<!\w)(?:{words})(?!\w)") if words else None


def _passwords(url: str) -> set[str]:
    parts = urlsplit(url)
    written = {parts.password or "", *re.findall(r"(?:^|&)password=([^&]*)", parts.query)}
    return written | {unquote(word) for word in written}


def without(finding: Finding, secret: re.Pattern[str] | None) -> Finding:
    if secret is None:
        return finding
    mend = secret.sub("***", finding.mend) if finding.mend is not None else None
    return Finding(finding.grade, finding.what, secret.sub("***", finding.finding), mend)
