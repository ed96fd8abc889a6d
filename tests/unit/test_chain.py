"""The canonical text of a row and the digest over it."""

import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.audit.chain import GENESIS, Head, canonical, digest, named, sealed

CELLS = ("job-1", 9007199254740993, True, None, "2026-11-23T12:00:00.000000Z")


def text_of(*cells: object, writer: str = "w", seq: int = 1, prev: str = GENESIS) -> str:
    return canonical("jobs", writer, Head(seq, prev), "https://demo/v1", cells)


def test_the_text_is_a_plain_json_list_with_exact_integers() -> None:
    expected = (
        '["jobs","w",1,"","https://demo/v1","job-1",9007199254740993,true,null,"2026-11-23T12:00:00.000000Z"]'
    )
    assert text_of(*CELLS) == expected


@given(st.lists(st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text()))
def test_the_text_is_what_the_standard_library_writes(cells: list[object]) -> None:
    """An auditor's own check must not depend on the encoder that we use."""
    plain = json.dumps(
        ["jobs", "w", 1, "", "https://demo/v1", *cells], ensure_ascii=False, separators=(",", ":")
    )
    while plain.endswith(",null]"):
        plain = plain.removesuffix(",null]") + "]"
    assert text_of(*cells) == plain


def test_the_digest_is_sha256_over_its_utf8() -> None:
    assert digest('["é"]') == sha256('["é"]'.encode()).hexdigest()


def test_a_column_appended_by_a_later_schema_leaves_old_digests_as_they_are() -> None:
    assert text_of("a", None) == text_of("a", None, None)


def test_a_null_between_values_counts() -> None:
    assert text_of("a", None, "b") != text_of("a", "b")


@pytest.mark.parametrize(
    "other",
    [
        text_of("a", writer="v"),
        text_of("a", seq=2),
        text_of("a", prev="00"),
        text_of("b"),
        text_of("a", ""),
        text_of("a", 0),
        text_of("a", False),
    ],
)
def test_every_part_of_a_row_and_its_place_counts(other: str) -> None:
    assert digest(other) != digest(text_of("a"))


@pytest.mark.parametrize("odd", ["\ud800", b"\xff", 2**64])
def test_what_no_database_takes_has_no_text(odd: object) -> None:
    with pytest.raises(TypeError):
        text_of(odd)


def test_the_text_of_a_seal_is_a_plain_json_list_with_what_it_names_as_text() -> None:
    names = named({"w-2": Head(2, "y"), "w-1": Head(1, "x")})
    assert names == '[["w-1",1,"x"],["w-2",2,"y"]]'
    text = sealed(Head(3, "before"), "https://demo/v1", ("2026-11-23T12:00:00.000000Z", names))
    assert json.loads(text) == [
        "seals", 3, "before", "https://demo/v1", "2026-11-23T12:00:00.000000Z", names,
    ]  # fmt: skip
