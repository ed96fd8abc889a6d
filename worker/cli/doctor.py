"""`cancelq doctor`: what is wrong with this configuration and all it depends on, and what mends it."""

import json
import logging
import re
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from worker.errors import CancelqError, ConfigError
from worker.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.doctor.finding import Finding

COLORS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "bright_black"}
VERSION_BOUND = timedelta(seconds=1)


@click.command()
@click.option("--acl", is_flag=True, help="print the Redis rules of a producer's and of a worker's user")
@click.option("--json", "machine", is_flag=True, help="one JSON object")
def doctor(*, acl: bool, machine: bool) -> None:
    """Check settings, Redis, database, exchange and host; each finding says how to mend it.

    Exit 1 if one failed, 2 if a setting is wrong, so that no worker would start.
    """
    try:
        settings = load_settings()
        _require_possible(settings)
    except ConfigError as error:
        if acl:
            raise
        _tell(_wrong(error), None, machine=machine)
        sys.exit(2)
    if acl:
        _print_rules(settings, machine=machine)
        return
    from worker.app.logs import set_up_logs
    from worker.doctor.examine import examine, is_well
    from worker.doctor.login_checks import is_misconfigured

    set_up_logs(settings.log, logging.CRITICAL)  # the findings say it all
    findings = examine(settings)
    _tell(findings, settings, machine=machine)
    if is_misconfigured(settings):
        sys.exit(2)
    sys.exit(0 if is_well(findings) else 1)


def _require_possible(settings: Settings) -> None:
    """What only shows when the settings are put to use; connects to nothing."""
    from worker.audit.engine import audit_url, open_engine
    from worker.ledger.connection import open_client
    from worker.policy import policy_from

    policy_from(settings, lambda: 0.0)
    open_engine(audit_url(settings)).dispose()
    if settings.redis_url is not None:
        open_client(settings.redis_url.get_secret_value(), timeout=VERSION_BOUND).close()


def _wrong(error: ConfigError) -> "list[Finding]":
    """One finding for each wrong setting."""
    from worker.doctor.finding import failed, skipped

    faults = re.split(r"; (?=CANCELQ_)", str(error))
    mend = "correct it in the environment, in .env or in the secrets directory"
    return [*(failed("settings", fault, mend) for fault in faults), skipped("all else", "needs the settings")]


def _tell(findings: "Sequence[Finding]", settings: Settings | None, *, machine: bool) -> None:
    from worker.doctor.examine import is_well
    from worker.doctor.writing import as_json, lines

    about: dict[str, Any] = (
        {"exchange": settings.exchange_url, "live": settings.is_live, "ledger": settings.ledger}
        if settings is not None
        else {"exchange": None, "live": None, "ledger": None}
    )
    if machine:
        click.echo(json.dumps({"ok": is_well(findings), **about, "findings": as_json(findings)}))
        return
    if settings is not None and settings.is_live:
        click.secho("LIVE: real orders at " + settings.exchange_url, fg="red", bold=True)
    for grade, line in lines(findings):
        click.secho(line, fg=COLORS[grade] if grade is not None else None)


def _print_rules(settings: Settings, *, machine: bool) -> None:
    from worker.ledger.access import NEWEST, PRODUCER, WORKER, channels_of, keys_of, rule, user

    server = _server(settings) or NEWEST
    if machine:
        made = {
            role.name: {
                "user": user(role, settings.ledger),
                "keys": keys_of(role, settings.ledger),
                "channels": channels_of(role),
                "commands": role.commands(server),
                "rule": rule(role, settings.ledger, server),
            }
            for role in (PRODUCER, WORKER)
        }
        click.echo(json.dumps({"ledger": settings.ledger, **made}))
        return
    for role in (PRODUCER, WORKER):
        click.echo(rule(role, settings.ledger, server))
    click.echo(
        "Put a password of your own in place of CHANGE-ME, say the lines to Redis as its administrator (redis-cli), "
        "keep them (ACL SAVE, or CONFIG REWRITE), and give each side its user: "
        f"redis://{user(WORKER, settings.ledger)}:PASSWORD@host:6379/0. Whoever may enqueue is trusted for the whole "
        "ledger; for separate trust use separate ledgers (CANCELQ_LEDGER). Flower needs more than a worker (its library runs "
        "scripts in Redis): under these rules say cancelq up --no-flower.",
        err=True,
    )


def _server(settings: Settings) -> tuple[int, int] | None:
    """The configured server's version, if it can be asked: an old one refuses a rule with new commands."""
    from worker.doctor.redis_checks import version_of
    from worker.ledger.inspection import LedgerInspection

    if settings.redis_url is None:
        return None
    url = settings.redis_url.get_secret_value()
    try:
        with LedgerInspection(url, settings.ledger, timeout=VERSION_BOUND) as redis:
            info = redis.info()
    except CancelqError:
        info = None
    if info is None:
        click.echo("cancelq: Redis was not asked for its version; the rules are for 7.2 and newer", err=True)
        return None
    return version_of(info)
