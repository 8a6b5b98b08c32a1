"""pq's own tasks, and those of ``django.tasks`` where there are any."""

import os
import signal

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F

from pq.contrib.django import pq
from pq.tasks import current
from shop.models import Order

mails = pq["mails"]
log = pq["log"]


@mails.task(max_retries=3, retry_in="100ms")
def send(job_id, order):
    """Send a mail."""
    Order.objects.filter(id=order).update(mails=F("mails") + 1)


@mails.task(max_retries=3, retry_in="100ms", transactional=True)
def send_once(job_id, order, how=""):
    """Send a mail, exactly once; the first attempt fails as it is told."""
    Order.objects.filter(id=order).update(mails=F("mails") + 1)
    log.put({"order": order})
    if how == "error" and current().attempts == 1:
        raise ValueError("at first")
    if how == "kill" and current().attempts == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "rollback" and current().attempts == 1:
        transaction.set_rollback(True)
    if how == "close" and current().attempts == 1:
        connection.close()


@mails.task(max_retries=3, retry_in="100ms")
def look(job_id):
    """Tell by which connection this runs, and whether jobs put here are those of Django's transaction."""
    with transaction.atomic():
        log.put({"lost": job_id})
        transaction.set_rollback(True)
    log.put({"pid": connection.connection.info.backend_pid, "attempt": current().attempts})


if settings.HAS_TASKS:
    from shop import django_tasks  # noqa: F401
