"""Changes: the outbox is divided anew in the middle of a run, whatever is killed meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tests.chaos.disturbances import pause
from tests.chaos.torment import Disturbance

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from tests.chaos.fleet import Fleet
    from tests.chaos.layout import Layout
    from tests.chaos.ledger import Ledger
    from tests.chaos.services import Services
    from tests.chaos.witness import Witness
    from tests.chaos.writers import Writers

__all__ = ["Changes"]

# Rows that wait for a topic's policy are waited for, too.
CHANGE_SECONDS = 180.0
ARRIVAL_SECONDS = 10.0
KILLS = 3
# Workers of the old number end by themselves with it, which is no death.
OLD_NUMBER = 1


class Changes:
    """Has the outbox divided into twice as many outbox partitions, until there are `most`.

    The command is killed and called again, and workers are killed, while it goes on. `layouts` has
    what there was, and last what there is. What of the old ones has not been consumed when the new
    ones are opened raises: a consumer might get a newer event of a key first.
    """

    def __init__(
        self,
        application: str,
        services: Services,
        dice: random.Random,
        *,
        topics: Sequence[str],
        layout: Layout,
        most: int,
    ) -> None:
        self.layouts = [layout]
        self._application = application
        self._services, self._dice, self._topics = services, dice, topics
        self._most = most

    def of(
        self, fleet: Fleet, writers: Writers, ledger: Ledger, witness: Witness
    ) -> Sequence[Disturbance]:
        """Return what does it, if there is anything left to do."""

        def divide() -> None:
            if self.layouts[-1].count * 2 > self._most:
                return
            fleet.expected.add(OLD_NUMBER)
            self._divide(fleet)
            self._require_consumed(ledger)
            new = self.layouts[-1].doubled()
            self._grow(new)
            witness.follow(new.logs(self._topics))
            self.layouts.append(new)
            writers.layout = new
            fleet.environment["POSTROOM_PARTITIONS"] = str(new.count)
            for n in range(len(fleet)):
                fleet.end(n, self._dice.choice([signal.SIGKILL, signal.SIGTERM]))
            fleet.expected.discard(OLD_NUMBER)

        if self.layouts[-1].count >= self._most:
            return []
        return [Disturbance(name="divided anew", act=divide, seconds=20, weight=4)]

    def _divide(self, fleet: Fleet) -> None:
        end, kills = time.monotonic() + CHANGE_SECONDS, 0
        while True:
            command = self._command(fleet)
            patience = self._dice.uniform(0.5, 5.0) if kills < KILLS else CHANGE_SECONDS
            try:
                code = command.wait(patience)
            except subprocess.TimeoutExpired:
                command.kill()
                command.wait()
                kills += 1
                fleet.end(self._dice.randrange(len(fleet)), signal.SIGKILL)
            else:
                if code == 0:
                    return
                pause(1.0)  # a service was away
            if time.monotonic() > end:
                raise AssertionError(f"The outbox was not divided anew in {CHANGE_SECONDS:.0f} s")

    def _command(self, fleet: Fleet) -> subprocess.Popen[bytes]:
        words = ["-m", "celery", "-A", self._application, "outbox", "partitions", "--yes"]
        return subprocess.Popen(
            [sys.executable, *words, "--to", str(2 * self.layouts[-1].count)],
            env={**os.environ, **fleet.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _require_consumed(self, ledger: Ledger) -> None:
        # No row is written meanwhile: the old ones are closed, and nobody knows the new ones.
        mark = ledger.mark()
        end = time.monotonic() + ARRIVAL_SECONDS
        while missing := ledger.accounts.missing(mark):
            if time.monotonic() > end:
                raise AssertionError(f"Opened with {dict(missing)} of before under way")
            pause(0.1)  # what was set aside is told by a change stream

    def _grow(self, new: Layout) -> None:
        """Have the topics grow to which this deploy sends nothing, and a later one may."""
        for topic in self._topics:
            there = self._services.admin("GET", topic, "partitions")
            if f'"partitions":{new.count}'.encode() not in there.replace(b" ", b""):
                self._services.admin("POST", topic, "partitions", new.count)
