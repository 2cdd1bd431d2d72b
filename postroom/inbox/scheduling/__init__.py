"""Scheduling: what is held, in which order handlers get it, and what is under way."""
