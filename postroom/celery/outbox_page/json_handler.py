"""JsonHandler: the handlers that speak JSON, and what all of them refuse."""

from __future__ import annotations

import functools
import http
from typing import TYPE_CHECKING, Any

import orjson
import tornado.web

from postroom import errors
from postroom.celery.outbox_page import adapter
from postroom.celery.outbox_page.question_threads import Busy
from postroom.celery.outbox_page.requests import RequestRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from postroom.celery.outbox_page.desk import Desk

__all__ = ["JsonHandler"]

MOST_BODY_BYTES = 256 * 1024


class JsonHandler(adapter.FlowerHandler):
    """A handler that answers in JSON; what goes wrong is a sentence in it."""

    desk: Desk

    def initialize(self, desk: Desk) -> None:
        """Take the desk that is asked."""
        self.desk = desk

    def prepare(self) -> None:
        """Let in whom Flower lets in; what changes something, only from who may.

        Raises:
            RequestRefused: this user may change nothing, or a form of another page sent this.

        """
        self.set_header("Cache-Control", "no-store")
        if not self.current_user:
            raise tornado.web.HTTPError(http.HTTPStatus.UNAUTHORIZED)
        if self.request.method not in ("GET", "HEAD", "OPTIONS"):
            if self.may_not_act:
                raise RequestRefused(self.may_not_act, status=http.HTTPStatus.FORBIDDEN)
            kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip()
            if kind != "application/json":
                # No form of another page can send that.
                raise RequestRefused(
                    "Send application/json", status=http.HTTPStatus.UNSUPPORTED_MEDIA_TYPE
                )

    @property
    def may_not_act(self) -> str:
        """Why this user may change nothing; empty where he may."""
        return self.desk.refusal(self.who, read_only=self.is_read_only)

    @functools.cached_property
    def told(self) -> Mapping[str, Any]:
        """What the body or the address says.

        Raises:
            RequestRefused: the body is no JSON object, or is far too large.

        """
        if self.request.method == "GET":
            return {name: self.get_query_argument(name) for name in self.request.query_arguments}
        if len(self.request.body) > MOST_BODY_BYTES:
            raise RequestRefused(
                "That is too much", status=http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            )
        try:
            found = orjson.loads(self.request.body)
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            raise RequestRefused("The body is to be a JSON object")
        return found

    def answer(self, value: Any) -> None:
        """Answer with a value; what JSON does not know is given as its text."""
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.finish(orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS))

    async def ask(self, question: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Have the desk's threads answer; a failure is refused with its sentence.

        Raises:
            RequestRefused: it could not be answered.

        """
        try:
            return await self.desk.pool.ask(question, *args, **kwargs)
        except (RequestRefused, errors.ConfigurationError):
            raise
        except Busy as error:
            raise RequestRefused(str(error), status=http.HTTPStatus.SERVICE_UNAVAILABLE) from error
        except Exception as error:
            if self.desk.is_a_mistake(error):
                raise
            status = http.HTTPStatus.SERVICE_UNAVAILABLE
            raise RequestRefused(
                await self.desk.pool.ask(self.desk.why, error), status=status
            ) from error

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log mistakes alone: a refusal is an answer."""
        if not isinstance(value, (RequestRefused, errors.ConfigurationError)):
            super().log_exception(typ, value, tb)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with the sentence of what was refused, and never with a traceback."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, RequestRefused):
            status_code, sentence = error.status, str(error)
        elif isinstance(error, errors.ConfigurationError):
            status_code, sentence = http.HTTPStatus.BAD_REQUEST, str(error)
        elif isinstance(error, tornado.web.HTTPError):
            sentence = error.log_message or http.HTTPStatus(status_code).phrase
        else:
            sentence = "Flower made a mistake over this; its log tells which"
        self.set_status(status_code)
        if status_code == http.HTTPStatus.UNAUTHORIZED:
            self.set_header("WWW-Authenticate", 'Basic realm="flower"')
        self.answer({"sentence": sentence})
