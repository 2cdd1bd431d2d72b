"""Restraints: which policies keep a topic from taking or handing out messages as they come.

The broker tells its clients nothing of these: it is slow, or does not answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postroom.topics import base_topic, namespace_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postroom.pulsar_admin import PulsarAdmin
    from postroom.topics import Topic

__all__ = ["added", "demands_encryption", "lacks_subscription", "on_giving", "silence"]

GIVING = ("dispatchRate", "subscriptionDispatchRate")
TAKING = ("publishRate",)
ENCRYPTION = (
    "encryptionRequired, which takes encrypted messages alone: turn it off for its namespace, or "
    "use a topic of another one"
)
MOST_ASKED_ABOUT = 3
PREFIXES = ("dispatchThrottlingRateIn", "publishThrottlingRateIn")


def silence(sentence: str, admin: PulsarAdmin, topics: Sequence[Topic]) -> str:
    """Return a sentence on what topics did not take in time, with what may be the reason."""
    found = []
    for topic in topics[:MOST_ASKED_ABOUT]:
        policies = _rates(admin, topic, TAKING)
        if policies is None:
            break  # nobody is there: it is not asked again
        if demands_encryption(admin, topic):
            policies.append(ENCRYPTION)
        found += _sentences(topic, policies)
    return added(sentence, "; ".join(found))


def on_giving(admin: PulsarAdmin, topic: Topic) -> str:
    """Return which policies hold back what is read of a topic, in words; empty if none is told."""
    return "".join(_sentences(topic, _rates(admin, topic, GIVING) or []))


def added(sentence: str, restraints: str) -> str:
    """Return a sentence with what may be the reason behind it."""
    return f"{sentence} ({restraints})" if restraints else sentence


def demands_encryption(admin: PulsarAdmin, topic: Topic) -> bool:
    """Say whether it is known that a topic's namespace takes encrypted messages alone."""
    return admin.policy(_namespace(topic), "encryptionRequired").value is True


def lacks_subscription(admin: PulsarAdmin, topic: Topic, subscription: str) -> bool:
    """Say whether it is known that a topic is there, and that subscription is not.

    Where the broker makes none by itself (allowAutoSubscriptionCreation) who subscribes gets no
    answer.
    """
    found = admin.statistics(topic)
    return found is not None and bool(found) and subscription not in found["subscriptions"]


def _namespace(topic: Topic) -> str:
    return f"namespaces/{namespace_of(topic)}"


def _sentences(topic: Topic, policies: list[str]) -> list[str]:
    return [f"{topic} has the policy {' and '.join(policies)}"] if policies else []


def _rates(admin: PulsarAdmin, topic: Topic, names: tuple[str, ...]) -> list[str] | None:
    """Return the rates that a topic has, None where nobody tells."""
    found = []
    for name in names:
        # A topic without policies of its own has its namespace's, which it does not always tell.
        for where in (base_topic(topic).replace("://", "/"), _namespace(topic)):
            policy = admin.policy(where, f"{name}?applied=true")
            if not policy.is_told:
                return None
            if rate := _rate(policy.value):
                found.append(f"{name} ({rate}): raise or remove it")
                break
    return found


def _rate(policy: Any) -> str:
    limits = policy if isinstance(policy, dict) else {}
    period = limits.get("ratePeriodInSecond", 1)
    every = "a second" if period == 1 else f"in {period} seconds"
    parts = [
        f"{limit} {unit} {every}"
        for unit, key in (("messages", "Msg"), ("bytes", "Byte"))
        for prefix in PREFIXES
        if isinstance(limit := limits.get(f"{prefix}{key}"), int) and limit > 0
    ]
    return ", ".join(parts)
