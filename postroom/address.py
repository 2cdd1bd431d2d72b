"""Addresses: where a service is found, and how little of that may be shown.

A user and a password travel in the addresses of MongoDB and Redis. What cannot be read for certain
is refused, in words that hold nothing of it: where a password ends is just what is unclear then.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from pymongo import errors as mongo

from postroom import mongodb_options

if TYPE_CHECKING:
    from collections.abc import Iterable
    from urllib.parse import SplitResult

__all__ = [
    "Address",
    "http",
    "mongodb",
    "pulsar",
    "redis",
    "shown",
]

UNKNOWN = "its address"
ENCODE = "characters like / @ : ? # % ; in user and password are percent-encoded"
NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?")
IPV6 = re.compile(r"[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(?:%[\w.-]+)?")
PULSAR = re.compile(r"pulsar(?:\+ssl)?://(?P<hosts>[^/]+)/?")
# By scheme, the options that an address of Redis may have. Celery shows what stands in others.
TLS_OPTIONS = {"ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"}
REDIS_OPTIONS = {"redis": TLS_OPTIONS, "rediss": TLS_OPTIONS, "redis+socket": {"virtual_host"}}
# Those of them that have a few values; what has another one would be refused, or be as unset.
REDIS_VALUES = {
    "ssl_cert_reqs": re.compile("|CERT_NONE|CERT_OPTIONAL|CERT_REQUIRED|none|optional|required"),
    "ssl_check_hostname": re.compile("|true|false"),
}
HIGHEST_PORT = 65_535


class Address(str):
    """A URL that was read without a doubt; its repr shows no more than `hosts`."""

    __slots__ = ("hosts",)
    hosts: str

    def __new__(cls, url: str, hosts: Iterable[str]) -> Self:
        """Make one of a URL and the hosts, with their ports, that it names."""
        made = super().__new__(cls, url)
        made.hosts = ", ".join(hosts)
        return made

    def __repr__(self) -> str:
        """Show the hosts alone: reprs end up in logs."""
        return f"<{self.hosts}>"

    def __reduce__(self) -> tuple[type[Address], tuple[str, list[str]]]:
        """Let it be copied and pickled."""
        return Address, (str(self), [self.hosts])


def shown(url: str) -> str:
    """Return the hosts that a URL names, or other words where it cannot be read for certain."""
    if isinstance(url, Address):
        return url.hosts
    for read in (mongodb, redis, pulsar, http):
        try:
            return read(url).hosts
        except ValueError:
            continue
    return UNKNOWN


def mongodb(url: str) -> Address:
    """Read MongoDB's connection string as PyMongo does, without asking a name server.

    Raises:
        ValueError: it cannot be read, or an option has no value of its kind.

    """
    scheme, _, rest = url.partition("://")
    base, _, options = rest.partition("?")
    if scheme in {"mongodb", "mongodb+srv"} and _is_plain(url) and not _has_sign_behind_hosts(rest):
        srv = scheme == "mongodb+srv"
        if hosts := _mongodb_hosts(base, srv=srv):
            mongodb_options.require(base, options, srv=srv)
            return Address(url, hosts)
    raise ValueError(f"no address of the form mongodb://user:password@host:port/?options; {ENCODE}")


def redis(url: str) -> Address:
    """Read the address of Redis as Celery does.

    Raises:
        ValueError: it cannot be read.

    """
    if url.startswith("sentinel://"):
        return _sentinels(url)
    parts = _split(url)
    if parts and ";" not in url and _is_plain_redis(parts):
        if parts.scheme == "redis+socket" and not parts.hostname and len(parts.path) > 1:
            return Address(url, [parts.path])
        if parts.hostname and re.fullmatch(r"(?:/\d{0,5})?", parts.path):
            return Address(url, [_host(parts, 6379)])
    raise ValueError(
        f"no address of the form redis://user:password@host:port/number; {ENCODE}; "
        "a password stands nowhere else"
    )


def _is_plain_redis(parts: SplitResult) -> bool:
    known = REDIS_OPTIONS.get(parts.scheme)
    options = [each.partition("=")[::2] for each in parts.query.split("&") if each]
    if known is None or not {name for name, _ in options} <= known:
        return False
    if any(name in REDIS_VALUES and not REDIS_VALUES[name].fullmatch(v) for name, v in options):
        return False
    user, at, _ = parts.netloc.rpartition("@")
    # A user alone is one whose colon was forgotten; Celery shows it, and that of a socket.
    return not at or (":" in user and parts.scheme != "redis+socket")


def _sentinels(url: str) -> Address:
    """Read `sentinel://user:password@a:26379,b:26379/0`, or several of these with `;` between."""
    hosts: list[str] = []
    for part in url.split(";"):
        scheme, _, rest = part.partition("://")
        authority, slash, path = rest.partition("/")
        user, at, several = authority.rpartition("@")
        for host in several.split(","):
            parts = _split(f"{scheme}://{user}{at}{host}{slash}{path}")
            known = parts and parts.scheme == "sentinel" and parts.hostname and not parts.query
            if not parts or not known or not re.fullmatch(r"(?:/\d{0,5})?", parts.path):
                raise ValueError(
                    "no address of the form sentinel://user:password@host:26379,host:26379/number; "
                    f"{ENCODE}"
                )
            hosts.append(_host(parts, 26379))
    return Address(url, hosts)


def pulsar(url: str) -> Address:
    """Read the address of a broker: hosts and ports, and nothing else.

    Raises:
        ValueError: there is something else, or a port is none.

    """
    found = PULSAR.fullmatch(url)
    hosts = found["hosts"].split(",") if found else []
    if hosts and all(_is_host_with_port(host) for host in hosts):
        return Address(url, hosts)
    raise ValueError("no address of the form pulsar://host:port,host:port; it takes no user")


def http(url: str) -> Address:
    """Read an address of HTTP, with one host or several, as `http://a:8080,b:8080`.

    User and password are refused, since nothing here would send them.

    Raises:
        ValueError: it cannot be read.

    """
    scheme, _, rest = url.partition("://")
    several, slash, path = rest.partition("/")
    hosts = [_http_host(f"{scheme}://{host}{slash}{path}") for host in several.split(",")]
    if all(hosts):
        return Address(url, hosts)
    raise ValueError("no address of the form http://host:port/path; it takes no user and password")


def _http_host(url: str) -> str:
    parts = _split(url)
    bare = parts and not (parts.query or parts.username or parts.password)
    if parts and bare and parts.scheme in {"http", "https"} and parts.hostname:
        return _host(parts, 443 if parts.scheme == "https" else 80)
    return ""


def _is_plain(url: str) -> bool:
    return url.isprintable()


def _has_sign_behind_hosts(rest: str) -> bool:
    # A password with a slash or question mark that is not encoded would end the part with the
    # hosts early, and the rest of it would be taken for a database or an option.
    # A number sign begins what no service reads.
    return "@" in re.sub(r"^[^/?]*", "", rest) or "#" in rest


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    # What a scheme means is asked of the text: in capitals it would be another one, without TLS.
    plain = _is_plain(url) and url.startswith(f"{parts.scheme}://") and "#" not in url
    behind = "@" in parts.path or "@" in parts.query
    host = parts.hostname or ""
    fits = not host or NAME.fullmatch(host) or IPV6.fullmatch(host)
    return parts if plain and not behind and fits and port != 0 else None


def _host(parts: SplitResult, default: int) -> str:
    name = parts.hostname or ""
    return f"{f'[{name}]' if ':' in name else name}:{parts.port or default}"


def _is_host_with_port(host: str) -> bool:
    name, _, port = host.rpartition(":") if re.search(r":[0-9]+$", host) else (host, "", "1")
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else ""
    fits = IPV6.fullmatch(bare) if bare else NAME.fullmatch(name)
    return bool(fits) and 0 < int(port) <= HIGHEST_PORT


def _mongodb_hosts(base: str, *, srv: bool) -> list[str]:
    """Return the hosts of what stands before the options, or none where it cannot be read."""
    try:
        nodes = mongodb_options.parsed(base)["nodelist"]
    except (mongo.PyMongoError, ValueError):
        return []
    authority = base.partition("/")[0].rpartition("@")[2]
    if not authority.isascii() or (srv and (len(nodes) != 1 or ":" in authority)):
        return []
    if any(
        not (host.endswith(".sock") or NAME.fullmatch(host) or IPV6.fullmatch(host))
        for host, _ in nodes
    ):
        return []
    return [host if srv or port is None else f"{host}:{port}" for host, port in nodes]
