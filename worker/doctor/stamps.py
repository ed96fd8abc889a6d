"""Which exchange a ledger or an audit belongs to: a cancel for one must never go to another."""

from worker.doctor.finding import Finding, failed, ok


def stamp_finding(what: str, stamped: str | None, exchange_url: str) -> Finding:
    """Whether data that was made for one exchange is about to be used for another."""
    if stamped is None:
        return ok(what, "belongs to no exchange yet; the first worker will say")
    if stamped == exchange_url:
        return ok(what, f"belongs to {stamped}")
    return failed(
        what,
        f"belongs to {stamped}, not to {exchange_url}: workers refuse to start",
        "set CANCELQ_EXCHANGE_URL back, or give this exchange a ledger (CANCELQ_LEDGER) and a database of its own",
    )
