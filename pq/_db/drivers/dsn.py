"""What libpq would misunderstand in a DSN, and what pq adds to one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

#: Parameters of the connections that pq opens, where the user gives no others. A peer that vanished is given up after
#: about five seconds, be it in the middle of a statement (tcp_user_timeout, in ms) or between two (keepalives, in s).
CONNECT = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "2",
    "tcp_user_timeout": "5000",
    "client_encoding": "UTF8",
    "fallback_application_name": "pq",
}

#: The environment variables by which libpq's user may give them.
_VARIABLES = {"PGCONNECT_TIMEOUT": "connect_timeout", "PGCLIENTENCODING": "client_encoding"}

#: A service may be defined in a file whose place only libpq knows. Then the user's settings are unknown, and win.
_UNKNOWN = frozenset(CONNECT) - {"fallback_application_name"}

_PORTS = re.compile(r"[0-9,]*")
_USER_IN_HOST = re.compile(r"(?:^|,)[^,/@]+@")
_SQLALCHEMY_DRIVER = re.compile(r"^(postgres(?:ql)?)\+\w+(?=://)")


def plain(dsn: str) -> str:
    """Return the DSN without the name of a driver, which SQLAlchemy puts in the scheme."""
    return _SQLALCHEMY_DRIVER.sub(r"\1", dsn)


def check(given: Mapping[str, str]) -> None:
    """Refuse a URL whose password has an unescaped "@" or "/": libpq takes parts of it for host or port, which its
    messages quote.

    :raises ValueError: it has.
    """
    if _USER_IN_HOST.search(given.get("host", "")) or not _PORTS.fullmatch(given.get("port", "")):
        raise ValueError("the DSN's host or port is malformed; a password in a URL must be percent-encoded")


def query_keys(dsn: str) -> list[str]:
    """Return the names of the parameters in the query of a URL.

    Only names are returned, and only where "?" can't be part of a password: an error message may quote them.
    """
    if "://" not in dsn or "@" in dsn.partition("?")[2]:
        return []
    try:
        query = urlsplit(dsn).query
    except ValueError:
        return []
    return [key for key in (part.partition("=")[0] for part in query.split("&")) if key.isidentifier()]


def defaults(given: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return `CONNECT` without what the environment or a service file sets.

    For libpq, the parameters of a connection take precedence over both.
    """
    theirs = {name for variable, name in _VARIABLES.items() if environ.get(variable)}
    service = given.get("service") or environ.get("PGSERVICE")
    if service:
        theirs |= _service(service, given, environ)
    return {name: value for name, value in CONNECT.items() if name not in theirs}


def _service(name: str, given: Mapping[str, str], environ: Mapping[str, str]) -> frozenset[str]:
    """Return the names of the parameters that a service sets."""
    from configparser import Error, RawConfigParser  # few have services

    user = given.get("servicefile") or environ.get("PGSERVICEFILE") or os.path.expanduser("~/.pg_service.conf")
    system = Path(environ.get("PGSYSCONFDIR", "/"), "pg_service.conf")
    for path in (Path(user), system):
        parser = RawConfigParser(delimiters="=", strict=False, interpolation=None, default_section="")
        try:
            parser.read_string(path.read_text("utf-8", "replace"))
        except (OSError, Error):
            continue
        if parser.has_section(name):
            return frozenset(key for key, _ in parser.items(name))
    return _UNKNOWN


def compose(parameters: Mapping[str, str]) -> str:
    """Return a DSN of ``key='value'`` pairs."""
    quoted = {key: value.replace("\\", r"\\").replace("'", r"\'") for key, value in parameters.items()}
    return " ".join(f"{key}='{value}'" for key, value in quoted.items())


def parsed(dsn: str, parse: Callable[[str], dict[str, str]], refused: type[Exception]) -> dict[str, str]:
    """Return the parameters of a DSN.

    :param parse: the driver's function, which raises `refused`.
    :raises ValueError: it is malformed. The message does not quote it: it may hold a password.
    """

    def is_parameter(key: str) -> bool:
        try:
            parse(f"{key}=''")
        except refused:
            return False
        return True

    text = plain(dsn)
    try:
        given = parse(text)
    except refused:
        if unknown := [key for key in query_keys(text) if not is_parameter(key)]:
            raise ValueError(f"libpq does not know these parameters of the DSN: {', '.join(unknown)}") from None
        raise ValueError("the DSN is neither a postgresql:// URL nor key=value pairs") from None
    check(given)
    return given
