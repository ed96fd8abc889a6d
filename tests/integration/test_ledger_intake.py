"""What the enqueue function takes, refuses and remembers, called as any language would."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from kombu import Connection, Queue
from redis import Redis
from redis.exceptions import OutOfMemoryError

from tests.parts.ledger import Door, claimed_ids, clocked_library, closing, finish
from tests.parts.valkey import PrivateValkey
from worker.ledger.client import Ledger
from worker.ledger.connection import broker_settings
from worker.ledger.words import Rules

LARGEST = 2**63 - 1


def test_an_accepted_request_is_answered_with_all_that_identifies_it(door: Door) -> None:
    reply = door.enqueue(123, account="DEMO1", requestId="r-1")
    assert reply.pop("jobId")
    assert reply == {
        "requestId": "r-1",
        "status": "accepted",
        "account": "DEMO1",
        "orderId": 123,
        "durability": "memory",
    }


def test_what_was_not_said_gets_its_default(door: Door) -> None:
    reply = door.enqueue(1)
    job = door.job(reply["jobId"])
    assert (job["account"], job["is_automated"], job["priority"]) == ("default", "1", "normal")
    assert "deadline" not in job
    assert reply["requestId"] == job["request_id"] != ""


def test_every_field_reaches_the_job(door: Door, ledger: Ledger) -> None:
    soon = datetime.now(UTC).replace(microsecond=123456) + timedelta(days=1)
    door.enqueue(
        7,
        account="A",
        clOrdId="c",
        activationTime="2031-02-28T23:59:59.25+01:00",
        customTag50="t",
        isAutomated=False,
        requestId="r",
        requestedBy="me \u00e9\U0001f600",
        priority="urgent",
        deadline=soon.isoformat(),
    )
    (job, joiners) = ledger.unregistered(10, timedelta(0))[0]
    request = job.request
    assert joiners == ()
    assert (request.account, request.order_id, request.cl_ord_id) == ("A", 7, "c")
    assert (request.custom_tag50, request.is_automated, request.request_id) == ("t", False, "r")
    assert (request.requested_by, request.priority) == ("me \u00e9\U0001f600", "urgent")
    assert request.deadline == soon
    assert request.activation_time == datetime(2031, 2, 28, 22, 59, 59, 250000, tzinfo=UTC)


REFUSED = [
    # text of the request, what the error must begin with
    ('{"orderId":0}', "orderId: "),
    ('{"orderId":-1}', "orderId: "),
    ('{"orderId":01}', "orderId: "),
    ('{"orderId":1e3}', "orderId: "),
    ('{"orderId":0x1}', "orderId: "),
    ('{"orderId":1.0}', "orderId: "),
    ('{"orderId":+1}', "orderId: "),
    ('{"orderId":9223372036854775808}', "orderId: "),
    ('{"orderId":10000000000000000000}', "orderId: "),
    ('{"orderId":"0"}', "orderId: "),
    ('{"orderId":"01"}', "orderId: "),
    ('{"orderId":"-1"}', "orderId: "),
    ('{"orderId":"1e3"}', "orderId: "),
    ('{"orderId":"0x1"}', "orderId: "),
    ('{"orderId":" 1"}', "orderId: "),
    ('{"orderId":""}', "orderId: "),
    ('{"orderId":"9223372036854775808"}', "orderId: "),
    ('{"orderId":true}', "orderId: "),
    ('{"orderId":null}', "orderId: "),
    ('{"orderId":[1]}', "orderId: "),
    ('{"orderId":{}}', "orderId: "),
    ('{"orderId":NaN}', "orderId: "),
    ('{"account":"A"}', "orderId: is required"),
    ('{"orderId":1,"account":""}', "account: "),
    ('{"orderId":1,"account":5}', "account: "),
    ('{"orderId":1,"account":null}', "account: must not be null"),
    ('{"orderId":1,"account":"%s"}' % ("a" * 65), "account: "),
    ('{"orderId":1,"account":"%s"}' % ("é" * 33), "account: "),
    ('{"orderId":1,"account":"a\\u0000"}', "account: control"),
    ('{"orderId":1,"account":"a\\n"}', "account: control"),
    ('{"orderId":1,"account":"a\n"}', "account: control"),
    ('{"orderId":1,"account":"a\x7f"}', "account: control"),
    ('{"orderId":1,"account":"a\\u0085"}', "account: control"),
    ('{"orderId":1,"account":"a\x85"}', "account: control"),
    ('{"orderId":1,"account":"\\ud800"}', "account: a lone surrogate"),
    ('{"orderId":1,"account":"\\udc00\\ud800"}', "account: a lone surrogate"),
    ('{"orderId":1,"account":"\\ud83dx"}', "account: a lone surrogate"),
    ('{"orderId":1,"account":"\\x41"}', "account: an unknown escape"),
    ('{"orderId":1,"account":"\\u12g4"}', "account: an unknown escape"),
    ('{"orderId":1,"clOrdId":"%s"}' % ("c" * 65), "clOrdId: "),
    ('{"orderId":1,"customTag50":"%s"}' % ("c" * 65), "customTag50: "),
    ('{"orderId":1,"requestId":"%s"}' % ("r" * 129), "requestId: "),
    ('{"orderId":1,"requestId":5}', "requestId: "),
    ('{"orderId":1,"requestedBy":"%s"}' % ("r" * 129), "requestedBy: "),
    ('{"orderId":1,"isAutomated":1}', "isAutomated: "),
    ('{"orderId":1,"isAutomated":"true"}', "isAutomated: "),
    ('{"orderId":1,"isAutomated":null}', "isAutomated: "),
    ('{"orderId":1,"priority":"high"}', "priority: "),
    ('{"orderId":1,"priority":1}', "priority: "),
    ('{"orderId":1,"activationTime":5}', "activationTime: "),
    ('{"orderId":1,"activationTime":"tomorrow"}', "activationTime: "),
    ('{"orderId":1,"activationTime":"2026-02-29T00:00:00Z"}', "activationTime: "),
    ('{"orderId":1,"activationTime":"2026-13-01T00:00:00Z"}', "activationTime: "),
    ('{"orderId":1,"activationTime":"2026-11-23"}', "activationTime: "),
    ('{"orderId":1,"activationTime":"2026-11-23T24:00:00Z"}', "activationTime: "),
    ('{"orderId":1,"activationTime":"2026-11-23T20:00:00+2"}', "activationTime: "),
    ('{"orderId":1,"deadline":-2}', "deadline: must not lie in the past"),
    ('{"orderId":1,"deadline":"2020-01-01T00:00:00Z"}', "deadline: must not lie in the past"),
    ('{"orderId":1,"deadline":1e999}', "deadline: must be at most ten years"),
    ('{"orderId":1,"deadline":315700000}', "deadline: must be at most ten years"),
    ('{"orderId":1,"deadline":"5"}', "deadline: "),
    ('{"orderId":1,"deadline":true}', "deadline: "),
    ('{"orderId":1,"deadline":.5}', "deadline: "),
    ('{"orderId":1,"orderId":1}', "orderId: is given twice"),
    ('{"orderId":1,"order\\u0049d":1}', "orderId: is given twice"),
    ('{"orderId":1,"colour":"red"}', "colour: is not a field"),
    ('{"orderId":1,"order_id":1}', "order_id: is not a field"),
    ('{"orderId":1} {}', "the request is not a JSON object"),
    ('{"orderId":1}x', "the request is not a JSON object"),
    ('{"orderId":1,}', "the request is not a JSON object"),
    ('{"orderId":1', "the request is not a JSON object"),
    ('{"orderId" 1}', "the request is not a JSON object"),
    ("{orderId:1}", "the request is not a JSON object"),
    ("{", "the request is not a JSON object"),
    ("", "the request is not a JSON object"),
    ("[1]", "the request is not a JSON object"),
    ("1", "the request is not a JSON object"),
    ("{}", "orderId: is required"),
    ('{"orderId":1,"account":"x' + "y" * 17000 + '"}', "the request is longer than"),
    (b'{"orderId":1,"account":"\xff"}', "the request is not valid UTF-8"),
    (b'{"orderId":1,"account":"\xed\xa0\x80"}', "the request is not valid UTF-8"),
    (b'{"orderId":1,"account":"\xc0\x80"}', "the request is not valid UTF-8"),
]


@pytest.mark.parametrize(("text", "error"), REFUSED, ids=range(len(REFUSED)))
def test_a_wrong_request_is_refused_by_name_and_stores_nothing(
    door: Door, text: str | bytes, error: str
) -> None:
    reply = door.enqueue_text(text)
    assert reply["status"] == "refused"
    assert reply["error"].startswith(error)
    assert door.all_keys() == {door.key("meta")}


def test_a_refusal_carries_the_request_id_if_it_could_be_read(door: Door) -> None:
    assert door.enqueue(0, requestId="mine")["requestId"] == "mine"
    assert door.enqueue_text('{"requestId":"mine","orderId":')["requestId"] == "mine"
    assert door.enqueue_text("{}")["requestId"] is None


@pytest.mark.parametrize("written", [LARGEST, str(LARGEST), 2**53 + 1, 1, "1"])
def test_an_order_id_stays_exact_to_its_last_digit(door: Door, written: int | str) -> None:
    reply = door.enqueue(written)
    assert reply["orderId"] == int(written)
    assert door.status(jobId=reply["jobId"])["orderId"] == int(written)
    assert door.status(orderId=written)["jobId"] == reply["jobId"]


def test_a_number_and_its_digits_as_text_are_the_same_order(door: Door) -> None:
    assert door.enqueue(5)["jobId"] == door.enqueue("5")["jobId"]


@pytest.mark.parametrize(
    "text", ['\t{ "orderId" :\n1 , "account":"a\\/b" }\r\n', '{"account":"a/b","orderId":"1"}']
)
def test_any_way_of_writing_the_same_json_is_accepted(door: Door, text: str) -> None:
    reply = door.enqueue_text(text)
    assert (reply["status"], reply["account"]) == ("accepted", "a/b")


def test_the_longest_texts_are_accepted(door: Door) -> None:
    reply = door.enqueue(
        1, account="é" * 32, requestId="r" * 128, requestedBy="\U0001f600" * 32, clOrdId="c" * 64
    )
    assert reply["status"] == "accepted"


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("2026-11-23T20:00:00Z", "2026-11-23T20:00:00.000000Z"),
        ("2028-02-29T00:00", "2028-02-29T00:00:00.000000Z"),
        ("2030-01-01 05:30:00.1234567+05:30", "2030-01-01T00:00:00.123456Z"),
        ("2100-03-01t00:00:00,5-0100", "2100-03-01T01:00:00.500000Z"),
        ("1970-01-01T00:00:00+00", "1970-01-01T00:00:00.000000Z"),
        ("2199-12-31T23:59:59.999999z", "2199-12-31T23:59:59.999999Z"),
    ],
)
def test_times_are_understood_to_the_microsecond(door: Door, written: str, stored: str) -> None:
    job = door.job(door.enqueue(1, activationTime=written)["jobId"])
    expected = datetime.fromisoformat(stored)
    assert int(job["activation_time"]) == (expected - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        microseconds=1
    )


def test_a_deadline_in_seconds_counts_from_the_servers_now(door: Door) -> None:
    job = door.job(door.enqueue(1, deadline=2.5)["jobId"])
    assert int(job["deadline"]) - int(job["enqueued_at"]) == 2_500_000


def test_a_deadline_of_just_now_is_accepted(door: Door) -> None:
    assert door.enqueue(1, deadline=0)["status"] == "accepted"
    assert door.enqueue(2, deadline=-0.9)["status"] == "accepted"


@pytest.mark.parametrize("key", ["cancelq", "{}", "{a b}", "{cancelq}:x"])
def test_a_key_that_is_no_ledger_is_refused(door: Door, key: str) -> None:
    for function in ("cancelq_enqueue", "cancelq_status"):
        reply = json.loads(door.redis.fcall(function, 1, key, '{"orderId":1}'))
        assert (reply["status"], "in braces" in reply["error"]) == ("refused", True)
    assert list(door.redis.scan_iter(f"{key}:job:*")) == []


def test_a_call_without_arguments_is_refused(door: Door) -> None:
    assert json.loads(door.redis.fcall("cancelq_enqueue", 1, door.prefix))["status"] == "refused"
    assert json.loads(door.redis.fcall("cancelq_enqueue", 0))["status"] == "refused"


TOO_MUCH = [
    # further keys, further arguments, what the error must begin with
    ((), ('{"orderId":2}',), "arguments: must be one JSON object, got 2"),
    (("{other}",), (), "keys: must be one, the name of the ledger in braces, got 2"),
    (("{other}",), ('{"orderId":2}',), "keys: "),
]


@pytest.mark.parametrize(("keys", "arguments", "error"), TOO_MUCH)
def test_what_nobody_would_read_is_refused(
    door: Door, keys: tuple[str, ...], arguments: tuple[str, ...], error: str
) -> None:
    untouched = door.all_keys()
    question = '{"orderId":1,"requestId":"r"}', '{"orderId":1}'
    for function, text in zip(("cancelq_enqueue", "cancelq_status"), question, strict=True):
        words = (door.prefix, *keys, text, *arguments)
        reply = json.loads(door.redis.fcall(function, 1 + len(keys), *words))
        assert (reply["status"], reply["error"].startswith(error)) == ("refused", True), reply
        assert reply["requestId"] == ("r" if function == "cancelq_enqueue" else None)
    assert door.all_keys() == untouched


# --- idempotency


def test_a_repeated_request_id_gives_the_first_job_again(door: Door) -> None:
    first = door.enqueue(1, requestId="r")
    again = door.enqueue(1, requestId="r", priority="urgent")
    assert again["status"] == "duplicate"
    assert again["jobId"] == first["jobId"]
    assert door.status(jobId=first["jobId"])["joiners"] == 0


@pytest.mark.parametrize("other", [{"orderId": 2}, {"orderId": 1, "account": "B"}])
def test_a_request_id_of_another_order_is_refused(door: Door, other: dict[str, object]) -> None:
    door.enqueue(1, requestId="r")
    reply = door.enqueue_text(json.dumps({"requestId": "r"} | other))
    assert (reply["status"], reply["requestId"]) == ("refused", "r")
    assert reply["error"].startswith("requestId: ")


def test_a_joiners_request_id_is_remembered_too(door: Door) -> None:
    first = door.enqueue(1)
    door.enqueue(1, requestId="r")
    again = door.enqueue(1, requestId="r")
    assert (again["status"], again["jobId"]) == ("duplicate", first["jobId"])
    assert door.status(jobId=first["jobId"])["joiners"] == 1


def test_the_memory_of_request_ids_has_the_configured_life(door: Door, ledger: Ledger) -> None:
    ledger.configure(Rules(dedupe_life=timedelta(seconds=90)))
    door.enqueue(1, requestId="r")
    assert 80_000 < door.redis.pttl(door.key("request:r")) <= 90_000


def test_the_memory_of_request_ids_outlives_the_job(door: Door, ledger: Ledger) -> None:
    first = door.enqueue(1, requestId="r")
    claimed_ids(ledger)
    ledger.close([closing(first["jobId"])])
    assert finish(ledger, first["jobId"])
    assert door.enqueue(1, requestId="r")["status"] == "duplicate"


def test_job_ids_sort_by_time_and_never_repeat(door: Door) -> None:
    ids = [door.enqueue(order)["jobId"] for order in range(1, 200)]
    assert ids == sorted(set(ids))
    assert all(len(job_id) == 36 and job_id[14] == "7" and job_id[19] in "89ab" for job_id in ids)


def test_job_ids_sort_by_when_they_were_made_though_the_clock_is_set_back(
    private_valkey: PrivateValkey, make_ledger: Callable[[str, str], Ledger]
) -> None:
    make_ledger(private_valkey.url, "cancelq")
    with Redis.from_url(private_valkey.url, decode_responses=True) as redis:
        redis.function_load(clocked_library("clock"), replace=True)
        now = 1_800_000_000_000_999
        ids = []
        for order, step in enumerate(
            [0, 17, -20, 0, 0, 0, 0, 0, -3_600_000_000, 1, 3_600_000_003, 1], start=1
        ):
            now += step
            redis.set("clock", now)
            ids.append(Door(redis, "cancelq").enqueue(order)["jobId"])
    assert ids == sorted(set(ids))


def test_a_request_id_that_nobody_gave_is_of_this_order_alone(
    private_valkey: PrivateValkey, make_ledger: Callable[[str, str], Ledger]
) -> None:
    make_ledger(private_valkey.url, "cancelq")
    with Redis.from_url(private_valkey.url, decode_responses=True) as redis:
        redis.set("clock", 1_800_000_000_000_000)
        said = []
        for order in (1, 2):
            redis.function_load(clocked_library("clock"), replace=True)  # it remembers no id then
            said.append(Door(redis, "cancelq").enqueue(order))
    assert [reply["status"] for reply in said] == ["accepted", "accepted"]


# --- bells


def test_a_bell_is_an_anonymous_celery_message(door: Door) -> None:
    door.enqueue(1, account="SECRET")
    (bell,) = door.bells()
    assert bell["headers"]["task"] == "cancelq.bell"
    assert json.loads(bell["body"]) == [[], {}, {}]
    assert bell["properties"]["delivery_info"]["routing_key"] == door.key("bells")
    assert "SECRET" not in json.dumps(bell)


def test_a_bell_is_a_message_that_kombu_reads(door: Door, redis_url: str) -> None:
    door.enqueue(1)
    with Connection(broker_settings(redis_url)["broker_url"]) as connection:
        message = Queue(door.key("bells"), channel=connection.default_channel).get(no_ack=True)
    assert message is not None
    assert message.payload == [[], {}, {}]
    assert message.headers["task"] == "cancelq.bell"


def test_bells_do_not_grow_without_end(door: Door) -> None:
    for order in range(1, 40):
        door.enqueue(order)
    bells = door.bells()
    assert len(bells) == 16
    assert len({bell["properties"]["delivery_tag"] for bell in bells}) == 16


def test_status_speaks_of_unknown_jobs_and_wrong_questions(door: Door) -> None:
    assert door.status(jobId="nobody") == {"status": "unknown"}
    assert door.status(orderId=5, account="A") == {"status": "unknown"}
    assert door.status()["status"] == "refused"
    assert door.status(jobId="a", orderId=1)["status"] == "refused"
    assert door.status(orderId=0)["status"] == "refused"


def test_a_full_memory_refuses_new_requests_but_lets_the_work_go_on(
    private_valkey: PrivateValkey, make_ledger: Callable[[str, str], Ledger]
) -> None:
    ledger = make_ledger(private_valkey.url, "full")
    with Redis.from_url(private_valkey.url, decode_responses=True) as redis:
        door = Door(redis, "full")
        job_id = door.enqueue(1)["jobId"]
        redis.config_set("maxmemory", "1")
        with pytest.raises(OutOfMemoryError):
            door.enqueue(2)
        assert claimed_ids(ledger) == [job_id]
        assert ledger.close([closing(job_id)]) == [()]
        assert door.job(job_id)["outcome"] == "canceled"
