"""The app: it checks the settings when Django starts, and opens nothing."""

from __future__ import annotations

from django.apps import AppConfig

from postroom.contrib.django import publishing

__all__ = ["PostroomConfig"]


class PostroomConfig(AppConfig):
    """postroom in a Django project."""

    name = "postroom.contrib.django"
    label = "postroom"
    verbose_name = "postroom"

    def ready(self) -> None:
        """Refuse settings that cannot be used, as Django starts.

        Raises:
            ConfigurationError: one cannot; the message names it.

        """
        publishing.settings()
        # Registers itself; Django's checks are there once it is set up.
        from postroom.contrib.django import checks  # noqa: F401
