"""Sharing: how the relays of one outbox divide its partitions among them."""
