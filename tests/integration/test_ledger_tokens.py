"""The ledger's tokens: one keeper at a time, no older token over a newer one, the exchange's limits, and no secret."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.integration.test_ledger_faults import Scene, breakable, each_fault, scenes  # noqa: F401 - its fixtures
from tests.parts.ledger import NO_TIME, Door
from worker.ledger.client import Ledger
from worker.ledger.sealing import Sealer
from worker.ledger.shelf import Call, Right, Shelf
from worker.secret import SecretStr

HOLD = timedelta(seconds=10)
HOUR = timedelta(hours=1)


def put(shelf: Shelf, keeper: str, revision: int = 0) -> int:
    return shelf.put(keeper, ("sealed", "seal"), revision=revision, renew_in=HOUR, ends_in=2 * HOUR)


def take(
    shelf: Shelf, keeper: str, call: Call = Call.RENEWAL, *, revision: int = 0, hold: timedelta = HOLD
) -> Right:
    return shelf.take(keeper, call, revision=revision, hold=hold)


@pytest.fixture
def shelf(ledger: Ledger) -> Shelf:
    return ledger.shelf("alice")


def test_one_keeper_asks_and_the_others_do_not(shelf: Shelf, ledger: Ledger) -> None:
    assert [take(shelf, "one"), take(shelf, "two"), take(shelf, "one")] == [
        Right.GIVEN,
        Right.ANOTHERS,
        Right.GIVEN,
    ]
    assert take(ledger.shelf("bob"), "two") is Right.GIVEN
    assert put(shelf, "one") == 1
    assert take(shelf, "two") is Right.ANOTHERS  # it asks for what it does not know to be there already
    assert take(shelf, "two", revision=1) is Right.GIVEN


def test_a_slow_keeper_does_not_overwrite_a_newer_token(shelf: Shelf) -> None:
    assert take(shelf, "slow", hold=NO_TIME) is Right.GIVEN
    assert take(shelf, "quick") is Right.GIVEN
    assert [put(shelf, "slow"), put(shelf, "quick"), put(shelf, "quick"), put(shelf, "slow", 1)] == [
        0,
        1,
        0,
        0,
    ]
    assert shelf.look().revision == 1


def test_an_hour_has_five_logins_whoever_makes_them_and_whatever_comes_of_them(shelf: Shelf) -> None:
    for n in range(4):
        assert take(shelf, f"k{n}", Call.LOGIN) is Right.GIVEN
        assert shelf.fail(f"k{n}", Call.LOGIN, wait=NO_TIME, trouble="wrong") < timedelta(seconds=1)
    assert take(shelf, "last", Call.LOGIN) is Right.GIVEN
    wait = shelf.fail("last", Call.LOGIN, wait=NO_TIME, trouble="wrong")
    assert HOUR - timedelta(minutes=1) < wait <= HOUR
    look = shelf.look()
    assert (look.trouble, look.logins, look.wait > HOUR / 2) == ("wrong", 5, True)
    assert take(shelf, "another", Call.LOGIN) is Right.SPENT
    assert take(shelf, "another", Call.RENEWAL) is Right.GIVEN


def test_a_login_of_which_no_byte_left_does_not_count(shelf: Shelf) -> None:
    for n in range(9):
        assert take(shelf, f"k{n}", Call.LOGIN) is Right.GIVEN
        shelf.fail(f"k{n}", Call.UNSENT, wait=NO_TIME, trouble="refused")
    assert shelf.look().logins == 0


def test_renewals_stay_below_the_exchanges_limit(shelf: Shelf) -> None:
    rights = [take(shelf, "one") for _ in range(13)]
    assert rights == [Right.GIVEN] * 12 + [Right.SPENT]


def test_what_was_wrong_is_forgotten_with_the_next_token(shelf: Shelf) -> None:
    take(shelf, "one", Call.LOGIN)
    shelf.fail("one", Call.LOGIN, wait=HOUR, trouble="wrong", ticket="t")
    assert (shelf.look().trouble, shelf.look().ticket) == ("wrong", "t")
    take(shelf, "two", Call.LOGIN)
    put(shelf, "two")
    found = shelf.look()
    assert (found.trouble, found.ticket, found.wait, found.revision) == ("", "", NO_TIME, 1)


def test_a_person_hears_of_trouble_once_and_of_its_end_by_hours(shelf: Shelf, door: Door) -> None:
    door.redis.hset(door.key("meta"), "alerts_until", "9" * 16)
    for n in range(5):
        take(shelf, f"k{n}", Call.LOGIN)
        shelf.fail(f"k{n}", Call.LOGIN, wait=NO_TIME, trouble="wrong")
    alerts = door.redis.zrange(door.key("alerts"), 0, -1)
    assert len(alerts) == 2
    assert all('"event":"login_failed"' in alert and '"login":"alice"' in alert for alert in alerts)


def test_a_lock_out_stops_the_calls_for_tokens_too(shelf: Shelf, ledger: Ledger) -> None:
    ledger.hold("elsewhere", HOUR, lockout=True)
    assert shelf.look().wait < HOUR / 2
    ledger.hold("alice", HOUR, lockout=True)
    assert shelf.look().wait > HOUR / 2


def test_a_broken_put_leaves_either_token_and_the_next_keeper_goes_on(
    scenes: Iterator[Scene],  # noqa: F811
) -> None:
    def prepare(scene: Scene) -> Shelf:
        shelf = scene.ledger.shelf("alice")
        assert take(shelf, "one", Call.LOGIN, hold=NO_TIME) is Right.GIVEN
        return shelf

    def check(_scene: Scene, shelf: Shelf) -> None:
        revision = shelf.look().revision
        assert take(shelf, "two", revision=revision) is Right.GIVEN
        assert put(shelf, "two", revision) == revision + 1

    assert each_fault(scenes, prepare, lambda _, shelf: put(shelf, "one"), check) == 2


@pytest.mark.parametrize("act", ["take", "fail"])
def test_a_broken_call_never_makes_more_calls_than_are_counted(
    scenes: Iterator[Scene],  # noqa: F811
    act: str,
) -> None:
    def prepare(scene: Scene) -> Shelf:
        shelf = scene.ledger.shelf("alice")
        if act == "fail":
            take(shelf, "one", Call.LOGIN, hold=NO_TIME)
        return shelf

    def do(_scene: Scene, shelf: Shelf) -> None:
        if act == "take":
            take(shelf, "one", Call.LOGIN, hold=NO_TIME)
        else:
            shelf.fail("one", Call.LOGIN, wait=NO_TIME, trouble="wrong")

    def check(_scene: Scene, shelf: Shelf) -> None:
        counted = shelf.look().logins
        assert take(shelf, "two", Call.LOGIN) is Right.GIVEN
        assert shelf.look().logins == counted + 1 <= 2

    assert each_fault(scenes, prepare, do, check) >= 2


def test_a_token_opens_with_its_own_secret_place_and_revision_only() -> None:
    ours, token = Sealer(SecretStr("pw"), "demo ledger alice"), SecretStr("t0ken")
    sealed = ours.close(token, 7)
    assert "t0ken" not in sealed
    assert ours.open(sealed, 7) == token
    assert Sealer(SecretStr("pw"), "demo ledger alice").open(sealed, 7) == token
    assert ours.open(sealed, 8) is None
    assert ours.open(sealed[:-4] + "AAA=", 7) is None
    assert ours.open("not base64", 7) is None
    for secret, place in (("other", "demo ledger alice"), ("pw", "demo ledger bob")):
        other = Sealer(SecretStr(secret), place)
        assert (other.open(sealed, 7), other.seal == ours.seal) == (None, False)
    assert ours.close(token, 7) != sealed
