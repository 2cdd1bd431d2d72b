"""What a policy refuses in a scan: it is told from what is committed late, whoever was killed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from postroom import wire
from tests.integration.test_refusals import id_of, quarantined, set_policy, sized
from tests.relays import relaying, saved
from tests.stalling import stalling
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.site import Site

LOST = {"_data": "82" + "0" * 60}
# More than leave in one burst.
BEHIND = 600


def made(size: int, *, keyed: bool, stall: str | None = None) -> dict[str, Any]:
    """Return a row of about so many bytes, which may stand still."""
    found = sized(0, size)
    found["data"]["data"] |= {"key": "k"} if keyed else {}
    found["data"]["data"] |= {"stall": stall} if stall else {}
    return found


class Load:
    """Rows of which one is refused in the middle of a burst, once its relay is let on.

    `late` is committed when all others are, and has an id right beside the refused one's.
    """

    def __init__(self, site: Site, folder: Path, *, keyed: bool) -> None:
        # In the order of their ids, which are made one after the other.
        sizes: list[int | str] = [
            100_000,
            10,
            "first",
            *[10] * 5,
            60_001,
            60_000,
            *[10] * BEHIND,
            "second",
        ]
        self.rows = [
            made(10, keyed=keyed, stall=each) if isinstance(each, str) else made(each, keyed=keyed)
            for each in sizes
        ]
        # The large one leaves when the next row is there.
        self.late, self.large, self.refused = self.rows.pop(8), self.rows[0], self.rows[8]
        self._site, self._folder = site, folder

    def met(self, name: str) -> None:
        """Wait until the relay stands still at a place."""
        path = self._folder / f"{name}.met"
        wait_until(path.exists, description=f"the {name} stall")

    def let_on(self, name: str) -> None:
        """Let the relay go on from a place."""
        (self._folder / name).touch()

    def refuse(self) -> None:
        """Set a policy while the relay stands still, and have it send what comes next."""
        self.met("first")
        wait_until(lambda: self._site.stored()[-1:] == [id_of(self.large)], description="it")
        set_policy(self._site, "maxMessageSize", 20_000)
        self.let_on("first")

    def overtaken(self) -> None:
        """Wait until the topic has what stands behind the row that it refused."""
        self.met("second")
        last = id_of(self.rows[450])
        wait_until(lambda: last in self._site.stored(), description="what is behind it")

    def expected(self, *aside: dict[str, Any]) -> list[str]:
        """Return the ids in their order but for those that were set aside."""
        return [id_of(each) for each in self.rows if each not in aside]


def lose_history(site: Site) -> list[str]:
    """Relay one row, and have the checkpoint's token lead nowhere; return the row's id."""
    with relaying(site):
        first = site.insert(1)
        saved(site, 1)
    site.database[wire.CHECKPOINTS].update_one({}, {"$set": {"resumeToken": LOST}})
    return first


def all_there(site: Site, load: Load, count: int) -> list[str]:
    """Wait until so many events are on the topic and nothing is scanned; return them."""
    wait_until(lambda: len(site.stored()) >= count, description=f"{count} events")
    wait_until(lambda: "scan" not in site.checkpoint, description="the scan's end")
    site.outbox.insert_one(last := made(10, keyed=False))
    load.rows.append(last)
    wait_until(lambda: site.stored()[-1:] == [id_of(last)], description="the last one")
    return site.stored()


@pytest.mark.parametrize("lifted", [True, False], ids=["lifted", "kept"])
def test_a_row_that_is_refused_in_a_scan_never_comes_out_of_order(
    policies_site: Site, tmp_path: Path, *, lifted: bool
) -> None:
    """The relay sees it itself; the limit is gone when it sends the row again, or still there."""
    site, load = policies_site, Load(policies_site, tmp_path, keyed=True)
    first = lose_history(site)
    site.outbox.insert_many(load.rows)
    with relaying(site, wait=False, topics=stalling(tmp_path), key="key"):
        load.refuse()
        load.overtaken()
        if lifted:
            site.admin("DELETE", "/maxMessageSize")
        load.let_on("second")
        found = all_there(site, load, len(load.rows))
        wait_until(lambda: not site.checkpoint.get("intents"), description="nothing is left noted")
    assert list(quarantined(site)) == [id_of(load.refused)]
    assert found == [*first, *load.expected(load.refused)]


@pytest.mark.parametrize("begins", ["first start", "lost history"])
def test_a_killed_relay_leaves_word_of_what_it_handed_to_a_topic(
    policies_site: Site, tmp_path: Path, begins: str
) -> None:
    """The next one sets the refused row aside, and sends the one that was committed late."""
    site, load = policies_site, Load(policies_site, tmp_path, keyed=True)
    first = lose_history(site) if begins == "lost history" else []
    site.outbox.insert_many(load.rows)
    worker = site.start(f"python -m tests.stalling {tmp_path} key")
    load.refuse()
    load.overtaken()
    worker.kill()
    site.admin("DELETE", "/maxMessageSize")
    site.outbox.insert_one(load.late)
    load.let_on("second")
    with relaying(site, wait=False, topics=stalling(tmp_path), key="key"):
        found = all_there(site, load, len(load.rows))
    assert list(quarantined(site)) == [id_of(load.refused)]
    assert [each for each in found if each != id_of(load.late)] == [
        *first,
        *load.expected(load.refused),
    ]
    assert found.count(id_of(load.late)) == 1


def test_a_batch_that_is_refused_in_a_scan_has_nothing_behind_it(
    policies_site: Site, tmp_path: Path
) -> None:
    """Without keys nothing overtakes: once the limit is lifted all come in their order."""
    site, load = policies_site, Load(policies_site, tmp_path, keyed=False)
    first = lose_history(site)
    site.outbox.insert_many(load.rows)
    worker = site.start(f"python -m tests.stalling {tmp_path}")
    load.refuse()
    epoch = site.checkpoint["epoch"]
    # A batch leaves when its chunk is filled.
    load.let_on("second")
    wait_until(lambda: site.checkpoint["epoch"] > epoch, description="the next term")
    worker.kill()
    site.admin("DELETE", "/maxMessageSize")
    with relaying(site, wait=False, topics=stalling(tmp_path)):
        found = all_there(site, load, len(load.rows) + len(first))
    assert not quarantined(site)
    assert found == [*first, *load.expected()]


def test_history_that_is_lost_while_a_refused_row_is_under_way(
    policies_site: Site, tmp_path: Path
) -> None:
    """The stream has sent it, and the scan that comes next knows that it was refused."""
    site, load = policies_site, Load(policies_site, tmp_path, keyed=True)
    with relaying(site, topics=stalling(tmp_path), key="key"):
        site.outbox.insert_many(load.rows)
        load.refuse()
        load.overtaken()
        site.database[wire.CHECKPOINTS].update_one({}, {"$set": {"resumeToken": LOST}})
        site.admin("DELETE", "/maxMessageSize")
        site.outbox.insert_one(load.late)
        load.let_on("second")
        found = all_there(site, load, len(load.rows))
    assert list(quarantined(site)) == [id_of(load.refused)]
    assert [each for each in found if each != id_of(load.late)] == load.expected(load.refused)
    assert found.count(id_of(load.late)) == 1
