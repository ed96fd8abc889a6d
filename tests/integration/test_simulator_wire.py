"""How the simulator's answers travel, who may in, how it is staged, and how its process lives and ends."""

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.parts.exchange import QUICK, TOKEN, eventually, running_exchange

PACKAGE = Path(__file__).parents[2] / "worker" / "simulator"


def raw_post(port, order_id, *, token=TOKEN):
    """A connection on which a cancel was just sent."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    body = json.dumps({"orderId": order_id}).encode()
    head = f"POST /v1/order/CancelOrder HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def all_of(connection):
    """Everything that comes until the other side closes."""
    with closing(connection):
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(("side", "effect"), [("before", False), ("after", True)])
def test_a_dropped_connection_gives_no_byte(exchange, side, effect):
    exchange.script(1, {"drop": side})
    assert all_of(raw_post(exchange.port, 1)) == b""
    assert exchange.truth()[1]["cancel_effect"] is effect
    [seen] = exchange.requests()
    assert (seen["fate"], seen["status"], seen["command_id"]) == ("dropped", None, None)


@pytest.mark.parametrize(("side", "effect"), [(True, False), ("after", True)])
def test_a_reset_connection_is_an_error(exchange, side, effect):
    exchange.script(1, {"reset": side})
    with pytest.raises(ConnectionResetError):
        all_of(raw_post(exchange.port, 1))
    assert exchange.truth()[1]["cancel_effect"] is effect


def test_a_cut_body_promises_more_than_it_gives(exchange):
    exchange.script(1, {"cut_body": 3})
    head, _, body = all_of(raw_post(exchange.port, 1)).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body) + 3}".encode() in head
    assert exchange.truth()[1]["cancel_effect"]


@pytest.mark.parametrize(
    ("step", "sign"),
    [
        ({"content_length": 7}, b"Content-Length: 7\r\n"),
        ({"garbage": "ICY 200 OK"}, b"ICY 200 OK\r\n"),
        ({"gzip": True}, b"Content-Encoding: gzip\r\n"),
        ({"headers": {"Retry-After": "5"}}, b"Retry-After: 5\r\n"),
    ],
)
def test_a_spoiled_head_is_sent_as_scripted(exchange, step, sign):
    exchange.script(1, step | {"headers": {"Connection": "close"} | step.get("headers", {})})
    with raw_post(exchange.port, 1) as connection:
        assert sign in connection.recv(65536)


def test_a_huge_body_is_still_json(exchange):
    exchange.script(1, {"body_bytes": 5_000_000})
    assert "commandId" in exchange.post(1)[1]


@pytest.mark.parametrize(("part", "first"), [("headers", b"H"), ("body", b"HTTP/1.1 200 OK")])
def test_a_drip_starts_and_does_not_end(exchange, part, first):
    exchange.script(1, {"drip": {"bytes_per_second": 0.01, "part": part}})
    with raw_post(exchange.port, 1) as connection:
        assert connection.recv(65536).startswith(first)
        connection.settimeout(0.3)
        if part == "body":
            eventually(lambda: exchange.truth()[1]["posts"])
        with pytest.raises(TimeoutError):
            all_of(connection)
    eventually(lambda: exchange.requests()[0]["fate"] == "gone")


def test_overlapping_posts_of_one_order_are_counted(exchange):
    exchange.script(1, {"delay": 30, "repeat": True})
    with raw_post(exchange.port, 1), raw_post(exchange.port, 1):
        exchange.wait_for(1, posts=2, max_in_flight=2)
    assert [seen["in_flight"] for seen in exchange.requests()] == [1, 2]


def test_a_caller_that_hung_up_is_no_overlap(exchange):
    exchange.script(1, {"delay": 30}, {"delay": 0})
    with raw_post(exchange.port, 1):
        exchange.wait_for_posts(1)
    assert "failureReason" in exchange.post(1)[1]
    assert exchange.wait_for(1, posts=2)["max_in_flight"] == 1


def test_a_caller_that_resets_in_the_middle_leaves_the_server_well(exchange):
    exchange.add_orders(1)
    connection = socket.create_connection(("127.0.0.1", exchange.port))
    connection.sendall(b"POST /v1/order/cancelorder HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    assert exchange.post(1)[0] == 200
    assert exchange.truth()[1]["posts"] == 1


# who may in


@pytest.mark.parametrize("header", ["", "Authorization: Bearer\r\n", "Authorization: Basic abc\r\n"])
def test_without_a_token_nobody_comes_in(exchange, header):
    exchange.add_orders(1)
    connection = socket.create_connection(("127.0.0.1", exchange.port), timeout=10)
    connection.sendall(f"GET /v1/order/item?id=1 HTTP/1.0\r\nHost: x\r\n{header}\r\n".encode())
    answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert answer.endswith(b"Access is denied")


def test_only_the_one_token_is_let_in(exchange):
    exchange.add_orders(1)
    exchange.defaults(token="good")
    assert exchange.post(1) == (401, "Access is denied")
    with raw_post(exchange.port, 1, token="good") as connection:
        assert b"commandId" in connection.recv(65536)
    assert [seen["status"] for seen in exchange.requests()] == [401, 200]


# staging


def fates(exchange, order_ids):
    exchange.reset()
    exchange.defaults(**QUICK, seed=7)
    exchange.faults({"transient": 0.3, "refused": 0.1, "error": 0.2, "empty": 0.1, "partial_fill": 0.5})
    exchange.add_orders({"from": 1, "count": 40})
    answers = {order_id: str(exchange.post(order_id)[1]).partition("error id")[0] for order_id in order_ids}
    return {order_id: said.partition("commandId")[0] for order_id, said in answers.items()}


def test_the_same_seed_gives_each_order_the_same_fault_in_any_order(exchange):
    forward = fates(exchange, range(1, 41))
    assert fates(exchange, range(40, 0, -1)) == forward
    assert len(set(forward.values())) > 4
    assert any(row["filled_qty"] for row in exchange.truth().values())


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ({"order": []}, "script.order: unknown key; did you mean orders?"),
        ({"defaults": {"latancy": 1}}, "defaults.latancy: unknown key; did you mean latency?"),
        ({"faults": {"zzz": 1}}, "faults.zzz: unknown key; right would be one of: "),
        ({"faults": {"drop": 0.6, "error": 0.6}}, "faults: the probabilities add up to 1.200"),
        ({"faults": "dmeo"}, "right would be one of: demo, none"),
        (
            {"orders": [{"id": 1, "posts": [{"dealy": 1}]}]},
            "orders[0].posts[0].dealy: unknown key; did you mean delay?",
        ),
        (
            {"orders": [{"id": 1, "count": 2}]},
            'orders[0].id: right would be either "id", or "from" with "count"',
        ),
        ({"orders": [{"id": 1, "ordStatus": "Open"}]}, 'orders[0].ordStatus: "Open" is not possible'),
        (
            {"orders": [{"id": 1, "posts": [{"drop": "after", "effect": True}]}]},
            "orders[0].posts[0].effect: drop",
        ),
        ([], "script: right would be a JSON object"),
    ],
)
def test_a_wrong_script_is_refused_with_what_would_be_right(tmp_path, script, message):
    file = tmp_path / "script.json"
    file.write_text(json.dumps(script))
    command = [sys.executable, "-m", "worker.simulator", "--script", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_an_order_is_not_added_twice(exchange):
    exchange.add_orders(1)
    with pytest.raises(AssertionError, match="order 1 is in the book already"):
        exchange.add_orders(2, 1)
    assert list(exchange.truth()) == [1]


def test_a_known_order_gets_new_steps_but_no_new_nature(exchange):
    exchange.script(1, {"status": 500})
    exchange.script(1, {"status": 403}, reads=[{"status": 404}])
    with pytest.raises(AssertionError, match="order 1 is in the book already; right would be posts"):
        exchange.script(1, ordStatus="Filled")
    assert (exchange.post(1)[0], exchange.get("/order/item?id=1")[0]) == (403, 404)


# the process


def test_it_runs_without_the_rest_of_the_program(tmp_path):
    shutil.copytree(
        PACKAGE, tmp_path / "elsewhere" / "exchange", ignore=shutil.ignore_patterns("__pycache__")
    )
    command = [sys.executable, "-P", "-c", f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; {ALONE}"]
    done = subprocess.run(
        command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["url"].endswith("/v1")


ALONE = (
    "import runpy; sys.modules['worker'] = None; sys.argv[1:] = ['--die-with-parent'];"
    "runpy.run_module('elsewhere.exchange', run_name='__main__', alter_sys=True)"
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_on_a_signal_even_in_the_middle_of_an_answer(number, tmp_path):
    said = tmp_path / "stderr"
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"orders": [{"id": 1, "posts": [{"delay": 60}]}]}))
    command = [sys.executable, "-m", "worker", "simulator", "--script", str(script)]
    with (
        said.open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        port = int(json.loads(process.stdout.readline())["url"].split(":")[2].split("/")[0])
        with raw_post(port, 1):
            process.send_signal(number)
            assert process.wait(10) == 0
    assert said.read_bytes() == b""


def test_it_ends_with_its_parent():
    with running_exchange() as exchange:
        exchange.process.stdin.close()
        assert exchange.process.wait(10) == 0


def test_the_truth_file_survives_a_kill(tmp_path):
    file = tmp_path / "truth.jsonl"
    with running_exchange("--truth", str(file)) as exchange:
        exchange.defaults(**QUICK)
        exchange.script(1, {"drop": "after"})
        all_of(raw_post(exchange.port, 1))
        exchange.wait_for(1, cancel_effect=True)
        os.kill(exchange.process.pid, signal.SIGKILL)
        exchange.process.wait(10)
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert [e["event"] for e in events] == ["orders", "post", "command", "status", "status", "answer"]
    assert [e["ordStatus"] for e in events if e["event"] == "status"] == ["PendingCancel", "Canceled"]


def test_the_request_log_keeps_the_newest_only():
    with running_exchange(
        "--request-log", "2", "--profile", "demo", "--seed", "3", "--token", TOKEN
    ) as exchange:
        exchange.defaults(**QUICK)
        for order_id in (404, 405, 406):
            exchange.post(order_id)
        assert [seen["order_id"] for seen in exchange.requests()] == [405, 406]


def test_a_reset_forgets_orders_but_gives_no_command_id_twice(exchange):
    exchange.add_orders(1)
    before = exchange.post(1)[1]["commandId"]
    exchange.reset()
    assert exchange.truth() == {}
    exchange.add_orders(1)
    assert exchange.post(1)[1]["commandId"] > before
