"""The adapter to Flower: every name of Flower's that the page leans on, of which it promises none.

`tests/unit/test_outbox_page_contract.py` names each piece. Import it only where Flower is loaded.
"""

from __future__ import annotations

import base64
import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tornado.template
import tornado.web
from flower.views import BaseHandler

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ASSETS", "FlowerHandler", "Loader", "add", "template_path"]

logger = logging.getLogger(__name__)

ASSETS = Path(__file__).parent / "assets"
PAGE = "outbox.html"
NAVBAR = "navbar.html"
# The end of the first list of Flower's menu.
END_OF_MENU = b"</ul>"
ENTRY = b"""
        <li class="nav-item">
          <a class="nav-link{% if active_tab == 'outbox' %} active{% end %}"
            href="{{ outbox_address(handler) }}"
            {% if active_tab == 'outbox' %}aria-current="page"{% end %}>Outbox</a>
        </li>
      """


def _address(handler: Any) -> str:
    return f"{_prefix(handler.application.options.url_prefix)}/outbox"


class Loader(tornado.template.Loader):
    """Flower's templates, with the page's own among them and its entry in the menu."""

    def __init__(self, root: str) -> None:
        super().__init__(root, namespace={"outbox_address": _address})

    def _create_template(self, name: str) -> tornado.template.Template:
        if name == PAGE:
            text = (ASSETS / PAGE).read_bytes()
        elif name == NAVBAR:
            text = _with_entry((Path(self.root) / name).read_bytes())
        else:
            return super()._create_template(name)
        return tornado.template.Template(text, name=name, loader=self)


def _with_entry(navbar: bytes) -> bytes:
    before, end, after = navbar.partition(END_OF_MENU)
    if not end:
        logger.warning("Flower's menu has no place for the Outbox page: it is at /outbox")
        return navbar
    return before + ENTRY + end + after


class FlowerHandler(BaseHandler):
    """A handler of Flower's: with its login, its protection of POSTs, its look."""

    @property
    def is_read_only(self) -> bool:
        """Whether Flower was started with --read_only."""
        return bool(self.application.options.read_only)

    @property
    def prefix(self) -> str:
        """What stands before each path of Flower's, without a slash at its end."""
        return _prefix(self.application.options.url_prefix)

    @functools.cached_property
    def who(self) -> str:
        """Who was let in: the user of the password, or the address of OAuth's."""
        user = self.current_user
        if isinstance(user, str):
            return user
        given = self.request.headers.get("Authorization", "")
        coded = given.partition(" ")[2]
        return base64.b64decode(coded.encode()).decode().partition(":")[0] if coded else ""

    def render_page(self) -> None:
        """Answer with the page itself."""
        self.render(PAGE)

    def tasks_of(self, event_id: str) -> list[dict[str, Any]]:
        """Return the tasks of an event that Flower has in memory, as plain texts."""
        return tasks_of(self.application.events.state, event_id)


def tasks_of(state: Any, event_id: str) -> list[dict[str, Any]]:
    """Return the tasks of an event: its id, with a mark and more where it has several."""
    found = []
    for uuid, task in list(state.tasks.items()):
        if uuid.startswith(event_id) and uuid[len(event_id) :][:1] in "@:~+":
            told = {name: getattr(task, name, None) for name in ("name", "state", "retries")}
            times = {name: getattr(task, name, None) for name in ("received", "started", "runtime")}
            worker = getattr(getattr(task, "worker", None), "hostname", None)
            found.append({"uuid": uuid, "worker": worker, **told, **times})
    return found


def template_path(settings: Any) -> str:
    """Return where Flower's templates are, from the settings of its server."""
    return str(settings["template_path"])


def add(server: Any, handlers: Sequence[tuple[str, type, dict[str, Any]]]) -> None:
    """Add handlers to a server that was made; their patterns begin behind its prefix."""
    prefix = _prefix(server.options.url_prefix)
    server.add_handlers(".*", [(f"{prefix}{path}", kind, args) for path, kind, args in handlers])


def _prefix(option: str | None) -> str:
    stripped = (option or "").strip("/")
    return f"/{stripped}" if stripped else ""
