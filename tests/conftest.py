"""Services for the tests: embedded ones for the session, a corner of them for each test."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pytest
from hypothesis import HealthCheck, settings

from devstack.brokers import Pulsar
from devstack.cluster import PulsarCluster
from devstack.jars import NEEDED, has_java
from devstack.replica_set import ReplicaSet
from devstack.service import free_port
from devstack.stack import Stack
from devstack.valkey import Valkey
from tests.certificates import Authority
from tests.crashes import SurvivingScheduling
from tests.own_handlers import own_handlers
from tests.secured_mongodb import SecuredMongoDB
from tests.secured_pulsar import SecuredPulsar
from tests.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from xdist.remote import Producer

    from devstack.brokers import Broker
    from postroom.inbox.handling.handlers import Registry

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # What a shell runs in the background ignores Ctrl-C, and so would every command under test.
    signal.signal(signal.SIGINT, signal.default_int_handler)

REQUIRE_ALL = os.environ.get("POSTROOM_REQUIRE_ALL") == "1"
REDIS_DATABASES = 16


# A machine that is busy with other tests is slow for an instant, and that is no fault.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# Services that few tests use, and that take long to start, or the machine; and the process's name.
RARE = {
    "_cluster": "cluster",
    "_replica_set": "replica set",
    "pulsar_with_policies": "policies",
    "secured_mongodb": "secured",
    "secured_pulsar": "secured",
}

NAME = pytest.StashKey[Any]()


class Runnable(Protocol):
    """A service, or several that are one."""

    def start(self) -> None:
        """Start it."""

    def wait_ready(self) -> None:
        """Wait until it can be used."""

    def stop(self) -> None:
        """Stop it, or what there is of it."""


Given = TypeVar("Given", bound=Runnable)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SurvivingScheduling | None:
    """Have a run come to its end where one of its processes crashes."""
    return SurvivingScheduling(config, log) if config.getoption("dist") == "loadgroup" else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Have the tests that share a rare service run in one process, which alone starts it.

    The scheduler finds the group behind a test's name. xdist 3.8 cannot put it there by its own
    mark: pytest 9.2 keeps names elsewhere.
    """
    for item in session.items if hasattr(session.config, "workerinput") else ():
        if group := _group(item):
            item.stash[NAME] = item.id
            item._id = type(item.id).parse(f"{item.nodeid}@{group}")


@pytest.hookimpl(trylast=True, specname="pytest_collection_finish")
def pytest_take_the_groups_off(session: pytest.Session) -> None:
    """Give the tests their names back: `--last-failed` would not find them."""
    for item in session.items:
        if NAME in item.stash:
            item._id = item.stash[NAME]


def _group(item: pytest.Item) -> str | None:
    names = getattr(item, "fixturenames", ())
    rare = [group for service, group in RARE.items() if service in names]
    if rare:
        return rare[0]
    definitions = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009 - typed nowhere
    shared = any(
        fixture.scope == "module" for name in names for fixture in definitions.get(name, ())
    )
    return item.nodeid.partition("::")[0] if shared else None


@pytest.fixture(scope="session", autouse=True)
def no_settings_from_outside() -> None:
    """Keep the developer's own POSTROOM_* out of the tests."""
    for name in [name for name in os.environ if name.startswith("POSTROOM_")]:
        if name != "POSTROOM_REQUIRE_ALL":
            del os.environ[name]


@pytest.fixture
def own() -> Iterator[Registry]:
    """Have handlers be gone at the end of the test."""
    with own_handlers() as registry:
        yield registry


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the session's services."""
    return tmp_path_factory.mktemp("services")


def running(service: Given) -> Iterator[Given]:
    """Lend a service from its start to its stop."""
    try:
        service.start()
        service.wait_ready()
        yield service
    finally:
        service.stop()


@pytest.fixture(scope="session")
def stack(folder: Path) -> Iterator[Stack]:
    """Lend MongoDB, the compatible broker and Valkey."""
    found = Stack(folder, given={}, usual_ports=False)
    found.start()
    yield found
    found.stop()


@pytest.fixture(scope="session")
def outbox_services(stack: Stack) -> dict[str, str]:
    """Have the test kit take the services that are here already, as settings would name them."""
    return dict(stack.environment)


@pytest.fixture(scope="session")
def pulsar_server(folder: Path) -> Iterator[Pulsar]:
    """Lend real Apache Pulsar, or skip where it cannot run."""
    yield from _running_pulsar(folder)


@pytest.fixture(scope="session")
def pulsar_with_policies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pulsar]:
    """Lend real Apache Pulsar whose topics may have policies of their own."""
    yield from _running_pulsar(tmp_path_factory.mktemp("policies"), topic_policies=True)


def _require_java() -> None:
    if not has_java():
        pytest.fail(NEEDED) if REQUIRE_ALL else pytest.skip(NEEDED)


def _running_pulsar(folder: Path, **options: Any) -> Iterator[Pulsar]:
    _require_java()
    yield from running(Pulsar(folder, port=free_port(), light=True, **options))


