"""Pulsar clients of the drivers, which say nothing."""

from __future__ import annotations

import pulsar

from postroom import pulsar_adapter

__all__ = ["connect"]


def connect(url: str) -> pulsar.Client:
    """Connect to Pulsar; the client is closed by whoever asked for it."""
    return pulsar.Client(
        url,
        operation_timeout_seconds=10,
        logger=pulsar_adapter.silence(),
    )
