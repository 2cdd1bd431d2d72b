"""Handling: one event applied by one handler, in one transaction with its inbox row."""
