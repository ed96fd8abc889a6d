"""An answer that quotes our own token is made safe to record; any other answer stays as it came."""

import json

import pytest
from requests import PreparedRequest, Request

from worker.exchange.quoted import body_without_token, text_without_token

TOKEN = "0123456789/+abcdef"
ESCAPED = "".join(f"\\u{ord(char):04x}" for char in TOKEN)


def asked(token: str) -> PreparedRequest:
    return Request("GET", "https://localhost/", headers={"Authorization": f"Bearer {token}"}).prepare()


@pytest.mark.parametrize(
    ("token", "answer", "recorded"),
    [
        (TOKEN, "Bearer 0123456789/+abcdef has expired", "Bearer *** has expired"),
        (TOKEN, "/login?token=0123456789%2F%2Babcdef", "/login?token=***"),
        (TOKEN, "/login?token=0123456789/%2Babcdef", "/login?token=***"),
        (
            TOKEN,
            r'{"failureText": "no rights for 0123456789\/+abcdef"}',
            '{"failureText": "no rights for ***"}',
        ),
        (TOKEN, f'{{"failureText": "{ESCAPED}"}}', '{"failureText": "***"}'),
        (
            TOKEN,
            r'{"failureText": "\u0041 or \/ is no token"}',
            r'{"failureText": "\u0041 or \/ is no token"}',
        ),
        (TOKEN, r"\ is no JSON", r"\ is no JSON"),
        (TOKEN, '{"commandId": 5000000001}', '{"commandId": 5000000001}'),
        ("any", '{"failureText": "any"}', '{"failureText": "any"}'),
    ],
)
def test_only_a_quoted_token_is_taken_out_of_an_answer(token: str, answer: str, recorded: str) -> None:
    assert body_without_token(answer.encode(), asked(token), cut=False) == recorded.encode()


@pytest.mark.parametrize("length", range(9, len(TOKEN)))
def test_of_a_token_that_the_cap_cut_nothing_is_left(length: int) -> None:
    body = b"said: " + TOKEN[:length].encode()
    assert body_without_token(body, asked(TOKEN), cut=True) == b"said: ***"
    assert body_without_token(body, asked(TOKEN), cut=False) == body  # a whole answer has no reason to end so


def test_headers_and_errors_hide_it_too() -> None:
    assert text_without_token(f"BadStatusLine: Bearer {TOKEN}", asked(TOKEN)) == "BadStatusLine: Bearer ***"


def test_a_request_without_a_token_has_none_to_hide() -> None:
    plain = Request("POST", "https://localhost/").prepare()
    assert body_without_token(json.dumps("said").encode(), plain, cut=True) == b'"said"'
    assert text_without_token("said", plain) == "said"
