"""Pulsar's admin interface as it is asked, by TLS or in clear."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
from typing import TYPE_CHECKING

from postroom.access.pulsar import Access
from postroom.pulsar_admin import PulsarAdmin
from tests.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.certificates import Certificate


class Kept(http.server.BaseHTTPRequestHandler):
    """Says of every namespace that it keeps for five minutes; elsewhere where that was moved."""

    elsewhere = ""

    def do_GET(self) -> None:
        """Answer."""
        moved = self.elsewhere + self.path if self.elsewhere else ""
        body = b'{"retentionTimeInMinutes": 5, "retentionSizeInMB": -1}'
        self.send_response(307 if moved else 200)
        if moved:
            self.send_header("Location", moved)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(elsewhere: str = "", *, shown: Certificate | None = None) -> Iterator[str]:
    """Serve one in a thread, by TLS where it is given what to show, and return its address."""
    kind = type("Kept", (Kept,), {"elsewhere": elsewhere})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        if shown is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(shown.certificate, shown.key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"{'http' if shown is None else 'https'}://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_one_that_is_asked_in_clear_is_asked_without_any_certificates(tmp_path: Path) -> None:
    """None are loaded, which takes a megabyte and some time: not even looked for."""
    with serving() as url:
        access = Access(url="pulsar://x:1", admin_url=url, ca_file=str(tmp_path / "none.pem"))
        assert PulsarAdmin(access).keeps_for_minutes("a/b") == 5


def test_a_broker_that_sends_to_another_one_is_followed(tmp_path: Path) -> None:
    """In clear; by TLS it is asked with the authorities that the settings name."""
    none = str(tmp_path / "none.pem")

    def kept_at(url: str) -> int | None:
        access = Access(url="pulsar://x:1", admin_url=url, ca_file=none)
        return PulsarAdmin(access).keeps_for_minutes("a/b")

    with serving() as other, serving(other) as url:
        assert kept_at(url) == 5
    for elsewhere in ("https://127.0.0.1:1", "ftp://127.0.0.1:1"):
        with serving(elsewhere) as url:
            assert kept_at(url) is None


def test_by_tls_it_is_asked_with_the_authorities_that_are_trusted(tmp_path: Path) -> None:
    """Also where one that is asked in clear sends there; never the other way round."""
    ours, others = Authority(tmp_path / "ours"), Authority(tmp_path / "others", "other")
    shown = ours.sign("broker")

    def kept_at(url: str, authority: Authority) -> int | None:
        access = Access(url="pulsar://x:1", admin_url=url, ca_file=str(authority.file))
        return PulsarAdmin(access).keeps_for_minutes("a/b")

    with serving(shown=shown) as secured, serving(secured) as moved, serving() as clear:
        assert kept_at(secured, ours) == 5
        assert kept_at(moved, ours) == 5
        assert kept_at(secured, others) is None
        with serving(clear, shown=shown) as downwards:
            assert kept_at(downwards, ours) is None
