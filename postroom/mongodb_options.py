"""MongoDB's options: those of a connection string as the driver reads them, and their refusals."""

from __future__ import annotations

import functools
import importlib.util
import re
import warnings
from typing import Any

from pymongo import MongoClient, common
from pymongo.uri_parser import parse_uri

from postroom import pymongo_adapter

__all__ = ["for_pymongo", "names", "parsed", "require"]

# Options of MongoDB that name a file of certificates; the passphrase goes with the last one.
CERTIFICATE, PASSPHRASE = "tlscertificatekeyfile=", "tlscertificatekeyfilepassword="
UNFIT = "an address whose options do not go together, or not with its hosts"
# What compresses, of which PyMongo has the last one alone without further packages.
COMPRESSORS = "(?i)compressors=(?:(?:snappy|zstd|zlib)(?:,|$))+"
CERTIFICATES = {"tlscafile", "tlscrlfile", CERTIFICATE[:-1]}
# What PyMongo imports when it says who it is by one of these, and not before.
MECHANISMS = {"MONGODB-AWS": ("pymongo_auth_aws",), "GSSAPI": ("winkerberos", "kerberos")}


def require(base: str, options: str, *, srv: bool) -> None:
    """Refuse options that the driver would not take, ignore with a warning, or fail by later.

    `base` is what stands before them, behind the scheme; a name server is not asked.

    Raises:
        ValueError: the message has the name of one that is wrong, and no value.

    """
    several = [option for option in re.split("[&;]", options) if option]
    own = [option.partition("=")[0] for option in several]
    for name, option in zip(own, several, strict=True):
        if srv and name.lower().startswith("srv"):
            continue
        if not _fits(f"h/?{option}"):
            if re.fullmatch(COMPRESSORS, option):
                _refuse_package(option.replace("=", " "))
            _refuse_option(name)
    others = "&".join(o for o, n in zip(several, own, strict=True) if n[:3].lower() != "srv")
    direct = srv and re.search(r"(?i)directConnection=true", options)
    if direct or (options and not _fits(f"{base if '/' in base else f'{base}/'}?{others}")):
        raise ValueError(UNFIT)
    _require_client(base if "/" in base else f"{base}/", options, srv=srv)


def _require_client(base: str, options: str, *, srv: bool) -> None:
    """Make the driver's client, unconnected: it reads files and mechanisms that parsing does not.

    A name server is not asked: the options of `mongodb+srv` stand there as those of its one host.
    """
    given = [option for option in re.split("[&;]", options) if option]
    if srv:
        given = [option for option in given if not option.lower().startswith("srv")]
    mechanism = ""
    for option in given:
        name, _, value = option.partition("=")
        if name.lower() in CERTIFICATES and not _makes_client("h/", _alone(option, given)):
            _refuse_option(name)
        if name.lower() == "authmechanism":
            mechanism = value.upper()
    modules = MECHANISMS.get(mechanism, ())
    if modules and not any(map(importlib.util.find_spec, modules)):
        _refuse_package(f"authMechanism {mechanism}")
    if not _makes_client(base, given):
        raise ValueError(UNFIT)


def _alone(option: str, given: list[str]) -> list[str]:
    """Return what a file's option is of use with: encryption, and its key's passphrase."""
    beside = [each for each in given if each.lower().startswith(PASSPHRASE)]
    return ["tls=true", option, *(beside if option.lower().startswith(CERTIFICATE) else ())]


def _makes_client(base: str, options: list[str]) -> bool:
    with warnings.catch_warnings(), pymongo_adapter.unread():
        warnings.simplefilter("ignore")
        try:
            MongoClient(f"mongodb://{base}?{'&'.join(options)}", connect=False).close()
        except Exception:  # noqa: BLE001 - of PyMongo, OpenSSL and the file system: none can be made
            return False
    return True


def _refuse_option(name: str) -> None:
    # What is no option's name may be a part of a password whose & is not encoded.
    known = name.lower() in names()
    shown = name if known else "(not shown)"
    raise ValueError(f"an address whose option {shown} has a wrong value")


def _refuse_package(what: str) -> None:
    raise ValueError(f"an address whose {what} needs a package that is not installed")


def for_pymongo(url: str, *, without: str = "") -> str:
    """Return MongoDB's connection string without the options that PyMongo does not know.

    And without one more, if it is named.

    They mean nothing to it, and it may warn of them by their names: parts of a password whose & is
    not encoded, for all that is known.
    """
    before, mark, query = url.partition("?")
    known = names() - {without.lower()}
    options = (each for each in re.split("[&;]", query) if each.partition("=")[0].lower() in known)
    return before + mark + "&".join(options)


@functools.cache
def names() -> frozenset[str]:
    """Return the names of the options that PyMongo knows, in small letters."""
    return frozenset(name.lower() for name in common.VALIDATORS)


def _fits(rest: str) -> bool:
    try:
        parsed(rest)
    except Exception:  # noqa: BLE001 - it reads files too, and raises what these do, and KeyError
        return False
    return True


def parsed(rest: str) -> dict[str, Any]:
    """Parse as PyMongo's client does, but refuse values that it would ignore with a warning."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = parse_uri(f"mongodb://{rest}", validate=True, warn=True)
    for warning in told:
        if warning.category is UserWarning and not re.match(
            "Unknown|Duplicate", str(warning.message)
        ):
            raise ValueError("a value is ignored")
    return found
