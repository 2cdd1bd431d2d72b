"""The inbox: each event handed to its handlers, its effect once."""

from postroom.inbox.dead_letters import DeadLetter, Redriven, list_dead, redrive

__all__ = ["DeadLetter", "Redriven", "list_dead", "redrive"]
