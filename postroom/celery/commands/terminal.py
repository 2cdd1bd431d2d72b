"""Terminal: texts that may be anybody's, as a terminal can show them."""

from __future__ import annotations

__all__ = ["shown"]

LONGEST_SHOWN = 2000


def shown(value: object) -> str:
    """Return a text that may be anybody's as a terminal can show it, on one line.

    What would move the cursor, change colours or the direction of writing stands as its escape.
    """
    text = str(value)
    if len(text) > LONGEST_SHOWN:
        text = f"{text[:LONGEST_SHOWN]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
