"""ReplicaSet: MongoDB of several members that can be killed, frozen and cut off one by one."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from pymongo import MongoClient
from pymongo import errors as mongo

from devstack.mongodb import REPLICA_SET, Mongod
from devstack.proxy import Network
from devstack.service import DevstackError, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Member", "ReplicaSet"]

CACHE_GB = 0.25
READY_SECONDS = 60.0
# A member that is asked to end would otherwise wait for its clients for a quarter of a minute.
QUICK_END = {"shutdownTimeoutMillisForSignaledShutdown": 100}
# A primary that is lost has a successor after some three seconds instead of a dozen.
ELECTIONS = {
    "electionTimeoutMillis": 2000,
    "heartbeatIntervalMillis": 500,
    "heartbeatTimeoutSecs": 2,
    "catchUpTimeoutMillis": 2000,
}


class Member(Mongod):
    """One member: a server, and the port by which members and clients know it."""

    def __init__(self, folder: Path, *, number: int, **options: Any) -> None:
        self.name = f"mongodb-{number}"
        self.number = number
        self.known_port = free_port()
        super().__init__(folder, port=free_port(), **options)

    @property
    def address(self) -> str:
        """The address by which members and clients know it."""
        return f"127.0.0.1:{self.known_port}"

    @property
    def primary(self) -> bool:
        """Whether it takes writes, as it sees it."""
        hello = self.hello()
        return bool(hello and hello.get("isWritablePrimary"))


class ReplicaSet:
    """A replica set on this machine; kill(), start(), freeze() and thaw() are its members' own.

    Takes what Mongod takes. `Member.url` leads to one member alone, whatever its state.
    """

    name = "mongodb"

    def __init__(
        self,
        folder: Path,
        *,
        members: int = 3,
        parameters: Mapping[str, object] | None = None,
        **options: Any,
    ) -> None:
        options = {
            "cache_gb": CACHE_GB,
            **options,
            "parameters": {**QUICK_END, **(parameters or {})},
        }
        self.members = [Member(folder, number=n, **options) for n in range(members)]
        self._network = Network()
        for member in self.members:
            self._network.listen(
                member.name, port=member.known_port, target=member.port, pids=self._pids
            )

    @property
    def url(self) -> str:
        """The connection string that POSTROOM_MONGODB_URI takes."""
        hosts = ",".join(member.address for member in self.members)
        return f"mongodb://{hosts}/?replicaSet={REPLICA_SET}"

    @property
    def running(self) -> bool:
        """Whether all members' processes are there."""
        return all(member.running for member in self.members)

    def start(self) -> None:
        """Start the members that do not run; wait_ready() says when they can be used."""
        for member in self.members:
            if not member.running:
                member.start()

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until there is a primary and every other member follows it.

        Raises:
            DevstackError: it was not so in time.

        """
        end = time.monotonic() + seconds
        for member in self.members:
            member.wait_ready()
        while not self._complete():
            if time.monotonic() > end:
                raise DevstackError(f"The replica set has no primary after {seconds:.0f} s")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop all members."""
        for member in self.members:
            member.stop()
        self._network.close()

    def primary(self, seconds: float = READY_SECONDS) -> Member:
        """Wait for a primary that a majority has elected, and return it.

        Of two that take themselves for it, the one elected last.

        Raises:
            DevstackError: there was none in time.

        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            claims = [(m.hello() or {}, m) for m in self.members]
            found = [(h["electionId"], m) for h, m in claims if h.get("isWritablePrimary")]
            if found:
                return max(found, key=lambda claim: claim[0])[1]
            time.sleep(0.1)
        raise DevstackError(f"The replica set has no primary after {seconds:.0f} s")

    def secondaries(self) -> Sequence[Member]:
        """Return the members that are not the primary."""
        primary = self.primary()
        return [member for member in self.members if member is not primary]

    def step_down(self, seconds: int = 10) -> Member:
        """Have the primary step down, for at least so long; return which that was."""
        member = self.primary()
        with (
            contextlib.suppress(mongo.PyMongoError),  # its connections may be closed by it
            MongoClient[Any](member.direct_url, socketTimeoutMS=15_000) as client,
        ):
            catch_up = max(1, seconds - 1)
            command = {"replSetStepDown": seconds, "secondaryCatchUpPeriodSecs": catch_up}
            client.admin.command(command)
        return member

    def isolate(self, member: Member) -> None:
        """Cut a member off from the others; clients still reach it. heal() ends that."""
        for other in self.members:
            if other is not member:
                self._network.cut(member.name, other.name)

    def heal(self) -> None:
        """Mend all links between the members."""
        self._network.mend()

    def restore(self) -> None:
        """Mend, thaw and start all members, and wait until the set is whole."""
        self.heal()
        for member in self.members:
            member.thaw()
        self.start()
        self.wait_ready()

    def _pids(self) -> Mapping[str, int]:
        return {m.name: m.pid for m in self.members if m.pid is not None}

    def _complete(self) -> bool:
        states = [member.hello() or {} for member in self.members]
        if not any(state.get("setName") for state in states):
            self._initiate()
            return False
        primaries = sum(bool(state.get("isWritablePrimary")) for state in states)
        followers = sum(bool(state.get("secondary")) for state in states)
        return primaries == 1 and followers == len(self.members) - 1

    def _initiate(self) -> None:
        members = [{"_id": m.number, "host": m.address} for m in self.members]
        config = {"_id": REPLICA_SET, "members": members, "settings": ELECTIONS}
        with (
            contextlib.suppress(mongo.PyMongoError),
            MongoClient[Any](self.members[0].direct_url) as client,
        ):
            client.admin.command("replSetInitiate", config)
