"""Stack: the services that the application needs, those apart that are configured already."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from devstack.brokers import Broker, Pulsar, PulsarLite
from devstack.mongodb import MongoDB
from devstack.service import DevstackError, Service, free_port
from devstack.valkey import Valkey

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Stack"]

PORTS = {"mongodb": 27017, "pulsar": 6650, "valkey": 6379, "flower": 5555}


class Stack:
    """Starts and stops the services under one folder, on ports that it finds again next time.

    A service is left out where the variable that names it is set: MongoDB for
    POSTROOM_MONGODB_URI, the broker for POSTROOM_PULSAR_URL, Valkey for POSTROOM_REDIS_URL.
    """

    def __init__(
        self,
        folder: Path,
        *,
        real_pulsar: bool = False,
        given: Mapping[str, str] | None = None,
        usual_ports: bool = True,
    ) -> None:
        self._folder = folder
        self._usual_ports = usual_ports
        self._given = os.environ if given is None else given
        folder.mkdir(parents=True, exist_ok=True)
        self.ports = self._choose_ports()
        self.mongodb: MongoDB | None = None
        self.broker: Broker | None = None
        self.valkey: Valkey | None = None
        if "POSTROOM_MONGODB_URI" not in self._given:
            self.mongodb = MongoDB(folder, port=self.ports["mongodb"])
        if "POSTROOM_PULSAR_URL" not in self._given:
            kind = Pulsar if real_pulsar else PulsarLite
            self.broker = kind(folder, port=self.ports["pulsar"])
        if "POSTROOM_REDIS_URL" not in self._given:
            self.valkey = Valkey(folder, port=self.ports["valkey"])

    @property
    def services(self) -> list[Service]:
        """The services that are started here."""
        return [s for s in (self.mongodb, self.broker, self.valkey) if s is not None]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead the application to the services."""
        found = {name: value for name, value in self._given.items() if name.startswith("POSTROOM_")}
        if self.mongodb:
            found["POSTROOM_MONGODB_URI"] = self.mongodb.url
        if self.broker:
            found["POSTROOM_PULSAR_URL"] = self.broker.url
            if self.broker.admin_url:
                found["POSTROOM_PULSAR_ADMIN_URL"] = self.broker.admin_url
        if self.valkey:
            found["POSTROOM_REDIS_URL"] = self.valkey.url
        return found

    def start(self) -> None:
        """Start all services and wait until they answer.

        Raises:
            DevstackError: one could not be started; the others have been stopped again.

        """
        try:
            for service in self.services:
                service.start()
            for service in self.services:
                service.wait_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all services, in order."""
        for service in reversed(self.services):
            service.stop()

    def _choose_ports(self) -> dict[str, int]:
        file = self._folder / "ports.json"
        known: dict[str, int] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(file.read_text())
        usual: Mapping[str, int | None] = PORTS if self._usual_ports else dict.fromkeys(PORTS)
        chosen = {name: free_port(known.get(name, port)) for name, port in usual.items()}
        if len(set(chosen.values())) != len(chosen):
            raise DevstackError(f"{file} names a port twice; remove it")
        file.write_text(json.dumps(chosen))
        return chosen
