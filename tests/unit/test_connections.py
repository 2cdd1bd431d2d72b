"""What the doctor says of connections by the settings alone: in clear, encrypted, or trusting."""

from __future__ import annotations

import pytest

from postroom import Settings
from postroom.findings import Grade
from postroom.operations.examining import configured

HERE, CLEAR, TRUSTING, FINE = (
    "this machine",
    "another machine",
    "trust whoever answers",
    "encrypted",
)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("mongodb_uri", "mongodb://127.0.0.1/", HERE),
        ("mongodb_uri", "mongodb://%2Frun%2Fmongodb.sock/", HERE),
        ("mongodb_uri", "mongodb://[::1]:27018/", HERE),
        ("mongodb_uri", "mongodb://localhost,db.example/", CLEAR),
        ("mongodb_uri", "mongodb://db.example/?tls=true", FINE),
        ("mongodb_uri", "mongodb://db.example/?tls=true&tlsInsecure=true", TRUSTING),
        ("mongodb_uri", "mongodb://db/?ssl=true&tlsAllowInvalidCertificates=true", TRUSTING),
        ("mongodb_uri", "mongodb://db/?tls=true&tlsallowinvalidhostnames=true", TRUSTING),
        ("mongodb_uri", "mongodb+srv://db.example/?srvMaxHosts=2", FINE),
        ("mongodb_uri", "mongodb+srv://db.example/?tls=false", CLEAR),
        ("mongodb_uri", "mongodb+srv://db.example/?tlsInsecure=true", TRUSTING),
        ("redis_url", "redis+socket:///run/redis.sock", HERE),
        ("redis_url", "redis://127.1.2.3/0", HERE),
        ("redis_url", "redis://cache/0", CLEAR),
        ("redis_url", "rediss://cache/0", FINE),
        ("redis_url", "rediss://cache/0?ssl_cert_reqs=required", FINE),
        ("redis_url", "rediss://cache/0?ssl_cert_reqs=none", TRUSTING),
        ("redis_url", "rediss://cache/0?ssl_cert_reqs=CERT_OPTIONAL", TRUSTING),
        ("redis_url", "rediss://cache/0?ssl_check_hostname=false", TRUSTING),
        ("pulsar_url", "pulsar://localhost:6650,broker:6650", CLEAR),
        ("pulsar_url", "pulsar+ssl://broker", FINE),
        ("pulsar_admin_url", "http://broker:8080", CLEAR),
        ("pulsar_admin_url", "https://broker", FINE),
        ("pulsar_admin_url", "http://127.0.0.1:8080", HERE),
    ],
)
def test_how_a_connection_is_secured_is_told(name: str, value: str, words: str) -> None:
    """Of all hosts that the address names; what anybody could stand in for is a warning."""
    found = configured.examine(Settings(**{name: value}))  # type: ignore[arg-type]
    (told,) = [each for each in found if each.what == f"TLS of POSTROOM_{name.upper()}"]
    assert words in told.found
    assert (told.grade is Grade.WARN) is (words in {CLEAR, TRUSTING})
