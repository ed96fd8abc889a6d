"""A kill at every gap: the process dies right there, another one starts, and nothing is lost or said wrongly.

A scene is nearly all waiting, for a lease to lapse and for permission to POST again: several play at once.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from tests.parts.databases import migrated
from tests.parts.exchange import Exchange, running_exchange
from tests.parts.fleet import Fleet
from tests.parts.kills import assert_ledger_at_rest, assert_nothing_lost
from tests.parts.scenes import COMMANDS, ON_DISK, ORDERS, QUICK, SCENES, Scene
from worker.gaps import Gap

AT_ONCE = 5


@dataclass(frozen=True, slots=True)
class Case:
    gap: Gap
    scene: Scene
    kind: str  # of database


# Where a kill hits a database at work; the others do not depend on which one it is.
IN_SQL = (
    Gap.START_DUE,
    Gap.START_ON_DISK,
    Gap.REPLY_ON_DISK,
    Gap.VERDICT_ON_DISK,
    Gap.OUTCOME_ON_DISK,
    Gap.BATCH_DUE,
    Gap.BATCH_ON_DISK,
    Gap.CARRIED,
    Gap.LEFT_OPEN,
    Gap.REGISTERED_ON_DISK,
    Gap.SCHEMA_STEP_DONE,
)
PLAYS = {**SCENES, **COMMANDS}
CASES = [Case(gap, scene, "sqlite") for gap in Gap for scene in PLAYS[gap]] + [
    Case(gap, scene, "postgresql") for gap in IN_SQL for scene in PLAYS[gap]
]
ACTS = [CASES[start : start + AT_ONCE] for start in range(0, len(CASES), AT_ONCE)]


def name_of(act: Sequence[Case]) -> str:
    return ",".join(f"{case.gap}-{case.kind}" for case in act)


@pytest.fixture(scope="session")
def exchanges() -> Iterator[list[Exchange]]:
    """One for each scene that plays at once."""
    with ExitStack() as stack:
        yield [stack.enter_context(running_exchange()) for _ in range(AT_ONCE)]


@pytest.fixture
def fleets(
    request: pytest.FixtureRequest,
    act: Sequence[Case],
    exchanges: list[Exchange],
    redis_url: str,
    tmp_path: Path,
) -> Iterator[list[Fleet]]:
    """For each scene of the act a ledger, a database and an exchange of its own."""
    with ExitStack() as stack:
        made = []
        for number, (case, exchange) in enumerate(zip(act, exchanges, strict=False)):
            folder = tmp_path / f"{number}-{case.gap}"
            folder.mkdir()
            url = stack.enter_context(migrated(request, case.kind, folder))
            exchange.empty()
            made.append(Fleet(redis_url, f"t{uuid4().hex}", url, exchange, folder))
            stack.callback(made[-1].stop)
        yield made


@pytest.mark.parametrize("act", ACTS, ids=name_of)
def test_a_process_killed_at_a_gap_loses_nothing(act: Sequence[Case], fleets: list[Fleet]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        playing = [pool.submit(play, case, fleet) for case, fleet in zip(act, fleets, strict=True)]
    errors = [error for error in (scene.exception() for scene in playing) if error is not None]
    if errors:
        raise BaseExceptionGroup("scenes", errors)


def play(case: Case, fleet: Fleet) -> None:
    try:
        case.scene(case.gap, fleet)
        if case.gap in SCENES:
            assert_on_disk(case.gap, fleet)
            fleet.fork(lockout="1", **QUICK)
            assert_nothing_lost(fleet, len(ORDERS))
        assert_ledger_at_rest(fleet)
    except BaseException as error:
        error.add_note(f"at the gap {case.gap}, {case.scene}, {fleet.database_url}")
        raise


def assert_on_disk(gap: Gap, fleet: Fleet) -> None:
    """The gap is where its name says: what must be durable before it was."""
    if gap in ON_DISK:
        table, least = ON_DISK[gap]
        assert len(fleet.table(table)) >= least


def test_every_gap_has_one_scene() -> None:
    assert sorted([*SCENES, *COMMANDS]) == sorted(Gap)
