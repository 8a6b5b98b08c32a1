"""The application for WSGI: routing, and what becomes of errors."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from http.client import responses
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from .. import errors
from .._args import UNSET, Unset
from .._jobs.track import ratio
from .._logs import Log
from .._looks.rate import Rate
from .._manager import PQ
from .._text import describe
from . import actions, beside, charts, download, job, overview, pages, words
from .kept import Kept
from .request import Answer, Refused, Request
from .security import HEADERS, Signer, check_form, check_host
from .view import Can, Page, Site, View

PAGES: Mapping[str, Callable[[View], Page | Answer | str]] = {
    **overview.PAGES, **pages.PAGES, **beside.PAGES, **job.PAGES, **download.PAGES
}  # fmt: skip

#: The files that browsers load beside the pages.
STATIC = {"pq.css": "text/css", "pq.js": "text/javascript", "pq.svg": "image/svg+xml"}

#: Seconds for which pages show what the doctor has said, and what has happened in the last hour.
DOCTOR, HISTORY = 30.0, 5.0

log: Log = Log("pq.web")


class App:
    """Pages that show the queues of a `PQ`, and change them, as an application for WSGI.

    Every request is one of a *user*, a name or None, and each thing that a user wants is asked of `can`. Nothing is
    kept between requests, so any number of processes can serve these pages.

    :param pq: the queues.
    :param can: called as ``can(user, action, queue)``, it says whether the user may do that. The action is ``'look'``,
        ``'pause'``, ``'resume'``, ``'retry'``, ``'discard'``, ``'cancel'``, ``'run'`` (now, or at another time),
        ``'move'``, ``'put'`` (again), or for schedules ``'fire'``; the queue is a name, or None for what is about all
        of them. Without ``'look'`` at None there are no pages for the user, and without ``'look'`` at a queue it is not
        shown.
    :param read_only: allow nothing but to look, whatever `can` says.
    :param user: called with the environment of WSGI, it returns the name of the user. Default: ``REMOTE_USER``.
    :param secret: signs the tokens of forms. Where several processes serve the pages, they need the same. Default: a
        new one for each `App`.
    :param hosts: the names under which the pages are served; requests to another name are refused. Numbers of addresses
        and ``localhost`` are good in any case. Default: any name. Without a login this is needed, also on loopback:
        else a page of any site could read these pages, by a domain that leads to their address.
    :raises TypeError: an argument has another type.
    :raises ValueError: the secret is empty.
    """

    def __init__(
        self,
        pq: PQ,
        *,
        can: Can,
        read_only: bool = False,
        user: Callable[[Mapping[str, Any]], str | None] | None = None,
        secret: str | bytes | None = None,
        hosts: Collection[str] | None = None,
    ) -> None:
        if not isinstance(pq, PQ):
            raise TypeError(f"pq must be a PQ, not {type(pq).__name__}")
        if not callable(can):
            raise TypeError("can must be a function of a user, an action and a queue: whether that may be done")
        if isinstance(hosts, str):
            raise TypeError("hosts must be a list of names, not a str")
        if not isinstance(secret, (str, bytes, type(None))):
            raise TypeError(f"secret must be a str or bytes, not {type(secret).__name__}")
        if secret is not None and not secret:
            raise ValueError("secret must not be empty: anyone could sign forms")
        self._user = user
        self._hosts = None if hosts is None else {name.lower() for name in hosts}
        given = secrets.token_bytes(32) if secret is None else secret
        signer = Signer(given.encode() if isinstance(given, str) else given)
        self._site = Site(pq, can, read_only, signer, Kept(pq.doctor, DOCTOR), Kept(pq.history, HISTORY), Rate())
        static = files("pq.web").joinpath("static")
        self._static = {name: static.joinpath(name).read_bytes() for name in STATIC}
        self._templates = Environment(
            loader=PackageLoader("pq.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip
        self._templates.globals.update(
            version=hashlib.sha256(b"".join(self._static.values())).hexdigest()[:12],
            bars=charts.bars,
            share=charts.share,
            ratio=ratio,
            words=words,
        )
        self._templates.filters.update(
            {name: getattr(words, name) for name in ("span", "clock", "number", "size", "rate", "line", "pretty")}
        )

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request, as WSGI has it."""
        body, status, headers = self.answer(environ)
        start_response(f"{status} {responses.get(status, 'Refused')}", headers)
        return [body]

    def answer(self, environ: Mapping[str, Any], *, at: str = "", user: str | Unset | None = UNSET) -> Answer:
        """Answer a request, for a view of your own that checks who asks.

        :param environ: the environment of WSGI.
        :param at: the path of your view, such as ``'/jobs'``: what stands behind it is for these pages.
        :param user: who asks. Default: what the argument `user` of the class says.
        """
        root, answer = "", None
        try:
            if isinstance(user, Unset):
                user = environ.get("REMOTE_USER") or None if self._user is None else self._user(environ)
            request = Request(environ, at, user)
            root = request.root
            answer = self._answer(request)
        except Refused as error:
            answer = self._error(root, error.status, str(error))
        except Exception as error:
            answer = self._error(root, *self._told(error))
        headers = [*answer.headers, *HEADERS, ("Content-Length", str(len(answer.body)))]
        return Answer(b"" if environ["REQUEST_METHOD"] == "HEAD" else answer.body, answer.status, headers)

    def _answer(self, request: Request) -> Answer:
        check_host(request, self._hosts)
        folder, _, name = request.path[1:].partition("/")
        if folder == "static" and name in STATIC:
            # the links have the version of the files
            kept = ("Cache-Control", "private, max-age=31536000")
            return Answer(self._static[name], 200, [("Content-Type", f"{STATIC[name]}; charset=utf-8"), kept])
        view = View(request, self._site)
        view.require("look")
        if folder == "do" and name in actions.ACTIONS:
            if request.method != "POST":
                raise Refused(405, "This needs a form.")
            check_form(request, self._site.signer)
            return _redirect(actions.act(view, name))
        if request.path not in PAGES:
            raise Refused(404, "There is no such page.")
        if request.method not in ("GET", "HEAD"):
            raise Refused(405, "This page takes no forms.")
        page = PAGES[request.path](view)
        if isinstance(page, str):
            return _redirect(page)
        if isinstance(page, Answer):
            return page
        text = self._templates.get_template(page.template).render(view=view, **page.words)
        return _html(text, page.status)

    def _told(self, error: Exception) -> tuple[int, str]:
        """Return the status and the text for an error."""
        driver = self._site.pq._table.database.source.driver
        if isinstance(error, (errors.ConnectionFailed, errors.ConnectionLost, errors.StatementTimeout, TimeoutError)):
            return 503, describe(error)
        if isinstance(error, (errors.PQError, driver.Error, driver.PoolError)):
            log.warning("a page could not be made", exc_info=error)
            return 500, describe(error)
        log.error("a page could not be made", exc_info=error)
        return 500, "Something went wrong. The log of the program that serves these pages has more."

    def _error(self, root: str, status: int, text: str) -> Answer:
        return _html(self._templates.get_template("error.html").render(root=root, status=status, text=text), status)


def _html(text: str, status: int) -> Answer:
    # a row may hold what UTF-8 can't
    body = text.encode("utf-8", "replace")
    return Answer(body, status, [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-store")])


def _redirect(url: str) -> Answer:
    return Answer(b"", 303, [("Location", url), ("Cache-Control", "no-store")])
