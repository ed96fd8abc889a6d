"""The simulator's logins: sessions that live and end, what an evicted one meets, and who sees which account."""

from datetime import UTC, datetime

import pytest

from tests.parts.exchange import Exchange

ALICE = {"name": "alice", "password": "pw", "sec": "s3c", "accounts": ["A"]}


def logged_in(exchange: Exchange) -> str:
    status, said = exchange.log_in(sec="s3c")
    assert (status, said["userStatus"]) == (200, "Active")
    return str(said["accessToken"])


def test_a_session_lives_ninety_minutes_and_is_renewed_under_a_new_token(exchange: Exchange) -> None:
    token = logged_in(exchange)
    status, said = exchange.renew(token)
    left = (datetime.fromisoformat(said["expirationTime"]) - datetime.now(UTC)).total_seconds()
    assert (status, 5390 < left <= 5400, said["accessToken"] == token) == (200, True, False)
    assert exchange.get("/account/list", token=said["accessToken"])[0] == 200
    counts = exchange.auth_counts()
    assert (counts["logins"], counts["renewals"], counts["most_alive"]) == (1, 1, 1)


def test_a_token_ends_and_a_token_of_elsewhere_does_not(exchange: Exchange) -> None:
    token = logged_in(exchange)
    exchange.auth(expire=True)
    assert exchange.get("/account/list", token=token) == (401, "Access is denied")
    assert exchange.renew(token)[0] == exchange.renew("sim-never-given")[0] == 401
    assert exchange.get("/account/list")[0] == 200


def test_a_third_session_ends_the_first_which_meets_time_outs_and_errors(exchange: Exchange) -> None:
    first, second = logged_in(exchange), logged_in(exchange)
    assert exchange.get("/account/list", token=first)[0] == 200
    logged_in(exchange)
    met = {exchange.get("/account/list", token=first)[0] for _ in range(3)}
    assert (met, exchange.get("/account/list", token=second)[0]) == ({408, 500, 503}, 200)
    assert exchange.auth_counts()["evicted"] == 1


def test_a_wrong_password_is_told_in_a_200_and_five_of_them_lock_out(exchange: Exchange) -> None:
    exchange.auth(users=[ALICE])
    assert exchange.log_in(sec="s3c", password="no")[1]["errorText"].startswith("Incorrect username")
    assert [exchange.log_in()[0] for _ in range(5)] == [200, 200, 200, 200, 429]
    assert exchange.auth_counts()["failed"] == 5


def test_a_login_may_be_scripted_as_a_cancel_may(exchange: Exchange) -> None:
    exchange.auth(logins=[{"p-ticket": "t", "p-time": 0}, {"status": 503}])
    assert exchange.log_in()[1] == {"p-ticket": "t", "p-time": 0}
    assert "accessToken" in exchange.log_in(**{"p-ticket": "t"})[1]
    assert exchange.log_in()[0] == 503
    assert "accessToken" in exchange.log_in()[1]


def test_a_user_sees_its_own_accounts_only(exchange: Exchange) -> None:
    exchange.auth(users=[ALICE])
    exchange.add_orders({"id": 1, "account": "A"}, {"id": 2, "account": "B"})
    token = logged_in(exchange)
    assert [row["name"] for row in exchange.get("/account/list", token=token)[1]] == ["A"]
    assert [row["id"] for row in exchange.get("/order/items?ids=1,2", token=token)[1]] == [1]
    assert [row["id"] for row in exchange.get("/order/list", token=token)[1]] == [1]
    assert exchange.get("/order/deps?masterid=1002", token=token)[1] == []
    assert exchange.get("/order/item?id=2", token=token)[0] == 404
    assert exchange.post(2, token=token)[1]["failureText"] == "Access is denied"
    assert "commandId" in exchange.post(1, token=token)[1]


@pytest.mark.parametrize(
    "wrong", [{"users": [{"name": "x"}]}, {"evicted": [200]}, {"life": -1}, {"lives": 1}]
)
def test_a_script_of_logins_that_cannot_be_meant_is_refused(exchange: Exchange, wrong: dict) -> None:
    with pytest.raises(AssertionError, match="auth"):
        exchange.auth(**wrong)
