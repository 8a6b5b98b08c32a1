"""What a page is made with: the request, the table, and what the user may do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from functools import cached_property
from typing import Any, NamedTuple

from .._args import check_text, queue_name
from .._looks import DeadGroup, History, Overview
from .._looks.groups import groups
from .._looks.overview import read
from .._looks.rate import Rate
from .._manager import PQ
from .._table.look import looking
from ..doctor import Finding
from .jobs import Jobs
from .kept import Kept
from .request import Refused, Request
from .security import Signer

#: Jobs of a queue and state that are counted, and dead ones among which a group is found.
CAP = 1000

#: Says whether a user may do something in a queue.
Can = Callable[[str | None, str, str | None], object]


class Page(NamedTuple):
    """What is to be shown.

    :ivar template: the name of the file.
    :ivar words: what it needs.
    :ivar status: such as 200.
    """

    template: str
    words: dict[str, Any]
    status: int = 200


class Site(NamedTuple):
    """What all requests have in common."""

    pq: PQ
    can: Can
    read_only: bool
    signer: Signer
    findings: Kept[list[Finding]]
    history: Kept[History]
    rate: Rate


class View:
    """What a page is made with.

    :ivar request: the request.
    :ivar pq: the queues.
    :ivar looks: the same queues, for what only looks: no statement takes longer than a second.
    :ivar jobs: their jobs.
    :ivar rate: how many jobs a second are put.
    :ivar history: returns what has happened in the last hour; None if the server has taken too long.
    """

    def __init__(self, request: Request, site: Site) -> None:
        self.request: Request = request
        self.pq: PQ = site.pq
        self.looks: PQ = site.pq._on(looking(site.pq._table))
        self.jobs: Jobs = Jobs(site.pq)
        self.read_only: bool = site.read_only
        self.rate: Rate = site.rate
        self.history: Callable[[], History | None] = site.history.get
        self._can = site.can
        self._signer = site.signer
        self._findings = site.findings

    @cached_property
    def now(self) -> datetime:
        """The time."""
        return datetime.now(timezone.utc)

    @property
    def table(self) -> str:
        """The name of the table, for people."""
        return self.pq._table.quoted.replace('"', "")

    def may(self, action: str, queue: str | None = None) -> bool:
        """Whether the user may do that."""
        if self.read_only and action != "look":
            return False
        return bool(self._can(self.request.user, action, queue))

    def require(self, action: str, queue: str | None = None) -> None:
        """
        :raises Refused: the user may not do that.
        """
        if not self.may(action, queue):
            where = "" if queue is None else f" in queue {queue!r}"
            why = "These pages are read-only" if self.read_only and action != "look" else "You may not do that"
            raise Refused(403, f"{why}: {action}{where}.")

    def queue_asked_for(self) -> str:
        """Return the name of the queue of a page."""
        return self.allowed("look", self.request.get("q"))

    def allowed(self, action: str, name: str) -> str:
        """Return the name of a queue in which the user may do something.

        :raises Refused: there can be no such queue, or the user may not do that.
        """
        try:
            queue_name(check_text("queue name", name))
        except ValueError as error:
            raise Refused(404, str(error)) from None
        self.require(action, name)
        return name

    def dead_group(self, name: str, key: str) -> DeadGroup:
        """Return a group of dead jobs of a queue.

        :raises Refused: there is no such group any more.
        """
        for group in self.dead_groups(name, CAP):
            if group.key == key:
                return group
        raise Refused(404, "There is no such group any more.")

    def dead_groups(self, name: str | None, cap: int) -> list[DeadGroup]:
        """Return the groups, as `PQ.dead_groups` does, but by the names that queues have in the table: for that of a
        suffix `PQ` would return another queue's, which the user may not be allowed to see.
        """
        return groups(self.pq._table, self.jobs.queue, name, cap)

    def number(self, name: str) -> int | None:
        """Return a field of the query that is a number; None if it is missing."""
        text = self.request.get(name)
        if not text:
            return None
        try:
            found = int(text) if len(text) < 20 else None
        except ValueError:
            found = None
        if found is None or not 0 <= found < 2**63:
            raise Refused(400, f"{name} is no number of this kind: {text[:40]}")
        return found

    def findings(self, seconds: float | None = None) -> list[Finding]:
        """Return what the doctor says, but for queues that the user may not see.

        :param seconds: how long ago the doctor may have said it; None: as long as it is shown on top of other pages.
        """
        found = self._findings.get(seconds) or []
        return [each for each in found if "queue" not in each.data or self.may("look", str(each.data["queue"]))]

    def overview(self) -> Overview:
        """Return the figures of the queues; after an action they are new, else perhaps a second old."""
        return read(self.pq._table, CAP) if self.said else self.pq.overview(CAP)

    # -- what the templates call

    def url(self, path: str, **fields: Any) -> str:
        """Return a link to a page."""
        return self.request.url(path, **fields)

    @cached_property
    def token(self) -> str:
        """The token of the page's forms."""
        return self._signer.token(self.request.user)

    @property
    def said(self) -> str:
        """What the last action has said, if it was us."""
        text = self.request.get("say")
        return text if text and self._signer.is_signed(self.request.get("sign"), "say", text) else ""

    def saying(self, path: str, text: str) -> str:
        """Return a link, from the root on, to a page that says something."""
        address, _, query = path.partition("?")
        both = self.request.url("/", say=text, sign=self._signer.sign("say", text)).partition("?")[2]
        return f"{self.request.root}{address}?{query + '&' if query else ''}{both}"
