"""Kills and freezes at random, and a count of what the topic then holds."""
