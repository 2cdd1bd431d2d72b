"""What the Outbox page leans on in Flower and Tornado, by name: one that changed it fails here."""

from __future__ import annotations

import inspect
import logging
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flower
import pytest
import tornado.log
import tornado.template
import tornado.web
from flower import app, command, options, urls, views
from flower.events import Events, EventsState
from hatchling.builders.wheel import WheelBuilder

from postroom.celery.outbox_page import adapter

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]
FLOWER = Path(flower.__file__).parent


def text(path: str) -> str:
    """Return one of Flower's files."""
    return (FLOWER / path).read_text()


def test_the_server_takes_a_loader_and_handlers() -> None:
    """Settings go through to Tornado's application, which asks it for a template_loader."""
    assert issubclass(app.Flower, tornado.web.Application)
    made = inspect.getsource(app.Flower.__init__)
    assert "super().__init__(**kwargs)" in made
    assert "self.options = options" in made
    assert "self.events = events or Events(" in made
    assert Path(urls.settings["template_path"]) == FLOWER / "templates"
    loading = inspect.getsource(tornado.web.RequestHandler.create_template_loader)
    assert 'settings["template_loader"]' in loading
    assert "Flower(capp=app, options=options, **settings)" in inspect.getsource(
        _module(command, "flower.command")
    )


def _module(found: Any, name: str) -> ModuleType:
    import sys

    return found if inspect.ismodule(found) else sys.modules[name]


def test_handlers_that_are_added_come_before_flowers_own() -> None:
    """Flower's last handler answers everything with 404."""
    server = tornado.web.Application([(r".*", tornado.web.ErrorHandler, {"status_code": 404})])
    server.options = type("Options", (), {"url_prefix": "/f/"})()  # type: ignore[attr-defined]
    adapter.add(server, [(r"/outbox", tornado.web.RedirectHandler, {"url": "/"})])
    first = server.default_router.rules[0]
    assert first.target.rules[0].matcher.regex.pattern == "/f/outbox$"
    assert len(server.default_router.rules) == 2


def test_the_base_handler_has_login_and_protection() -> None:
    """Its user, its refusal of POSTs from elsewhere, and the cookie that the page sends back."""
    base = views.BaseHandler
    assert issubclass(base, tornado.web.RequestHandler)
    assert {"get_current_user", "check_xsrf_cookie", "render", "write_error"} <= vars(base).keys()
    assert urls.settings["xsrf_cookies"] is True
    assert "xsrf_token" in inspect.getsource(base.render)
    assert "Sec-Fetch-Site" in inspect.getsource(base.check_xsrf_cookie)
    for name in ("read_only", "url_prefix", "basic_auth", "auth"):
        assert name in options.default_options, name


def test_the_templates_have_the_places() -> None:
    """The blocks of the base, the first list of the menu, and how it says which entry is active."""
    base, menu = text("templates/base.html"), text("templates/navbar.html")
    for block in ("title", "navbar", "container", "extra_scripts"):
        assert f"{{% block {block} %}}" in base
    before, end, after = menu.partition(adapter.END_OF_MENU.decode())
    assert end
    assert "reverse_url('broker')" in before
    assert "reverse_url" not in after.partition("theme")[0]
    assert "active_tab == 'broker'" in before


def test_the_style_has_the_names() -> None:
    """Classes and variables that carry Flower's look, in light and dark."""
    style = text("static/css/flower.css")
    ours = "".join((adapter.ASSETS / name).read_text() for name in ("outbox.css", "outbox.html"))
    for variable in ("--flower-surface", "--flower-text-muted", "--flower-danger"):
        assert variable in style
        assert variable in ours
    for name in (
        "page-section",
        "page-header",
        "page-eyebrow",
        "refresh-status",
        "status-dot-live",
    ):
        assert f".{name}" in style, name
    assert '[data-bs-theme="dark"]' in style


def test_tasks_are_found_in_memory() -> None:
    """By the event's id, with what is behind it where an event has several tasks."""
    assert "self.state" in inspect.getsource(Events.__init__)
    state = EventsState()
    for uuid in ("e1", "e1:send_mail", "e1~3:4@billing", "e10", "f"):
        event = {"uuid": uuid, "name": "tasks.x", "hostname": "c@h", "clock": 1, "timestamp": 1.0}
        state.event(
            {"type": "task-received", "local_received": 1.0, "utcoffset": 0, "pid": 1, **event}
        )
    found = adapter.tasks_of(state, "e1")
    assert sorted(each["uuid"] for each in found) == ["e1", "e1:send_mail", "e1~3:4@billing"]
    assert found[0]["worker"] == "c@h"


def test_the_menu_of_another_flower_is_left_as_it_is(tmp_path: Path) -> None:
    """A menu that has no such list shows no entry, and everything else works."""
    (tmp_path / "navbar.html").write_text("<nav></nav>")
    loaded = adapter.Loader(str(tmp_path)).load("navbar.html")
    assert isinstance(loaded, tornado.template.Template)
    assert loaded.generate() == b"<nav></nav>"


@pytest.mark.parametrize("path", sorted(adapter.ASSETS.iterdir()), ids=lambda path: path.name)
def test_assets_are_whole_and_come_from_nowhere_else(path: Path) -> None:
    """No other server is asked, no text becomes markup, and there is nothing to build."""
    content = path.read_text()
    for word in (
        "http://",
        "https://",
        "innerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
    ):
        assert word not in content.replace("http://www.w3.org/2000/svg", ""), word


def test_the_wheel_has_the_assets(tmp_path: Path) -> None:
    """What is installed shows the same page."""
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(built) as wheel:
        names = set(wheel.namelist())
    folder = adapter.ASSETS.relative_to(ROOT)
    assert {str(folder / path.name) for path in adapter.ASSETS.iterdir()} <= names


def test_tornados_formatter_takes_its_colours_from_one_table() -> None:
    """Which `keep_flower_to_lines` empties: what Flower logs is read by programs and people."""
    record = logging.LogRecord("flower", logging.ERROR, __file__, 1, "said", (), None)
    formatter = tornado.log.LogFormatter(color=True)
    formatter._colors = {logging.ERROR: "<red>"}
    assert formatter.format(record).startswith("<red>")
    formatter._colors = {}
    assert formatter.format(record).startswith("[E ")
