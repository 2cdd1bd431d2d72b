"""Examining the connections: which ones are in clear, and which trust whoever answers."""

from __future__ import annotations

import ipaddress
import urllib.parse
from typing import TYPE_CHECKING

from pymongo.uri_parser import parse_uri

from postroom.findings import Finding, Grade
from postroom.mongodb_options import for_pymongo
from postroom.secured import has_tls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.settings import Settings

__all__ = ["examine"]

# Options of MongoDB by which anybody may stand in for the server.
TRUSTING = {"tlsInsecure", "tlsAllowInvalidCertificates", "tlsAllowInvalidHostnames"}


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at the four addresses; nothing is connected, and of them hosts alone are shown."""
    yield _finding(
        "POSTROOM_PULSAR_URL", settings.pulsar_url, encrypted=has_tls(settings.pulsar_url)
    )
    admin = settings.pulsar_admin_url
    yield _finding("POSTROOM_PULSAR_ADMIN_URL", admin, encrypted=has_tls(admin))
    redis = urllib.parse.urlsplit(settings.redis_url)
    options = dict(urllib.parse.parse_qsl(redis.query))
    trusting = options.get("ssl_cert_reqs", "required").lower().removeprefix("cert_") != "required"
    yield _finding(
        "POSTROOM_REDIS_URL",
        settings.redis_url,
        encrypted=redis.scheme == "rediss",
        trusting=trusting or options.get("ssl_check_hostname") == "false",
    )
    yield _of_mongodb(settings.mongodb_uri)


def _of_mongodb(uri: str) -> Finding:
    # The driver turns TLS on for mongodb+srv unless the URI says otherwise.
    srv = uri.startswith("mongodb+srv://")
    query = "&".join(
        each for each in uri.partition("?")[2].split("&") if not each.lower().startswith("srv")
    )
    options = parse_uri(for_pymongo(f"mongodb://h/?{query}"), warn=True)["options"]
    return _finding(
        "POSTROOM_MONGODB_URI",
        uri,
        encrypted=bool(options.get("tls", srv)),
        trusting=any(options.get(each) for each in TRUSTING),
    )


def _finding(setting: str, url: str, *, encrypted: bool, trusting: bool = False) -> Finding:
    what = f"TLS of {setting}"
    if encrypted and not trusting:
        return Finding(what=what, found=f"{setting} is encrypted")
    if not encrypted and all(map(_is_here, getattr(url, "hosts", url).split(", "))):
        return Finding(what=what, found=f"{setting} leads to this machine, in clear")
    if encrypted:
        return Finding(
            what=what,
            found=f"{setting} is encrypted, and its options trust whoever answers: anybody may "
            "stand in for the server",
            grade=Grade.WARN,
            remedy="Have certificates and host names checked: docs/security.md says how",
        )
    return Finding(
        what=what,
        found=f"{setting} leads to another machine, in clear",
        grade=Grade.WARN,
        remedy="Encrypt it: docs/security.md says how",
    )


def _is_here(host: str) -> bool:
    """Say whether a host, or a socket's path, is this machine's."""
    name = host.rpartition(":")[0].strip("[]") if ":" in host else host
    if name.startswith("/") or name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
