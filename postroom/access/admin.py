"""Why Pulsar's admin interface cannot be used: what certificate it shows, whom it does not let in.

Relays and consumers do without it, so that one which is not there is no news; one that is refused,
or refuses, is told once a minute, with the setting.
"""

from __future__ import annotations

import logging
import urllib.error
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from postroom.access.diagnosis import not_let_in, shown, trusted
from postroom.access.tls import of_tls, tls_reason
from postroom.reminders import Reminders

if TYPE_CHECKING:
    from postroom.access.pulsar import Access

__all__ = ["tell", "unasked", "why"]

logger = logging.getLogger(__name__)
_reminders = Reminders()


def why(access: Access, url: str, error: Exception) -> str | None:
    """Say who refuses whom and why, or None where nobody is there, or a right alone is lacking.

    `url` is the one of the interface's that was asked. Takes no time; a race costs nothing.
    """
    if (cause := of_tls(error)) is not None:
        reason = tls_reason(cause, trusted=trusted(access), shown=shown(access))
    elif isinstance(error, urllib.error.HTTPError) and error.code == HTTPStatus.UNAUTHORIZED:
        reason = not_let_in(access)
    else:
        return None
    return f"Pulsar's admin interface at {urlsplit(url).netloc} {reason}"


def unasked(access: Access, url: str) -> str:
    """Say that an address without TLS is not asked, since a secret would go there in clear."""
    return (
        f"Pulsar's admin interface at {urlsplit(url).netloc} is not asked: "
        "POSTROOM_PULSAR_ADMIN_URL is http://…, and the secret of "
        f"{access.credentials.setting} is not sent in clear"
    )


def tell(reason: str) -> None:
    """Log a reason, and no more often than once a minute."""
    if _reminders.is_due(reason):
        logger.warning(
            "%s (POSTROOM_PULSAR_ADMIN_URL); what it would tell is left out, and it is asked again "
            "as before",
            reason,
        )
