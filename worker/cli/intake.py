"""`cancelq enqueue` and `cancelq status`: requests in, answers out, one JSON object each."""

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from itertools import count
from typing import IO, TYPE_CHECKING, Any

import click

from worker.cli.reach import show_live, show_owner
from worker.errors import AuditUnavailable, ConfigError, LedgerUnavailable
from worker.settings import Settings, load_settings

if TYPE_CHECKING:
    from worker.ledger.producer import CancelQueue
    from worker.ledger.receipt import Receipt

# `--wait` alone: the default budgets of retrying and of proving, one after the other.
DEFAULT_WAIT = 120.0
POLL = timedelta(milliseconds=50)
# No more than that of a file is kept in memory; longer than the longest line that is accepted.
READ_SIZE = 65536
LONGEST_WAIT = 7 * 86400
LARGEST_ORDER = 2**63 - 1
UNKNOWN = {"status": "unknown"}
GOOD_ENDS = {"canceled", "gone", "accepted"}


def _bounded(_ctx: click.Context, _param: click.Parameter, seconds: float | None) -> float | None:
    """The comparison also refuses what is not a number."""
    if seconds is not None and not 0 <= seconds <= LONGEST_WAIT:
        raise click.BadParameter(f"must be 0 to {LONGEST_WAIT} seconds, got {seconds:g}")
    return seconds


def utf8(_ctx: click.Context, _param: click.Parameter, text: str | None) -> str | None:
    """Bytes of a shell that are no text reach no database."""
    if text is not None and not text.isascii() and text != text.encode(errors="replace").decode():
        raise click.BadParameter("must be UTF-8 text")
    return text


def order_number(_ctx: click.Context, _param: click.Parameter, text: str | None) -> int | None:
    """As strict as the ledger, because the audit may have to answer alone."""
    if text is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,18}", text) or int(text) > LARGEST_ORDER:
        raise click.BadParameter(f"orderId: must be 1 to {LARGEST_ORDER} in plain digits, got {text!r}")
    return int(text)


@click.command()
@click.argument("order_id", required=False)
@click.option("--account", help="whose order it is  [default]")
@click.option("--cl-ord-id", help="client order id, sent along")
@click.option("--activation-time", metavar="TIME", help="ISO 8601; when the exchange shall act")
@click.option("--custom-tag50", help="sent along")
@click.option("--manual", is_flag=True, help="a person's cancel: isAutomated is false")
@click.option("--requested-by", metavar="NAME", help="who asks; a claim, not a proof")
@click.option("--request-id", metavar="ID", help="idempotency key; repeating with it is safe")
@click.option("--priority", type=click.Choice(["urgent", "normal"]))
@click.option("--deadline", type=float, metavar="SECONDS", help="no POST after so many seconds")
@click.option(
    "--wait",
    type=float,
    is_flag=False,
    flag_value=DEFAULT_WAIT,
    metavar="[SECONDS]",
    callback=_bounded,
    help=f"wait for the end, {DEFAULT_WAIT:g} s unless told",
)
@click.option(
    "--from", "source", type=click.File("rb"), metavar="FILE|-", help="JSON Lines, one request a line"
)
@click.option(
    "--spool", type=click.Path(dir_okay=False), metavar="FILE", help="keeps requests while Redis is away"
)
def enqueue(
    order_id: str | None,
    source: IO[bytes] | None,
    wait: float | None,
    *,
    manual: bool,
    spool: str | None,
    **wish: Any,
) -> None:
    """Put a cancel request for ORDER_ID, or for each line of a file, into the ledger.

    With a spool alone: send on what waits in it.
    """
    given = {name: value for name, value in wish.items() if value is not None}
    if manual:
        given["is_automated"] = False
    if source is not None:
        if order_id is not None or given or wait is not None:
            raise click.UsageError("--from takes everything from the file: no ORDER_ID, no other options")
        sys.exit(0 if _enqueue_lines(source, spool) else 1)
    if order_id is not None:
        sys.exit(0 if _enqueue_one({"order_id": order_id} | given, wait, spool) else 1)
    if spool is None or given or wait is not None:
        raise click.UsageError("which order? give ORDER_ID, or --from FILE, or --spool FILE alone")
    sys.exit(0 if _send_on(spool) else 1)


@click.command()
@click.argument("job_id", required=False, callback=utf8)
@click.option(
    "--order", "order_id", metavar="ORDER_ID", callback=order_number, help="the newest job of this order"
)
@click.option("--account", callback=utf8, help="whose order it is  [default]")
def status(job_id: str | None, order_id: int | None, account: str | None) -> None:
    """Tell what became of a job."""
    if (job_id is None) == (order_id is None) or (job_id is not None and account is not None):
        raise click.UsageError("give either JOB_ID, or --order ORDER_ID with its --account")
    settings = load_settings()
    known = _from_ledger(settings, job_id, order_id, account)
    if known.get("status") == "refused":
        raise click.UsageError(known["error"])
    if "jobId" not in known:
        from worker.cli.records import as_written

        with as_written(settings):
            known = _from_audit(settings, job_id, order_id, account)
    click.echo(json.dumps(known))
    sys.exit(0 if "jobId" in known else 1)


