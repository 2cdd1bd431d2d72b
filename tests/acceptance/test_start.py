"""Starting wrongly: one sentence that says what to change, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.site import Site

COMMANDS = [
    "celery -A tasks worker -Q relay",
    "celery -A tasks worker -Q consumer",
    "celery -A tasks worker",
    "celery -A tasks flower",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_setting_is_one_sentence(lite_site: Site, command: str) -> None:
    """A wrong value ends each command at once, with a sentence that names the variable."""
    worker = lite_site.start(command, POSTROOM_MUTEX_RETRY_SECONDS="soon")
    assert worker.exit_code() != 0
    said = worker.text().strip()
    assert said.startswith("POSTROOM_MUTEX_RETRY_SECONDS is 'soon'")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("-Q relay,celery", "A relay worker does nothing else"),
        ("-Q relay,relay.tenant-1", "a topic has one relay"),
        ("-Q relay --autoscale=4,1", "no use for --autoscale"),
        ("-Q consumer,celery", "A consumer worker does nothing else"),
        ("-Q consumer --autoscale=4,1", "no use for --autoscale"),
        ("-Q consumer.nobody", "There is no subscription nobody"),
    ],
)
def test_options_that_do_not_fit_are_refused(lite_site: Site, options: str, words: str) -> None:
    """A mix of queues, autoscaling and unknown subscriptions are refused with the remedy."""
    worker = lite_site.start(f"celery -A tasks worker {options}")
    assert worker.exit_code() == 1
    assert words in worker.text()
    assert "Traceback" not in worker.text()


def test_a_relay_that_cannot_keep_its_promise_ends_and_says_why(lite_site: Site) -> None:
    """Exactly once on a broker that lacks it: the worker ends, and relays nothing."""
    worker = lite_site.relay(POSTROOM_DELIVERY="exactly_once")
    assert worker.exit_code() == 1
    assert "lacks fencing and deduplication" in worker.text()


def test_a_relay_worker_has_one_thread_whatever_is_asked_for(lite_site: Site) -> None:
    """Pool and concurrency given on the command line are overridden."""
    worker = lite_site.start("celery -A tasks worker -Q relay -c 8 -P prefork --loglevel=INFO")
    worker.wait_for("Relaying partition")
    assert "concurrency: 1 (thread)" in worker.text()
    assert worker.stop() == 0
