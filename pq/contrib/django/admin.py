"""The jobs in the admin: pages by id, search by id, and what people do to jobs.

A table of jobs may be large, so nothing here counts it, and a page begins where the one before it has ended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import quote
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from pq import JobInfo, Queue
from pq._args import check_text, queue_name
from pq._queue.browse import STATES

from .bases import ActionForm, ChangeList, ModelAdmin, SimpleListFilter
from .models import Job
from .queues import pqs

#: How many jobs one action changes at most.
MOST = 1_000


class Pages(ChangeList):
    """A list whose next page begins behind the last id of this one.

    :ivar older: the query string of the next page, or None.
    :ivar newest: that of the first one, or None if this is it.
    """

    older: str | None = None
    newest: str | None = None

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Refuse what PostgreSQL can't hold, as Django refuses a number that is none: filters may be for any field."""
        if any("\0" in value for values in request.GET.lists() for value in values[1]):
            raise IncorrectLookupParameters
        return super().get_queryset(request, *args, **kwargs)  # type: ignore[misc]

    def get_results(self, request: HttpRequest) -> None:
        """Read one page, and see whether there is another one."""
        size: int = self.list_per_page
        found = list(self.queryset[: size + 1])
        self.result_list: list[Any] = found[:size]
        self.result_count: int = len(self.result_list)
        self.full_result_count: int | None = None
        self.show_full_result_count: bool = False
        self.show_admin_actions: bool = True
        self.can_show_all: bool = False
        self.multi_page: bool = False
        self.paginator: Any = Paginator(self.result_list, size)
        if len(found) > size:
            self.older = self.get_query_string({"id__lt": found[size - 1].pk})
        if "id__lt" in self.params:
            self.newest = self.get_query_string(remove=["id__lt"])

    def url_for_result(self, result: Any) -> str:
        """Return the address of the page of a job."""
        site = self.model_admin.admin_site.name
        return str(reverse("admin:pq_job_change", args=(quote(result.pk),), current_app=site))


class StateFilter(SimpleListFilter):
    """By the state."""

    title: str = "state"
    parameter_name: str = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the states."""
        return [(state, state) for state in STATES]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Choose the jobs."""
        return queryset.filter(state=self.value()) if self.value() in STATES else queryset


class QueueFilter(SimpleListFilter):
    """By the queue, of those that have something to do."""

    title: str = "queue"
    parameter_name: str = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the names."""
        names = list(pqs["default"])[:100]
        return [(name, name) for name in names]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Choose the jobs."""
        name = self.value()
        if not name:
            return queryset
        try:
            return queryset.filter(queue=queue_name(check_text("queue name", name)))
        except ValueError:  # no queue has that name, and PostgreSQL would refuse the text
            return queryset.none()


class When(ActionForm):
    """The form of the actions, with the time for one of them."""

    when: Any = forms.CharField(
        required=False,
        label="Reschedule to:",
        widget=forms.TextInput(attrs={"placeholder": "now, or 1h30m", "size": 12}),
    )


@admin.register(Job)
class JobAdmin(ModelAdmin):
    """Jobs are looked at, retried, discarded, cancelled and rescheduled; nothing is edited."""

    list_display: tuple[str, ...] = ("id", "queue", "state", "enqueued_at", "finished_at", "attempts", "key", "worker")
    list_filter: tuple[Any, ...] = (StateFilter, QueueFilter)
    search_fields: tuple[str, ...] = ("id",)
    search_help_text: str = "The id of a job"
    ordering: tuple[str, ...] = ("-id",)
    sortable_by: tuple[str, ...] = ()
    show_full_result_count: bool = False
    action_form: Any = When
    actions: tuple[str, ...] = ("retry", "discard", "cancel", "reschedule")
    readonly_fields: tuple[str, ...] = (
        "id", "queue", "state", "key", "attempts", "worker", "enqueued_at", "due", "finished_at", "data", "error",
        "traceback",
    )  # fmt: skip
    fields: tuple[str, ...] = readonly_fields
    change_list_template: str = "admin/pq/job/change_list.html"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        """Return the class of the list."""
        return Pages

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """Find the job of an id: another search would read the whole table."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if not (term.isascii() and term.isdigit() and len(term) < 19):
            messages.warning(request, "Jobs are found by their ids alone.")
            return queryset.none(), False
        return queryset.filter(id=int(term)), False

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Add the link to the web page, if the project has it."""
        try:
            page = reverse("pq:page", args=("",))
        except NoReverseMatch:
            page = None
        return super().changelist_view(request, {**(extra_context or {}), "pq_page": page})  # type: ignore[misc]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: jobs are put by the application."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: there are the actions."""
        return False

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        """Show no button to save: nothing can be edited."""
        context |= {"show_save": False, "show_save_and_continue": False, "show_save_and_add_another": False}
        return super().render_change_form(request, context, *args, **kwargs)  # type: ignore[misc]

    @admin.display(description="state")
    def state(self, job: Any) -> str:
        """Return the state, as the server sees it."""
        return str(job.state)

    # -- the page of a job

    @admin.display(description="data")
    def data(self, job: Any) -> str:
        """Return the data as it stands in the table."""
        info = _info(job)
        return "" if info is None else info.text

    @admin.display(description="due")
    def due(self, job: Any) -> str:
        """Return when it becomes ready, if it does so by itself; in UTC."""
        info = _info(job)
        return "" if info is None or info.due_at is None else f"{info.due_at:%Y-%m-%d %H:%M:%S} UTC"

    @admin.display(description="error")
    def error(self, job: Any) -> str:
        """Return what the last attempt ended with."""
        info = _info(job)
        return "" if info is None or info.error is None else str(info.error)

    @admin.display(description="traceback")
    def traceback(self, job: Any) -> str:
        """Return the traceback of that."""
        info = _info(job)
        return "" if info is None or info.error is None else info.error.traceback or ""

    # -- actions

    @admin.action(description="Retry dead jobs", permissions=["change"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Make dead jobs ready again."""
        self._act(request, queryset, "retried", lambda queue, ids: queue.dead.retry(ids))

    @admin.action(description="Discard dead jobs", permissions=["change"])
    def discard(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Delete dead jobs."""
        self._act(request, queryset, "discarded", lambda queue, ids: queue.dead.discard(ids))

    @admin.action(description="Cancel jobs", permissions=["change"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """End jobs without performing them."""
        self._act(request, queryset, "cancelled", lambda queue, ids: queue.cancel(ids))

    @admin.action(description="Reschedule jobs", permissions=["change"])
    def reschedule(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Change when jobs may start."""
        when = request.POST.get("when", "").strip()
        at = None if when in ("", "now") else when
        try:
            self._act(request, queryset, "rescheduled", lambda queue, ids: sum(queue.reschedule(id, at) for id in ids))
        except ValueError as error:
            messages.error(request, str(error))

    def _act(
        self, request: HttpRequest, queryset: Any, what: str, act: Callable[[Queue, Iterable[int]], int]
    ) -> None:
        ids: dict[str, list[int]] = defaultdict(list)
        for job in queryset[:MOST]:
            ids[job.queue].append(job.pk)
        count = sum(act(pqs["default"][queue], chosen) for queue, chosen in ids.items())
        left = sum(map(len, ids.values())) - count
        others = f", {left} not: they are in another state, or in use" if left else ""
        messages.info(request, f"{count} of the jobs {what}{others}.")


def _info(job: Any) -> JobInfo | None:
    if "_info" not in vars(job):
        job._info = pqs["default"][job.queue].find(job.pk)
    found: JobInfo | None = job._info
    return found
