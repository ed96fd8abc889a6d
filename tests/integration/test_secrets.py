"""Planted secrets are used by every part, through every failure, and stand nowhere but where they were planted."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.parts.databases import PostgresServer
from tests.parts.estate import Estate, Plants, estate
from tests.parts.exchange import eventually
from tests.parts.plants import Plant, command_lines, database_content, files, leaks, redis_content
from tests.parts.processes import is_running
from tests.parts.tls import Authority
from tests.parts.up import Up

PAGES = ["/", "/workers", "/tasks", "/broker", "/metrics", "/api/workers", "/api/tasks", "/api/queues/length"]
COMMANDS = [
    *(f"report --format {form}" for form in ("table", "json", "csv", "html")),
    *("why 2", "status --order 2", "verify", "policy", "migrate", "doctor", "doctor --acl"),
    "redrive --since 2020-01-01 --reason http:401",
]
# Or the day was not so bad, and nothing that could have told a secret was ever said.
SAID = [
    "password authentication failed",
    "invalid username-password pair",
    "alert.not_delivered",
    "has expired",
    "AccountClosed",
    "invalid sslmode",
    "worker-online",
    "is not taken (HTTP 401)",
    "audit.unavailable",
]
ODD = {"redis_url": "bogus=1", "database_url": "sslmode=bogus"}


def test_no_secret_stands_where_it_was_not_planted(
    tmp_path: Path, authority: Authority, postgres: PostgresServer
) -> None:
    with estate(tmp_path, authority, postgres) as made:
        left = _what_a_bad_day_leaves(made)
        left["PostgreSQL's log"] = (postgres.folder / "log").read_bytes()
        flower = Plant("Flower's password", left.pop(str(tmp_path / "home/flower-password")).decode().strip())
        found = leaks([*made.plants.all(), flower], left)
    assert not found, "\n".join(found)
    said = b"".join(left.values()).decode(errors="replace")
    assert [words for words in SAID if words not in said] == []


def _what_a_bad_day_leaves(made: Estate) -> dict[str, bytes]:
    """What stands anywhere, by place."""
    events = made.redis.pubsub()
    events.psubscribe("*")
    up = made.up().ready()
    _cancel_what_answers_with_our_own_token(made)
    left = {f"Flower {path}": repr(up.flower(path)).encode() for path in PAGES}
    _say_every_command(made)
    left |= command_lines()
    _lose_the_servers(made, up)
    alerts = [made.receiver.alerts.get() for _ in range(made.receiver.alerts.qsize())]
    left |= {"events": b"".join(_heard(events)), "alerts": repr(alerts).encode()}
    left |= redis_content(made.redis)
    left |= database_content(made.database)
    left |= files(made.folder, without=made.folder / "secrets")
    return left


def _heard(events: Any) -> Iterator[bytes]:
    """What was published meanwhile: as it was, and as Flower reads it."""
    while message := events.get_message(timeout=0.1):
        if message["type"] == "pmessage":
            yield message["data"]
            yield base64.b64decode(json.loads(message["data"])["body"])


def _cancel_what_answers_with_our_own_token(made: Estate) -> None:
    """Exchanges and proxies quote what they were sent."""
    token = made.plants.token.value
    made.receiver.status = 500
    made.exchange.defaults(latency=0, read_latency=0, read_lag=0, settle=0, token=token)
    made.exchange.add_orders(1, 2, 3, 4, 5, 6)
    made.exchange.script(2, *[{"status": 401, "text": f"Bearer {token} has expired"}] * 2)
    made.exchange.script(3, {"reason": "AccountClosed", "failure_text": f"not with {token}"})
    made.exchange.script(4, {"status": 302, "location": f"https://localhost/login?token={token}"})
    made.exchange.script(5, {"status": 500, "text": f"token={token}", "effect": "after"})
    for order in range(1, 6):
        made.redis.fcall("cancelq_enqueue", 1, "{cancelq}", f'{{"orderId": {order}}}')
    eventually(lambda: made.outcomes() == 5, seconds=60, what="five outcomes")


def _say_every_command(made: Estate) -> None:
    """All at once: with the right secrets, with wrong ones, and with addresses that nobody can read."""
    wrong = {of: made.address(of, made.plants.wrong_password) for of in made.addresses}
    wrong_token = made.plants.wrong_token.value
    elsewhere = str(
        made.folder / "elsewhere"
    )  # where no journal would let a worker start without its database
    said = [
        *(made.cancelq(*words.split()) for words in COMMANDS),
        *(made.cancelq("worker", home=elsewhere, **{of: address}) for of, address in wrong.items()),
        *(
            made.cancelq("worker", home=elsewhere, **{of: f"{address}&{ODD[of]}"})
            for of, address in wrong.items()
        ),
        made.cancelq("worker", access_token=f"{wrong_token} "),
        made.cancelq("doctor", access_token=wrong_token),
        made.cancelq("doctor", **wrong),
        made.cancelq("enqueue", "7", redis_url=wrong["redis_url"]),
        made.cancelq("report", database_url=wrong["database_url"]),
        made.cancelq("migrate", database_url=wrong["database_url"]),
    ]
    for process in said:
        assert process.wait(60) in {0, 1, 2}


def _lose_the_servers(made: Estate, up: Up) -> None:
    made.redis.fcall("cancelq_enqueue", 1, "{cancelq}", '{"orderId": 6}')
    made.doors["database_url"].shut()
    up.wait_for("audit.unavailable")
    made.doors["redis_url"].shut()
    up.wait_for("duty.failed")
    up.process.kill()  # without its servers a worker takes its time to end
    eventually(lambda: not any(map(is_running, up.pids())), seconds=20, what="the end of every part")


BREAKS = """
import sys
from worker.app.logs import set_up_logs
import structlog

def use(token, url):
    raise RuntimeError("it broke")

set_up_logs(sys.argv[1])
try:
    use(sys.stdin.read(), {"url": sys.argv})
except RuntimeError:
    structlog.get_logger().exception("sender.broke", job="j1")
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_shows_where_it_broke_and_no_value(form: str) -> None:
    """Some formatters print every local variable beside each line."""
    secret = Plants().token
    done = subprocess.run(
        [sys.executable, "-c", BREAKS, form], input=secret.value, capture_output=True, text=True, check=True
    )
    assert "in use" in done.stderr
    assert "it broke" in done.stderr
    assert not leaks([secret], {"traceback": done.stderr.encode()})


def test_the_search_finds_a_secret_however_it_is_written() -> None:
    secret = Plants().database
    ways = {
        "plain": secret.value,
        "address": f"postgresql://me:{secret.in_url}@db/audit",
        "JSON": json.dumps({"said": f"no {secret.value}"}),
        **{
            f"base64 after {n}": base64.b64encode(b"x" * n + secret.value.encode()).decode() for n in range(5)
        },
    }
    found = leaks([secret], {way: text.encode() for way, text in ways.items()})
    assert found == [f"{secret.name} in {way}" for way in ways]
    assert not leaks([secret], {"another": Plants().database.value.encode()})
