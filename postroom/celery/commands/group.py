"""Group: commands that can say what they have to say, whatever they are printed on."""

from __future__ import annotations

import errno
import io
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["Group"]

# No room, no more of it for this user, and a device that fails.
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EIO}


class Group(click.Group):
    """A group whose commands end in a sentence where their output cannot be written.

    A character that the terminal's encoding lacks stands as its escape.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for.

        Raises:
            ClickException: the output cannot be written.

        """
        _escape_what_is_lacking(sys.stdout)
        try:
            found = super().invoke(ctx)
            sys.stdout.flush()
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            raise click.ClickException(
                f"The output cannot be written ({error.strerror}); what was done is done"
            ) from None
        else:
            return found


def _escape_what_is_lacking(stream: TextIO) -> None:
    if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="backslashreplace")
