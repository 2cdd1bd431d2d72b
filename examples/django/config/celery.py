"""The Celery application: its relay and consumer are `celery -A config worker -Q relay`, …."""

import os

from celery import Celery

from postroom.celery import install
from postroom.contrib.django import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("config", broker=os.environ.get("POSTROOM_REDIS_URL"))
app.autodiscover_tasks(related_name="handlers")
install(app, settings())
