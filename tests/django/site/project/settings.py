"""Settings. What a test is to vary comes from the environment, as JSON: ``SITE``."""

import importlib.util
import json
import os
import sys

import django

SITE = json.loads(os.environ["SITE"])
if "path" in SITE:
    sys.path.append(SITE["path"])
if SITE.get("driver") == "psycopg2":
    sys.modules["psycopg"] = None  # Django would take it

DEBUG = SITE.get("debug", False)
SECRET_KEY = "secret"
ALLOWED_HOSTS = ["*"]
USE_TZ = SITE.get("use_tz", True)
TIME_ZONE = "America/New_York"
ROOT_URLCONF = "project.urls"
STATIC_URL = "/static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
_DATABASE = {"ENGINE": "django.db.backends.postgresql", "CONN_MAX_AGE": SITE.get("max_age"), **SITE["database"]}
DATABASES = {"default": _DATABASE, **SITE.get("databases", {})}
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "pq.contrib.django",
    "shop",
    *SITE.get("apps", []),
]
HAS_TASKS = django.VERSION >= (6, 0) or importlib.util.find_spec("django_tasks") is not None
if django.VERSION < (6, 0) and HAS_TASKS:
    INSTALLED_APPS.append("django_tasks")
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
MIGRATION_MODULES = SITE.get("migration_modules", {})
if "pq" in SITE:
    PQ = SITE["pq"]
TASKS = SITE.get("tasks") or {
    "default": {"BACKEND": "pq.contrib.django.backend.PQBackend", "QUEUES": ["default", "other"]},
    "once": {
        "BACKEND": "pq.contrib.django.backend.PQBackend",
        "QUEUES": ["once"],
        "OPTIONS": {"transactional": True, "max_retries": 3, "retry_in": "100ms", "lease": "1s"},
    },
}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
}
