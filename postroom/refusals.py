"""Refusals: what Pulsar's answers mean, and what can be done; no cause is guessed.

The client's library gives an answer's name alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom import errors
from postroom.access.client import tried
from postroom.access.diagnosis import reason_for_refusal

if TYPE_CHECKING:
    from postroom.access.pulsar import Access

__all__ = ["is_away", "meaning", "why"]

# A broker that is not there, or that has no time: nothing is known of the topic itself.
AWAY = {
    "ConnectError": "no connection could be opened",
    "LookupError": "no broker said who serves the topic",
    "NotConnected": "there is no connection",
    "ReadError": "the connection broke",
    "ServiceUnitNotReady": "the topic is being opened by a broker, or moved to another one",
    "Timeout": "no answer came in time",
    "TooManyLookupRequestException": "the broker has more lookups under way than it allows",
}
# What the library makes of a server that cannot be reached, is not trusted or lets nobody in.
SILENT = {"AuthenticationError", "ConnectError", "NotConnected", "Timeout"}
MEANINGS = AWAY | {
    "AlreadyClosed": "the connection was closed",
    "AuthenticationError": "it did not accept this client's credentials",
    "AuthorizationError": "this client's role lacks the right: grant it `produce` and `consume`",
    "BrokerMetadataError": "the broker could not read or write its metadata",
    "BrokerPersistenceError": "the broker could not read or write the topic's storage",
    "ConsumerAssignError": "its consumers there hold hash ranges beside which no other fits: "
    "end them, or use another subscription",
    "ConsumerBusy": "the subscription is in use by another kind of consumer (Exclusive, Failover, "
    "Shared, or of fixed hash ranges): end that one, or use another subscription",
    "IncompatibleSchema": "the topic demands a schema: allow producers and consumers without one",
    "InvalidTopicName": "that is no name of a topic",
    "MessageTooBig": "a message is larger than the broker takes: raise its maxMessageSize",
    "NotAllowedError": "a policy of the broker, namespace or topic forbids it, for instance a "
    "limit on size, producers, consumers or subscriptions: raise it; or on the types of "
    "subscriptions: Exclusive and Failover are needed, by a consumer its own",
    "ProducerBlockedQuotaExceededError": "its backlog quota is used up: consume what its "
    "subscriptions keep, or raise the quota",
    "ProducerBlockedQuotaExceededException": "its backlog quota is used up: consume what its "
    "subscriptions keep, or raise the quota",
    "ProducerBusy": "another producer has it to itself, or the same name, or it takes no more "
    "producers by a policy (maxProducersPerTopic): end that one, or raise the limit",
    "ProducerFenced": "another producer has it to itself: end that one",
    "SubscriptionNotFound": "the subscription does not exist, and the broker makes none by itself: "
    "create it",
    "TopicNotFound": "it does not exist, or its namespace does not, and the broker makes none by "
    "itself: create it",
    "TopicTerminated": "it was terminated and takes nothing more: use another one, or delete it "
    "and have it made anew",
}


def meaning(answer: str) -> str:
    """Say what an answer or error of that name means, with the name itself."""
    return f"{answer}: {MEANINGS[answer]}" if answer in MEANINGS else answer


def is_away(answer: str) -> bool:
    """Say whether an answer of that name tells of the broker, and not of the topic."""
    return answer in AWAY


def why(error: BaseException, access: Access) -> str:
    """Say why a call of the client's failed, in words that fit into brackets.

    Where the client does not tell, the broker is asked, in bounded time.
    """
    if isinstance(error, errors.PostroomError):
        return str(error)
    name = type(error).__name__
    if name == "AuthorizationError":
        what, who = tried(error) or "do this", access.credentials.description()
        return f"{name}: {who} may not {what}: grant it the right"
    reason = reason_for_refusal(access) if name in SILENT else None
    return f"{name}: Pulsar at {reason}" if reason else meaning(name)
