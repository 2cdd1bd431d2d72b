"""Sentences: what a failure of MongoDB's or Pulsar's client is called, in logs and in status."""

from __future__ import annotations

from dataclasses import dataclass

from pymongo import errors as mongo

from postroom import broker, errors
from postroom.access import mongodb as mongodb_access
from postroom.access.client import tried
from postroom.refusals import meaning

__all__ = ["Sentences", "is_named"]


def is_named(error: BaseException) -> bool:
    """Say whether an error is one that a sentence explains; any other one needs its traceback."""
    return isinstance(error, (errors.PostroomError, mongo.PyMongoError)) or is_of_pulsar(error)


def is_of_pulsar(error: BaseException) -> bool:
    """Say whether an error was raised by Pulsar's client, without loading it."""
    return type(error).__module__.startswith(("pulsar", "_pulsar"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentences:
    """Says of any error what failed and where; `next_step` is what happens then.

    Addresses are masked, and no document's text is quoted.
    """

    mongodb_uri: str
    pulsar_url: str
    next_step: str

    def of(self, error: BaseException) -> str:
        """Return the sentence for an error; whatever happens meanwhile, there is one."""
        try:
            return self._of(error)
        except Exception:  # noqa: BLE001 - who asks is about to wait, and must not end for a word
            return f"{type(error).__name__}; {self.next_step}"

    def _of(self, error: BaseException) -> str:
        if isinstance(error, errors.PostroomError):
            return str(error)
        if isinstance(error, mongo.PyMongoError):
            where = broker.masked(self.mongodb_uri)
            reason = mongodb_access.why(error, self.mongodb_uri)
            return f"MongoDB at {where} failed ({reason}); {self.next_step}"
        if is_of_pulsar(error):
            where, why = broker.masked(self.pulsar_url), meaning(type(error).__name__)
            if what := tried(error):
                return f"Could not {what}, on Pulsar at {where} ({why}); {self.next_step}"
            return f"Pulsar at {where} failed ({why}); {self.next_step}"
        return f"{type(error).__name__}: {error}; {self.next_step}"
