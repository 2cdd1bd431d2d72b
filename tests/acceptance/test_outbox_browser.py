"""The Outbox page in headless Chromium: what a person on call sees and clicks."""

from __future__ import annotations

import os
import re
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from bson import ObjectId
from playwright.sync_api import expect

from devstack.service import free_port
from postroom import Outbox, wire
from postroom.store.quarantine import Quarantine, Quarantined
from postroom.store.values import OutboxPartition
from tests import chromium
from tests.acceptance.test_outbox_page import PASSWORD, Flower, start
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from tests.site import Site

EVIL = "<script>window.hurt=1</script><img src=x onerror=window.hurt=1>"
# What ends beyond the window, but for what is in a box that scrolls by itself.
BEYOND = """() => [...document.querySelectorAll('#outbox *, dialog *')]
  .filter((e) => !e.closest('[data-scroll], .worker-tabs-scroll, svg'))
  .filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map((e) => e.outerHTML.slice(0, 200))"""


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Return a browser of the test's own: a shared one would have them all run in one process."""
    with chromium.running() as browser:
        yield browser


class Screen:
    """The page of one Flower in one window, and what went wrong in it."""

    def __init__(self, browser: Browser, flower: Flower, *, width: int, scheme: Any) -> None:
        self.context = browser.new_context(
            http_credentials={"username": "flower", "password": PASSWORD},
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
        )
        self.page: Page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self._flower = flower

    def open(self, tab: str) -> Page:
        """Open a part of the page, and wait until something was answered."""
        self.page.goto(f"{self._flower.address}/outbox#{tab}")
        expect(self.page.locator("#outbox-fresh")).to_contain_text("Updated", timeout=20_000)
        return self.page


def screen(browser: Browser, flower: Flower, *, width: int = 1400, scheme: str = "light") -> Screen:
    """Return a window on a Flower."""
    return Screen(browser, flower, width=width, scheme=scheme)


def quarantine(site: Site, count: int, *, name: str = "OrderPaid", reason: str) -> list[ObjectId]:
    """Put rows into quarantine, as a relay does."""
    ids = [ObjectId() for _ in range(count)]
    now = datetime.now(UTC)
    site.outbox.insert_many(
        [
            {"_id": each, "partitionKey": "default", "occurredAt": now, "data": {"name": name}}
            for each in ids
        ]
    )
    rows = [Quarantined(row_id=each, position=n, reason=reason) for n, each in enumerate(ids)]
    Quarantine(site.database, partition=OutboxPartition("default")).store(rows)
    return ids


def dead_letters(site: Site, count: int, *, reason: str) -> None:
    """Send dead letters, as a consumer does."""
    topic = f"{site.topic}-test-DLQ"
    site.subscribe("dead-letters", topic).close()
    producer = site.pulsar.create_producer(topic)
    at = datetime.now(UTC).isoformat()
    for number in range(count):
        properties = {
            wire.ID: f"event-{number}",
            wire.DEAD_TOPIC: site.topic,
            wire.DEAD_SUBSCRIPTION: "test",
            wire.DEAD_HANDLER: "bill" if number % 2 else "mail",
            wire.DEAD_REASON: reason,
            wire.DEAD_ATTEMPTS: "3",
            wire.DEAD_FIRST_FAILURE: at,
            wire.DEAD_LAST_FAILURE: at,
        }
        producer.send(b'{"name": "OrderPaid", "data": {}}', properties=properties)
    producer.close()


def test_quarantined_rows_are_found_chosen_and_acted_upon(
    browser: Browser, lite_site: Site
) -> None:
    """By filter, some or all, behind a question that says how many; and it is in the action log."""
    quarantine(lite_site, 3, name=EVIL, reason=f"no topic for {EVIL}")
    quarantine(lite_site, 60, reason="too large")
    window = screen(browser, start(lite_site))
    page = window.open("quarantine")
    expect(page.get_by_role("heading", name="63 match")).to_be_visible()
    expect(page.locator("td", has_text=EVIL).first).to_be_visible()

    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("51 to 63")).to_be_visible()
    page.get_by_label("Reason contains").fill("TOO LARGE")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="60 match")).to_be_visible()

    page.locator("tbody input[type=checkbox]").nth(0).check()
    page.locator("tbody input[type=checkbox]").nth(1).check()
    page.get_by_role("button", name="Discard 2 selected").click()
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    page.get_by_label("At most so many a second").fill("0.3")
    page.get_by_role("button", name="Discard 2", exact=True).click()
    expect(page.get_by_text("discard: 1 of 2 done")).to_be_visible()
    expect(page.get_by_text("discard: 2 of 2 done")).to_be_visible()
    expect(page.get_by_role("heading", name="58 match")).to_be_visible()

    page.get_by_role("button", name="Redrive all 58 that match").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Redrive all 58 that match").click()
    expect(page.get_by_role("dialog")).to_contain_text("Redrive all 58 that match?")
    page.get_by_label("At most so many a second").fill("1000")
    page.keyboard.press("Enter")
    expect(page.get_by_text("redrive: 58 of 58 done")).to_be_visible(timeout=20_000)
    expect(page.get_by_text("No quarantined row matches.")).to_be_visible()

    page.get_by_role("link", name="Actions").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    first = page.locator("tbody tr").first
    expect(first).to_contain_text("quarantine redrive")
    expect(first).to_contain_text("flower")
    expect(first).to_contain_text("58")
    assert page.evaluate("window.hurt") is None
    assert window.wrong == []


