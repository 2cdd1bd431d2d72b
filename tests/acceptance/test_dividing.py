"""`celery -A tasks outbox partitions`, by its literal command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from postroom import Outbox
from tests.site import ROOT

if TYPE_CHECKING:
    from tests.site import Site


def command(site: Site, words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the application with other settings, whatever comes of it."""
    return subprocess.run(
        [str(Path(sys.executable).parent / "celery"), "-A", "tasks", *words.split()],
        env={**os.environ, **site.environment, "COLUMNS": "200", **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_it_shows_one_and_divides_an_outbox_that_is_relayed(lite_site: Site) -> None:
    """Where the admin interface tells nothing, whoever runs it is asked; then there are four."""
    site = lite_site
    assert "1 outbox partitions" in command(site, "outbox partitions").stdout
    done = command(site, "outbox partitions --to 4 --json --yes")
    assert done.returncode == 0, done.stderr
    assert (
        "Start writers, and consumers whose handlers publish, with POSTROOM_PARTITIONS=4 now"
        in (done.stderr)
    )
    assert "Done: relays with POSTROOM_PARTITIONS=4 begin" in done.stderr
    (found,) = map(json.loads, done.stdout.splitlines())
    assert (found["count"], found["generation"], found["next_count"]) == (4, 2, None)
    assert [each["partition"] for each in found["partitions"]] == [
        f"default.2-{index}" for index in range(4)
    ]
    Outbox(site.database, partitions=4).publish({"name": "A", "data": {}})
    again = command(site, "outbox partitions --to 4 --yes")
    assert "It had 4 outbox partitions already" in again.stderr
    assert "partitions" in command(site, "outbox actions").stdout


@pytest.mark.parametrize(
    "words",
    [
        "outbox pause",
        "outbox resume",
        "outbox prune --days 1 --yes",
        "outbox replay --from 2h --to 1h --to-topic public/default/other --yes",
        "outbox quarantine list",
        "outbox quarantine redrive --all",
        "outbox quarantine discard --all --yes",
    ],
)
def test_who_means_one_of_several_outbox_partitions_says_which(lite_site: Site, words: str) -> None:
    """`default` has nothing of an outbox that is divided, and that would be no answer."""
    Outbox(lite_site.database, partitions=2).publish({"name": "A", "data": {}})
    found = command(lite_site, words, POSTROOM_PARTITIONS="2")
    assert (found.returncode, found.stdout) == (1, "")
    assert "say by --partition which one" in found.stderr
    assert "There are: default-0, default-1" in found.stderr
    found = command(lite_site, f"{words} --partition default-2", POSTROOM_PARTITIONS="2")
    assert (found.returncode, found.stdout) == (1, "")
    assert "No relay was ever started for an outbox partition 'default-2'" in found.stderr
    found = command(lite_site, f"{words} --partition default-1", POSTROOM_PARTITIONS="2")
    assert "by --partition" not in found.stderr


def test_nothing_is_closed_before_somebody_said_yes(lite_site: Site) -> None:
    """Nobody there to answer means no."""
    site = lite_site
    assert command(site, "outbox partitions --to 4").returncode == 1
    Outbox(site.database).publish({"name": "A", "data": {}})


@pytest.mark.parametrize("count", ["0", "5000", "four", "-1"])
def test_a_number_that_cannot_be_is_refused(lite_site: Site, count: str) -> None:
    """By the command and by the setting, each in a sentence that names it."""
    refused = command(lite_site, f"outbox partitions --to {count}")
    assert refused.returncode == 2
    assert "--to" in refused.stderr
    refused = command(lite_site, "outbox partitions", POSTROOM_PARTITIONS=count)
    assert refused.returncode == 1
    assert "POSTROOM_PARTITIONS" in refused.stderr
    assert "Traceback" not in refused.stderr
