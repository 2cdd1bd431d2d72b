"""Addresses: read for certain or refused, and never shown with a part of a secret."""

from __future__ import annotations

import copy
import os
import pickle
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st

from postroom import ConfigurationError, address, broker, settings

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW = 4
SIGNS = "abzAZ059/@:?#%;,&=[]!$'\"\\ ~|<>^{}`\n\tÄ漢"
secrets = st.text(st.sampled_from(SIGNS), min_size=WINDOW, max_size=24)
FORMS = [
    ("POSTROOM_MONGODB_URI", "mongodb://usr:{}@host.example:27018/db?replicaSet=rs0"),
    ("POSTROOM_MONGODB_URI", "mongodb://usr:{}@host.example:27018"),
    ("POSTROOM_MONGODB_URI", "mongodb+srv://usr:{}@host.example/?w=1"),
    ("POSTROOM_MONGODB_URI", "mongodb:/usr:{}@host.example:27018/"),
    ("POSTROOM_REDIS_URL", "redis://:{}@host.example:6380/0"),
    ("POSTROOM_REDIS_URL", "rediss://usr:{}@host.example:6380/0?ssl_cert_reqs=required"),
    ("POSTROOM_REDIS_URL", "redis:/:{}@host.example"),
    ("POSTROOM_PULSAR_URL", "pulsar://usr:{}@host.example:6650"),
    ("POSTROOM_PULSAR_ADMIN_URL", "http://usr:{}@host.example:8080"),
    ("POSTROOM_TOPIC", "mongodb://usr:{}@host.example/"),
]


def printed(variable: str, value: str) -> str:
    """Return all that can be read of a setting: the refusal, or reprs and what logs show."""
    with mock.patch.dict(os.environ, {variable: value}):
        try:
            found = settings.load()
        except ConfigurationError as error:
            return f"{error} {error!r} {error.__cause__!r}"
    field = getattr(found, variable.removeprefix("POSTROOM_").lower())
    return f"{found!r} {field!r} {broker.masked(field)}"


@pytest.mark.parametrize(("variable", "form"), FORMS)
@options(deadline=None)
@given(secret=secrets)
def test_no_part_of_a_secret_is_shown(variable: str, form: str, secret: str) -> None:
    """Whatever stands in the place of a password, no four characters of it are ever printed."""
    usual = "".join(printed(variable, value) for value in ("?", form.format(""), form.format("0")))
    shown = printed(variable, form.format(secret).replace("\0", ""))
    windows = {secret[i : i + WINDOW] for i in range(len(secret) - WINDOW + 1)}
    assert [w for w in windows if w in shown and w not in usual] == []


@options(deadline=None)
@given(secret=secrets)
def test_what_is_accepted_has_the_host_that_was_meant(secret: str) -> None:
    """A password is never taken for a part of the host, the database or an option."""
    for variable, form in FORMS[:6]:
        text = printed(variable, form.format(secret))
        if text.startswith("Settings("):
            assert text.rpartition(" ")[2].partition(":")[0] == "host.example"


@pytest.mark.parametrize(
    ("read", "url", "hosts"),
    [
        (address.mongodb, "mongodb://h", "h:27017"),
        (address.mongodb, "mongodb://a,b:27018/?replicaSet=rs0", "a:27017, b:27018"),
        (address.mongodb, "mongodb://u:p%40%2F@h/db.collection?authSource=admin", "h:27017"),
        (address.mongodb, "mongodb://[::1]:27017/?tls=true", "::1:27017"),
        (
            address.mongodb,
            "mongodb+srv://u:p@cluster0.example.net/?retryWrites=true",
            "cluster0.example.net",
        ),
        (address.mongodb, "mongodb+srv://c.example.net/?srvMaxHosts=2&w=majority", "c.example.net"),
        (address.mongodb, "mongodb://h/?unknownToPyMongo=1", "h:27017"),
        (address.mongodb, "mongodb://%2Frun%2Fmongodb.sock/", "/run/mongodb.sock"),
        (address.redis, "redis://h", "h:6379"),
        (address.redis, "redis://:p%2Fw@h:1/15", "h:1"),
        (address.redis, "rediss://[::1]/0?ssl_cert_reqs=none", "[::1]:6379"),
        (address.redis, "redis+socket:///run/redis.sock?virtual_host=1", "/run/redis.sock"),
        (address.pulsar, "pulsar://h", "h"),
        (address.pulsar, "pulsar+ssl://a:6651,b-1.example:6651/", "a:6651, b-1.example:6651"),
        (address.http, "https://h/pulsar", "h:443"),
    ],
)
def test_the_usual_forms_are_read(read: Callable[[str], Any], url: str, hosts: str) -> None:
    """Each form that the services' own clients take is accepted as it is."""
    found = read(url)
    assert (found, found.hosts) == (url, hosts)
    assert address.shown(url) == hosts


