"""A log line: one event, one write, its ids in it."""

import json
from collections.abc import Iterator

import pytest
import structlog

from worker.app.logs import set_up_logs


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("name", [(), ("worker.audit",)])
def test_a_line_has_time_level_event_and_every_fact(
    capfd: pytest.CaptureFixture[str], name: tuple[str]
) -> None:
    set_up_logs("text")
    structlog.get_logger(*name).warning(
        "bell.dropped", job="job-1", order=7, start="a b", empty="", none=None
    )
    time, level, rest = capfd.readouterr().err.split(maxsplit=2)
    assert time.endswith("Z")
    assert (level, rest) == ("warning", "bell.dropped job=job-1 order=7 start='a b' empty='' none=None\n")


def test_a_fact_with_line_breaks_stays_on_its_line(capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logs("text")
    structlog.get_logger().info("job.finished", evidence="a\nb", odd="\ud800")
    assert capfd.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_brings_its_traceback(capfd: pytest.CaptureFixture[str], form: str) -> None:
    set_up_logs(form)
    try:
        int("no number")
    except ValueError:
        structlog.get_logger().exception("duty.broke", duty="sweep")
    said = capfd.readouterr().err
    assert "Traceback" in said
    assert "ValueError" in said


def test_json_is_one_object_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logs("json")
    structlog.get_logger().info("job.finished", job="job-1")
    assert json.loads(capfd.readouterr().err)["job"] == "job-1"
