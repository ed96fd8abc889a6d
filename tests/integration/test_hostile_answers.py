"""Every hostile answer at once, through one worker: no good cancel waits for them, and none of them costs memory."""

import contextlib
import gzip
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.parts.exchange import TOKEN
from tests.parts.fleet import Fleet, Worker
from tests.parts.kills import assert_nothing_lost
from worker.clock import utc_now
from worker.exchange.client import Exchange, no_permit
from worker.exchange.line import Timeouts
from worker.exchange.token import Bearer
from worker.reply import Answered, NotSent, Reply, Unanswered
from worker.secret import SecretStr

LATE = timedelta(seconds=3)  # the requirement: no cancel waits longer for others' answers
MOST_GROWTH = 64 * 1024  # kB; less than two of the huge answers
HUGE = 50_000_000
GOOD = range(1, 201)

# For 127.0.0.1, by nobody; good for nothing else.
SELF_SIGNED = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgj4Qn9JnFkcdIduF9
Df0iiHnhhLCY/qazCSIZyO2sNBWhRANCAAQUZRSzRgTrWrsPu797oFRe3MiokSAi
m/Puf0C4U06mfNEO6kn6+K3s8vJT0AOFdcKOCE41SN/jlGF2RV4b6soR
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBjzCCATagAwIBAgIUPSVo/FAdVsj6VrOdsF/xYa4B2PswCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJMTI3LjAuMC4xMCAXDTI2MTEyNTE0NTMxM1oYDzIxMjYxMTAx
MTQ1MzEzWjAUMRIwEAYDVQQDDAkxMjcuMC4wLjEwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQUZRSzRgTrWrsPu797oFRe3MiokSAim/Puf0C4U06mfNEO6kn6+K3s
8vJT0AOFdcKOCE41SN/jlGF2RV4b6soRo2QwYjAdBgNVHQ4EFgQU+exuvuROSunA
o1qWvvF+ciGJPpkwHwYDVR0jBBgwFoAU+exuvuROSunAo1qWvvF+ciGJPpkwDwYD
VR0TAQH/BAUwAwEB/zAPBgNVHREECDAGhwR/AAABMAoGCCqGSM49BAMCA0cAMEQC
IGmQnR5OGEW8AVmaCp6pS7dV1fEgBbj9/36qVzQ9w1vUAiBzgql76K5yo9ZV4h05
spdC4EX4tmsXJWqqWb19Bmdd+A==
-----END CERTIFICATE-----
"""

Step = dict[str, Any]


def bomb() -> Step:
    """50 MB of blanks in 50 KB, as bytes that a script can carry."""
    packed = gzip.compress(b'{"commandId":1' + b" " * HUGE + b"}").decode(errors="surrogateescape")
    return {"text": packed, "gzip": True}


HOSTILE: tuple[Step, ...] = (
    {"body_bytes": HUGE},
    {"body_bytes": HUGE, "content_length": 10**15},
    {"drip": {"bytes_per_second": 20, "part": "headers"}},
    {"drip": {"bytes_per_second": 20, "part": "body"}},
    {"delay": 30, "effect": "before"},
    {"content_length": 3},
    {"content_length": 5_000},
    {"cut_body": 5},
    bomb() | {"effect": "before"},
    {"text": '{"failureReason":"\\ud800"}'},
    {"text": '{"failureReason":"a\\u0000b","failureText":"\\u0000"}'},
    {"text": '{"commandId":9223372036854775808}'},
    {"text": '{"commandId":' + "9" * 5_000 + "}"},
    {"text": "[" * 100_000},
    {"text": '{"a":' * 100_000},
    {"text": "\udcff\udcfe\udc80" * 1000},
    {"status": 307, "location": "/v1/order/cancelorder"},
    {"status": 301, "location": "http://127.0.0.1:1/v1"},
    {"headers": {"X-Long": "x" * 60_000}},
    {"headers": {"X-Longer": "x" * 200_000}},
    {"garbage": True},
    {"drop": "after"},
    {"reset": "after"},
    {"status": 999},
)
# The second meets a hostile read as well.
BAD = range(1001, 1001 + 2 * len(HOSTILE))
READS: tuple[Step, ...] = ({"body_bytes": HUGE}, {"text": "[" * 100_000}, bomb(), {"drop": "after"})


def memory_of(worker: Worker) -> int:
    """The most that it ever had, in kB."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def stage(fleet: Fleet) -> None:
    fleet.exchange.add_orders(*GOOD, account="default")
    for number, order in enumerate(BAD):
        reads = [READS[number // 2 % len(READS)]] if number % 2 else []
        fleet.exchange.add_orders({"id": order, "account": "default"})
        fleet.exchange.script(order, HOSTILE[number // 2], reads=reads)


def test_hostile_answers_delay_no_other_cancel_and_cost_no_memory(plain_fleet: Fleet) -> None:
    fleet = plain_fleet
    stage(fleet)
    worker = fleet.start(total_timeout="4", read_timeout="4")
    queue = fleet.queue()
    called = {}

    def cancel(orders: Sequence[int]) -> None:
        for order in orders:
            called[order] = utc_now()
            assert queue.cancel(order_id=order).status == "accepted"
        fleet.ends(len(called))

    cancel(GOOD[:20])
    before = memory_of(worker)
    queue.cancel_many([{"order_id": order} for order in BAD])
    for start in range(20, len(GOOD), 20):
        cancel(GOOD[start : start + 20])
    jobs = fleet.ends(len(GOOD) + len(BAD), seconds=60)
    waited = {order: jobs[order]["first_sent_at"] - called[order] for order in GOOD}
    busy = max(waited[order] for order in GOOD[:20])  # what this machine costs without hostile answers
    assert {order: wait for order, wait in waited.items() if wait > LATE + 2 * busy} == {}
    assert memory_of(worker) - before < MOST_GROWTH
    assert_nothing_lost(fleet, len(jobs))
    assert {job["outcome"] for job in jobs.values()} == {"canceled"}
    assert "Traceback" not in worker.said()


# --- what is not the exchange at all


def cancels_at(*answers: Callable[[socket.socket], None]) -> list[Reply]:
    """What comes of as many cancels over https at a server that plays each answer on a connection of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)

        def serve() -> None:
            for answer in answers:
                with listener.accept()[0] as connection:
                    answer(connection)

        server = threading.Thread(target=serve)
        server.start()
        timeouts = Timeouts(**dict.fromkeys(("connect", "read", "total"), timedelta(seconds=5)))
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/v1"
        client = Exchange(url, Bearer.fixed(SecretStr(TOKEN)), timeouts=timeouts)
        try:
            return [client.cancel(b'{"orderId":7}', no_permit) for _ in answers]
        finally:
            client.close()
            server.join()


def test_an_answer_without_tls_gets_nothing() -> None:
    met: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        met.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    (reply,) = cancels_at(answer)
    assert isinstance(reply, NotSent)
    assert "wrong version number" in reply.error.lower() or "record layer" in reply.error.lower()
    assert TOKEN.encode() not in met[0]


def test_a_certificate_that_nobody_vouches_for_gets_nothing(tmp_path: Path) -> None:
    (tmp_path / "own.pem").write_text(SELF_SIGNED)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem")
    met: list[object] = []

    def answer(connection: socket.socket) -> None:
        try:
            with context.wrap_socket(connection.dup(), server_side=True) as inside:
                met.append(inside.recv(65536))
        except OSError as error:
            met.append(error)

    (reply,) = cancels_at(answer)
    assert isinstance(reply, NotSent)
    assert "self-signed certificate" in reply.error
    assert [isinstance(found, ssl.SSLError) for found in met] == [True]


# --- the exchange, inside TLS


@pytest.fixture
def trusted_by_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    own = tmp_path / "own.pem"
    own.write_text(SELF_SIGNED)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(own))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    return context


def saying(
    context: ssl.SSLContext, *records: bytes, goes_first: bool = False
) -> Callable[[socket.socket], None]:
    """Answers one request with these records; whoever goes first does it without TLS's goodbye."""

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection.dup(), server_side=True) as inside:
            assert inside.recv(65536)
            for record in records:
                inside.sendall(record)
            if not goes_first:
                with contextlib.suppress(ssl.SSLError):
                    inside.recv(65536)

    return answer


def test_an_answer_that_ends_without_the_goodbye_of_tls_may_be_cut(trusted_by_us: ssl.SSLContext) -> None:
    text = b'HTTP/1.1 200 OK\r\n\r\n{"comm'
    (reply,) = cancels_at(saying(trusted_by_us, text, goes_first=True))
    assert isinstance(reply, Unanswered)
    assert "EOF" in reply.error


def test_a_second_answer_is_not_taken_for_the_next_cancels(trusted_by_us: ssl.SSLContext) -> None:
    """In one record of TLS with the first one's body: no look at the socket shows it."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n"
    one, two, other = (b'{"commandId":%d}' % number for number in (1, 2, 9))
    replies = cancels_at(saying(trusted_by_us, head, one + head + other), saying(trusted_by_us, head, two))
    assert [reply.body for reply in replies if isinstance(reply, Answered)] == [one, two]
