"""Celery meets the very server that redis-py would, under the same rules."""

from typing import Any

import pytest

from worker.ledger.connection import broker_settings

VERIFIED = {"ssl_cert_reqs": "required"}


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("unix:///run/valkey.sock", {"broker_url": "redis+socket:///run/valkey.sock?virtual_host=0"}),
        ("unix:///run/valkey.sock?db=3", {"broker_url": "redis+socket:///run/valkey.sock?virtual_host=3"}),
        ("redis://u:p@host:6380/2", {"broker_url": "redis://u:p@host:6380/2"}),
        ("redis://:p%3B%2F%40@[::1]", {"broker_url": "redis://:p%3B%2F%40@[::1]:6379/0"}),
        ("redis://host?socket_timeout=9", {"broker_url": "redis://host:6379/0"}),
        ("rediss://host/0", {"broker_url": "redis://host:6379/0", "broker_use_ssl": VERIFIED}),
        (
            "rediss://host/0?ssl_ca_certs=/ca.pem&ssl_check_hostname=false",
            {
                "broker_url": "redis://host:6379/0",
                "broker_use_ssl": VERIFIED | {"ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False},
            },
        ),
    ],
)
def test_celery_gets_the_address_in_its_own_words(url: str, wanted: dict[str, Any]) -> None:
    assert broker_settings(url) == wanted
