"""A namespace of Pulsar without deduplication, which hides most of a missing tail."""

from __future__ import annotations

import contextlib
import urllib.error
import urllib.request

__all__ = ["UNDEDUPLICATED", "make_undeduplicated"]

UNDEDUPLICATED = "public/plain"


def make_undeduplicated(admin_url: str) -> None:
    """Make the namespace, unless it is there."""
    namespaces = f"{admin_url}/admin/v2/namespaces"
    for method, path, body in (
        ("PUT", UNDEDUPLICATED, b""),
        ("POST", f"{UNDEDUPLICATED}/deduplication", b"false"),
    ):
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{namespaces}/{path}", body, headers, method=method)
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=10).close()