@pytest.mark.parametrize(
    ("read", "url"),
    [
        (address.mongodb, "localhost:27017"),
        (address.mongodb, "mongodb://h:0/"),
        (address.mongodb, "mongodb://usr:12/34@h/"),
        (address.mongodb, "mongodb://usr:12?a=b@h/"),
        (address.mongodb, "mongodb://a host/"),
        (address.mongodb, "mongodb://a,,b/"),
        (address.mongodb, "mongodb+srv://a,b/"),
        (address.mongodb, "mongodb+srv://a:27017/"),
        (address.mongodb, "mongodb+srv://a/?directConnection=true"),
        (address.mongodb, "mongodb://a,b/?directConnection=true"),
        (address.redis, "unix:///run/redis.sock"),
        (address.redis, "redis://h/zero"),
        (address.redis, "redis://:12/34@h/0"),
        (address.redis, "redis://:a;b@h/0"),
        (address.redis, "redis://h:99999"),
        (address.pulsar, "http://h:8080"),
        (address.pulsar, "pulsar://h:70000"),
        (address.pulsar, "pulsar://h/public"),
        (address.pulsar, "pulsar://h,,g"),
        (address.http, "http://u@h"),
        (address.http, "h:8080"),
        (address.redis, "redis+socket://:S3cret@/tmp/r.sock"),
        (address.redis, "redis+socket:///tmp/r.sock?password=S3cret"),
        (address.redis, "rediss://h/0?ssl_password=S3cret"),
        (address.redis, "redis://h/0?password=S3cret"),
        (address.redis, "redis://h/0?db=2"),
        (address.redis, "redis://S3cret@h/0"),
        (address.redis, "REDISS://h/0"),
        (address.redis, "rediss://h/0?ssl_cert_reqs=bogus"),
        (address.redis, "rediss://h/0?ssl_check_hostname=maybe"),
        (address.pulsar, "pulsar://h:\u0663"),
        (address.http, "HTTPS://h"),
        (address.mongodb, "mongodb://h:\u0663/"),
        (address.mongodb, "mongodb://usr@h/"),
        (address.mongodb, "mongodb://usr:@h/"),
        (address.mongodb, "mongodb://h/#S3cret"),
        (address.mongodb, "mongodb://h/?appName=a#S3cret"),
        (address.mongodb, "mongodb+srv://usr@h.example.net"),
    ],
)
def test_what_cannot_be_read_for_certain_is_refused(read: Callable[[str], Any], url: str) -> None:
    """A doubt is an error at the start, and not a retry for ever."""
    with pytest.raises(ValueError, match=r"^(no address|an address whose option)"):
        read(url)


def test_a_wrong_option_of_mongodb_is_named_without_its_value() -> None:
    """PyMongo would ignore the value with a warning that quotes it."""
    with pytest.raises(
        ValueError, match="an address whose option authMechanismProperties has"
    ) as refused:
        address.mongodb("mongodb://h/?w=1&authMechanismProperties=topsecret")
    assert "topsecret" not in str(refused.value)


def test_what_compresses_needs_its_package() -> None:
    """PyMongo would leave it out with a warning; a name that it does not know is a wrong value."""
    with pytest.raises(ValueError, match="whose compressors zstd,zlib needs a package that is not"):
        address.mongodb("mongodb://h/?compressors=zstd,zlib")
    with pytest.raises(ValueError, match="whose option compressors has a wrong value"):
        address.mongodb("mongodb://h/?compressors=S3cret")
    assert address.mongodb("mongodb://h/?compressors=zlib").hosts == "h:27017"


def test_an_address_is_copied_and_pickled_and_never_shown() -> None:
    """It remains one, and its repr is its hosts."""
    found = address.redis("redis://:secret@h:1/0")
    for again in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):  # noqa: S301 - ours
        assert again == found
        assert again.hosts == "h:1"
        assert repr(again) == "<h:1>"
