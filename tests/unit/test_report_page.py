"""The page is one safe file: well-formed, self-contained, without scripts, and what came from outside stays text."""

import re
from datetime import UTC, timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.parts.cancels import at
from tests.parts.reports import (
    HOSTILE,
    a_line,
    a_look,
    a_report,
    a_timeline,
    a_total,
    an_attempt,
    milliseconds,
)
from worker.audit.chain import Head
from worker.audit.verify import Fault, Verification
from worker.report.content import Event, Happening, Latency, Line, Report, Scope
from worker.report.figures import spread
from worker.report.page import EVENTS, LISTED, foremost, render_html, story

# Everything that a page could fetch, run or submit with.
FETCHING = {"script", "link", "img", "iframe", "object", "embed", "video", "audio", "form", "input", "a", "base", "use",
            "image", "foreignObject", "animate", "set", "handler"}  # fmt: skip


def a_full_report(text: str = "momentum") -> Report:
    """One report in which every text from outside is this one."""
    line = a_line(
        job_id=text, account=text, requested_by=text, cl_ord_id=text, evidence=text, detail=text, reason=text,
        environment=text, outcome="unresolved", filled_qty=3, finished_at=at(900), joiners=2,
        resolved_as="canceled", resolved_by=text, resolved_at=at(999), resolved_because=text,
    )  # fmt: skip
    told = Event(kind=Happening.READ, at=at(5), said=text, detail=text)
    stage = spread(milliseconds(3, 40, 500))
    return a_report(
        line,
        a_line(outcome="canceled"),
        scope=Scope(zone=UTC, account=text),
        environments=(text,),
        policy_versions=(text,),
        verification=Verification(1, {text: Head(1, text)}, Fault(text, text, 1, text)),
        outcomes={"unresolved": 1, "canceled": 1},
        reasons={text: 3},
        attempts={1: 2},
        filled_contracts=3,
        latency=Latency(
            enqueue_to_wire=stage, wire_to_answer=stage, answer_to_end=stage, enqueue_to_end=stage
        ),
        by_account={text: a_total(canceled=1)},
        by_strategy={text: a_total(canceled=1), None: a_total(unresolved=1)},
        by_hour={at(0): a_total(canceled=1, unresolved=1)},
        slowest=(line,),
        timelines=(a_timeline(told, an_attempt(1, sent=9, said=text), account=text, job_id=text),),
    )


def parsed(report: Report) -> ET.Element:
    return ET.fromstring(render_html(report))


def words(element: ET.Element | None) -> str:
    assert element is not None
    return re.sub(r"\s+", " ", "".join(element.itertext())).strip()


def section(report: Report, name: str) -> ET.Element:
    found = parsed(report).find(f".//section[@id='{name}']")
    assert found is not None
    return found


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_came_from_outside_adds_no_element_and_no_attribute(text: str) -> None:
    def bones(report: Report) -> list[tuple[str, dict[str, str]]]:
        return [(found.tag, found.attrib) for found in parsed(report).iter() if found.tag not in cut]

    # A tooltip is added where a text was cut, a small line where there is a text at all.
    cut = {"title", "small", "bdi", "ul", "svg", "text"}
    assert bones(a_full_report(text or "x")) == bones(a_full_report("momentum"))


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_character_that_is_not_printable_reaches_the_page(text: str) -> None:
    page = render_html(a_full_report(text))
    assert [char for char in page if not char.isprintable() and char != "\n"] == []


def test_a_hostile_text_is_shown_as_it_is() -> None:
    shown = words(section(a_full_report(HOSTILE["script"]), "person"))
    assert HOSTILE["script"] in shown
    assert "{{ 7*7 }}" in words(section(a_full_report(HOSTILE["template"]), "person"))


def test_a_long_text_is_cut_and_does_not_blow_up_the_page() -> None:
    assert len(render_html(a_full_report(HOSTILE["long"]))) < 100_000


