"""Functions do not roll back: an error after any single write must leave a ledger that mends itself."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from tests.parts.cancels import a_job, a_joiner
from tests.parts.ledger import LEASE, NO_TIME, Door, claim, claimed_ids, closing, finish, settlement
from worker.embedded.valkey import EmbeddedValkey, ensure
from worker.errors import LedgerUnavailable
from worker.job import ClaimId, JobId, OrderId, Step
from worker.ledger import library
from worker.ledger.client import Ledger
from worker.ledger.mass import MassWish, MassWishes
from worker.ledger.restored import Restored

MOST_WRITES = 40
FAILING_WRITE = """
local writes_left = %d
local function write(...)
  local reply = redis.call(...)
  writes_left = writes_left - 1
  if writes_left == 0 then
    error('injected')
  end
  return reply
end
"""


@pytest.fixture(scope="module")
def breakable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A server whose library may be broken without harm to other tests."""
    with ensure(tmp_path_factory.mktemp("breakable")) as server:
        yield server


class Scene:
    """A fresh ledger per fault, and the two libraries."""

    def __init__(self, redis: "Redis", ledger: Ledger) -> None:
        self.redis = redis
        self.ledger = ledger
        self.door = Door(redis, ledger.name)

    def broken(self, act: Callable[[], object], after: int) -> bool:
        """Run `act` on a library that fails after so many writes; whether it failed. Mends the library."""
        self.redis.function_load(library.source({"write": FAILING_WRITE % after}), replace=True)
        try:
            act()
        except (ResponseError, LedgerUnavailable) as error:
            return "injected" in str(error)
        finally:
            self.redis.function_load(library.source(), replace=True)
        return False

    def open_jobs(self) -> set[str]:
        keys = {key for key in self.door.all_keys() if ":job:" in key}
        return {key.rpartition(":")[2] for key in keys if self.redis.hget(key, "state") != "done"}

    def drain(self) -> list[tuple[str, Step]]:
        """Work as a healthy worker does until nothing is open: every job must turn up, each at most once."""
        seen = []
        for n in range(5):
            self.ledger.sweep(NO_TIME)
            for job in claim(self.ledger, f"drain-{n}").jobs:
                seen.append((job.id, job.step))
                assert self.ledger.close([closing(job.id, f"drain-{n}")]) != [None]
                assert finish(self.ledger, job.id, f"drain-{n}")
        assert self.open_jobs() == set()
        assert len(seen) == len({job_id for job_id, _ in seen})
        self.ledger.unregistered(100, NO_TIME)
        for name in ("lapsed", "urgent", "due", "confirm", "leases", "unregistered"):
            assert self.redis.zcard(self.door.key(name)) == 0, name
        return seen

    def lapse(self, claim_id: str = "claim-1") -> None:
        """Let a silent holder's leases run out now."""
        held = [(JobId(job_id), ClaimId(claim_id)) for job_id in self.open_jobs()]
        self.ledger.renew(NO_TIME, held)


@pytest.fixture
def scenes(
    breakable: EmbeddedValkey, ledger_name: str, make_ledger: Callable[[str, str], Ledger]
) -> Iterator[Iterator[Scene]]:
    """One scene after the other, each on a ledger of its own."""
    with Redis.from_url(breakable.url, decode_responses=True) as redis:
        yield (Scene(redis, make_ledger(breakable.url, f"{ledger_name}{n}")) for n in range(MOST_WRITES))


def each_fault(scenes: Iterator[Scene], prepare: Callable, act: Callable, check: Callable) -> int:
    """Prepare, act and fail after write 1, 2, ... until the act succeeds; gives how many writes it has."""
    for after, scene in enumerate(scenes, start=1):
        prepared = prepare(scene)
        failed = scene.broken(lambda s=scene, p=prepared: act(s, p), after)
        if not failed:
            assert after > 1
            return after - 1
        check(scene, prepared)
    raise AssertionError("the act never succeeded")


def enqueue_again(scene: Scene, **fields: object) -> str:
    """Repeat with the same request id: never a ghost, always an open job."""
    reply = scene.door.enqueue(1, requestId="r", **fields)
    assert reply["status"] in {"accepted", "joined", "duplicate"}
    assert reply["jobId"] in scene.open_jobs()
    return str(reply["jobId"])


def nothing(_scene: Scene) -> None:
    return None


def one_job(scene: Scene) -> str:
    return str(scene.door.enqueue(1, requestId="first")["jobId"])


def a_claimed_job(scene: Scene) -> str:
    job_id = one_job(scene)
    assert claimed_ids(scene.ledger) == [job_id]
    return job_id


