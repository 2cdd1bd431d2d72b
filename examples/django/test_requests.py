"""Real requests to the project's server, and its command line."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("django", reason="Django is not installed")
FOLDER = Path(__file__).parent


def manage(*words, **variables):
    """Return a command of manage.py in the test's environment."""
    return {
        "args": [sys.executable, "manage.py", *words],
        "cwd": FOLDER,
        "env": {**os.environ, **variables},
    }


def answers(port):
    """Say whether something listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def serving(**variables):
    """Run the server; yield what posts to it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ("runserver", f"127.0.0.1:{port}", "--noreload", "--skip-checks")
    server = subprocess.Popen(**manage(*words, **variables))

    def post(path):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}", b"", {"X-Request-ID": "r-1"}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.headers["X-Request-ID"]
        except urllib.error.HTTPError as error:
            return error.code, None

    try:
        end = time.monotonic() + 30
        while not answers(port):
            assert server.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        yield post
    finally:
        server.terminate()
        server.wait(10)


def test_models_and_events_are_one(outbox_site):
    """With django-mongodb-backend: what fails leaves neither."""
    pytest.importorskip("django_mongodb_backend", reason="its backend is not installed")
    with serving() as post:
        assert post("/orders/7/payment") == (204, "r-1")
        assert post("/orders/bad/payment")[0] == 500
        assert post("/visits/7")[0] == 204
    assert [each["number"] for each in outbox_site.database.orders_order.find()] == ["7"]
    published = outbox_site.drain().published
    assert [each.event.name for each in published] == ["OrderPaid", "OrderSeen"]
    assert {each.event.headers["request-id"] for each in published} == {"r-1"}


def test_without_the_backend(outbox_site):
    """By PyMongo beside models in another database; their own transaction is refused."""
    with serving(EXAMPLE_ENGINE="sqlite") as post:
        assert post("/visits/7")[0] == 204
    assert outbox_site.drain().published[0].event.data == {"orderId": "7"}


def test_the_command_line_is_there(outbox_site):
    """manage.py outbox … says what celery -A config outbox … says."""
    (event_id,) = outbox_site.outbox.publish({"name": "Waits", "data": {}})
    asked = manage("outbox", "show", event_id, EXAMPLE_ENGINE="sqlite")
    done = subprocess.run(**asked, check=True, capture_output=True, text=True)
    assert "Waits" in done.stdout
