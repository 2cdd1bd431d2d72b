"""ClientCredentials: tokens fetched from an issuer by OAuth 2 (RFC 6749, 4.4).

The client's library can do that as well, but tells nobody why it failed, knows no authority beside
Pulsar's own for the issuer, and has no token for the admin interface.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

from postroom import errors
from postroom.access.tls import of_tls, tls_reason
from postroom.secret_files import content_of
from postroom.secured import keeps_secrets

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

__all__ = ["ClientCredentials"]

TIMEOUT_SECONDS = 5.0
TRUSTED = "POSTROOM_PULSAR_TLS_CA_FILE, and none that the system trusts"
MOST_BYTES = 64 * 1024
MOST_CHARACTERS = 80
# A token whose issuer does not say how long it lasts.
UNSAID_SECONDS = 60.0
# What nobody believes more than, whatever the issuer says.
LONGEST_SECONDS = 24 * 3600.0
# It is used for half of its time: a clock that is wrong by less than that goes unnoticed.
USED_FOR = 0.5
# Connections come by the dozen when a broker restarts; one refusal answers them all.
REFUSED_FOR_SECONDS = 2.0


class ClientCredentials:
    """Fetches tokens and keeps the last one for half of its time. Threads share it."""

    def __init__(
        self,
        *,
        issuer_url: str,
        key_file: str,
        audience: str | None,
        scope: str | None,
        context: ssl.SSLContext,
    ) -> None:
        self._issuer = issuer_url.rstrip("/")
        self._key_file = key_file
        self._asked_for = {"audience": audience, "scope": scope}
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), _NoRedirect()
        )
        self._lock = threading.Lock()
        self._token, self._good_until = "", 0.0
        self._refusal, self._refused_until = "", 0.0

    def token(self) -> str:
        """Return a token, fetched if the last one has been used for long enough.

        Raises:
            ServiceUnavailable: there is none; the message names the setting, issuer and reason.

        """
        with self._lock:
            now = time.monotonic()
            if now < self._good_until:
                return self._token
            if now < self._refused_until:
                raise errors.ServiceUnavailable(self._refusal)
            try:
                self._token, seconds = self._fetch()
            except (OSError, ValueError, http.client.HTTPException) as error:
                self._refusal = self._sentence(error)
                self._refused_until = time.monotonic() + REFUSED_FOR_SECONDS
                raise errors.ServiceUnavailable(self._refusal) from None
            self._good_until = now + seconds * USED_FOR
            return self._token

    def _fetch(self) -> tuple[str, float]:
        key = self._key()
        about = self._json(f"{self._issuer}/.well-known/openid-configuration", None)
        endpoint = about.get("token_endpoint")
        if not isinstance(endpoint, str) or not keeps_secrets(endpoint):
            raise ValueError("it names no token endpoint with https")
        form = {"grant_type": "client_credentials", **key, **self._asked_for}
        given = self._json(
            endpoint,
            urllib.parse.urlencode({k: v for k, v in form.items() if v}).encode(),
        )
        token = given.get("access_token")
        if not isinstance(token, str) or not token:
            raise ValueError("its answer holds no token")
        return token, _lifetime(given.get("expires_in"))

    def _key(self) -> Mapping[str, str]:
        try:
            found = json.loads(content_of(self._key_file))
            key = {name: found[name] for name in ("client_id", "client_secret")}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise _BadKeyFile from None
        if not all(isinstance(value, str) and value for value in key.values()):
            raise _BadKeyFile
        return key

    def _json(self, url: str, form: bytes | None) -> Mapping[str, Any]:
        request = urllib.request.Request(url, form, {"Accept": "application/json"})  # noqa: S310 - https
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                found = json.loads(answer.read(MOST_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(_refused(error)) from None
        except RecursionError:
            raise ValueError("its answer is not understood") from None
        if not isinstance(found, dict):
            raise ValueError("its answer is not understood")  # noqa: TRY004 - it is one of theirs
        return found

    def _sentence(self, error: Exception) -> str:
        if isinstance(error, _BadKeyFile):
            return (
                f"POSTROOM_PULSAR_OAUTH2_KEY_FILE names {self._key_file}, which is no JSON file "
                "with client_id and client_secret"
            )
        reason = getattr(error, "reason", error)
        if (cause := of_tls(error)) is not None:
            why = f"it {tls_reason(cause, trusted=TRUSTED, shown='a client without a certificate')}"
        else:
            why = str(reason) if isinstance(reason, (OSError, ValueError)) else type(error).__name__
        return (
            f"POSTROOM_PULSAR_OAUTH2_ISSUER_URL: {self._issuer} gives no token for Pulsar ({why}); "
            "it is asked again"
        )


def _lifetime(said: object) -> float:
    """Return how many seconds a token lasts; some issuers say that in a string."""
    if isinstance(said, (int, float, str)) and not isinstance(said, bool):
        with contextlib.suppress(ValueError, OverflowError):
            seconds = float(said)
            if math.isfinite(seconds) and seconds > 0:
                return min(seconds, LONGEST_SECONDS)
    return UNSAID_SECONDS


class _BadKeyFile(ValueError):
    pass


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow nobody: what is sent is a secret."""


def _refused(error: urllib.error.HTTPError) -> str:
    """Name the status and, of the answer, the error code that the standard knows (5.2)."""
    try:
        code = json.loads(error.read(MOST_BYTES)).get("error")
    except (OSError, ValueError, AttributeError):
        code = None
    known = isinstance(code, str) and code.replace("_", "").isalnum()
    return f"HTTP {error.code}" + (f", {code[:MOST_CHARACTERS]}" if known and code else "")
