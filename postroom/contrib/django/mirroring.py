"""Mirroring: `celery -A … outbox …` and `… dead-letters …` as commands of manage.py."""

from __future__ import annotations

import argparse
import importlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.core.management.base import BaseCommand, CommandError

if TYPE_CHECKING:
    import click

__all__ = ["Mirror"]


class Mirror(BaseCommand):
    """Passes all words on to a group of commands, as they are."""

    group: click.Group

    def run_from_argv(self, argv: list[str]) -> None:
        """Run it, and end with its exit code."""
        self.group.main(argv[2:], prog_name=f"manage.py {argv[1]}", obj=_of_application())

    def handle(self, *args: Any, **_options: Any) -> None:
        """Run it from call_command(), with its words one by one; an error is raised."""
        self.group.main(list(args), standalone_mode=False, obj=_of_application())

    def create_parser(self, prog_name: str, subcommand: str, **options: Any) -> Any:
        """Take words as they come, options too."""
        parser = super().create_parser(prog_name, subcommand, **options)
        parser.add_argument("args", nargs=argparse.REMAINDER)
        return parser


def _of_application() -> Any:
    name = getattr(django_settings, "POSTROOM", {}).get("CELERY_APP")
    if not name:
        raise CommandError(
            'POSTROOM in settings.py names no CELERY_APP: set it, as in "config.celery:app"'
        )
    module, _, attribute = name.partition(":")
    return SimpleNamespace(app=getattr(importlib.import_module(module), attribute or "app"))