@pytest.fixture
def new_pulsar(tmp_path: Path) -> Iterator[Callable[..., Pulsar]]:
    """Lend a way to start a broker of the test's own, with what Pulsar takes; some 8 s each."""
    with contextlib.ExitStack() as running:

        def start(**options: Any) -> Pulsar:
            folder = tmp_path / f"pulsar-{free_port()}"
            start_and_stop = contextlib.contextmanager(_running_pulsar)
            return running.enter_context(start_and_stop(folder, **options))

        yield start


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return the authority that the secured services and their clients trust."""
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def secured_mongodb(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[SecuredMongoDB]:
    """Lend MongoDB with TLS and authentication."""
    found = SecuredMongoDB(tmp_path_factory.mktemp("secured"), authority, port=free_port())
    found.start()
    try:
        found.wait_ready()
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="session")
def secured_pulsar(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[SecuredPulsar]:
    """Lend real Apache Pulsar with TLS, authentication and authorization."""
    _require_java()
    found = SecuredPulsar(tmp_path_factory.mktemp("secured"), authority, port=free_port())
    found.start()
    try:
        found.wait_ready()
        yield found
    finally:
        found.stop()


@pytest.fixture
def secured_site(
    secured_mongodb: SecuredMongoDB,
    secured_pulsar: SecuredPulsar,
    environment: dict[str, str],
    tmp_path: Path,
) -> Iterator[Site]:
    """Lend a corner of the secured services, of which the test itself may do everything."""
    found = Site(
        {
            **environment,
            **secured_pulsar.environment_of_superuser,
            "POSTROOM_MONGODB_URI": secured_mongodb.url,
        },
        tmp_path,
    )
    yield found
    found.close()


@pytest.fixture(scope="session")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulsarCluster]:
    _require_java()
    yield from running(PulsarCluster(tmp_path_factory.mktemp("cluster")))


@pytest.fixture
def cluster(_cluster: PulsarCluster) -> Iterator[PulsarCluster]:
    """Lend Apache Pulsar of two brokers, which are whole again after the test; some 30 s."""
    yield _cluster
    _cluster.restore()


@pytest.fixture(scope="session")
def _replica_set(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaSet]:
    folder = tmp_path_factory.mktemp("replica-set")
    yield from running(ReplicaSet(folder, parameters={"enableTestCommands": 1}))


@pytest.fixture
def replica_set(_replica_set: ReplicaSet) -> Iterator[ReplicaSet]:
    """Lend MongoDB of three members, which are whole again after the test."""
    yield _replica_set
    _replica_set.restore()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """Lend a Valkey of the test's own, which it may bring into any state."""
    yield from running(Valkey(tmp_path / "own", port=free_port()))


_redis_database = itertools.cycle(range(1, REDIS_DATABASES))


@pytest.fixture
def environment(stack: Stack) -> dict[str, str]:
    """Return the variables that lead to the session's services, with an own Redis database."""
    found = stack.environment
    address = found["POSTROOM_REDIS_URL"].rpartition("/")[0]
    return {**found, "POSTROOM_REDIS_URL": f"{address}/{next(_redis_database)}"}


@pytest.fixture(params=["lite", pytest.param("pulsar", marks=pytest.mark.pulsar)])
def site(
    request: pytest.FixtureRequest, environment: dict[str, str], tmp_path: Path
) -> Iterator[Site]:
    """Lend a corner of the services, once with each broker."""
    if request.param == "pulsar":
        environment = _with_pulsar(request, environment)
    found = Site(environment, tmp_path)
    yield found
    found.close()


@pytest.fixture
def site_on(
    pulsar_server: Pulsar, environment: dict[str, str], tmp_path: Path
) -> Iterator[Callable[[str], Site]]:
    """Lend sites whose MongoDB is another one, by its URI, at the test run's own Pulsar."""
    with contextlib.ExitStack() as sites:

        def lend(mongodb: str) -> Site:
            own = {"POSTROOM_MONGODB_URI": mongodb, "POSTROOM_PULSAR_URL": pulsar_server.url}
            return sites.enter_context(contextlib.closing(Site({**environment, **own}, tmp_path)))

        yield lend


@pytest.fixture
def pulsar_site(
    request: pytest.FixtureRequest, environment: dict[str, str], tmp_path: Path
) -> Iterator[Site]:
    """Lend a corner of the services with real Apache Pulsar."""
    found = Site(_with_pulsar(request, environment), tmp_path)
    yield found
    found.close()


@pytest.fixture(params=["key_shared", "failover"])
def each_type(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers subscribe in the one way, and in the other."""
    monkeypatch.setenv("POSTROOM_SUBSCRIPTION_TYPE", request.param)


@pytest.fixture
def policies_site(
    pulsar_with_policies: Pulsar, environment: dict[str, str], tmp_path: Path
) -> Iterator[Site]:
    """Lend a corner of the services with a broker whose topics may have policies of their own."""
    found = Site({**environment, **addresses(pulsar_with_policies)}, tmp_path)
    yield found
    found.close()


@pytest.fixture
def replicated_site(
    replica_set: ReplicaSet, pulsar_server: Pulsar, environment: dict[str, str], tmp_path: Path
) -> Iterator[Site]:
    """Lend a corner of the services with MongoDB of three members and real Apache Pulsar."""
    mongodb = {"POSTROOM_MONGODB_URI": replica_set.url}
    found = Site({**environment, **addresses(pulsar_server), **mongodb}, tmp_path)
    yield found
    replica_set.restore()  # for the site to remove its data
    found.close()


@pytest.fixture
def lite_site(environment: dict[str, str], tmp_path: Path) -> Iterator[Site]:
    """Lend a corner of the services with the compatible broker."""
    found = Site(environment, tmp_path)
    yield found
    found.close()


def _with_pulsar(request: pytest.FixtureRequest, environment: dict[str, str]) -> dict[str, str]:
    return {**environment, **addresses(request.getfixturevalue("pulsar_server"))}


def addresses(broker: Broker | PulsarCluster) -> dict[str, str]:
    """Return the variables that lead to a broker, to be laid over others."""
    found = {"POSTROOM_PULSAR_URL": broker.url}
    if broker.admin_url:
        found["POSTROOM_PULSAR_ADMIN_URL"] = broker.admin_url
    return found
