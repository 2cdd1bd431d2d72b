"""Arguments: what install() is given, checked one by one and refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from pydantic import TypeAdapter, ValidationError

from postroom import errors, topics
from postroom.answering import checked_function, checked_key
from postroom.celery.queues import Queue
from postroom.private_text import quoted
from postroom.settings import Name

if TYPE_CHECKING:
    from postroom.routing import Key, Topics

__all__ = ["Consume", "consumed", "keyed", "queues", "routed", "shared"]

Consume = Mapping[str, tuple[str, ...]]

WILD = re.compile(r"[*?\[]")
NAME = TypeAdapter(Name)
TOPIC = "a topic is named tenant/namespace/topic, as public/default/events"


def routed(given: object) -> Topics:
    """Check `topics`: names or patterns to topics, or a function of an event's name and data.

    Raises:
        ConfigurationError: it is neither; the sentence says what is wrong.

    """
    if callable(given):
        return cast("Topics", _checked(lambda: checked_function("topics", given)))
    if not isinstance(given, Mapping):
        raise _refusal(f"topics takes a mapping or a function, not {quoted(given)}")
    for name, topic in given.items():
        if not isinstance(name, str) or not name:
            raise _refusal(
                f"topics has {quoted(name)} where an event's name or a pattern is to stand"
            )
        _require_topic(f"topics[{quoted(name)}]", topic)
    return dict(given)


def keyed(given: object) -> Key | None:
    """Check `key`: a field's name, a function of an event's name and data, or None.

    Raises:
        ConfigurationError: it is none of them.

    """
    return cast("Key | None", _checked(lambda: checked_key(given)))


def shared(given: object) -> tuple[str, ...]:
    """Check `shared`: topics, or patterns of topics as in the shell.

    Raises:
        ConfigurationError: one of them is neither.

    """
    found = _several("shared", given)
    for topic in found:
        if isinstance(topic, str) and WILD.search(topic):
            if len(topic.removeprefix("persistent://").split("/")) != 3:
                raise _refusal(f"shared has the pattern {quoted(topic)}, but {TOPIC}")
        else:
            _require_topic("shared", topic)
    return tuple(found)


def consumed(given: object) -> Consume:
    """Check `consume`: for each subscription the topics, and `re:` patterns of topics, it reads.

    Raises:
        ConfigurationError: it says that of none, or what it says makes no sense.

    """
    if not isinstance(given, Mapping):
        raise _refusal(f"consume takes a mapping of subscriptions to topics, not {quoted(given)}")
    if not given:
        raise _refusal("consume names no subscription; leave it out to read what is sent")
    return {_subscription(name): _read_by(name, given[name]) for name in given}


def queues(relay: object, consumer: object) -> dict[str, Queue]:
    """Check the names of the two queues.

    Raises:
        ConfigurationError: one is none, or both are the same.

    """
    for name in (relay, consumer):
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
            raise _refusal(
                f"{quoted(name)} is no name of a queue: letters, digits, - and _ make one"
            )
    if relay == consumer:
        raise _refusal(f"relay and consumer cannot both have the queue {quoted(relay)}")
    return {"relay": Queue(name=str(relay)), "consumer": Queue(name=str(consumer))}


def _subscription(name: object) -> str:
    try:
        return NAME.validate_python(name, strict=True)
    except ValidationError:
        raise _refusal(
            f"consume has {quoted(name)} where a subscription's name of 1 to 200 characters is to "
            "stand, all of which can be printed, no blank, slash or comma among them"
        ) from None


def _read_by(name: str, given: object) -> tuple[str, ...]:
    # What it lists is read, and refused, by what reads the topics.
    found = _several(f"consume[{quoted(name)}]", given)
    return tuple({topics.canonical(str(topic)): topic for topic in found}.values())


def _several(where: str, given: object) -> list[Any]:
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise _refusal(f"{where} takes a list of topics, not {quoted(given)}: write […]")
    return list(given)


def _require_topic(where: str, topic: object) -> None:
    try:
        if isinstance(topic, str):
            topics.checked(topic)
            return
    except ValueError:
        pass
    raise _refusal(f"{where} is given {quoted(topic)}, but {TOPIC}")


def _checked(check: Callable[[], object]) -> object:
    try:
        return check()
    except ValueError as error:
        raise _refusal(str(error)) from None


def _refusal(why: str) -> errors.ConfigurationError:
    return errors.ConfigurationError(f"install(): {why}. Nothing was started")
