"""Group: commands that can say what they have to say, whatever they are printed on."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import sys
from typing import TYPE_CHECKING, Any

import click

from postroom.celery.commands.terminal import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TextIO

__all__ = ["Group"]

MOST_CHARACTERS = 60
# No room, no more of it for this user, and a device that fails.
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EIO}


class Group(click.Group):
    """A group whose commands end in a sentence where their output cannot be written.

    A character that the terminal's encoding lacks stands as its escape. What was typed and is no
    text (bytes of another encoding, half a surrogate pair) is refused before anything is asked.
    `within` says by a command's name where it is, `module.name` beside this one. It is imported
    when it is asked for: Celery imports all groups in each worker, which runs none of them.
    """

    def __init__(
        self, name: str, *, within: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        super().__init__(name, **options)
        self._within = dict(within or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands, in the order of their names."""
        return sorted({*super().list_commands(ctx), *self._within})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a name, None where there is none."""
        if cmd_name not in self.commands and cmd_name in self._within:
            module, _, function = self._within[cmd_name].partition(".")
            found = importlib.import_module(f"{__package__}.{module}")
            self.add_command(getattr(found, function), cmd_name)
        return super().get_command(ctx, cmd_name)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Begin with the words behind the group's name.

        Raises:
            UsageError: one of them could be in no name, key or id that a service knows.

        """
        for word in args:
            try:
                word.encode()
            except UnicodeEncodeError:
                said = ascii(word[:MOST_CHARACTERS])
                raise click.UsageError(f"{said} is no text in UTF-8", parent) from None
        with _harmless():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for.

        Raises:
            ClickException: the output cannot be written.

        """
        _escape_what_is_lacking(sys.stdout)
        try:
            with _harmless():
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


@contextlib.contextmanager
def _harmless() -> Iterator[None]:
    """Have what click quotes of the words that were typed move no cursor."""
    try:
        yield
    except click.UsageError as error:
        said = error.format_message()
        if said.isprintable():
            raise
        raise click.UsageError(shown(said), error.ctx) from None


def _escape_what_is_lacking(stream: TextIO) -> None:
    if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="backslashreplace")
