"""The ledger's server: is it there, does it keep what it acknowledges, may this user work with it."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

from worker.doctor.finding import Check, Finding, each, failed, ok, skipped, warning
from worker.doctor.host_checks import size
from worker.doctor.moments import clock_finding, milliseconds
from worker.doctor.roads import REDIS, mend_for, redis_road, road_finding
from worker.doctor.stamps import stamp_finding
from worker.embedded.places import is_known
from worker.embedded.valkey import ensure, find_binary
from worker.errors import CancelqError
from worker.ledger.encoding import Survey
from worker.ledger.inspection import LedgerInspection
from worker.ledger.library import GENERATION
from worker.settings import Settings

CALL_BOUND = timedelta(seconds=1)
# An embedded server that has to be started for the look reads its file first.
START_BOUND = timedelta(seconds=8)
OLDEST = (7, 0)
# Of maxmemory; above it the next burst may be refused.
FULL = 0.9
SLOW_WRITE = timedelta(milliseconds=50)
MEND = "see that Redis runs, that CANCELQ_REDIS_URL names it and a user of it, and that nothing between drops packets"
ON_DISK = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}
STATUSES = ("rdb_last_bgsave_status", "aof_last_bgrewrite_status", "aof_last_write_status")


def look(settings: Settings) -> Iterator[Finding]:
    if not is_known(settings):
        yield _embedded_later(settings)
        return
    with ExitStack() as opened:
        if settings.redis_url is None:
            server = opened.enter_context(ensure(settings.home, bound=START_BOUND))
            url = server.url
            yield ok("redis", f"CANCELQ_REDIS_URL is not set: the embedded Valkey in {settings.home} serves")
        else:
            url = settings.redis_url.get_secret_value()
            yield from road_finding(REDIS, redis_road(url))
        redis = opened.enter_context(LedgerInspection(url, settings.ledger, timeout=CALL_BOUND))
        yield from examine(redis, settings.exchange_url)


def examine(redis: LedgerInspection, exchange_url: str) -> Iterator[Finding]:
    """Everything about a server; when it does not answer, only that."""
    try:
        ping = redis.round_trip()
        info = redis.info()
    except CancelqError as error:
        yield failed("redis", str(error), mend_for(str(error), REDIS, MEND))
        yield skipped("redis: all else", "not asked, as Redis does not answer")
        return
    yield ok("redis", f"{name_of(info or {})} at {redis.address}, answers in {milliseconds(ping)}")
    yield from each([*_told(redis, info), *_asked(redis, exchange_url)], MEND)


def _told(redis: LedgerInspection, info: Mapping[str, Any] | None) -> list[Check]:
    """What INFO says."""
    if info is None:
        mend = "allow +info to this user (`cancelq doctor --acl` prints the rule)"
        said = failed("redis: INFO", "is forbidden to this user: producers and workers call it", mend)
        return [("redis: INFO", lambda: [said])]
    return [
        ("redis: version", lambda: version(info)),
        ("redis: role", lambda: role(info)),
        ("redis: persistence", lambda: persistence(info)),
        ("redis: memory", lambda: memory(info, redis.configuration())),
    ]


def _asked(redis: LedgerInspection, exchange_url: str) -> list[Check]:
    return [
        ("redis: durability", lambda: durability(redis.configuration())),
        ("redis: functions", lambda: functions(redis.functions_version(), redis.program_version)),
        ("redis: rights", lambda: rights(redis.forbidden())),
        ("redis: write", lambda: writing(redis.write_time())),
        ("redis: clock", lambda: [clock_finding("redis: clock", redis.clock())]),
        ("redis: ledger", lambda: standing(redis.survey(), exchange_url)),
    ]


def name_of(info: Mapping[str, Any]) -> str:
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', 'of unknown version')}"


def version_of(info: Mapping[str, Any]) -> tuple[int, int]:
    """What it is compatible with: Valkey says 7.2.4 there."""
    major, minor, *_ = [int(part) for part in str(info["redis_version"]).split(".")]
    return major, minor


def version(info: Mapping[str, Any]) -> Iterator[Finding]:
    what, found = "redis: version", version_of(info)
    if found < OLDEST:
        yield failed(what, f"{name_of(info)} has no Functions", "use Redis 7.0 or newer, or Valkey")
    else:
        yield ok(what, name_of(info))
    if info.get("redis_mode") == "cluster":
        yield ok(
            "redis: cluster", "all keys of the ledger lie in one slot; load the functions on every primary"
        )


def role(info: Mapping[str, Any]) -> Iterator[Finding]:
    if info.get("role") != "master":
        where = f"{info.get('master_host')}:{info.get('master_port')}"
        yield failed(
            "redis: role",
            f"this server is a replica of {where}: it takes no writes",
            f"set CANCELQ_REDIS_URL to the primary ({where}), or promote this one (REPLICAOF NO ONE)",
        )
        return
    replicas = int(info.get("connected_slaves", 0))
    yield ok("redis: role", f"primary with {replicas} replica{'' if replicas == 1 else 's'}")


def durability(config: Mapping[str, str] | None) -> Iterator[Finding]:
    """Whether an acknowledged request survives a power loss."""
    what = "redis: durability"
    if config is None:
        yield warning(
            what,
            "cannot be seen (CONFIG is forbidden): receipts will say memory, whatever is true",
            "allow +config|get to the worker's user (`cancelq doctor --acl` prints the rule)",
        )
        return
    wrong = {name: right for name, right in ON_DISK.items() if config.get(name, right) != right}
    if not wrong:
        yield ok(what, "append-only file on, fsync always: an acknowledged request is on disk")
        return
    seen = ", ".join(f"{name} {config[name]}" for name in wrong)
    mend = "; ".join(f"CONFIG SET {name} {right}" for name, right in wrong.items())
    yield failed(what, f"{seen}: an acknowledged request may be lost", f"{mend}; then CONFIG REWRITE")


def persistence(info: Mapping[str, Any]) -> Iterator[Finding]:
    bad = [f"{name} {info[name]}" for name in STATUSES if info.get(name, "ok") != "ok"]
    if bad:
        mend = "see Redis' log; make room on its disk, or mend the folder's permissions"
        yield failed("redis: persistence", f"{', '.join(bad)}: writes may be refused", mend)
    elif int(info.get("loading", 0)):
        yield failed("redis: persistence", "still reads its files", "wait until it has")
    else:
        yield ok("redis: persistence", "the last writes and saves went well")


def memory(info: Mapping[str, Any], config: Mapping[str, str] | None) -> Iterator[Finding]:
    """A ledger must never be evicted, and must have room."""
    what, limit = "redis: memory", int(info.get("maxmemory", 0))
    policy = str(info.get("maxmemory_policy") or (config or {}).get("maxmemory-policy", "noeviction"))
    used = int(info.get("used_memory", 0))
    said = f"{size(used)} used of {size(limit) if limit else 'no limit'}, {policy}"
    room = limit or int(info.get("total_system_memory", 0))
    if policy != "noeviction":
        grade = failed if limit else warning
        yield grade(
            what,
            f"{said}: a full memory would forget cancels",
            "CONFIG SET maxmemory-policy noeviction; CONFIG REWRITE",
        )
    elif room and used > FULL * room:
        yield failed(
            what,
            f"{said}: new requests are about to be refused",
            "raise maxmemory (or add memory), or find what fills it",
        )
    else:
        yield ok(what, said)


def functions(theirs: int, ours: int) -> Iterator[Finding]:
    what = "redis: functions"
    if theirs == 0:
        yield failed(
            what,
            "the library is not loaded: requests are refused",
            "run: cancelq migrate (or start a worker)",
        )
    elif theirs // GENERATION > ours // GENERATION:
        yield failed(
            what, f"version {theirs}, this program knows {ours}", "upgrade this cancelq, or use another Redis"
        )
    elif theirs < ours:
        yield warning(
            what, f"version {theirs}, this program brings {ours}", "run: cancelq migrate (or start a worker)"
        )
    else:
        yield ok(what, f"version {theirs}")


def standing(survey: Survey | None, exchange_url: str) -> Iterator[Finding]:
    """Whom the ledger belongs to, and whether it is at work."""
    what = "redis: ledger"
    if survey is None:
        yield skipped(what, "its functions are not there to tell how it stands")
        return
    yield stamp_finding("redis: stamp", survey.exchange, exchange_url)
    open_jobs = f"{survey.open} open"
    if survey.paused_at is not None:
        since = f"{survey.paused_at:%Y-%m-%d %H:%M:%S} UTC"
        yield warning(what, f"paused since {since}, {open_jobs}: nothing is POSTed", "run: cancelq resume")
    elif survey.draining:
        yield warning(what, f"being drained, {open_jobs}: new requests are refused", "run: cancelq resume")
    elif survey.locked_out_until is not None:
        until = f"{survey.locked_out_until:%Y-%m-%d %H:%M:%S} UTC"
        yield warning(
            what, f"locked out until {until}, {open_jobs}", "wait; a call within it may lengthen it"
        )
    else:
        yield ok(what, open_jobs)


def rights(forbidden: list[str]) -> Iterator[Finding]:
    if forbidden:
        mend = "grant them: `cancelq doctor --acl` prints the worker's rule"
        yield failed("redis: rights", f"a worker's user must also be allowed: {' '.join(forbidden)}", mend)
    else:
        yield ok("redis: rights", "this user may do all that a worker needs")


def writing(took: timedelta) -> Iterator[Finding]:
    said = f"a write is acknowledged after {milliseconds(took)}"
    if took > SLOW_WRITE:
        yield warning(
            "redis: write", f"{said}: each step of a cancel waits for it", "give Redis a faster disk"
        )
    else:
        yield ok("redis: write", said)


def _embedded_later(settings: Settings) -> Finding:
    try:
        binary = find_binary()
    except CancelqError as error:
        return failed("redis", str(error), "set CANCELQ_REDIS_URL")
    return ok(
        "redis",
        f"CANCELQ_REDIS_URL is not set: {binary.name} would be started in {settings.home}, fsync always",
    )
