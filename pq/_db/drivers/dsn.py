"""What libpq would misunderstand in a DSN. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

_PORTS = re.compile(r"[0-9,]*")
_USER_IN_HOST = re.compile(r"(?:^|,)[^,/@]+@")
_SQLALCHEMY_DRIVER = re.compile(r"^(postgres(?:ql)?)\+\w+(?=://)")


def plain(dsn: str) -> str:
    """Without the name of a driver, as SQLAlchemy has it in the scheme."""
    return _SQLALCHEMY_DRIVER.sub(r"\1", dsn)


def check(given: Mapping[str, str]) -> None:
    """
    :raises ValueError: "@" or "/" in the password of a URL: parts of it are taken for host or port, which libpq's
        messages quote.
    """
    if _USER_IN_HOST.search(given.get("host", "")) or not _PORTS.fullmatch(given.get("port", "")):
        raise ValueError("the DSN's host or port is malformed; a password in a URL must be percent-encoded")
