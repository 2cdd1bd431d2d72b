"""Credentials: how Pulsar is told who this is, by its client's library and by ours alike."""

from __future__ import annotations

import base64
import binascii
import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from postroom.access.validity import expired_at, valid_until
from postroom.secret_files import line_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pulsar

__all__ = ["Anonymous", "Basic", "Certificate", "Credentials", "Token", "read_token_file"]

logger = logging.getLogger(__name__)


class Credentials(Protocol):
    """One way to say who this is. `method` is Pulsar's name of it, `setting` where it comes from.

    Threads share them; nothing that they show or raise holds a secret.
    """

    method: str
    setting: str
    # Whether whoever listens on an unencrypted connection would know the secret.
    secret_is_sent: bool

    def data(self) -> str:
        """Return what the broker is told.

        Raises:
            ServiceUnavailable: what gives it to us does not answer.

        """

    def headers(self) -> Mapping[str, str]:
        """Return what the admin interface is told.

        Raises:
            ServiceUnavailable: what gives it to us does not answer.

        """

    def authentication(self) -> pulsar.Authentication | None:
        """Return the same for the client's library."""

    def description(self) -> str:
        """Name the setting, and what can be told of the credentials without telling the secret."""


class Anonymous:
    """Nothing is said."""

    method = "none"
    setting = ""
    secret_is_sent = False

    def data(self) -> str:
        """Return nothing."""
        return ""

    def headers(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}

    def authentication(self) -> pulsar.Authentication | None:
        """Return nothing."""
        return None

    def description(self) -> str:
        """Say that there are none."""
        return "a client without credentials"


class Basic:
    """A user and a password."""

    method = "basic"
    setting = "POSTROOM_PULSAR_BASIC_USER"
    secret_is_sent = True

    def __init__(self, user: str, password: str) -> None:
        self._user = user
        self._password = password

    def data(self) -> str:
        """Return user and password."""
        return f"{self._user}:{self._password}"

    def headers(self) -> Mapping[str, str]:
        """Return the header of HTTP's basic authentication."""
        return {"Authorization": f"Basic {base64.b64encode(self.data().encode()).decode()}"}

    def authentication(self) -> pulsar.Authentication | None:
        """Return the library's basic authentication."""
        import pulsar

        return pulsar.AuthenticationBasic(self._user, self._password)

    def description(self) -> str:
        """Name the user."""
        return f"the user {self._user!r} of POSTROOM_PULSAR_BASIC_USER with that password"


class Certificate:
    """The client's certificate, which is shown while the connection is being encrypted."""

    method = "tls"
    setting = "POSTROOM_PULSAR_TLS_CERT_FILE"
    secret_is_sent = False

    def __init__(self, certificate: str, key: str) -> None:
        self.files = (certificate, key)

    def data(self) -> str:
        """Return nothing: the certificate has said it all."""
        return "none"

    def headers(self) -> Mapping[str, str]:
        """Return nothing: the certificate has said it all."""
        return {}

    def authentication(self) -> pulsar.Authentication | None:
        """Return the library's, which reads both files for each connection."""
        import pulsar

        return pulsar.AuthenticationTLS(*self.files)

    def description(self) -> str:
        """Name the file, and when the certificate expired if it has."""
        certificate, _ = self.files
        expired = expired_at(valid_until(certificate))
        return f"the certificate {certificate} of {self.setting}{expired}"


class Token:
    """A token, read anew each time that it is asked for.

    The library asks for it with each new connection, and whenever the broker finds the one that it
    was shown expired: it is replaced without a restart, and with no connection lost.
    """

    method = "token"
    secret_is_sent = True

    def __init__(self, read: Callable[[], str], *, setting: str) -> None:
        self.setting = setting
        self._read = read
        self._last = ""
        self._trouble = ""

    def data(self) -> str:
        """Return the token, and where it cannot be read now the one before."""
        try:
            self._last, self._trouble = self._read(), ""
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            self._warn(f"{self.setting}: the token cannot be read now ({why})")
        return self._last

    def headers(self) -> Mapping[str, str]:
        """Return the header of a bearer."""
        return {"Authorization": f"Bearer {self.data()}"}

    def authentication(self) -> pulsar.Authentication | None:
        """Return the library's, which calls back."""
        import pulsar

        return pulsar.AuthenticationToken(self._supply)

    def description(self) -> str:
        """Name the setting, whose token it is and whether its time is over."""
        claims = _claims(self._last)
        subject = claims.get("sub")
        whose = f" for {subject!r}" if isinstance(subject, str) else ""
        return f"the token of {self.setting}{whose}{_validity(claims)}"

    def _supply(self) -> str:
        # What is raised here, in the library's own thread, ends the process at once (seen with
        # pulsar-client 3.13 where the broker asks for a new token).
        try:
            return self.data()
        except Exception as error:  # noqa: BLE001 - whatever it is, the process must live on
            self._warn(str(error))
            return self._last

    def _warn(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            logger.warning("%s; the one before is shown to Pulsar", trouble)


def read_token_file(path: str) -> Callable[[], str]:
    """Return what reads a token from a file."""
    return lambda: line_of(path)


def _claims(token: str) -> Mapping[str, Any]:
    """Return what a JSON web token says; nothing where it is another kind of token."""
    try:
        part = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError, binascii.Error, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _validity(claims: Mapping[str, Any]) -> str:
    until, since = _moment(claims.get("exp")), _moment(claims.get("nbf"))
    if expired := expired_at(until):
        return expired
    if since is not None and since > datetime.now(UTC):
        return f", which is valid from {since:%Y-%m-%d %H:%M:%S} UTC only"
    return ""


def _moment(seconds: object) -> datetime | None:
    if not isinstance(seconds, (int, float)):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return None
