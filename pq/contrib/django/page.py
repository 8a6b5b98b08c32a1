"""The web page as a view of Django's, for staff."""

from __future__ import annotations

from contextvars import ContextVar
from functools import cache
from io import BytesIO
from typing import Any

from django.conf import settings
from django.contrib.admin.views.decorators import staff_member_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from pq.web import App

from .queues import pqs

_user: ContextVar[Any] = ContextVar("pq_django_user")


@csrf_exempt  # its forms have tokens of their own
@transaction.non_atomic_requests
@staff_member_required
def page(request: HttpRequest, page: str = "", alias: str = "default") -> HttpResponse:
    """Show a page to members of the staff who have the permission ``pq.view_job``; ``pq.change_job`` is for the rest.

    :param page: the part of the path behind that of the view.
    :param alias: the name of an entry in the setting PQ.
    """
    path = request.path_info
    environ = {
        **request.META,
        "PATH_INFO": path.encode().decode("latin-1"),  # as WSGI has it
        "wsgi.input": BytesIO(request.body),
    }
    token = _user.set(request.user)
    try:
        at = path[: len(path) - len(page)]
        body, status, headers = _app(alias).answer(environ, at=at, user=request.user.get_username())
    finally:
        _user.reset(token)
    return HttpResponse(body, status=status, headers=dict(headers))


@cache
def _app(alias: str) -> App:
    return App(pqs[alias], can=_can, secret=f"pq.contrib.django {settings.SECRET_KEY}")


def _can(user: str | None, action: str, queue: str | None) -> bool:
    return bool(_user.get().has_perm("pq.view_job" if action == "look" else "pq.change_job"))
