"""Access: what a connection to Pulsar needs beside its purpose, as the settings say it."""

from __future__ import annotations

import functools
import logging
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postroom.access.credentials import Anonymous, Basic, Certificate, Token, read_token_file
from postroom.access.oauth2 import ClientCredentials
from postroom.secured import has_tls

if TYPE_CHECKING:
    from postroom.access.credentials import Credentials
    from postroom.settings import Settings

__all__ = ["Access", "of", "plain"]

logger = logging.getLogger(__name__)

# Where systems keep the authorities that they trust, in one file as the client's library wants it:
# Debian and its kin, Red Hat and its kin, Alpine.
BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How brokers and admin interface are reached, and as whom. Threads share it.

    Certificates and host names are always checked.
    """

    url: str
    admin_url: str = ""
    ca_file: str | None = None
    credentials: Credentials = field(default_factory=Anonymous)

    @property
    def authorities(self) -> str:
        """The file with the authorities that are trusted: those given, or the system's."""
        return self.ca_file or _system_authorities()

    def client_arguments(self) -> dict[str, Any]:
        """Return what pulsar.Client takes for it, the URL apart."""
        return {
            "authentication": self.credentials.authentication(),
            "tls_trust_certs_file_path": self.authorities,
            "tls_allow_insecure_connection": False,
            "tls_validate_hostname": True,
        }

    def tls(self) -> ssl.SSLContext:
        """Return the same for a connection of our own.

        Raises:
            OSError: a file of certificates or a key is no longer one.

        """
        context = ssl.create_default_context(cafile=self.authorities)
        if isinstance(self.credentials, Certificate):
            context.load_cert_chain(*self.credentials.files, password="")
        return context


def plain(url: str) -> Access:
    """Return the access that a URL alone gives."""
    return Access(url=url)


@functools.lru_cache(maxsize=8)
def of(settings: Settings) -> Access:
    """Return the access that the settings give; the same each time, so that tokens are shared."""
    access = Access(
        url=settings.pulsar_url,
        admin_url=settings.pulsar_admin_url,
        ca_file=settings.pulsar_tls_ca_file,
        credentials=_credentials(settings),
    )
    if access.credentials.secret_is_sent and not has_tls(access.url):
        logger.warning(
            "%s is set and POSTROOM_PULSAR_URL is not pulsar+ssl://…: the secret and every event "
            "go over the network in clear, for everyone on the way to read",
            access.credentials.setting,
        )
    return access


def _credentials(settings: Settings) -> Credentials:
    match settings.pulsar_way_in:
        case "token" if settings.pulsar_token_file:
            read = read_token_file(settings.pulsar_token_file)
            return Token(read, setting="POSTROOM_PULSAR_TOKEN_FILE")
        case "token" if settings.pulsar_token:
            return Token(settings.pulsar_token.get_secret_value, setting="POSTROOM_PULSAR_TOKEN")
        case "basic" if settings.pulsar_basic_user and settings.pulsar_basic_password:
            return Basic(
                settings.pulsar_basic_user, settings.pulsar_basic_password.get_secret_value()
            )
        case "certificate" if settings.pulsar_tls_cert_file and settings.pulsar_tls_key_file:
            return Certificate(settings.pulsar_tls_cert_file, settings.pulsar_tls_key_file)
        case "oauth2" if settings.pulsar_oauth2_issuer_url and settings.pulsar_oauth2_key_file:
            return Token(_issued(settings).token, setting="POSTROOM_PULSAR_OAUTH2_ISSUER_URL")
    return Anonymous()


def _issued(settings: Settings) -> ClientCredentials:
    # The issuer may be a public one while Pulsar's certificate is of an authority of one's own.
    context = ssl.create_default_context(cafile=_system_authorities())
    if settings.pulsar_tls_ca_file:
        context.load_verify_locations(cafile=settings.pulsar_tls_ca_file)
    return ClientCredentials(
        issuer_url=settings.pulsar_oauth2_issuer_url or "",
        key_file=settings.pulsar_oauth2_key_file or "",
        audience=settings.pulsar_oauth2_audience,
        scope=settings.pulsar_oauth2_scope,
        context=context,
    )


def _system_authorities() -> str:
    for place in (ssl.get_default_verify_paths().cafile, *BUNDLES):
        if place and Path(place).is_file():
            return place
    import certifi  # the client's library depends on it

    return certifi.where()
