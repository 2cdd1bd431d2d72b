"""Pulsar's admin interface, where it answers: nothing that a promise rests on is asked there."""

from __future__ import annotations

import contextlib
import functools
import http.client
import logging
import urllib.error
import urllib.request
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import orjson

from postroom import errors
from postroom.access import admin
from postroom.reminders import Reminders
from postroom.secured import has_tls

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http.client import HTTPMessage

    from postroom.access.pulsar import Access
    from postroom.topics import Topic

__all__ = ["VERSION", "Policy", "PulsarAdmin"]

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 2.0
OK = 200
NO_CONTENT = 204
NOT_FOUND = 404
HIDDEN = {401, 403}
# It tells that to whomever it lets in, whatever else he may not do.
VERSION = "brokers/version"


class _Answer(NamedTuple):
    status: int
    body: bytes


class Policy(NamedTuple):
    """A policy's value, None where it is not set; or that nobody tells, or not to this user."""

    is_told: bool
    value: Any = None
    is_hidden: bool = False


class PulsarAdmin:
    """Asks one admin interface; whatever is not answered within two seconds is None. Thread-safe.

    It may not be there, may let nobody in, or may be another cluster's: what it says explains and
    tidies up, and decides nothing by itself. It is told the same credentials as the broker, but
    never in clear what the broker is told in secret.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        # Why it is not asked, or lets nobody in, in a sentence without an end.
        self.refusal: str | None = None
        self._looked = Reminders()
        self._urls = _urls(access.admin_url)

    def holder(self, topic: str, subscription: str) -> dict[str, str] | None:
        """Return the properties of the consumer that sits on a subscription, and its `name`.

        Nothing is in it where nobody sits there.
        """
        stats = self._get(f"{_path(topic)}/stats")
        with contextlib.suppress(KeyError, TypeError, AttributeError):
            for holder in stats["subscriptions"].get(subscription, {}).get("consumers", [])[:1]:
                return {**holder.get("metadata", {}), "name": str(holder["consumerName"])}
            return {}
        return None

    def keeps_for_minutes(self, namespace: str) -> int | None:
        """Return for how many minutes a namespace keeps what all subscriptions have acknowledged.

        0 is not at all, -1 for ever.
        """
        found = self._get(f"namespaces/{namespace}/retention")
        if not isinstance(found, dict):
            return None
        minutes, megabytes = found.get("retentionTimeInMinutes"), found.get("retentionSizeInMB")
        # Where one of the two is 0, nothing is kept.
        return 0 if megabytes == 0 else minutes

    def largest_message(self, topic: Topic) -> int | None:
        """Return how many bytes a message may have by the topic's own policy; 0 is no policy."""
        answer = self._ask("GET", f"{_path(topic)}/maxMessageSize")
        if answer is None or answer.status not in {OK, NO_CONTENT}:
            return None
        return int(answer.body) if answer.body.isdigit() else 0

    def policy(self, where: str, name: str) -> Policy:
        """Return a policy that a topic or namespace has, by its path in this interface."""
        answer = self._ask("GET", f"{where}/{name}")
        if answer is None:
            return Policy(is_told=False)
        if answer.status in HIDDEN:
            return Policy(is_told=True, is_hidden=True)
        with contextlib.suppress(orjson.JSONDecodeError):
            if answer.status == OK:
                return Policy(is_told=True, value=orjson.loads(answer.body))
        return Policy(is_told=True)

    def longest_delay_ms(self, topic: Topic) -> int | None:
        """Return for how long a message may be delayed by policy; 0 is no limit."""
        found = self._get(f"{_path(topic)}/delayedDelivery?applied=true")
        longest = found.get("maxDeliveryDelayInMillis") if isinstance(found, dict) else None
        return longest if isinstance(longest, int) else None

    def statistics(self, topic: Topic) -> Mapping[str, Any] | None:
        """Return what the broker tells of a topic, partitioned or not: `subscriptions` and more.

        Empty where there is no such topic, None where that cannot be told.
        """
        known = False
        for kind in ("stats", "partitioned-stats"):
            asked = f"{_path(topic)}/{kind}?getEarliestTimeInBacklog=true"
            answer = self._ask("GET", asked)
            known = known or (answer is not None and answer.status == NOT_FOUND)
            if answer is not None and answer.status == OK:
                with contextlib.suppress(orjson.JSONDecodeError):
                    found = orjson.loads(answer.body)
                    return found if isinstance(found, dict) else None
        return {} if known else None

    def is_absent(self, topic: Topic) -> bool:
        """Say whether it is known for certain that there is no such topic, partitioned or not."""
        answers = (self._ask("GET", f"{_path(topic)}/{what}") for what in ("stats", "partitions"))
        return all(answer is not None and answer.status == NOT_FOUND for answer in answers)

    def divide(self, topic: Topic, count: int) -> bool:
        """Make a topic with so many topic partitions where there is none; say if that was done."""
        if not self.is_absent(topic):
            return False
        answer = self._ask("PUT", f"{_path(topic)}/partitions", str(count).encode())
        return answer is not None and answer.status in {OK, NO_CONTENT}

    def delete(self, topic: Topic) -> None:
        """Delete a topic, partitioned or not, with all that is on it."""
        for kind in ("", "/partitions"):
            self._ask("DELETE", f"{_path(topic)}{kind}?force=true")

    def _get(self, path: str) -> Any:
        answer = self._ask("GET", path)
        if answer is None or answer.status != OK:
            return None
        with contextlib.suppress(orjson.JSONDecodeError):
            return orjson.loads(answer.body)
        return None

    def _ask(self, method: str, path: str, body: bytes | None = None) -> _Answer | None:
        for url in self._urls:
            if (answer := self._ask_at(url, method, path, body)) is not None:
                return answer
        return None

    def _ask_at(self, url: str, method: str, path: str, body: bytes | None) -> _Answer | None:
        try:
            headers = _headers(self._access, url)
            if headers is None:
                self.refusal = admin.unasked(self._access, url)
                _say_once(f"{self.refusal}; what it would tell is left out")
                return None
            told = dict(headers) | ({} if body is None else {"Content-Type": "application/json"})
            # The setting's type allows for http and https only.
            request = urllib.request.Request(  # noqa: S310
                f"{url}/admin/v2/{path}", body, headers=told, method=method
            )
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                return _Answer(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                self._look_into(url, path, error)
                return _Answer(error.code, b"")
        except (OSError, http.client.HTTPException, errors.ServiceUnavailable) as error:
            # Certificates may have been replaced meanwhile.
            self.__dict__.pop("_opener", None)
            self._look_into(url, path, error)
            return None

    def _look_into(self, url: str, path: str, error: Exception) -> None:
        if (reason := admin.why(self._access, url, error)) is None:
            return
        if isinstance(error, urllib.error.HTTPError) and path != VERSION:
            # The same code is given to who is let in and lacks a right; the version is for all.
            if self._looked.is_due(url):
                self._ask_at(url, "GET", VERSION, None)
            return
        self.refusal = reason
        admin.tell(reason)

    @functools.cached_property
    def _opener(self) -> urllib.request.OpenerDirector:
        opener = urllib.request.OpenerDirector()
        for each in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            _LateTls(self._access),
            _StaySecret(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.UnknownHandler(),
        ):
            opener.add_handler(each)
        return opener


class _LateTls(urllib.request.BaseHandler):
    """Loads the authorities once anything is asked by TLS: they are a megabyte, and take 20 ms."""

    def __init__(self, access: Access) -> None:
        self._access = access

    @functools.cached_property
    def _handler(self) -> urllib.request.HTTPSHandler:
        handler = urllib.request.HTTPSHandler(context=self._access.tls())
        handler.add_parent(self.parent)
        return handler

    def https_request(self, req: urllib.request.Request) -> urllib.request.Request:
        """Complete a request, as a handler of urllib's does."""
        return self._handler.https_request(req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Open it."""
        return self._handler.https_open(req)


class _StaySecret(urllib.request.HTTPRedirectHandler):
    """Follows a broker to the one that has the topic, but not from TLS to clear text."""

    def redirect_request(  # noqa: PLR0917 - the signature of urllib
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the request to the other broker, or None to follow nobody."""
        if has_tls(req.full_url) and not has_tls(newurl):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _headers(access: Access, url: str) -> Mapping[str, str] | None:
    credentials = access.credentials
    if credentials.secret_is_sent and has_tls(access.url) and not has_tls(url):
        return None
    return credentials.headers()


@functools.cache
def _say_once(sentence: str) -> None:
    logger.warning("%s", sentence)


def _urls(several: str) -> list[str]:
    """Take apart what names several hosts, as `http://a:8080,b:8080`; where none is named, none."""
    scheme, _, rest = several.rstrip("/").partition("://")
    hosts, slash, path = rest.partition("/")
    return [f"{scheme}://{host}{slash}{path}" for host in hosts.split(",") if host]


def _path(topic: str) -> str:
    return topic.replace("://", "/")