def a_closing_job(scene: Scene) -> str:
    job_id = a_claimed_job(scene)
    scene.ledger.close([closing(job_id)])
    return job_id


def test_a_broken_enqueue_is_repeated_into_exactly_one_job(scenes: Iterator[Scene]) -> None:
    def check(scene: Scene, _: None) -> None:
        job_id = enqueue_again(scene)
        assert [seen for seen, _ in scene.drain()] == [job_id]

    writes = each_fault(scenes, nothing, lambda s, _: s.door.enqueue(1, requestId="r"), check)
    assert writes == 6


def test_a_broken_enqueue_that_nobody_repeats_leaves_nothing_or_a_job(scenes: Iterator[Scene]) -> None:
    def check(scene: Scene, _: None) -> None:
        visible = scene.door.status(orderId=1)
        seen = [job_id for job_id, _ in scene.drain()]
        assert seen == ([] if visible == {"status": "unknown"} else [visible["jobId"]])

    each_fault(scenes, nothing, lambda s, _: s.door.enqueue(1, requestId="r"), check)


def test_a_broken_enqueue_does_not_stand_in_the_way_of_another_request(scenes: Iterator[Scene]) -> None:
    def check(scene: Scene, _: None) -> None:
        reply = scene.door.enqueue(1, requestId="other")
        assert reply["jobId"] in scene.open_jobs()
        assert [seen for seen, _ in scene.drain()] == [reply["jobId"]]

    each_fault(scenes, nothing, lambda s, _: s.door.enqueue(1, requestId="r"), check)


def test_a_broken_join_is_repeated_into_the_widest_wish(scenes: Iterator[Scene]) -> None:
    def prepare(scene: Scene) -> str:
        job_id = str(scene.door.enqueue(1, deadline=5, activationTime="2031-01-01T00:00:00Z")["jobId"])
        scene.redis.set(scene.door.key("told"), scene.door.job(job_id)["deadline"])
        return job_id

    def check(scene: Scene, job_id: str) -> None:
        assert enqueue_again(scene, priority="urgent") == job_id
        job = scene.door.job(job_id)
        assert job["priority"] == "urgent"
        assert not {"deadline", "activation_time"} & set(job)
        assert job["first_priority"] == "normal"
        assert job["first_deadline"] == scene.redis.get(scene.door.key("told"))
        assert job["first_activation_time"] == "1924992000000000"
        assert "r" in {j.request_id for _, joiners in scene.ledger.unregistered(9, NO_TIME) for j in joiners}
        assert [seen for seen, _ in scene.drain()] == [job_id]

    writes = each_fault(
        scenes, prepare, lambda s, _: s.door.enqueue(1, requestId="r", priority="urgent"), check
    )
    assert writes == 10


def test_a_broken_join_that_nobody_repeats_loses_no_job(scenes: Iterator[Scene]) -> None:
    def check(scene: Scene, job_id: str) -> None:
        assert [seen for seen, _ in scene.drain()] == [job_id]

    each_fault(scenes, one_job, lambda s, _: s.door.enqueue(1, requestId="r", priority="urgent"), check)


def test_a_broken_claim_hides_no_job_and_gives_none_away_twice(scenes: Iterator[Scene]) -> None:
    def prepare(scene: Scene) -> list[str]:
        return [scene.door.enqueue(order)["jobId"] for order in (1, 2)]

    def check(scene: Scene, ids: list[str]) -> None:
        held = {job_id for job_id in ids if scene.door.job(job_id).get("claim")}
        assert held.isdisjoint(claimed_ids(scene.ledger, "claim-2"))
        scene.lapse("claim-1")
        scene.lapse("claim-2")
        assert {seen for seen, _ in scene.drain()} == set(ids)

    each_fault(scenes, prepare, lambda s, _: claim(s.ledger, jobs=1), check)


def test_a_broken_settlement_can_be_repeated(scenes: Iterator[Scene]) -> None:
    def check(scene: Scene, job_id: str) -> None:
        again = scene.ledger.settle([settlement(job_id, step=Step.CONFIRM, fields={"attempts": "1"})])
        assert again == [True] or "confirm" in scene.door.places(job_id)
        assert scene.drain() == [(job_id, Step.CONFIRM)]
        assert scene.door.job(job_id)["attempts"] == "1"

    settled = {"attempts": "1", "reason": None}
    act = lambda s, job_id: s.ledger.settle([settlement(job_id, step=Step.CONFIRM, fields=settled)])  # noqa: E731
    assert each_fault(scenes, a_claimed_job, act, check) == 6


