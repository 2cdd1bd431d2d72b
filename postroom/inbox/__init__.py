"""The inbox: each event handed to its handlers, its effect once."""

from postroom.inbox.parking.letters import DeadLetter
from postroom.inbox.parking.redriving import Redriven, discard, list_dead, redrive

__all__ = ["DeadLetter", "Redriven", "discard", "list_dead", "redrive"]