@contextmanager
def _queue(settings: Settings, spool: str | None = None) -> Iterator["CancelQueue"]:
    """The configured ledger; without one the embedded Valkey of this home, made ready for use."""
    from worker.embedded.places import redis_place
    from worker.ledger.producer import BOUND, CancelQueue

    show_live(settings)
    with redis_place(settings) as redis_url:
        if settings.redis_url is None:
            from worker.ledger.client import Ledger

            with Ledger(redis_url, settings.ledger, timeout=BOUND) as ledger:
                ledger.load_functions()
                ledger.stamp_durability()
        with CancelQueue(redis_url, settings.ledger, spool=spool) as queue:
            yield queue


@cache
def _show_owner(queue: "CancelQueue") -> None:
    """Once a command, and only when its request is in, which does not wait for this."""
    show_owner(queue.exchange())


def _from_ledger(
    settings: Settings, job_id: str | None, order_id: int | None, account: str | None
) -> dict[str, Any]:
    try:
        with _queue(settings) as queue:
            known = queue.status(job_id=job_id, order_id=order_id, account=account)
            _show_owner(queue)
            return known
    except LedgerUnavailable as error:
        click.echo(f"cancelq: the ledger could not be asked: {error}", err=True)
        return UNKNOWN


def _from_audit(
    settings: Settings, job_id: str | None, order_id: int | None, account: str | None
) -> dict[str, Any]:
    """What the ledger has forgotten, the audit knows; unknown where there is no audit yet."""
    from worker.audit.engine import audit_url, open_engine
    from worker.audit.queries import status as recorded
    from worker.audit.schema import require_head
    from worker.audit.stamp import owner

    engine = open_engine(audit_url(settings))
    try:
        require_head(engine)
        show_owner(owner(engine))
        return recorded(engine, job_id=job_id, order_id=order_id, account=account or "default")
    except (AuditUnavailable, ConfigError) as error:
        click.echo(f"cancelq: the audit could not be asked: {error}", err=True)
        return UNKNOWN
    finally:
        engine.dispose()


# --- one request


def _enqueue_one(wish: dict[str, Any], wait: float | None, spool: str | None) -> bool:
    from worker.ledger.receipt import write_letter

    letter = write_letter(wish)
    with _queue(load_settings(), spool) as queue:
        receipt = queue.send([letter])[0]
        if receipt.is_stored:
            _show_owner(queue)
        answer = receipt.to_dict()
        if receipt.error is not None:
            click.echo(f"cancelq: {receipt.error}", err=True)
        if wait is None or receipt.job_id is None:
            click.echo(json.dumps(answer))
            return receipt.is_stored
        final = _wait_for_end(queue, receipt.job_id, wait)
    click.echo(json.dumps(answer | final))
    return final.get("outcome") in GOOD_ENDS


def _wait_for_end(queue: "CancelQueue", job_id: str, seconds: float) -> dict[str, Any]:
    """The job's status once it is done, or when the time is up; Redis may be away for a while."""
    click.echo(f"job {job_id}: waiting for its end", err=True)
    give_up = time.monotonic() + seconds
    known: dict[str, Any] = {}
    while True:
        try:
            known = queue.status(job_id=job_id)
        except LedgerUnavailable as error:
            click.echo(f"cancelq: {error}", err=True)
        if known.get("state") == "done" or time.monotonic() >= give_up:
            return known
        time.sleep(POLL.total_seconds())


# --- many requests


def _enqueue_lines(source: IO[bytes], spool: str | None) -> bool:
    """Send a file as it comes in; one JSON object out per line in, in order."""
    from worker.ledger.receipt import read_letter

    all_good, numbers = True, count(1)
    with _queue(load_settings(), spool) as queue:
        for lines in _lines(source):
            receipts = queue.send(map(read_letter, lines))
            for receipt in receipts:
                _print_line(next(numbers), receipt)
            sys.stdout.flush()
            stored = [receipt.is_stored for receipt in receipts]
            all_good &= all(stored)
            if any(stored):
                _show_owner(queue)
    return all_good


def _lines(source: IO[bytes]) -> Iterator[list[bytes]]:
    """The lines that are there by now; of one that is far too long only the beginning is kept."""
    rest = b""
    while got := source.read1(READ_SIZE):  # type: ignore[attr-defined]
        *lines, rest = (rest + got).split(b"\n")
        rest = rest[:READ_SIZE]
        yield lines
    if rest:
        yield [rest]


def _print_line(number: int, receipt: "Receipt") -> None:
    answer = receipt.to_dict()
    if not receipt.is_stored:
        answer["line"] = number
        click.echo(f"cancelq: line {number}: {receipt.error}", err=True)
    click.echo(json.dumps(answer))


def _send_on(spool: str) -> bool:
    """One JSON object for each request that left the spool; whether all of them are in the ledger."""
    with _queue(load_settings(), spool) as queue:
        sent = queue.send_on()
        if any(receipt.is_stored for receipt in sent.receipts):
            _show_owner(queue)
    for receipt in sent.receipts:
        click.echo(receipt.to_json())
    if sent.waiting is not None:
        click.echo(f"cancelq: {sent.waiting}", err=True)
    return sent.waiting is None and all(receipt.is_stored for receipt in sent.receipts)
