"""Events that the broker cannot read: on the topic, in the dead letters and on their way back."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import orjson

from postroom import Outbox
from tests.relays import relaying
from tests.shops import Shop

if TYPE_CHECKING:
    import pytest

    from tests.site import Site

NEW = f"new:{base64.b64encode(bytes(range(32))).decode()}"
OLD = f"old:{base64.b64encode(bytes(range(1, 33))).decode()}"


def test_what_is_encrypted_is_handled_given_up_and_put_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler gets plain data; the topics never do, and a worker without the key names it."""
    monkeypatch.setitem(site.environment, "POSTROOM_ENCRYPTION_KEYS", f"{NEW},{OLD}")
    shop, plain = Shop(site), site.subscribe()
    with relaying(site, encrypt="all"):
        # As another program writes them, and as Outbox does.
        site.outbox.insert_many(
            {"data": {"name": "Counted", "data": {"number": number}}, "partitionKey": "default"}
            for number in (1, 2)
        )
        Outbox(site.database).publish({"name": "Rejected", "data": {"number": 3}})
        messages = site.receive(plain, 3)
    assert {message.properties()["postroom-envelope-key"] for message in messages} == {"new"}
    assert not any(b"number" in message.data() for message in messages)

    behind = shop.worker(POSTROOM_ENCRYPTION_KEYS=OLD)
    letters = shop.dead(3)
    reasons = {letter.properties()["dead-letter-reason"] for letter in letters}
    said = "which is not among POSTROOM_ENCRYPTION_KEYS here"
    assert reasons == {f"The event is encrypted under the key 'new', {said}"}
    assert sorted(letter.data() for letter in letters) == sorted(m.data() for m in messages)
    assert behind.stop() == 0

    shop.worker()
    shop.command("dead-letters", "redrive")
    assert sorted(shop.wait_for(2)) == [1, 2]
    (rejected,) = shop.dead(1)
    assert rejected.data() in {message.data() for message in messages}
    listed = [
        orjson.loads(line) for line in shop.command("dead-letters", "list", "--json").splitlines()
    ]
    assert [(letter["name"], letter["handler"]) for letter in listed] == [
        ("Rejected", "shop.rejected")
    ]
