"""Secured: the settings by which connections are secured."""

from __future__ import annotations

import ipaddress
import ssl
import urllib.parse
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainSerializer, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from postroom import address, names
from postroom.envelope import AES_256_GCM, key_ring
from postroom.secret_files import content_of, line_of, refuse, require_line, secret

__all__ = [
    "HOSTS_ALONE",
    "SECRETS",
    "Encrypt",
    "Secured",
    "has_tls",
    "keeps_secrets",
]

# What may be a secret has a second variable with the file that holds it. A token is not read here,
# but each time that the broker asks for it.
READ_ONCE = (
    "mongodb_uri",
    "redis_url",
    "redis_sentinel_password",
    "pulsar_basic_password",
    "flower_password",
    "encryption_keys",
)
SECRETS = (*READ_ONCE, "pulsar_token")

Encrypt = Literal["marked", "all"]
Way = Literal["token", "oauth2", "basic", "certificate"]


def has_tls(url: str) -> bool:
    """Say whether a URL of Pulsar or of its admin interface is one of an encrypted connection."""
    return url.startswith(("pulsar+ssl://", "https://"))


def keeps_secrets(url: str) -> bool:
    """Say whether a secret may be sent to a URL: by TLS, or within this machine."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return bool(parts.hostname)
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _issuer(url: str) -> address.Address:
    try:
        found = address.http(url)
        if "," not in found.hosts and keeps_secrets(url):
            return found
    except ValueError:
        pass
    raise ValueError(
        "not https://host/path, of one host, without user, password and query: the client's secret "
        "would go over the network as it is, or the address show one"
    )


def _flower_user(value: str) -> str:
    if not value or not value.isprintable() or ":" in value:
        raise ValueError(
            "a user's name is one line without a colon, at which browsers take user and password "
            "apart"
        )
    return value


FlowerUser = Annotated[str, AfterValidator(_flower_user)]
# What is written as JSON is read by others: of an address the hosts, as its repr has them.
HOSTS_ALONE = PlainSerializer(address.shown, return_type=str, when_used="json")
IssuerUrl = Annotated[str, AfterValidator(_issuer), HOSTS_ALONE]


class Secured(BaseSettings):
    """How connections are encrypted, and as whom they are made.

    A secret is given by its variable or by the file that `<VARIABLE>_FILE` names, never by both.
    """

    model_config = SettingsConfigDict(hide_input_in_errors=True)

    mongodb_uri_file: str | None = Field(
        None, description="The file that holds POSTROOM_MONGODB_URI, as a secret is mounted"
    )
    redis_url_file: str | None = Field(None, description="The file that holds POSTROOM_REDIS_URL")
    redis_master_name: str | None = Field(
        None, description="The master that Sentinel is asked for, where the URL is `sentinel://…`"
    )
    redis_sentinel_password: SecretStr | None = Field(
        None, description="The password of the Sentinels themselves, where they have one"
    )
    redis_sentinel_password_file: str | None = Field(
        None, description="The file that holds POSTROOM_REDIS_SENTINEL_PASSWORD"
    )
    pulsar_tls_ca_file: str | None = Field(
        None,
        description="Authorities that Pulsar's certificates are checked against, in PEM; the "
        "system's unless set",
    )
    pulsar_token: SecretStr | None = Field(None, description="A token for Pulsar")
    pulsar_token_file: str | None = Field(
        None,
        description="The file that holds the token; it is read again whenever the broker asks for "
        "a token, so that it may be replaced at any time",
    )
    pulsar_tls_cert_file: str | None = Field(
        None, description="The client's certificate for Pulsar, in PEM (mutual TLS)"
    )
    pulsar_tls_key_file: str | None = Field(
        None, description="The key of that certificate, in PEM, without a passphrase"
    )
    pulsar_oauth2_issuer_url: IssuerUrl | None = Field(
        None, description="Where tokens for Pulsar are fetched (OAuth 2, client credentials)"
    )
    pulsar_oauth2_audience: str | None = Field(None, description="The audience to ask a token for")
    pulsar_oauth2_scope: str | None = Field(None, description="The scope to ask a token for")
    pulsar_oauth2_key_file: str | None = Field(
        None, description="The JSON file with `client_id` and `client_secret`"
    )
    pulsar_basic_user: str | None = Field(None, description="A user name for Pulsar")
    pulsar_basic_password: SecretStr | None = Field(None, description="That user's password")
    pulsar_basic_password_file: str | None = Field(
        None, description="The file that holds POSTROOM_PULSAR_BASIC_PASSWORD"
    )
    flower_user: FlowerUser = Field("flower", description="The user that Flower lets in")
    flower_password: SecretStr | None = Field(
        None, description="That user's password; Flower does not start without one"
    )
    flower_password_file: str | None = Field(
        None, description="The file that holds POSTROOM_FLOWER_PASSWORD"
    )
    flower_operators: str | None = Field(
        None,
        description="Who may act on Flower's Outbox page, with commas between; all who are let in, "
        "unless set",
    )

    encrypt: Encrypt = Field(
        "marked",
        description="Which events brokers cannot read: those whose class or row says so, or `all`",
    )
    envelope: Annotated[str, AfterValidator(names.checked)] = Field(
        AES_256_GCM, description="The codec that encrypts them; packages may bring others"
    )
    encryption_keys: SecretStr | None = Field(
        None,
        description="Its keys, `id:key` with commas between, each 32 bytes in base64: the first "
        "one encrypts, all of them decrypt",
    )
    encryption_keys_file: str | None = Field(
        None, description="The file that holds POSTROOM_ENCRYPTION_KEYS"
    )

    @model_validator(mode="before")
    @classmethod
    def _read_secrets(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        read = dict(values)
        for name in SECRETS:
            variable, file = f"POSTROOM_{name.upper()}", read.get(f"{name}_file")
            if file and read.get(name):
                refuse(f"{variable} and {variable}_FILE are both set: leave one out")
            if file and name in READ_ONCE:
                read[name] = secret(f"{variable}_FILE", file, line_of)
            require_line(variable, read.get(name))
        for name in FILES:
            if read.get(name):
                of_one_line = name.removesuffix("_file") in SECRETS
                read_by = line_of if of_one_line else content_of
                secret(f"POSTROOM_{name.upper()}", read[name], read_by)
        return read

    @model_validator(mode="after")
    def _fit_together(self) -> Secured:
        _require_whole(self)
        ways = _ways(self)
        if len(ways) > 1:
            named = " and ".join(WAYS[way] for way in ways)
            refuse(f"{named} are set, and one client has one way to say who it is: leave one")
        _require_tls_where_it_is_spoken_of(self)
        _require_usable_certificates(self)
        _require_whole_redis(self, str(getattr(self, "redis_url", "")))
        _require_usable_keys(self.encryption_keys)
        return self

    @property
    def pulsar_way_in(self) -> Way | None:
        """How Pulsar is told who this is."""
        return next(iter(_ways(self)), None)


FILES = tuple(name for name in Secured.model_fields if name.endswith("_file"))
WAYS: dict[Way, str] = {
    "token": "POSTROOM_PULSAR_TOKEN or its _FILE",
    "oauth2": "POSTROOM_PULSAR_OAUTH2_…",
    "basic": "POSTROOM_PULSAR_BASIC_USER",
    "certificate": "POSTROOM_PULSAR_TLS_CERT_FILE",
}
# What is of no use without the other one.
PAIRS = (
    ("pulsar_tls_cert_file", "pulsar_tls_key_file"),
    ("pulsar_oauth2_issuer_url", "pulsar_oauth2_key_file"),
    ("pulsar_basic_user", "pulsar_basic_password"),
)


def _ways(secured: Secured) -> list[Way]:
    given: dict[Way, object] = {
        "token": secured.pulsar_token or secured.pulsar_token_file,
        "oauth2": secured.pulsar_oauth2_issuer_url,
        "basic": secured.pulsar_basic_user,
        "certificate": secured.pulsar_tls_cert_file,
    }
    return [way for way, value in given.items() if value]


def _require_whole(secured: Secured) -> None:
    for one, other in PAIRS:
        for there, missing in ((one, other), (other, one)):
            if getattr(secured, there) and not getattr(secured, missing):
                refuse(f"POSTROOM_{there.upper()} is set, and POSTROOM_{missing.upper()} is not")
    password = secured.pulsar_basic_password
    if ":" in (secured.pulsar_basic_user or "") or (
        password is not None and ":" in password.get_secret_value()
    ):
        refuse(
            "POSTROOM_PULSAR_BASIC_USER or _PASSWORD has a colon in it, which no Pulsar lets in: "
            "that is where it takes the two apart"
        )


def _require_tls_where_it_is_spoken_of(secured: Secured) -> None:
    urls = {name: getattr(secured, name, "") for name in ("pulsar_url", "pulsar_admin_url")}
    if secured.pulsar_tls_cert_file and not has_tls(urls["pulsar_url"]):
        refuse(
            "POSTROOM_PULSAR_TLS_CERT_FILE is set, and POSTROOM_PULSAR_URL is not pulsar+ssl://…, "
            "so that no certificate would be shown"
        )
    if secured.pulsar_tls_ca_file and not any(has_tls(url) for url in urls.values()):
        refuse(
            "POSTROOM_PULSAR_TLS_CA_FILE is set, and POSTROOM_PULSAR_URL is not pulsar+ssl://…, so "
            "that nothing would be encrypted"
        )


def _require_usable_certificates(secured: Secured) -> None:
    _require_authorities("POSTROOM_PULSAR_TLS_CA_FILE", secured.pulsar_tls_ca_file)
    _require_own_certificate(
        "POSTROOM_PULSAR_TLS_CERT_FILE and _KEY_FILE are",
        secured.pulsar_tls_cert_file,
        secured.pulsar_tls_key_file,
    )


def _require_authorities(named: str, path: str | None) -> None:
    if path:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
        except (ssl.SSLError, OSError):
            refuse(f"{named}: {path} has no certificate in PEM that can be read")


def _require_own_certificate(named: str, certificate: str | None, key: str | None) -> None:
    if certificate or key:
        try:
            # The password keeps OpenSSL from asking for one at the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
                certificate or "", key, password=""
            )
        except (ssl.SSLError, OSError):
            refuse(f"{named} no certificate and its key, in PEM and without a passphrase")


def _require_usable_keys(keys: SecretStr | None) -> None:
    try:
        if keys is not None:
            key_ring(keys.get_secret_value())
    except ValueError as error:
        refuse(f"POSTROOM_ENCRYPTION_KEYS (not shown): {error}")


def _require_whole_redis(secured: Secured, url: str) -> None:
    sentinel = url.startswith("sentinel://")
    if sentinel and not secured.redis_master_name:
        refuse("POSTROOM_REDIS_URL is sentinel://…, and POSTROOM_REDIS_MASTER_NAME is not set")
    if not sentinel and (secured.redis_master_name or secured.redis_sentinel_password):
        refuse(
            "POSTROOM_REDIS_MASTER_NAME or _SENTINEL_PASSWORD is set, and POSTROOM_REDIS_URL is "
            "not sentinel://…"
        )
    options = dict(urllib.parse.parse_qsl(url.partition("?")[2]))
    encrypting = [name for name in options if name.startswith("ssl_")]
    if encrypting and not url.startswith("rediss://"):
        refuse(
            f"POSTROOM_REDIS_URL has {encrypting[0]} and is not rediss://…, so that nothing would "
            "be encrypted"
        )
    authorities, *own = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
    for name in (authorities, *own):
        if name in options:
            secret(f"{name} in POSTROOM_REDIS_URL", options[name])
    _require_authorities("ssl_ca_certs in POSTROOM_REDIS_URL", options.get(authorities))
    _require_own_certificate(
        "ssl_certfile and ssl_keyfile in POSTROOM_REDIS_URL are", *map(options.get, own)
    )
