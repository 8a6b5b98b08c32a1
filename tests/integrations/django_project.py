"""A Django project whose views put and take jobs: ``django_project.py DSN DRIVER PARAMETERS USE_TZ``."""

# ruff: noqa: E402

from __future__ import annotations

import json
import sys
from contextlib import contextmanager

dsn, driver, parameters, use_tz = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
if driver == "psycopg2":
    sys.modules["psycopg"] = None  # Django would take it

import django
from django.conf import settings
from django.db import IntegrityError, close_old_connections, connection, connections, models, transaction
from django.http import HttpResponse
from django.test import Client
from django.urls import path

database = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": parameters["dbname"],
    "USER": parameters["user"],
    "HOST": parameters["host"],
    "PORT": parameters["port"],
}
settings.configure(
    DATABASES={"default": {**database, "ATOMIC_REQUESTS": True}, "other": database},
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="secret",
    USE_TZ=use_tz,
    TIME_ZONE="America/New_York",
)
django.setup()

from pq import PQ, LeaseLost
from pq.testing import drain


class Order(models.Model):
    customer = models.TextField()

    class Meta:
        app_label = "shop"


pq = PQ(dsn)
mails = pq["mails"]


def order(request, customer):
    made = Order.objects.create(customer=customer)
    mails.put({"order": made.id}, conn=connection)
    if customer == "nobody":
        raise ValueError("no such customer")
    return HttpResponse("thank you")


urlpatterns = [path("order/<customer>", order)]


@contextmanager
def raises(kind, text=""):
    try:
        yield
    except kind as error:
        assert text in str(error), error
    else:
        raise AssertionError(f"no {kind.__name__}")


known = []


def customers():
    return list(Order.objects.order_by("id").values_list("customer", flat=True))


def check(given):
    Order.objects.all().delete()
    mails.clear()
    # both, or neither
    with transaction.atomic(), pq.using(given):
        mails.put({"order": Order.objects.create(customer="Ann").id})
        assert len(pq["mails"]) == 1
        connections[given.alias].ensure_connection()
    with raises(ZeroDivisionError), transaction.atomic():
        mails.put({"order": Order.objects.create(customer="Bob").id}, conn=given)
        raise ZeroDivisionError
    assert customers() == ["Ann"]
    assert len(mails) == 1
    # a savepoint that is rolled back
    with transaction.atomic(), pq.using(given):
        Order.objects.create(customer="Cid")
        mails.put("Cid")
        with raises(ZeroDivisionError), transaction.atomic():
            Order.objects.create(customer="Dan")
            mails.put_many(["Dan", "Dan"])
            raise ZeroDivisionError
        with transaction.atomic():
            mails.put("Eve")
        with raises(ZeroDivisionError), pq.using(given, savepoint=True):
            mails.put("Fay")
            raise ZeroDivisionError
    assert customers() == ["Ann", "Cid"]
    # the same after an error of the database
    with transaction.atomic(), pq.using(given):
        with raises(IntegrityError), pq.using(given, savepoint=True):
            mails.put("Fay")
            Order.objects.create(customer=None)
        assert customers() == ["Ann", "Cid"]
    # a job, and what comes of it
    with raises(ZeroDivisionError), transaction.atomic():
        mails.get(conn=given)
        raise ZeroDivisionError
    with transaction.atomic():
        assert "order" in mails.get(conn=given).data
    assert [job.data for job in mails.get_many(9)] == ["Cid", "Eve"]
    # a lease that is taken here, and ends here or there
    mails.put_many(range(3))
    for end in ({"conn": given}, {}):
        with transaction.atomic():
            job = mails.get(lease="1m", conn=given)
        with job, transaction.atomic():
            Order.objects.create(customer=str(job.data))
            job.done(**end)
    assert customers() == ["Ann", "Cid", "0", "1"]
    job = mails.get(lease="1m")
    job.done()
    with raises(LeaseLost), transaction.atomic():
        Order.objects.create(customer="late")
        job.done(conn=given)
    assert customers() == ["Ann", "Cid", "0", "1"]
    assert "mails" not in pq
    # outside of atomic() Django is in autocommit mode
    mails.put(1, conn=given)
    with raises(ValueError, "autocommit"):
        mails.get(conn=given)
    # a test, whose transaction is rolled back
    with raises(ZeroDivisionError), transaction.atomic(), pq.using(given):
        done = []
        pq["tasks"].task(name=f"order {len(known)}")(lambda id, customer: done.append(Order(customer=customer).save()))
        known.append(pq["tasks"].handler_registry[f"order {len(known)}"])
        known[-1]("Gus")
        known[-1](None)
        performed = drain(pq, given, raises=False)
        assert [each.outcome for each in performed] == ["done", "dead"], performed
        assert customers()[-1] == "Gus"
        raise ZeroDivisionError
    assert "tasks" not in pq
    # a cursor will do
    with transaction.atomic(using=given.alias), given.cursor() as cursor:
        assert mails.get(conn=cursor).data == 1
    assert "mails" not in pq


with connection.schema_editor() as editor:
    editor.create_model(Order)
assert connection.Database.__name__ == driver
check(connection)
check(connections["default"])

# a connection that is closed in the middle opens itself again
with pq.using(connection):
    connection.close()
    mails.put(1)
assert mails.get().data == 1

# one that Django keeps, and that breaks, is replaced at the end of the request; or before, with health checks
for checked in (False, True):
    connection.close()
    connection.settings_dict.update(CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=checked)
    mails.put(1, conn=connection)
    pq._db.execute(f"select pg_terminate_backend({connection.connection.info.backend_pid}, 30000)")
    close_old_connections()
    if not checked:
        with raises(connection.Database.OperationalError):
            mails.put(2, conn=connection)
        close_old_connections()
    mails.put(2, conn=connection)
    assert [job.data for job in mails.get_many(9)] == [1, 2]

# each has its own
with transaction.atomic(), transaction.atomic(using="other"):
    mails.put("default", conn=connection)
    mails.put("other", conn=connections["other"])
    transaction.set_rollback(True)
assert [job.data for job in mails.get_many(9)] == ["other"]

# a request is a transaction
client = Client(raise_request_exception=False)
assert client.get("/order/Gus").content == b"thank you"
assert client.get("/order/nobody").status_code == 500
assert customers()[-1] == "Gus"
assert len(mails) == 1

connections.close_all()
pq.close()
print("all is well")
