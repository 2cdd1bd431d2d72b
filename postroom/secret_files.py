"""Secret files: secrets that are read from files, and how one that is not fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["WHOLE_SENTENCE", "content_of", "line_of", "refuse", "require_line", "secret"]

# The type of an error whose message is the whole sentence, with the variables that it is about.
WHOLE_SENTENCE = "postroom_sentence"
# The authorities of a system are some 200,000 bytes of PEM.
MOST_BYTES = 4 * 1024 * 1024


def line_of(path: str) -> str:
    """Return the secret that a file holds: one line of text, without the blanks around it.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds something else; the message is a clause, without any of it.

    """
    text = content_of(path)
    if not text.isprintable():
        raise ValueError("holds more than one line, or what cannot be printed")
    return text


def content_of(path: str) -> str:
    """Return what a file holds, without the blanks and line breaks around it.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds nothing, or what is no text; the message is a clause.

    """
    with Path(path).open("rb") as file:
        raw = file.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise ValueError(f"holds more than {MOST_BYTES} bytes")
    try:
        text = raw.decode().strip()
    except UnicodeDecodeError:
        raise ValueError("holds no text in UTF-8") from None
    if not text:
        raise ValueError("is empty")
    return text


def refuse(sentence: str) -> None:
    """Refuse settings, as a validator of pydantic's does, by a whole sentence."""
    raise PydanticCustomError(WHOLE_SENTENCE, "{sentence}", {"sentence": sentence})


def require_line(variable: str, value: Any) -> None:
    """Refuse a secret that is no line of text."""
    # Where a line break or half of a character is sent it is refused by who sends it, in words that
    # quote the whole.
    if isinstance(value, str) and not value.isprintable():
        refuse(f"{variable} has more than one line, or what cannot be printed (it is not shown)")


def secret(variable: str, path: Any, read: Callable[[str], str] = content_of) -> str:
    """Return what is read of the file that a variable names, or refuse it."""
    try:
        return read(str(path))
    except OSError as error:
        why = f"cannot be read ({error.strerror or type(error).__name__})"
    except ValueError as error:
        why = str(error)
    # A secret that was put where its file belongs must not be shown.
    folder = Path(str(path)).parent
    known = Path(str(path)).is_absolute() and folder != Path("/") and folder.is_dir()
    refuse(f"{variable} names {path if known else 'a file (not shown here)'}, which {why}")
    raise AssertionError