def test_a_broken_settlement_after_which_the_holder_dies_never_leads_to_a_blind_post(
    scenes: Iterator[Scene],
) -> None:
    def check(scene: Scene, job_id: str) -> None:
        scene.lapse()
        ((seen, step),) = scene.drain()
        assert (seen, step) in {(job_id, Step.CONFIRM), (job_id, Step.RECONCILE)}

    act = lambda s, job_id: s.ledger.settle([settlement(job_id, step=Step.CONFIRM)])  # noqa: E731
    each_fault(scenes, a_claimed_job, act, check)


def test_a_broken_settlement_gives_the_job_to_nobody_while_its_holder_lives(scenes: Iterator[Scene]) -> None:
    def check(scene: Scene, job_id: str) -> None:
        held = scene.door.job(job_id).get("claim") == "claim-1"
        assert claimed_ids(scene.ledger, "claim-2") == ([] if held else [job_id])
        scene.lapse()
        scene.lapse("claim-2")
        assert [seen for seen, _ in scene.drain()] == [job_id]

    each_fault(scenes, a_claimed_job, lambda s, job_id: s.ledger.settle([settlement(job_id)]), check)


def test_a_broken_close_can_be_repeated_and_is_never_undone(scenes: Iterator[Scene]) -> None:
    def check(scene: Scene, job_id: str) -> None:
        assert scene.ledger.close([closing(job_id)]) == [()]
        scene.lapse()
        assert scene.drain() == [(job_id, Step.CLOSE)]
        assert scene.door.status(jobId=job_id)["outcome"] == "canceled"

    each_fault(scenes, a_claimed_job, lambda s, job_id: s.ledger.close([closing(job_id)]), check)


def test_a_broken_finish_can_be_repeated(scenes: Iterator[Scene]) -> None:
    def check(scene: Scene, job_id: str) -> None:
        assert finish(scene.ledger, job_id)
        assert scene.drain() == []
        assert scene.redis.ttl(scene.door.key(f"job:{job_id}")) > 0

    each_fault(scenes, a_closing_job, lambda s, job_id: finish(s.ledger, job_id), check)


def test_a_broken_finish_after_which_the_holder_dies_is_completed_by_the_sweep(
    scenes: Iterator[Scene],
) -> None:
    def check(scene: Scene, job_id: str) -> None:
        scene.redis.zadd(scene.door.key("leases"), {job_id: 0}, xx=True)
        assert scene.drain() == []
        for key in (f"job:{job_id}", "order:1:default"):
            assert scene.redis.ttl(scene.door.key(key)) > 0

    each_fault(scenes, a_closing_job, lambda s, job_id: finish(s.ledger, job_id), check)


def test_a_broken_sweep_is_completed_by_the_next(scenes: Iterator[Scene]) -> None:
    def prepare(scene: Scene) -> str:
        job_id = a_claimed_job(scene)
        scene.lapse()
        return job_id

    def check(scene: Scene, job_id: str) -> None:
        assert scene.drain() == [(job_id, Step.RECONCILE)]

    assert each_fault(scenes, prepare, lambda s, _: s.ledger.sweep(NO_TIME), check) == 7


def test_a_broken_sweep_gives_no_job_away_that_its_holder_still_has(scenes: Iterator[Scene]) -> None:
    def prepare(scene: Scene) -> str:
        job_id = a_claimed_job(scene)
        scene.lapse()
        return job_id

    def check(scene: Scene, job_id: str) -> None:
        still_held = scene.ledger.renew(LEASE, [(JobId(job_id), ClaimId("claim-1"))]) == frozenset()
        assert not (still_held and claimed_ids(scene.ledger, "claim-2"))
        scene.lapse()
        scene.lapse("claim-2")
        scene.drain()

    each_fault(scenes, prepare, lambda s, _: s.ledger.sweep(NO_TIME), check)


def a_lost_job() -> Restored:
    """As the audit knows it: joined, once sent, with a deadline."""
    job = a_job("lost", deadline=datetime(2031, 1, 1, tzinfo=UTC))._replace(attempts=1)
    return Restored(job=job, joiners=(a_joiner(deadline=datetime(2032, 1, 1, tzinfo=UTC)),), delay=NO_TIME)


def uncompared(scene: Scene) -> None:
    scene.redis.hdel(scene.door.key("meta"), "compared")
    assert scene.ledger.compare("me", LEASE)