def test_the_page_forbids_itself_everything_but_its_own_style() -> None:
    policies = [
        found.get("content")
        for found in parsed(a_full_report()).iter("meta")
        if found.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


@pytest.mark.parametrize("text", ["momentum", *HOSTILE.values()], ids=["plain", *HOSTILE.keys()])
def test_nothing_is_fetched_and_nothing_runs(text: str) -> None:
    for found in parsed(a_full_report(text)).iter():
        assert found.tag not in FETCHING
        assert not {
            name for name in found.attrib if name.startswith("on") or name in {"src", "href", "style"}
        }
    (style,) = parsed(a_full_report(text)).iter("style")
    assert set(re.findall(r"url\(([^)]*)\)", style.text or "")) <= {
        f"#p-{end}" for end in ("unresolved", "refused", "accepted", "filled", "gone")
    }
    assert "@import" not in (style.text or "")


def test_every_reference_within_the_page_leads_to_one_element() -> None:
    page = parsed(a_full_report())
    ids = [found.get("id") for found in page.iter() if found.get("id")]
    named = [name for found in page.iter() for name in (found.get("aria-labelledby") or "").split()]
    (style,) = page.iter("style")
    assert len(ids) == len(set(ids))
    assert {*named, *re.findall(r"url\(#([^)]*)\)", style.text or "")} <= set(ids)


def test_every_class_of_a_mark_and_a_bar_has_its_colour() -> None:
    page = parsed(a_full_report())
    (style,) = page.iter("style")
    used = {name for found in page.iter() for name in (found.get("class") or "").split()}
    kinds = {name for name in used if name.startswith("v-")} | {"unresolved", "canceled", "plain", "read"}
    assert kinds <= set(re.findall(r"\.([\w-]+)", style.text or ""))


def test_every_table_has_a_caption_and_every_head_a_scope() -> None:
    page = parsed(a_full_report())
    assert all(words(table.find("caption")) for table in page.iter("table"))
    assert {head.get("scope") for head in page.iter("th")} == {"col", "row"}


@pytest.mark.parametrize(
    ("environment", "live"),
    [("https://live.tradovateapi.com/v1", True), ("https://demo.tradovateapi.com/v1", False)],
)
def test_live_is_the_first_thing_on_the_page_and_only_when_it_is(environment: str, *, live: bool) -> None:
    page = parsed(a_report(a_line(), environments=(environment,)))
    assert words(page.find("head/title")).startswith("LIVE: ") is live
    assert (page.find("body/p[@class='live']") is not None) is live
    assert environment in words(page)


def test_the_unresolved_come_before_everything_else() -> None:
    shown = words(parsed(a_full_report()))
    assert shown.index("Unresolved: 1") < shown.index("Refused: 0") < shown.index("What the period came to")


def test_a_finding_stands_beside_what_it_was_about() -> None:
    shown = words(section(a_full_report(), "person"))
    assert "found canceled by momentum, 2026-11-23 12:00:00.999: momentum" in shown
    assert "A person has found out about 1 of them" in shown


def test_an_audit_that_is_not_intact_is_said_with_the_row() -> None:
    broken = a_report(verification=Verification(1, {}, Fault("jobs", "w", 7, "was changed")))
    assert "NO: jobs row 7 of w: was changed" in words(parsed(broken).find(".//div[@class='bad']"))
    assert parsed(broken).find(".//div[@class='good']") is None


def test_an_intact_audit_says_how_far_that_was_checked() -> None:
    assert "the ledger was not asked" in words(parsed(a_report(witnessed=False)))
    assert "as the ledger saw them" in words(parsed(a_report(witnessed=True)))


def test_an_empty_report_is_a_page_too() -> None:
    shown = words(parsed(a_report()))
    for said in ("none in this period", "Unresolved: 0", "No cancel ended in this period", "these are all 0"):
        assert said in shown


def test_the_fills_are_told_by_cancel_and_in_sum() -> None:
    lines = [a_line(job_id=f"job-{i}", order_id=i, outcome="filled", filled_qty=i) for i in (1, 2, 0)]
    filled = section(a_report(*lines, filled_contracts=3), "filled")
    assert "3 contracts in 2 orders" in words(filled)
    assert [words(row.find("th")) for row in filled.findall(".//tbody/tr")] == ["2", "1"]


def test_what_is_not_known_of_a_fill_is_a_question_mark() -> None:
    page = section(a_report(a_line(outcome="refused"), outcomes={"refused": 1}), "person")
    assert [words(cell) for cell in page.findall(".//tbody/tr/td")][6] == "?"


# ---------------------------------------------------------------------------------------------- how much


def some_lines(count: int, **facts: object) -> list[Line]:
    return [a_line(job_id=f"job-{i}", enqueued_at=at(i), **facts) for i in range(count)]


def test_a_page_lists_the_most_urgent_and_says_how_many_more_there_are() -> None:
    lines = [*some_lines(LISTED, outcome="canceled"), *some_lines(7, outcome="refused")]
    page = parsed(a_report(*lines, outcomes={"refused": 7, "canceled": LISTED}))
    rows = [row for table in page.findall(".//table[@class='jobs']") for row in table.findall("tbody/tr")]
    assert len(rows) == LISTED
    assert [words(row.find("td")) for row in rows[:8]] == ["refused"] * 7 + ["canceled"]
    assert f"lists {LISTED:,} of {LISTED + 7:,} cancels" in words(page)
    assert "7 more are in the csv and json formats" in words(page)


def test_even_the_unresolved_have_a_bound_and_it_is_said() -> None:
    page = a_report(*some_lines(LISTED + 5, outcome="unresolved"), outcomes={"unresolved": LISTED + 5})
    assert "5 more are in the csv and json formats" in words(section(page, "person"))


def test_those_without_a_finding_come_first() -> None:
    found = a_line(job_id="a finding", outcome="unresolved", resolved_as="filled")
    lines = [a_line(job_id="done", outcome="canceled"), found, a_line(job_id="bare", outcome="unresolved")]
    assert [line.job_id for line in foremost(lines, 2)] == ["bare", "a finding"]


def test_equal_reads_in_a_row_are_one_entry() -> None:
    told = a_timeline(a_look(seen=1), a_look(seen=2), a_look(seen=3, said="Canceled"), a_look(seen=4))
    assert [(entry.event.said, entry.times) for entry in story(told)[1:]] == [
        ("Working", 2),
        ("Canceled", 1),
        ("Working", 1),
    ]


def test_equal_attempts_stay_apart() -> None:
    assert len(story(a_timeline(an_attempt(1, sent=1), an_attempt(1, sent=1)))) == 3


def test_of_a_long_story_the_beginning_and_the_end_are_told() -> None:
    told = a_timeline(*(a_look(seen=i, said=f"status {i}") for i in range(100)))
    entries = story(told)
    assert len(entries) == EVENTS
    assert entries[0].event.kind is Happening.ENQUEUED
    assert entries[-1].event.said == "status 99"
    assert sum(entry.skipped for entry in entries) + len(entries) == 101


def test_many_groups_are_cut_and_that_is_said() -> None:
    hours = {at(0) + timedelta(hours=i): a_total(canceled=1) for i in range(130)}
    page = section(
        a_report(by_hour=hours, by_account={f"A{i}": a_total(open=1) for i in range(51)}), "totals"
    )
    assert "30 earlier in the json format" in words(page)
    assert "1 more in the json format" in words(page)


def test_the_template_and_its_style_are_part_of_the_package() -> None:
    folder = Path(__file__).parents[2] / "worker/report"
    assert {path.name for path in folder.iterdir()} >= {"page.html", "page.css", "patterns.svg"}
    assert not set("<&") & set((folder / "page.css").read_text())


@pytest.mark.parametrize(("evidence", "dry"), [("dry_run Working", True), ("seen_working Working", False)])
def test_a_dry_run_is_shown_above_all_else(evidence: str, *, dry: bool) -> None:
    page = parsed(a_report(a_line(outcome="unresolved", evidence=evidence)))
    assert (page.find("body/p[@class='dry']") is not None) is dry
