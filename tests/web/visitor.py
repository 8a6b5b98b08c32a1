"""A browser without scripts and pictures, for an application of WSGI: it follows links and sends forms."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

VOID = {"meta", "link", "input", "img", "br"}


class Page(HTMLParser):
    """What an answer has said.

    :ivar tags: the names and attributes of all elements, in order.
    :ivar text: all text, with single spaces.
    :ivar forms: of each form its address, its fields and its buttons; a button has its own address, or "".
    """

    def __init__(self, url: str, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        super().__init__()
        self.url = url
        self.status = status
        self.headers = dict(headers)
        assert len(self.headers) == len(headers), f"a header twice: {headers}"
        self.source = body.decode()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.forms: list[dict[str, Any]] = []
        self._open: list[str] = []
        self._words: list[str] = []
        if "html" in self.headers.get("Content-Type", ""):
            self.feed(self.source)
            assert self._open == [], f"not closed: {self._open}"
        self.text = " ".join("".join(self._words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "form":
            self.forms.append({"action": found.get("action", ""), "fields": [], "buttons": [], "tag": found})
        elif tag in ("input", "select") and self.forms and "form" in self._open:
            self.forms[-1]["fields"].append(found)
        elif tag == "button" and "form" in self._open:
            self.forms[-1]["buttons"].append({"action": found.get("formaction", ""), "text": ""})

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1] == tag, f"</{tag}> in {self._open}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._words.append(data + (" " if self._open and self._open[-1] != "script" else ""))
        if "button" in self._open and "form" in self._open:
            self.forms[-1]["buttons"][-1]["text"] += data

    def links(self) -> list[str]:
        """The addresses of all links."""
        return [str(found["href"]) for tag, found in self.tags if tag == "a" and "href" in found]


class Visitor:
    """Visits the pages of an application.

    :param app: the application.
    :param environ: what each request has beside the usual.
    """

    def __init__(self, app: Callable[..., Any], **environ: Any) -> None:
        self._app = app
        self._environ = environ

    def get(self, url: str, **environ: Any) -> Page:
        """Get a page."""
        return self.request("GET", url, b"", **environ)

    def post(self, url: str, fields: Any, **environ: Any) -> Page:
        """Send a form, and follow to the page that is answered with."""
        sent = urlencode(fields, doseq=True).encode()
        kind = {"CONTENT_TYPE": "application/x-www-form-urlencoded", "CONTENT_LENGTH": str(len(sent))}
        page = self.request("POST", url, sent, **{**kind, **environ})
        if page.status != 303:
            return page
        return self.get(urljoin(url, page.headers["Location"]), **environ)

    def submit(self, page: Page, text: str, **more: Any) -> Page:
        """Press the first button whose text begins so, with further fields."""
        for form in page.forms:
            for button in form["buttons"]:
                if button["text"].strip().startswith(text):
                    fields = {
                        each["name"]: _ended(each.get("value") or "") for each in form["fields"]
                        if each.get("name") and each.get("type") != "checkbox"
                    }  # fmt: skip
                    return self.post(urljoin(page.url, button["action"] or form["action"]), {**fields, **more})
        raise AssertionError(f"no button {text!r} on {page.url}: {page.text}")

    def request(self, method: str, url: str, body: bytes, **environ: Any) -> Page:
        """Send a request."""
        parts = urlsplit(url)
        told: list[Any] = []
        given = {
            "REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": _decoded(parts.path), "QUERY_STRING": parts.query,
            "SERVER_NAME": "localhost", "SERVER_PORT": "80", "HTTP_HOST": "localhost", "wsgi.input": io.BytesIO(body),
            "wsgi.url_scheme": "http", "wsgi.version": (1, 0), **self._environ, **environ,
        }  # fmt: skip
        parts_of_body = self._app(given, lambda status, headers: told.append((status, headers)))
        status, headers = told[0]
        return Page(url, int(status[:3]), headers, b"".join(parts_of_body))


def _ended(value: str) -> str:
    """What a browser sends of a text with several lines."""
    return re.sub(r"\r\n|\r|\n", "\r\n", value)


def _decoded(path: str) -> str:
    from urllib.parse import unquote_to_bytes

    return unquote_to_bytes(path).decode("latin-1")
