"""The web page: ``path("queues/", include("pq.contrib.django.urls"))``."""

from __future__ import annotations

from typing import Any

from django.urls import re_path

from .page import page

app_name: str = "pq"
urlpatterns: list[Any] = [re_path(r"^(?P<page>.*)$", page, name="page")]