def test_scheduled_events_are_found_moved_and_cancelled(browser: Browser, lite_site: Site) -> None:
    """By filter, behind a question that asks when; one is followed by its id, and all is noted."""
    outbox = Outbox(lite_site.database)
    at = datetime(2040, 5, 1, 12, tzinfo=UTC)
    outbox.publish({"name": EVIL, "data": {}}, deliver_at=at, schedule=EVIL)
    events = [{"name": "Reminded", "data": {"n": n}} for n in range(60)]
    outbox.publish(events, deliver_at=at + timedelta(hours=1))
    window = screen(browser, start(lite_site))
    page = window.open("scheduled")
    expect(page.get_by_role("heading", name="61 match")).to_be_visible()
    expect(page.locator("td", has_text=EVIL).first).to_be_visible()
    page.get_by_label("Schedule", exact=True).fill(EVIL)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="1 match")).to_be_visible()
    page.get_by_role("button", name="Reschedule all 1 that match").click()
    page.get_by_label("Due at (UTC)").fill("2041-02-03T04:05:06")
    page.keyboard.press("Enter")
    expect(page.get_by_text("reschedule: 1 of 1 done")).to_be_visible()
    expect(page.locator("tbody")).to_contain_text("2041-02-03 04:05:06")
    page.get_by_role("button", name="Clear").click()
    page.locator("tbody input[type=checkbox]").nth(0).check()
    page.get_by_role("button", name="Fire 1 selected").click()
    page.get_by_role("dialog").get_by_role("button", name="Fire 1").click()
    expect(page.get_by_text("fire: 1 of 1 done")).to_be_visible()
    page.get_by_label("Event name").fill("Reminded")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Cancel all 60 that match").click()
    expect(page.get_by_role("button", name="Back")).to_be_focused()
    page.get_by_label("At most so many a second").fill("500")
    page.get_by_role("dialog").get_by_role("button", name="Cancel 60").click()
    expect(page.get_by_text("cancel: 60 of 60 done")).to_be_visible()
    expect(page.get_by_text("No scheduled event matches.")).to_be_visible()
    page.get_by_role("link", name="Actions").click()
    expect(page.locator("tbody tr")).to_have_count(3)
    assert page.evaluate("window.hurt") is None
    assert window.wrong == []


def test_a_partition_is_paused_and_resumed(browser: Browser, lite_site: Site) -> None:
    """Behind a question, by mouse and keyboard; it says by whom, and is in the action log."""
    relay = lite_site.relay()
    relay.wait_for("Relaying partition")
    window = screen(browser, start(lite_site), width=390)
    page = window.open("partitions")
    button = page.get_by_role("button", name="Pause outbox partition default")
    button.click(timeout=20_000)
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    button.click()
    page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    expect(page.locator(".outbox-sentence")).to_contain_text("aused by flower", timeout=20_000)
    lite_site.insert(2)
    page.get_by_role("button", name="Resume outbox partition default").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("Resume outbox partition default?")
    page.keyboard.press("Enter")
    expect(button).to_be_visible(timeout=20_000)
    wait_until(lambda: len(lite_site.stored()) == 2, description="both are sent")
    page.get_by_role("link", name="Actions").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    assert window.wrong == []


def test_dead_letters_and_the_journey_of_one(browser: Browser, lite_site: Site) -> None:
    """Filtered by handler, redriven in part at a rate, stopped; and one is followed by its id."""
    dead_letters(lite_site, 40, reason=f"ValueError: {EVIL}")
    window = screen(browser, start(lite_site))
    page = window.open("dead-letters")
    expect(page.get_by_role("heading", name="40 match")).to_be_visible(timeout=20_000)
    page.get_by_label("Handler").fill("bill")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("heading", name="20 match")).to_be_visible()

    page.get_by_role("button", name="Redrive all 20 that match").click()
    page.get_by_label("At most so many a second").fill("1")
    page.get_by_role("dialog").get_by_role("button", name="Redrive 20").click()
    expect(page.get_by_text(re.compile(r"redrive: [1-9]\d* of 20 done"))).to_be_visible(
        timeout=20_000
    )
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stopped by an operator")).to_be_visible(timeout=20_000)

    page.get_by_label("Handler").fill("mail")
    page.get_by_role("button", name="Filter").click()
    page.get_by_role("link", name="event-0", exact=True).click()
    expect(page.get_by_label("Journey")).to_contain_text(EVIL, timeout=30_000)
    expect(page.get_by_label("Where was looked")).to_contain_text("the dead letters of test")
    page.get_by_label("Event id").fill("nobody-knows")
    page.keyboard.press("Enter")
    expect(page.get_by_text("No place that was looked at knows")).to_be_visible(timeout=30_000)
    assert page.evaluate("window.hurt") is None
    assert window.wrong == []


