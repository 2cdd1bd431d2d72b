"""The handlers of the Outbox page: the page, its assets, and what it asks every few seconds."""

from __future__ import annotations

import http
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
import tornado.web

from postroom import errors
from postroom.celery.outbox_page import adapter
from postroom.celery.outbox_page.desk import Busy, Desk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from postroom.celery.outbox_page.lookout import Seen

__all__ = ["Answers", "Refused", "routes"]


class Refused(errors.PostroomError):
    """What was asked for is not done; the sentence says why, and `status` is HTTP's word for it."""

    def __init__(self, sentence: str, *, status: int = http.HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(sentence)
        self.status = status


class Page(adapter.Handler):
    """The page itself; what it shows, it asks for."""

    @tornado.web.authenticated
    def get(self) -> None:
        """Answer with the page."""
        self.set_header("Cache-Control", "no-store")
        self.render_page()


class Asset(adapter.Handler, tornado.web.StaticFileHandler):
    """The page's own script and style, behind the same login."""

    def prepare(self) -> None:
        """Let in whom Flower lets in."""
        if not self.current_user:
            raise tornado.web.HTTPError(http.HTTPStatus.UNAUTHORIZED)

    def set_extra_headers(self, path: str) -> None:  # noqa: ARG002 - Tornado's signature
        """Have browsers ask each time whether it is another one now."""
        self.set_header("Cache-Control", "no-cache")


class Answers(adapter.Handler):
    """A handler that answers in JSON; what goes wrong is a sentence in it."""

    desk: Desk

    def initialize(self, desk: Desk) -> None:
        """Take the desk that is asked."""
        self.desk = desk

    def prepare(self) -> None:
        """Let in whom Flower lets in."""
        self.set_header("Cache-Control", "no-store")
        if not self.current_user:
            raise tornado.web.HTTPError(http.HTTPStatus.UNAUTHORIZED)

    def answer(self, value: Any) -> None:
        """Answer with a value; what JSON does not know is given as its text."""
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.finish(orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS))

    async def ask(self, question: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Have the desk's threads answer; a failure is refused with its sentence.

        Raises:
            Refused: it could not be answered.

        """
        try:
            return await self.desk.ask(question, *args, **kwargs)
        except Refused:
            raise
        except Busy as error:
            raise Refused(str(error), status=http.HTTPStatus.SERVICE_UNAVAILABLE) from error
        except errors.ConfigurationError as error:
            raise Refused(str(error)) from error
        except Exception as error:
            if self.desk.is_a_mistake(error):
                raise
            sentence = await self.desk.ask(self.desk.why, error)
            raise Refused(sentence, status=http.HTTPStatus.SERVICE_UNAVAILABLE) from error

    def text(self, name: str) -> str | None:
        """Return an argument of the address as it is, or None where there is none."""
        found = self.get_query_argument(name, None)
        return found or None

    def whole(self, name: str, default: int, *, most: int) -> int:
        """Return a whole number of the address, from 0 to `most`.

        Raises:
            Refused: it is none.

        """
        text = self.text(name)
        if text is None:
            return default
        if not text.isdecimal() or len(text) > len(str(most)) or int(text) > most:
            raise Refused(f"{name} is to be a whole number, {most} at most")
        return int(text)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log mistakes alone: a refusal is an answer."""
        if not isinstance(value, Refused):
            super().log_exception(typ, value, tb)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with the sentence of what was refused, and never with a traceback."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        sentence = http.HTTPStatus(status_code).phrase
        if isinstance(error, Refused):
            status_code, sentence = error.status, str(error)
        elif isinstance(error, tornado.web.HTTPError):
            sentence = error.log_message or sentence
        else:
            sentence = "Flower made a mistake over this; its log tells which"
        self.set_status(status_code)
        if status_code == http.HTTPStatus.UNAUTHORIZED:
            self.set_header("WWW-Authenticate", 'Basic realm="flower"')
        self.answer({"sentence": sentence})


class Watched(Answers):
    """What is looked at again and again; each answer says when that was, and what is wrong."""

    def get(self, part: str) -> None:
        """Answer at once with what was seen last."""
        desk = self.desk
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "partitions": lambda: {
                "partitions": _told(desk.rows()),
                "complete": _complete(desk),
                "workers": _told(desk.fleet.seen(), value=False),
            },
            "topics": lambda: {"topics": _told(desk.topics.seen())},
            "consumers": lambda: {"workers": _told(desk.fleet.seen())},
        }
        self.answer({"now": datetime.now(UTC), "may_act": self.may_act, **parts[part]()})

    @property
    def may_act(self) -> str:
        """Why this user may change nothing; empty where he may."""
        return self.desk.refusal(self.who, read_only=self.is_read_only)


def _complete(desk: Desk) -> bool:
    seen = desk.views.seen().value
    return seen is None or seen.complete


def _told(seen: Seen[Any], *, value: bool = True) -> dict[str, Any]:
    told = {"at": seen.at, "trouble": seen.trouble}
    return {**told, "value": seen.value} if value else told


def routes(desk: Desk) -> Sequence[tuple[str, type, dict[str, Any]]]:
    """Return the handlers of the page, by what comes behind Flower's prefix."""
    return [
        (r"/outbox/?", Page, {}),
        (r"/outbox/assets/(.*)", Asset, {"path": str(adapter.ASSETS)}),
        (r"/outbox/api/(partitions|topics|consumers)", Watched, {"desk": desk}),
    ]
