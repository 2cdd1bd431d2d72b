"""Directory: which topics a namespace has.

The client's library knows only a pattern consumer, which subscribes to all that it finds or to
nothing, and never again to a topic that refused it once. So the broker is asked directly: every one
answers for every namespace, and asks for no more rights than it does of the library.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from postroom import address, errors
from postroom.access import frames
from postroom.access.conversation import BrokerRefused, Conversation
from postroom.access.server import servers

if TYPE_CHECKING:
    from postroom.access.pulsar import Access

__all__ = ["is_embedded", "topics_of"]

# CommandGetTopicsOfNamespace and its response (PulsarApi.proto).
LIST, LISTED = 32, 33
REQUEST_ID, NAMESPACE, MODE, TOPICS = 1, 2, 3, 2
PERSISTENT = 0
EMBEDDED = "Pulsar-Lite"


def topics_of(access: Access, namespace: str, *, timeout_seconds: float) -> list[str]:
    """Name the persistent topics of `tenant/namespace`, each topic partition by its own name.

    Raises:
        ServiceUnavailable: no broker of the URL answered in time, or it refused.

    """
    failures = []
    for server in servers(access.url):
        try:
            with Conversation(access, server, timeout_seconds=timeout_seconds) as conversation:
                return _listed(conversation, namespace)
        except (BrokerRefused, OSError, ValueError) as error:
            failures.append(f"{server}: {str(error) or type(error).__name__}")
    raise errors.ServiceUnavailable(
        f"Pulsar at {address.shown(access.url)} did not list the topics of {namespace} "
        f"({'; '.join(failures)})"
    )


def is_embedded(access: Access, *, timeout_seconds: float) -> bool:
    """Say whether the broker is the embedded one, which answers some questions by silence."""
    for server in servers(access.url):
        with (
            contextlib.suppress(BrokerRefused, OSError, ValueError),
            Conversation(access, server, timeout_seconds=timeout_seconds) as conversation,
        ):
            return conversation.greet().startswith(EMBEDDED)
    return False


def _listed(conversation: Conversation, namespace: str) -> list[str]:
    if conversation.greet().startswith(EMBEDDED):
        raise ValueError("the embedded broker lists no topics")
    request = frames.number(REQUEST_ID, 1) + frames.text(NAMESPACE, namespace)
    answer = conversation.ask(LIST, request + frames.number(MODE, PERSISTENT), answer=LISTED)
    return [name.decode(errors="replace") for name in answer.texts.get(TOPICS, ())]
