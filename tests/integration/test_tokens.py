"""One token for the whole fleet: asked for once, renewed once, replaced when it is refused, and never seen in clear."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from redis import Redis

from tests.parts.exchange import Exchange, eventually, running_exchange
from tests.parts.fleet import Fleet
from tests.parts.ledger import claim
from tests.unit.test_policy import POLICY
from worker.clock import monotonic, utc_now
from worker.exchange.client import Exchange as Client
from worker.exchange.clients import clients
from worker.exchange.line import Timeouts
from worker.job import DEFAULT_LOGIN, OrderId
from worker.ledger.client import Ledger
from worker.ledger.receipt import Fate
from worker.ledger.words import Rules
from worker.logins import Credentials, Login
from worker.reply import Answered, NotSent
from worker.secret import SecretStr
from worker.work.governing import governor_of
from worker.work.keeper import Keeper, keepers

SECOND = timedelta(seconds=1)
A_DAY = timedelta(days=1)
ALICE = {"name": "alice", "password": "pass-w0rd", "sec": "s3c-ret"}
LOGIN = {"username": "alice", "password": "pass-w0rd", "cid": "8", "sec": "s3c-ret"}
QUICK = {"lease": "1", "concurrency": "32"}


def cancel(fleet: Fleet, *orders: int, **shared: str) -> None:
    receipts = fleet.queue().cancel_many([{"order_id": order, **shared} for order in orders])
    assert [receipt.status for receipt in receipts] == [Fate.ACCEPTED] * len(orders)


def renewed_everywhere(fleet: Fleet, revision: int) -> bool:
    return all(f"revision={revision}" in worker.said() for worker in fleet.workers)


def test_workers_share_one_session_and_renew_it_once(plain_fleet: Fleet) -> None:
    fleet, exchange = plain_fleet, plain_fleet.exchange
    exchange.auth(users=[ALICE], life=6)
    exchange.add_orders(*range(1, 129))
    fleet.ledger_client().prepare(Rules(dedupe_life=A_DAY))
    cancel(fleet, *range(1, 65))
    for _ in range(2):
        fleet.fork(**LOGIN, **QUICK)
    eventually(lambda: exchange.auth_counts()["logins"], what="a login")
    exchange.auth(life=5400)
    fleet.ends(64)
    eventually(lambda: renewed_everywhere(fleet, 2), seconds=20, what="the renewed token in both workers")
    assert exchange.auth_counts() == {"logins": 1, "renewals": 1, "failed": 0, "evicted": 0, "most_alive": 1}

    # Now every token is refused at once: all that is under way waits for one login.
    exchange.auth(expire=True)
    cancel(fleet, *range(65, 129))
    ended = fleet.ends(128)
    assert {row["outcome"] for row in ended.values()} == {"canceled"}
    counts = exchange.auth_counts()
    assert (counts["logins"], counts["renewals"], counts["most_alive"]) == (2, 1, 1)
    assert_no_secret_anywhere(fleet)


def test_a_cancel_s_400_is_refused_only_after_one_renewal(plain_fleet: Fleet) -> None:
    fleet, exchange = plain_fleet, plain_fleet.exchange
    exchange.auth(users=[ALICE])
    exchange.add_orders(1, 2)
    exchange.script(1, {"status": 400})
    exchange.script(2, {"status": 400})
    fleet.fork(**LOGIN, **QUICK).when_ready()
    cancel(fleet, 1)
    first = fleet.ends(1)[1]
    cancel(fleet, 2)  # the token is known to be new
    second = fleet.ends(2)[2]
    assert [(row["outcome"], row["attempts"]) for row in (first, second)] == [("canceled", 2), ("refused", 1)]
    counts = exchange.auth_counts()
    assert (counts["logins"], counts["renewals"]) == (1, 1)


def assert_no_secret_anywhere(fleet: Fleet) -> None:
    """Neither in Redis nor in the audit nor in any log."""
    secrets = [b"pass-w0rd", b"s3c-ret", b"sim-"]
    with Redis.from_url(fleet.redis_url) as redis:
        kept = {key: redis.dump(key) or b"" for key in redis.scan_iter(f"{{{fleet.ledger}}}*")}
        fields = [redis.hgetall(key) for key in kept if b":token:" in key]
    assert fields
    places = {"Redis": b"".join([*kept.values(), repr(fields).encode()])}
    for path in Path(fleet.folder).iterdir():
        if path.is_file():
            places[path.name] = path.read_bytes()
    found = [(place, secret) for place, text in places.items() for secret in secrets if secret in text]
    assert found == []


def test_each_account_is_served_by_its_login_and_an_unknown_one_by_none(plain_fleet: Fleet) -> None:
    fleet, exchange = plain_fleet, plain_fleet.exchange
    exchange.auth(users=[ALICE | {"accounts": ["A"]}, {"name": "bob", "password": "b0b", "accounts": ["B"]}])
    exchange.add_orders({"id": 1, "account": "A"}, {"id": 2, "account": "B"}, {"id": 3, "account": "C"})
    file = fleet.folder / "logins.toml"
    file.write_text(
        '[a]\naccounts = ["A"]\nusername = "alice"\npassword = "pass-w0rd"\ncid = "8"\nsec = "s3c-ret"\n'
        '[b]\naccounts = ["B"]\nusername = "bob"\npassword = "b0b"\n'
    )
    file.chmod(0o600)
    # A login that meets a penalty waits as it is told, and asks again with the ticket: no budget counts that.
    exchange.auth(logins=[{"p-ticket": "t", "p-time": 2}])
    fleet.ledger_client().prepare(Rules(dedupe_life=A_DAY))
    for order, account in ((1, "A"), (2, "B"), (3, "C")):
        cancel(fleet, order, account=account)
    fleet.fork(credentials=str(file), retry_budget="1", **QUICK)
    ended = fleet.ends(3)
    assert [(row["outcome"], row["attempts"]) for _, row in sorted(ended.items())] == [
        *([("canceled", 1)] * 2),
        ("refused", 0),
    ]
    assert ended[3]["evidence"] == "other_account no login serves the account C"
    assert exchange.auth_counts()["logins"] == 2


def test_no_cancel_leaves_in_a_dry_run_whoever_decided_otherwise(ledger: Ledger, exchange: Exchange) -> None:
    exchange.add_orders(1)
    bounds = Timeouts(connect=SECOND, read=SECOND, total=SECOND)
    login = Login(name="any", token=SecretStr("any-token"))
    for dry_run, left in ((True, 0), (False, 1)):
        governor = governor_of(ledger, replace(POLICY, dry_run=dry_run), utc_now, limited=False)
        with closing(clients(exchange.url, [login], bounds, governor=governor)) as made:
            reply = made.by_name["any"].cancel(b'{"orderId":1}', lambda: None)
        assert len(exchange.requests()) == left
        assert isinstance(reply, NotSent) is dry_run


# --- one keeper, step by step


@contextmanager
def keeping(ledger: Ledger, exchange: Exchange, password: str = "pw") -> Iterator[tuple[Keeper, Client]]:
    """What a worker process has of one login."""
    credentials = Credentials(username="alice", password=SecretStr(password))
    login = Login(name="alice", credentials=credentials)
    bounds = Timeouts(connect=SECOND, read=SECOND, total=SECOND)
    with ExitStack() as ending:
        made = clients(exchange.url, [login], bounds)
        ending.callback(made.close)
        governor = governor_of(ledger, POLICY, utc_now, limited=False)
        (keeper,) = keepers(made, ledger, governor, timeouts=bounds, lockout=A_DAY)
        ending.callback(keeper.close)
        client = made.of("any")
        assert client is not None
        yield keeper, client


def meet_trouble(client: Client, seconds: float = 600) -> None:
    """Five reads that are not answered well, and the last good one so long ago."""
    replies = [client.orders([OrderId(1)]).reply for _ in range(5)]
    assert all(isinstance(reply, Answered) and reply.status in {408, 500, 503} for reply in replies)
    client.bearer._good_at = client.bearer._settled_at = monotonic() - timedelta(seconds=seconds)


def test_a_troubled_exchange_costs_one_renewal_and_no_session(ledger: Ledger, exchange: Exchange) -> None:
    with keeping(ledger, exchange) as (keeper, client):
        keeper.keep()
        exchange.script(1, reads=[{"status": 503, "repeat": 5}])
        meet_trouble(client)
        for _ in range(3):
            keeper.keep()
        counts = exchange.auth_counts()
        assert (counts["logins"], counts["renewals"]) == (1, 1)
        assert client.orders([OrderId(1)]).conclusive


def test_an_exchange_that_is_away_costs_no_renewal(ledger: Ledger, redis_client: Redis) -> None:
    """Of those that an hour has: what never left is given back, and not tried twice at once."""
    with running_exchange() as away, keeping(ledger, away) as (keeper, _client):
        keeper.keep()
        away.process.kill()
        away.process.wait()
        token = f"{{{ledger.name}}}:token:{DEFAULT_LOGIN}"
        redis_client.hset(token, "renew_at", 0)
        keeper.keep()
        assert float(redis_client.hget(token, "not_before") or 0) > 0
        calls = redis_client.zrange(f"{{{ledger.name}}}:token_calls:{DEFAULT_LOGIN}", 0, -1)
    assert [call.split(" ")[0] for call in calls] == ["login"]


def test_an_evicted_session_meets_the_same_and_is_replaced(ledger: Ledger, exchange: Exchange) -> None:
    with keeping(ledger, exchange) as (keeper, client):
        keeper.keep()
        exchange.add_orders(1)
        for _ in range(2):
            exchange.log_in()  # somebody else does, twice
        meet_trouble(client)
        for _ in range(3):
            keeper.keep()
        counts = exchange.auth_counts()
        assert (counts["logins"], counts["renewals"]) == (4, 0)
        assert client.orders([OrderId(1)]).conclusive


def test_workers_with_other_credentials_do_not_take_turns_at_the_session(
    ledger: Ledger, exchange: Exchange
) -> None:
    with keeping(ledger, exchange) as (old, client), keeping(ledger, exchange, "new") as (new, other):
        for _ in range(3):
            old.keep()
            new.keep()
        assert exchange.auth_counts()["logins"] == 2
        assert [known.token().revision for known in (client.bearer, other.bearer)] == [1, 2]  # type: ignore[union-attr]


def test_a_login_that_meets_a_captcha_locks_out(ledger: Ledger, exchange: Exchange) -> None:
    exchange.auth(logins=[{"p-ticket": "t", "p-captcha": True}])
    with keeping(ledger, exchange) as (keeper, client):
        for _ in range(3):
            keeper.keep()
        assert client.bearer.token() is None
        assert ledger.shelf(DEFAULT_LOGIN).look().wait > A_DAY / 2
    assert DEFAULT_LOGIN in claim(ledger).lockouts


def test_a_login_of_which_no_byte_left_is_tried_again_at_once_and_not_counted(
    ledger: Ledger, exchange: Exchange
) -> None:
    nowhere = Exchange(exchange.process, "http://127.0.0.1:9/v1")
    with keeping(ledger, nowhere) as (keeper, client):
        keeper.keep()
        look = ledger.shelf(DEFAULT_LOGIN).look()
        assert (look.logins, timedelta(0) < look.wait < timedelta(seconds=3)) == (0, True)
        assert client.bearer.token() is None
