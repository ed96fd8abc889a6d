"""`cancelq policy`: the reason table in force."""

import json
import random

import click

from worker.cli.reach import show_live
from worker.policy import policy_from
from worker.reasons import TABLE, Rule
from worker.settings import load_settings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="one JSON object instead of a table")
def policy(*, as_json: bool) -> None:
    """Print what every answer of the exchange means and what follows."""
    settings = load_settings()
    show_live(settings)
    in_force = policy_from(settings, random.random)
    rows = [_row(rule, in_force.transient) for rule in TABLE]
    rows += [_added(reason) for reason in sorted(in_force.transient - _reasons())]
    if as_json:
        click.echo(json.dumps({"version": in_force.version, "rules": rows}, indent=2))
    else:
        _print_table(in_force.version, rows)


def _reasons() -> set[str]:
    return {rule.name.removeprefix("reason:") for rule in TABLE if rule.name.startswith("reason:")}


def _row(rule: Rule, transient: frozenset[str]) -> dict[str, object]:
    """The table's line as configuration bends it: CANCELQ_TRANSIENT_REASONS has the last word."""
    reason = rule.name.removeprefix("reason:")
    meaning, action, why = str(rule.meaning), str(rule.action), rule.why
    if rule.name.startswith("reason:") and (reason in transient) != (meaning == "transient"):
        added = reason in transient
        meaning, action = ("transient", "retry") if added else ("ambiguous", "read")
        why = f"by CANCELQ_TRANSIENT_REASONS; the table says {rule.meaning}"
    return {
        "rule": rule.name,
        "verdict": meaning,
        "action": action,
        "first_wait": rule.first.total_seconds(),
        "longest_wait": rule.longest.total_seconds(),
        "why": why,
    }


def _added(reason: str) -> dict[str, object]:
    name = f"reason:{reason}"
    return {
        "rule": name,
        "verdict": "transient",
        "action": "retry",
        "first_wait": 0.3,
        "longest_wait": 3.0,
        "why": "named in CANCELQ_TRANSIENT_REASONS only",
    }


def _print_table(version: str, rows: list[dict[str, object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"reason table {version}", title_justify="left")
    for column in ("rule", "verdict", "action", "wait (s)", "why"):
        table.add_column(column, overflow="fold")
    for row in rows:
        waits = f"{row['first_wait']:g} to {row['longest_wait']:g}"
        table.add_row(str(row["rule"]), str(row["verdict"]), str(row["action"]), waits, str(row["why"]))
    Console(width=140).print(table)
