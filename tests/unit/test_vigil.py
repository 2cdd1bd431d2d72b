"""The vigil: it looks at calls while another thread begins and ends them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from postroom import errors
from postroom.relay.watching import vigil as vigils
from postroom.relay.watching.vigil import Vigil

if TYPE_CHECKING:
    from collections.abc import Iterable


class Guarded(dict[int, Any]):
    """Calls that are walked through by who holds the lock alone."""

    def __init__(self, vigil: Vigil) -> None:
        super().__init__()
        self._lock = vigil._lock

    def values(self) -> Any:
        """Return the calls."""
        assert self._lock.locked()
        return super().values()


def idle(pipeline: Iterable[Any], **_: Any) -> list[Any]:
    """Answer as a server that is at work at nothing."""
    return []


def test_calls_are_walked_through_under_the_lock_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader's thread may begin or end one at any time; the verdict is of what is there."""
    monkeypatch.setattr(vigils, "PATIENCE_SECONDS", -10.0)
    monkeypatch.setattr(vigils, "UNDERWAY_SECONDS", -1.0)
    found = Vigil()
    found._calls = Guarded(found)
    admin = SimpleNamespace(command=lambda _: {}, aggregate=idle)
    client: Any = SimpleNamespace(admin=admin)
    event: Any = SimpleNamespace(command_name="getMore", server_connection_id=1, request_id=1)
    found.started(event)
    with pytest.raises(errors.TermEnded, match="No answer to the command `getMore`"):
        found.look(client)
    found.succeeded(event)
    found.look(client)
