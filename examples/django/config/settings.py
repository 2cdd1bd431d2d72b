"""The project's settings; EXAMPLE_ENGINE=sqlite tries it without django-mongodb-backend."""

import os

SECRET_KEY = "of-an-example"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "config.urls"
INSTALLED_APPS = ["orders", "postroom.contrib.django"]
USE_TZ = True
WSGI_APPLICATION = "config.wsgi.application"
# Above the environment's POSTROOM_ variables, by their names without the prefix.
POSTROOM = {"CELERY_APP": "config.celery:app"}
if os.environ.get("EXAMPLE_ENGINE") == "sqlite":
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
else:
    DATABASES = {
        "default": {
            "ENGINE": "django_mongodb_backend",
            "HOST": os.environ["POSTROOM_MONGODB_URI"],
            "NAME": os.environ["POSTROOM_MONGODB_DATABASE"],
        }
    }
    DATABASE_ROUTERS = ["django_mongodb_backend.routers.MongoRouter"]
    DEFAULT_AUTO_FIELD = "django_mongodb_backend.fields.ObjectIdAutoField"
