"""The inbox: each event handed to its handlers, its effect once."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from postroom.inbox.parking.letters import DeadLetter
    from postroom.inbox.parking.redriving import Redriven, discard, list_dead, redrive

__all__ = ["DeadLetter", "Redriven", "discard", "list_dead", "redrive"]


def __getattr__(name: str) -> Any:
    # What an operator calls is imported for whoever asks: `import postroom` brings @handles, which
    # is in this room, to programs that but write events.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from postroom.inbox.parking import redriving

    return getattr(redriving, name)
