"""Django 5.2 and later: settings, the outbox of a database, and the command line in manage.py.

`INSTALLED_APPS = [..., "postroom.contrib.django"]`; with django-mongodb-backend, whose transactions
are those of its connection, and without it.
"""

from postroom.contrib.django.publishing import outbox, publish, settings, within

__all__ = ["outbox", "publish", "settings", "within"]
