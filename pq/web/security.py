"""Tokens of forms, where requests may come from, and the headers of each answer.

A page of another site can make a browser send a form, and with it the browser's login. So an action is taken only with
a token that such a page can't read, and only if the browser says that the form stood on a page of ours.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from collections.abc import Collection
from urllib.parse import urlsplit

from .request import Refused, Request

#: Seconds for which a token is good.
TOKEN_LIFE = 24 * 3600

#: Nothing but our own files is loaded or run, and no page of another site shows ours in a frame. The policy of the
#: referrer is not "no-referrer": with that a browser says of our own forms that they come from nowhere.
HEADERS = [
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]


class Signer:
    """Signs tokens and short texts.

    :param secret: the key.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, *parts: str) -> str:
        """Return the signature of texts."""
        text = "".join(f"{len(part)}:{part}" for part in parts)
        return hmac.new(self._secret, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    def is_signed(self, signature: str, *parts: str) -> bool:
        """Whether it is the signature of these texts."""
        return hmac.compare_digest(self.sign(*parts).encode(), signature.encode("utf-8", "replace"))

    def token(self, user: str | None) -> str:
        """Return a token for the forms of a user."""
        end = str(int(time.time()) + TOKEN_LIFE)
        return f"{end}.{self.sign('token', end, user or '')}"

    def is_token(self, token: str, user: str | None) -> bool:
        """Whether it is a token of this user that is still good."""
        end, _, signature = token.partition(".")
        if not (end.isascii() and end.isdigit() and len(end) < 15):
            return False
        return self.is_signed(signature, "token", end, user or "") and int(end) > time.time()


def check_host(request: Request, hosts: Collection[str] | None) -> None:
    """Refuse a request to a name that is not ours.

    Anyone's domain can lead to an address of ours: a page of that domain could then read these pages as its own.

    :param hosts: names; numbers of addresses are good in any case. None: any name.
    """
    if hosts is None:
        return
    given = request.header("host") or request.environ.get("SERVER_NAME", "")
    try:
        name = urlsplit(f"//{given}").hostname or ""
    except ValueError:
        name = ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        if name.lower() not in {"localhost", *hosts}:
            raise Refused(421, f"These pages are not served under the name {name!r}.") from None


def check_form(request: Request, signer: Signer) -> None:
    """Refuse a form that did not stand on a page of ours."""
    site, origin = request.header("sec-fetch-site"), request.header("origin")
    # a browser says the first one only where it trusts the connection: with TLS, and on loopback
    if site:
        ours = site == "same-origin"
    elif origin:
        ours = origin.partition("://")[2] == request.header("host")
    else:
        ours = True
    if not ours:
        raise Refused(403, "The form was sent from a page of another site.")
    if not signer.is_token(request.sent("token"), request.user):
        raise Refused(
            403,
            "The form is too old, or was made by another process. Go back, reload the page and try again. "
            "Where several processes serve these pages, give each App the same secret=.",
        )
