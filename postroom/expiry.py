"""Expiry: which policies have the broker take away what a subscription has not acknowledged yet.

It tells nobody: neither the relay that sent an event, nor the consumer that will never see it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from postroom.findings import Finding, Grade
from postroom.topics import base_topic, namespace_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from postroom.pulsar_admin import PulsarAdmin
    from postroom.topics import Topic

__all__ = ["expiry"]

EVICTION = "consumer_backlog_eviction"
CAUGHT_UP = "delete_when_subscriptions_caught_up"


def expiry(admin: PulsarAdmin, subscribed: Iterable[tuple[str, Topic]]) -> list[Finding]:
    """Say what subscriptions may lose on the topics that they read, where that is told."""
    findings: list[Finding] = []
    for subscription, topic in subscribed:
        policies = _Policies(admin, topic)
        findings += (
            Finding(
                what=f"what {subscription} may lose on {topic}",
                found=loss.found,
                grade=Grade.WARN,
                remedy=f"pulsar-admin namespaces {loss.remedy}; the same of `pulsar-admin "
                f"topicPolicies` and {topic} where it has a policy of its own",
            )
            for loss in _losses(policies, subscription)
        )
        if not policies.is_told:
            break  # nobody is there: it is not asked again
    return findings


class _Loss(NamedTuple):
    """What may be lost, as a sentence, and the command of `pulsar-admin namespaces` against it."""

    found: str
    remedy: str


class _Policies:
    """What is in force on one topic: its own, its namespace's or the broker's policies."""

    def __init__(self, admin: PulsarAdmin, topic: Topic) -> None:
        self.topic = topic
        self.namespace = namespace_of(topic)
        self.is_told = True
        self._admin = admin

    def value(self, name: str) -> Any:
        """Return a policy, or None where it is not set or nobody tells."""
        # A broker without policies of topics tells those of the namespace alone.
        topic = base_topic(self.topic).replace("://", "/")
        for where, which in (
            (topic, f"{name}?applied=true"),
            (f"namespaces/{self.namespace}", name),
        ):
            if not self.is_told:
                break
            policy = self._admin.policy(where, which)
            self.is_told = policy.is_told
            if policy.value is not None:
                return policy.value
        return None

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
