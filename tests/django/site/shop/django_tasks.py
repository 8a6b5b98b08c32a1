"""Tasks of ``django.tasks``."""

import asyncio
import os
import signal

import django
from django.db import connection
from django.db.models import F

from pq.tasks import current
from shop.models import Order

if django.VERSION >= (6, 0):
    from django.tasks import task
else:
    from django_tasks import task


@task
def add(a, b=0):
    """Return a sum."""
    return a + b


@task
async def add_async(a, b):
    """Return a sum, later."""
    await asyncio.sleep(0)
    return a + b


@task(takes_context=True, priority=5)
def tell(context, *args):
    """Return what the context says."""
    result = context.task_result
    return {
        "id": result.id,
        "attempt": context.attempt,
        "args": result.args,
        "status": result.status,
        "priority": result.task.priority,
        "workers": len(result.worker_ids),
    }


@task
def fail(how):
    """Fail."""
    if how == "value":
        raise ValueError("This task failed")
    if how == "exit":
        raise SystemExit("This task ended itself")
    return float("nan") if how == "nan" else object()


@task(backend="once", queue_name="once", takes_context=True)
def pay(context, order, how=""):
    """Add one mail to an order; the first attempts fail as they are told."""
    Order.objects.filter(id=order).update(mails=F("mails") + 1)
    current().progress(0.5)  # which locks the row of the job
    if how == "error" and context.attempt < 3:
        raise ValueError(f"attempt {context.attempt}")
    if how == "kill" and context.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "terminate" and context.attempt == 1:
        with connection.cursor() as cursor:
            cursor.execute("select pg_terminate_backend(pg_backend_pid())")
    return Order.objects.get(id=order).mails
