"""The script as a process, twice."""

import subprocess
import sys
from pathlib import Path


def test_an_order_is_told_once(outbox_site):
    """The second run changes nothing."""
    script = Path(__file__).with_name("import_orders.py")
    for _ in range(2):
        subprocess.run([sys.executable, script, "7", "8"], check=True)
    told = [each.event.data["orderId"] for each in outbox_site.drain().published]
    assert told == ["7", "8"]
