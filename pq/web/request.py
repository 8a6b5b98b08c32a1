"""What a browser has sent, and what it gets. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlencode

#: Bytes of a form, and how many fields it has.
LARGEST_FORM = 256 * 1024
MOST_FIELDS = 2_000


class Answer(NamedTuple):
    """The answer to a request. Flask takes it as what a view returns.

    :ivar body: what the browser gets.
    :ivar status: such as 200.
    :ivar headers: their names and values.
    """

    body: bytes
    status: int
    headers: list[tuple[str, str]]


class Refused(Exception):
    """A request that is not done.

    :ivar status: such as 404.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status: int = status


class Request:
    """A request.

    :ivar root: the path under which the pages are, quoted, without a slash at its end.
    :ivar path: the rest, such as ``/queue``.
    :ivar query: the fields behind the question mark.
    :ivar form: those of a form.
    :ivar user: who asks, or None.
    """

    def __init__(self, environ: Mapping[str, Any], at: str, user: str | None) -> None:
        self.environ: Mapping[str, Any] = environ
        self.method: str = environ["REQUEST_METHOD"]
        self.user: str | None = user
        root, path = _text(environ.get("SCRIPT_NAME", "")), _text(environ.get("PATH_INFO", ""))
        at = at.rstrip("/")
        if at and f"{path}/".startswith(f"{at}/"):
            root, path = root + at, path[len(at) :]
        self.root: str = quote(root.rstrip("/"))
        self.path: str = path or "/"
        self.query: dict[str, list[str]] = _fields(environ.get("QUERY_STRING", ""))
        self.form: dict[str, list[str]] = self._read() if self.method == "POST" else {}

    def get(self, name: str, default: str = "") -> str:
        """Return the first field of that name of the query."""
        return self.query.get(name, [default])[0]

    def sent(self, name: str, default: str = "") -> str:
        """Return the first field of that name of the form."""
        return self.form.get(name, [default])[0]

    def sent_name(self, name: str) -> str:
        """Return a field that holds a name, which the page has quoted: browsers change the ends of lines in a form."""
        return unquote(self.sent(name))

    def header(self, name: str) -> str:
        """Return a header, or an empty text."""
        value: str = self.environ.get(f"HTTP_{name.upper().replace('-', '_')}", "")
        return value

    def url(self, path: str, **fields: Any) -> str:
        """Return a link to a page; fields that are None or empty are left out."""
        given = {name: value for name, value in fields.items() if value not in (None, "")}
        return f"{self.root}{quote(path)}" + (f"?{urlencode(given)}" if given else "")

    @property
    def here(self) -> str:
        """The page with its fields, from the root on, without what the last action has said."""
        kept = {name: values for name, values in self.query.items() if name not in ("say", "sign")}
        return quote(self.path) + (f"?{urlencode(kept, doseq=True)}" if kept else "")

    def _read(self) -> dict[str, list[str]]:
        kind = self.environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            raise Refused(415, "This is no form of these pages.")
        try:
            length = int(self.environ.get("CONTENT_LENGTH") or 0)
        except ValueError:
            raise Refused(400, "The length of the form is not a number.") from None
        if not 0 <= length <= LARGEST_FORM:
            raise Refused(413, "The form is too large.")
        return _fields(self.environ["wsgi.input"].read(length).decode("ascii", "replace"))


def _fields(text: str) -> dict[str, list[str]]:
    try:
        found = parse_qs(text, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise Refused(400, f"There are more than {MOST_FIELDS:,} fields.") from None
    if any("\0" in value for values in found.values() for value in values):
        raise Refused(400, "PostgreSQL can't hold a NUL character.")
    return found


def _text(raw: str) -> str:
    """Return what WSGI passes as latin-1, which was UTF-8."""
    return raw.encode("latin-1", "replace").decode("utf-8", "replace")
