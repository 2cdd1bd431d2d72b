"""Flower, of which nobody sees anything without a password.

Left to itself Flower lets everyone in where no password is set, takes a password apart at its
commas, so that a part of it lets one in, and fails at every letter beyond ASCII. It promises none
of what is used here; `tests/unit/test_celery_flower.py` names each piece.
"""

from __future__ import annotations

import hmac
import logging
import os
import ssl
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from postroom.celery import logs
from postroom.celery.outage import Outage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery import Celery

    from postroom.settings import Settings

__all__ = ["install", "let_in", "require_certificate"]

logger = logging.getLogger(__name__)

COMMAND, VIEWS, EVENTS = "flower.command", "flower.views", "flower.events"
VARIABLE = "FLOWER_BASIC_AUTH"


class _Guarded:
    """Stands where Flower's command finds the class of its server."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def __call__(self, *, capp: Celery, options: Any, **settings: Any) -> Any:
        """Make the server, once it is sure that it lets in nobody who has no password."""
        installation = getattr(capp, "postroom", None)
        if installation is not None:
            options.basic_auth = let_in(
                installation.settings,
                given=options.basic_auth or (),
                variable=os.environ.get(VARIABLE),
                oauth=bool(options.auth),
            )
            require_certificate(settings.get("ssl_options"))
            logs.keep_flower_to_lines(installation.settings)
            _say_outages_once(capp)
            _tell_partitions(installation.settings)
            return self._with_page(installation, capp=capp, options=options, **settings)
        return self._server(capp=capp, options=options, **settings)

    def _with_page(self, installation: Any, *, capp: Celery, **given: Any) -> Any:
        """Make the server with the Outbox page; without it, where this Flower has no place for it.

        Imported here, where Flower is loaded: nothing else needs it.
        """
        try:
            from postroom.celery.outbox_page import mounting

            loader = mounting.loader(given)
        except Exception:
            logger.exception("This Flower has no place for the Outbox page; it starts without")
            return self._server(capp=capp, **given)
        server = self._server(capp=capp, template_loader=loader, **given)
        mounting.mount(server, capp, installation.wiring)
        return server


def install() -> None:
    """Guard Flower where this process is one in which Celery has loaded its command."""
    command, views = sys.modules.get(COMMAND), sys.modules.get(VIEWS)
    if command is None or views is None or isinstance(command.Flower, _Guarded):
        return
    command.Flower = _Guarded(command.Flower)  # type: ignore[attr-defined]
    views.hmac = SimpleNamespace(compare_digest=_same)  # type: ignore[attr-defined]


def _say_outages_once(app: Celery) -> None:
    # Left to itself it says so at each attempt, of which there may be one a second.
    meanwhile = "the Outbox page shows what the database knows"
    logging.getLogger(EVENTS).addFilter(Outage(app, meanwhile))


def _tell_partitions(settings: Settings) -> None:
    # Flower tells Prometheus, at /metrics, what is in its process' registry.
    from postroom.telemetry.exposition import of_the_database

    of_the_database(settings)


def let_in(
    settings: Settings, *, given: Sequence[str], variable: str | None, oauth: bool
) -> list[str]:
    """Return whom Flower lets in, as `user:password` each.

    `given` is what Flower has understood of its own options, `variable` its variable as it is.

    Raises:
        SystemExit: nobody would be kept out, or it is not certain who would.

    """
    if settings.flower_password is None:
        return _by_flowers_own_options(given, variable, oauth=oauth)
    if given:
        raise SystemExit(
            f"POSTROOM_FLOWER_PASSWORD and {VARIABLE} (or --basic_auth) are both set: leave one "
            "out."
        )
    return [f"{settings.flower_user}:{settings.flower_password.get_secret_value()}"]


def require_certificate(given: Mapping[str, str] | None) -> None:
    """Make sure that Flower can show the certificate that it was given, if it was given one.

    Left to itself it starts without a word, and ends each connection.

    Raises:
        SystemExit: it cannot.

    """
    if not given:
        return
    certificate, key = given["certfile"], given["keyfile"]
    named = f"FLOWER_CERTFILE ({certificate}) and FLOWER_KEYFILE ({key})"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An empty password, so that an encrypted key is refused and nobody is asked for one.
        context.load_cert_chain(certificate, key, password="")
        if "ca_certs" in given:
            named = f"FLOWER_CA_CERTS ({given['ca_certs']})"
            context.load_verify_locations(given["ca_certs"])
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise SystemExit(
            f"Flower cannot serve HTTPS by {named}: {reason.replace('_', ' ').lower()}. It does "
            "not start; set a certificate in PEM and its own key, without a password."
        ) from None


def _by_flowers_own_options(
    given: Sequence[str], variable: str | None, *, oauth: bool
) -> list[str]:
    pairs = list(given)
    if variable is not None and ",".join(pairs) == variable and not all(map(_is_pair, pairs)):
        # A comma that is part of the password: what is behind it is no user with a password.
        pairs = [variable]
    if not pairs and not oauth:
        raise SystemExit(
            "Flower would show everything to everyone: set POSTROOM_FLOWER_PASSWORD, or "
            "POSTROOM_FLOWER_PASSWORD_FILE, and start it again."
        )
    if not all(map(_is_pair, pairs)):
        raise SystemExit(
            f"{VARIABLE} (or --basic_auth) is not user:password, and Flower takes it apart at each "
            "comma: set POSTROOM_FLOWER_PASSWORD instead."
        )
    return pairs


def _is_pair(text: str) -> bool:
    user, colon, password = text.partition(":")
    return bool(user and colon and password)


def _same(stored: str, shown: str) -> bool:
    # hmac's own takes letters of ASCII only where it is given text.
    return hmac.compare_digest(stored.encode(), shown.encode())