def fits(page: Page) -> None:
    """Make sure that nothing ends beyond the window, and that each button can be clicked."""
    root = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth"), page.url
    assert page.evaluate(BEYOND) == [], page.url
    for button in page.locator("#outbox button:enabled:visible").all():
        button.click(trial=True, timeout=5_000)


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (390, "dark")])
def test_every_part_fits_and_is_filled(
    browser: Browser, lite_site: Site, tmp_path: Path, width: int, scheme: str
) -> None:
    """Nothing is cut off and each button can be clicked, however long names and reasons are."""
    (row, *_) = quarantine(lite_site, 2, name="N" * 300, reason="R" * 900)
    quarantine(lite_site, 1, name="D" * 300, reason="D" * 900)
    dead_letters(lite_site, 2, reason="W" * 900)
    flower = start(lite_site)
    discard = {"name": "D" * 300, "reason": "D" * 300, "confirmed": 1}
    assert flower.ask("/api/quarantine/discard", discard).status == 200
    flower.ask("/api/doctor")  # it looks meanwhile
    pictures = os.getenv("PICTURES") or str(tmp_path)
    window = screen(browser, flower, width=width, scheme=scheme)
    section = window.page.locator("#outbox-section")
    filled = {
        "partitions": section.get_by_role("heading", name="default"),
        "topics": section.get_by_text("Nothing is known of topics"),
        "quarantine": section.get_by_text("N" * 300).first,
        "dead-letters": section.get_by_text("event-0", exact=True),
        f"journey?{row}": section.get_by_label("Journey", exact=True),
        "actions": section.get_by_text("quarantine discard"),
        "doctor": section.get_by_label("Findings"),
    }
    for tab, there in filled.items():
        page = window.open(tab)
        expect(there).to_be_visible(timeout=40_000)
        expect(page.locator("#outbox-tabs .active")).to_have_attribute("aria-current", "page")
        fits(page)
        assert page.evaluate("document.documentElement.dataset.bsTheme") == scheme
        page.screenshot(path=f"{pictures}/{tab.partition('?')[0]}-{width}-{scheme}.png")
    assert window.wrong == []


def test_theme_and_keyboard(browser: Browser, lite_site: Site) -> None:
    """The theme is Flower's own switch; each part is reached without a mouse."""
    page = screen(browser, start(lite_site)).open("partitions")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme-toggle").click()
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.locator("#outbox-tabs a").first.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#outbox-tabs .active")).to_have_text("Topics")
    expect(page.locator("#outbox-tabs a", has_text="Topics")).to_be_focused()


def test_who_does_not_answer_is_said_and_the_rest_lives(browser: Browser, lite_site: Site) -> None:
    """Redis that was never there, and then Flower itself; what was seen stays."""
    lite_site.insert(2)
    flower = start(lite_site, POSTROOM_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    page = screen(browser, flower).open("partitions")
    expect(page.get_by_role("heading", name="default")).to_be_visible(timeout=20_000)
    expect(page.locator("#outbox-troubles")).to_contain_text("Redis", timeout=30_000)
    expect(page.locator(".outbox-sentence")).to_contain_text("2 committed events wait")
    flower.worker.signal(signal.SIGSTOP)
    flower.worker.kill()
    expect(page.locator("#outbox-troubles")).to_contain_text(
        "Flower does not answer", timeout=20_000
    )
    expect(page.get_by_role("heading", name="default")).to_be_visible()


def test_a_flower_that_is_only_read_shows_no_button(browser: Browser, lite_site: Site) -> None:
    """It says why, and refuses in the server too."""
    (row, *_) = quarantine(lite_site, 2, reason="too large")
    flower = start(lite_site, "--read_only=True")
    page = screen(browser, flower).open("quarantine")
    expect(page.get_by_text("Flower was started with --read_only")).to_be_visible()
    expect(page.get_by_role("button", name="Discard all 2 that match")).to_have_count(0)
    refused = flower.ask("/api/quarantine/discard", {"ids": [str(row)], "confirmed": 1})
    assert (refused.status, "--read_only" in refused.body["sentence"]) == (403, True)
    wait_until(
        lambda: lite_site.database[wire.QUARANTINE].count_documents({}) == 2, description="x"
    )
