"""Telemetry: what is made of the facts that relays and consumers tell, for people on call."""
