"""Real Pulsar that encrypts, asks everyone who they are, and looks up what they may do."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import ssl
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from devstack.brokers import Pulsar
from devstack.service import accepts, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.certificates import Authority

__all__ = ["PASSWORD", "USER", "SecuredPulsar", "token"]

KEY = b"a key of thirty-two bytes, or so"
SUPERUSER = "superuser"
USER, PASSWORD = "basic-user", "wörd with blanks, and % signs"
# That password as `openssl passwd -apr1` has it.
HTPASSWD = "$apr1$J4.Hnrk1$DCFGTilS2uHMjmRPMZ8TQ1"
PROVIDERS = "org.apache.pulsar.broker.authentication.AuthenticationProvider"


def token(subject: str, *, seconds: float | None = 3600.0, key: bytes = KEY) -> str:
    """Make a JSON web token for a subject, signed as the broker wants it or by another key."""
    claims: dict[str, Any] = {"sub": subject}
    if seconds is not None:
        claims["exp"] = int(time.time() + seconds)
    head, body = (_encoded(json.dumps(part).encode()) for part in ({"alg": "HS256"}, claims))
    signature = hmac.new(key, f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{_encoded(signature)}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class SecuredPulsar(Pulsar):
    """TLS alone; tokens, certificates and passwords; nobody but the superuser may do anything."""

    name = "secured-pulsar"

    def __init__(self, folder: Path, authority: Authority, *, port: int) -> None:
        self._authority = authority
        self._secured_admin_port = free_port()
        server = authority.sign("broker")
        secrets = folder / "secrets"
        secrets.mkdir(parents=True, exist_ok=True)
        (secrets / "token.key").write_bytes(KEY)
        (secrets / "htpasswd").write_text(f"{USER}:{HTPASSWD}\n")
        providers = ",".join(f"{PROVIDERS}{kind}" for kind in ("Token", "Tls", "Basic"))
        conf = {
            "brokerServicePort": "",
            "brokerServicePortTls": port,
            "webServicePort": "",
            "webServicePortTls": self._secured_admin_port,
            "tlsCertificateFilePath": server.certificate,
            "tlsKeyFilePath": server.key,
            "tlsTrustCertsFilePath": authority.file,
            "authenticationEnabled": True,
            "authenticationProviders": providers,
            # How often the broker looks whose token has expired.
            "authenticationRefreshCheckSeconds": 1,
            "tokenSecretKey": f"file://{secrets / 'token.key'}",
            "basicAuthConf": f"file://{secrets / 'htpasswd'}",
            "authorizationEnabled": True,
            "superUserRoles": SUPERUSER,
            "brokerClientTlsEnabled": True,
            "brokerClientTrustCertsFilePath": authority.file,
            "brokerClientAuthenticationPlugin": "org.apache.pulsar.client.impl.auth."
            "AuthenticationToken",
            "brokerClientAuthenticationParameters": f"token:{token(SUPERUSER, seconds=None)}",
        }
        super().__init__(folder, port=port, conf=conf, light=True)

    @property
    def url(self) -> str:
        """The encrypted address."""
        return f"pulsar+ssl://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        """The encrypted admin interface."""
        return f"https://127.0.0.1:{self._secured_admin_port}"

    @property
    def environment_of_superuser(self) -> dict[str, str]:
        """The variables with which one may do everything."""
        return {**self.environment_without_credentials, "POSTROOM_PULSAR_TOKEN": token(SUPERUSER)}

    @property
    def environment_without_credentials(self) -> dict[str, str]:
        """The variables that lead here, and nobody in."""
        return {
            "POSTROOM_PULSAR_URL": self.url,
            "POSTROOM_PULSAR_ADMIN_URL": self.admin_url,
            "POSTROOM_PULSAR_TLS_CA_FILE": str(self._authority.file),
        }

    def answers(self) -> bool:
        """Say whether the broker is healthy and its default namespace is there."""
        try:
            self.admin("GET", "persistent/public/default")
        except (urllib.error.URLError, OSError):
            return False
        return accepts(self.port)

    def grant(self, role: str, what: Sequence[str], *, on: str) -> None:
        """Give a role `produce` or `consume` on a namespace, or on a topic, which is made first."""
        if on.startswith("persistent/"):
            with contextlib.suppress(urllib.error.HTTPError):  # it is there
                self.admin("PUT", on)
        body = json.dumps(list(what)).encode()
        self.admin("POST", f"{on}/permissions/{role}", body)

    def admin(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Ask the admin interface as the superuser."""
        headers = {
            "Authorization": f"Bearer {token(SUPERUSER)}",
            "Content-Type": "application/json",
        }
        url = f"{self.admin_url}/admin/v2/{path}"
        request = urllib.request.Request(url, body, headers, method=method)
        context = ssl.create_default_context(cafile=self._authority.file)
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            return bytes(answer.read())
