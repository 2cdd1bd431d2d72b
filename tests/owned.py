"""`celery … worker --include tests.owned` says at its end which threads called what is one's."""

from __future__ import annotations

import logging

from celery import signals

from tests.ownership import Ownership, owned

logger = logging.getLogger(__name__)
_seen = Ownership()

for _kind in owned():
    _seen.watch(_kind)


def _say(**_: object) -> None:
    logger.info("Called by one thread each: %s.", " ".join(_seen.kinds))
    logger.info("Called by several: %s.", "; ".join(_seen.broken) or "none")


signals.worker_shutdown.connect(_say, weak=False)
