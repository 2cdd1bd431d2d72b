"""Expiry: which policies have the broker take away what a subscription has not acknowledged yet.

It tells nobody: neither the relay that sent an event, nor the consumer that will never see it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from postroom.findings import Finding, Grade
from postroom.topics import base_topic, namespace_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from postroom.pulsar_admin import PulsarAdmin
    from postroom.topics import Topic

__all__ = ["expiry"]

LONGEST_SECONDS = 5.0
EVICTION = "consumer_backlog_eviction"
CAUGHT_UP = "delete_when_subscriptions_caught_up"


def expiry(admin: PulsarAdmin, subscribed: Iterable[tuple[str, Topic]]) -> list[Finding]:
    """Say what subscriptions may lose on the topics that they read, where that is told.

    It takes seconds at most: of very many topics those that come first are looked at.
    """
    findings: list[Finding] = []
    asked = _Asked(admin)
    for subscription, topic in subscribed:
        findings += (
            Finding(
                what=f"what {subscription} may lose on {topic}",
                found=loss.found,
                grade=Grade.WARN,
                remedy=f"pulsar-admin namespaces {loss.remedy}; the same of `pulsar-admin "
                f"topicPolicies` and {topic} where it has a policy of its own",
            )
            for loss in _losses(_Policies(asked, topic), subscription)
        )
    if asked.hidden_of is not None:
        findings.append(_unseen(asked.hidden_of))
    return findings


def _unseen(namespace: str) -> Finding:
    return Finding(
        what="policies that take messages away",
        found=f"Pulsar's admin interface does not let this user read the policies of {namespace}: "
        "whether it takes away what nobody has acknowledged yet was not looked at",
        remedy=f"pulsar-admin namespaces policies {namespace}, by who may, shows message_ttl, "
        "backlog_quota_map, subscription_expiration_time_minutes and inactive_topic_policies",
    )


class _Loss(NamedTuple):
    """What may be lost, as a sentence, and the command of `pulsar-admin namespaces` against it."""

    found: str
    remedy: str


class _Asked:
    """What the admin interface has told so far: it is asked once for each policy of a place.

    Where nobody is there it is asked no more, and neither once it has taken too long.
    """

    def __init__(self, admin: PulsarAdmin) -> None:
        # The namespace of the first policy that may not be read.
        self.hidden_of: str | None = None
        self._admin = admin
        self._told: dict[tuple[str, str], Any] = {}
        self._until = time.monotonic() + LONGEST_SECONDS

    def value(self, where: str, name: str, *, namespace: str) -> Any:
        """Return a policy of a topic or namespace, or None where it is not set or not told."""
        if (where, name) not in self._told and time.monotonic() < self._until:
            policy = self._admin.policy(where, name)
            if policy.is_hidden:
                self.hidden_of = self.hidden_of or namespace
            if not policy.is_told:
                self._until = 0.0
            self._told[where, name] = policy.value
        return self._told.get((where, name))


class _Policies:
    """What is in force on one topic: its own, its namespace's or the broker's policies."""

    def __init__(self, asked: _Asked, topic: Topic) -> None:
        self.topic = topic
        self.namespace = namespace_of(topic)
        self._asked = asked

    def value(self, name: str) -> Any:
        """Return a policy, or None where it is not set or nobody tells."""
        topic = base_topic(self.topic).replace("://", "/")
        value = self._asked.value(topic, f"{name}?applied=true", namespace=self.namespace)
        if value is not None:
            return value
        # A broker without policies of topics tells those of the namespace alone.
        return self._asked.value(f"namespaces/{self.namespace}", name, namespace=self.namespace)

    def limit(self, name: str) -> int:
        """Return a policy that is a number above zero; 0 where it is none."""
        value = self.value(name)
        return value if isinstance(value, int) and value > 0 else 0

    def fields(self, name: str) -> dict[str, Any]:
        """Return a policy that has fields; none where it has not."""
        value = self.value(name)
        return value if isinstance(value, dict) else {}


def _losses(policies: _Policies, subscription: str) -> Iterator[_Loss]:
    topic, namespace = policies.topic, policies.namespace
    if seconds := policies.limit("messageTTL"):
        yield _Loss(
            found=f"{topic} has a message TTL of {seconds} s: what {subscription} has not "
            "acknowledged by then it never gets, however long its consumers were away",
            remedy=f"remove-message-ttl {namespace}",
        )
    if any(map(_evicts, policies.fields("backlogQuotaMap").values())):
        yield _Loss(
            found=f"{topic} has a backlog quota of the policy {EVICTION}: once it is used up "
            f"{subscription} never gets what waits there for longest",
            # By that policy the relay waits instead.
            remedy=f"set-backlog-quota {namespace} --limit 10G --policy producer_request_hold",
        )
    if minutes := policies.limit("subscriptionExpirationTime"):
        yield _Loss(
            found=f"Subscriptions of {topic} expire: where nobody reads {subscription} for "
            f"{minutes} minutes it is removed, with all that waits for it",
            remedy=f"set-subscription-expiration-time {namespace} --time 0",
        )
    found = policies.fields("inactiveTopicPolicies")
    if found.get("deleteWhileInactive") and found.get("inactiveTopicDeleteMode") == CAUGHT_UP:
        yield _Loss(
            found=f"{topic} is deleted, with its subscriptions, once all is read and nobody was "
            f"connected for {found.get('maxInactiveDurationSeconds')} s: what is sent before "
            "they are made again is gone for them",
            remedy=f"set-inactive-topic-policies {namespace} --enable-delete-while-inactive "
            "--max-inactive-duration 1h --delete-mode delete_when_no_subscriptions",
        )


def _evicts(quota: Any) -> bool:
    limits = quota if isinstance(quota, dict) else {}
    is_limited = any((limits.get(name) or -1) >= 0 for name in ("limitSize", "limitTime"))
    return limits.get("policy") == EVICTION and is_limited
