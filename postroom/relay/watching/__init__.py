"""Watching: what the database alone says of an outbox partition."""
