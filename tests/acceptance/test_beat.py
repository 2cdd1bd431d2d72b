"""Recurring events: Celery's beat with the outbox, as docs/scheduling.md has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.pages import DOCS, blocks
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.site import Site


def test_two_beats_publish_one_event_for_each_tick(lite_site: Site, tmp_path: Path) -> None:
    """Though both send the task each time, and two tasks run at once."""
    site = lite_site
    (page,) = (b.text for b in blocks(DOCS / "scheduling.md") if b.text.startswith("# ticks.py"))
    (tmp_path / "ticks.py").write_text(page.replace("EVERY = 3600", "EVERY = 1"))
    redis = {"CELERY_BROKER_URL": site.environment["POSTROOM_REDIS_URL"]}
    worker = site.start("celery -A ticks worker --loglevel=INFO -c 2", tmp_path, **redis)
    beats = [
        site.start(f"celery -A ticks beat --loglevel=INFO -s {name}", tmp_path, **redis)
        for name in ("one", "two")
    ]
    worker.wait_for("ready.")
    ticks = site.database["ticks"]
    wait_until(
        lambda: (
            all(beat.text().count("Sending due task") > 4 for beat in beats)
            and ticks.count_documents({}) > 4
        ),
        description="ticks by both beats",
        seconds=60,
    )
    for each in (*beats, worker):
        each.stop()
    published = [row["data"]["data"]["beganAt"] for row in site.outbox.find()]
    assert sorted(published) == sorted(tick["_id"] for tick in ticks.find())
    assert "Traceback" not in worker.text()