def test_a_broken_restoration_is_repeated_into_one_whole_job(scenes: Iterator[Scene]) -> None:
    def check(scene: Scene, _: None) -> None:
        assert scene.ledger.restore("me", LEASE, [a_lost_job()]) in {0, 1}
        job = scene.door.job("lost")
        assert (job["joiners"], job["priority"], job["deadline"]) == ("1", "urgent", "1956528000000000")
        assert "activation_time" not in job  # its joiner wants it now
        assert scene.redis.llen(scene.door.key("joiners:lost")) == 1
        for wish in ("request-of-lost", "joiner-1"):
            assert scene.door.enqueue(123, account="DEMO1", requestId=wish)["status"] == "duplicate"
        assert scene.door.enqueue(123, account="DEMO1")["status"] == "joined"
        assert scene.drain() == [("lost", Step.RECONCILE)]

    act = lambda s, _: s.ledger.restore("me", LEASE, [a_lost_job()])  # noqa: E731
    assert each_fault(scenes, uncompared, act, check) == 9


def test_a_broken_fall_back_leads_to_a_look_first(scenes: Iterator[Scene]) -> None:
    def prepare(scene: Scene) -> str:
        uncompared(scene)
        return str(scene.door.enqueue(123, account="DEMO1")["jobId"])

    def ahead(job_id: str) -> Restored:
        return Restored(job=a_job(job_id)._replace(attempts=1), joiners=(), delay=NO_TIME)

    def check(scene: Scene, job_id: str) -> None:
        scene.ledger.restore("me", LEASE, [ahead(job_id)])
        assert scene.ledger.compared("me")
        assert scene.drain() == [(job_id, Step.RECONCILE)]

    act = lambda s, job_id: s.ledger.restore("me", LEASE, [ahead(job_id)])  # noqa: E731
    assert each_fault(scenes, prepare, act, check) == 4


def test_a_broken_end_of_a_comparison_can_be_repeated(scenes: Iterator[Scene]) -> None:
    def prepare(scene: Scene) -> str:
        uncompared(scene)
        assert claim(scene.ledger).held
        return one_job(scene)

    def check(scene: Scene, job_id: str) -> None:
        assert scene.ledger.compared("me") or not scene.ledger.compare("me", LEASE)
        assert scene.drain() == [(job_id, Step.POST)]
        assert scene.redis.hget(scene.door.key("login:default"), "held_at") is None

    assert each_fault(scenes, prepare, lambda s, _: s.ledger.compared("me"), check) == 5


def test_a_broken_begin_of_a_mass_cancel_can_be_repeated(scenes: Iterator[Scene]) -> None:
    def begin(scene: Scene) -> MassWish:
        return scene.ledger.mass("A/all").begin("m", by="me", told="all of A")

    def check(scene: Scene, _: None) -> None:
        assert begin(scene).id == "m"
        assert [action.id for action in scene.ledger.actions()] == ["m"]

    assert each_fault(scenes, nothing, lambda s, _: begin(s), check) == 3


def test_a_broken_end_of_a_mass_cancel_leaves_one_that_has_ended_or_has_not(scenes: Iterator[Scene]) -> None:
    def prepare(scene: Scene) -> MassWishes:
        wishes = scene.ledger.mass("A/all")
        wishes.begin("m", by="me", told="all of A")
        assert wishes.note("m", {OrderId(1): "{}"})
        return wishes

    def check(_scene: Scene, wishes: MassWishes) -> None:
        wishes.end("m", by="me", told="none left")
        assert wishes.begin("n", by="me", told="again").id == "n"
        assert not wishes.note("m", {OrderId(2): "{}"})

    act = lambda _, wishes: wishes.end("m", by="me", told="none left")  # noqa: E731
    assert each_fault(scenes, prepare, act, check) == 6


@pytest.mark.parametrize("index", ["urgent", "due", "confirm", "lapsed"])
def test_an_id_without_a_job_is_dropped(scenes: Iterator[Scene], index: str) -> None:
    scene = next(scenes)
    scene.redis.zadd(scene.door.key(index), {"ghost": 1})
    assert claimed_ids(scene.ledger) == []
    assert scene.redis.zcard(scene.door.key(index)) == 0


def test_a_leftover_in_a_wrong_index_does_not_bring_a_parked_job_forward(scenes: Iterator[Scene]) -> None:
    scene = next(scenes)
    job_id = a_claimed_job(scene)
    scene.ledger.settle([settlement(job_id, step=Step.CONFIRM, delay=timedelta(minutes=1))])
    scene.redis.zadd(scene.door.key("due"), {job_id: 1})
    assert claimed_ids(scene.ledger, "claim-2") == []
    assert scene.door.places(job_id) == {"confirm"}
