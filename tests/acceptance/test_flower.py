"""Flower, started as its users start it: who is let in."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import psutil
import pytest

from devstack.service import accepts, free_port
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site, Worker

COMMAND = "celery -A tasks flower"
PAGES = ("", "workers", "tasks", "broker", "api/workers", "api/tasks", "api/queues/length")


def status(port: int, page: str, credentials: str | None) -> int:
    """Return what Flower answers to a user and password."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{page}")
    if credentials is not None:
        coded = base64.b64encode(credentials.encode()).decode()
        request.add_header("Authorization", f"Basic {coded}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def start(site: Site, **variables: str) -> tuple[Worker, int]:
    """Start Flower and wait for it."""
    port = free_port()
    flower = site.start(COMMAND, FLOWER_PORT=str(port), FLOWER_ADDRESS="127.0.0.1", **variables)
    wait_until(
        lambda: accepts(port) or flower.process.poll() is not None, description="Flower listens"
    )
    assert flower.process.poll() is None, flower.text()
    return flower, port


@pytest.mark.parametrize("password", ["a,b", "a,b:c", "wörd, with ümläuts", "plain"])
def test_the_whole_password_lets_in_and_no_part_of_it(lite_site: Site, password: str) -> None:
    """Neither what is before a comma nor what is behind it, nor nothing; on no page."""
    file = lite_site.folder / "password"
    file.write_text(f"{password}\n")
    flower, port = start(lite_site, POSTROOM_FLOWER_PASSWORD_FILE=str(file))
    wrong = {None, "", "flower", "flower:", f"flower:{password} ", f"flower:{password[:-1]}"}
    wrong |= {part for part in password.split(",") if part != password}
    wrong |= {f"flower:{part}" for part in password.split(",") if part != password}
    for page in PAGES:
        for credentials in wrong:
            assert status(port, page, credentials) == 401, (page, credentials)
    for page in ("", "workers", "tasks", "api/workers"):
        assert status(port, page, f"flower:{password}") == 200, page
    assert password not in flower.text()
    processes = [psutil.Process(flower.process.pid)]
    processes += processes[0].children(recursive=True)
    assert not any(password in word for p in processes for word in p.cmdline())


def test_flowers_own_variable_with_a_comma_lets_in_by_the_whole(lite_site: Site) -> None:
    """FLOWER_BASIC_AUTH=flower:a,b is one user with the password `a,b`."""
    _, port = start(lite_site, FLOWER_BASIC_AUTH="flower:a,b")
    assert status(port, "workers", "flower:a,b") == 200
    assert [status(port, "workers", part) for part in ("flower:a", "b", None)] == [401] * 3


@pytest.mark.parametrize("variables", [{}, {"FLOWER_BASIC_AUTH": "flower:"}])
def test_flower_does_not_start_without_a_password(
    lite_site: Site, variables: dict[str, str]
) -> None:
    """It ends with one sentence, before it has listened to anybody."""
    flower = lite_site.start(COMMAND, FLOWER_PORT=str(free_port()), **variables)
    assert flower.exit_code() == 1
    said = flower.text().strip()
    assert "POSTROOM_FLOWER_PASSWORD" in said
    assert "\n" not in said
    assert "Traceback" not in json.dumps(said)
