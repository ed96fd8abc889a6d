"""Who could listen on the way to Redis and to the database, told from addresses alone."""

import pytest

from worker.doctor.finding import Grade
from worker.doctor.roads import DATABASE, REDIS, Road, database_road, mend_for, redis_road, road_finding


@pytest.mark.parametrize(
    ("url", "road"),
    [
        ("unix:///run/valkey.sock", Road.LOCAL),
        ("redis://127.0.0.1", Road.LOCAL),
        ("redis://localhost:7000/2", Road.LOCAL),
        ("redis://127.0.0.2", Road.LOCAL),
        ("redis://:secret@valkey:6379/0", Road.PLAIN),
        ("redis://127.0.0.1.example.com", Road.PLAIN),
        ("rediss://valkey", Road.VERIFIED),
        ("rediss://valkey?ssl_ca_certs=/ca.pem&ssl_cert_reqs=required", Road.VERIFIED),
        ("rediss://valkey?ssl_cert_reqs=none", Road.UNVERIFIED),
        ("rediss://valkey?ssl_cert_reqs=optional", Road.UNVERIFIED),
        ("rediss://valkey?ssl_check_hostname=false", Road.UNVERIFIED),
    ],
)
def test_the_road_to_redis_is_told_from_its_address(url: str, road: Road) -> None:
    assert redis_road(url) is road


@pytest.mark.parametrize(
    ("host", "sslmode", "encrypted", "road"),
    [
        ("/run/postgresql", "prefer", False, Road.LOCAL),
        ("localhost", "prefer", False, Road.LOCAL),
        ("db", "prefer", False, Road.PLAIN),
        ("db", "prefer", True, Road.UNVERIFIED),
        ("db", "require", True, Road.UNVERIFIED),
        ("db", "verify-ca", True, Road.UNVERIFIED),
        ("db", "verify-full", True, Road.VERIFIED),
    ],
)
def test_the_road_to_the_database_is_told_from_the_connection(
    *, host: str, sslmode: str, encrypted: bool, road: Road
) -> None:
    assert database_road({"host": host, "sslmode": sslmode}, encrypted=encrypted) is road


def test_only_a_road_on_which_others_could_listen_is_warned_of() -> None:
    grades = {road: [finding.grade for finding in road_finding(REDIS, road)] for road in Road}
    assert grades == {
        Road.LOCAL: [Grade.OK],
        Road.VERIFIED: [Grade.OK],
        Road.UNVERIFIED: [Grade.WARNING],
        Road.PLAIN: [Grade.WARNING],
    }


def test_a_certificate_that_is_not_believed_is_mended_by_naming_its_ca() -> None:
    assert "sslrootcert" in mend_for("server certificate for x does not match", DATABASE, "restart it")
    assert mend_for("Connection refused", DATABASE, "restart it") == "restart it"
