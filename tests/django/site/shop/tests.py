"""The tests of this project, which `test_django_app.py` runs."""

import threading
from unittest.mock import patch
from urllib.parse import quote, urlencode

from django.contrib.auth.models import Permission, User
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.sql import emit_post_migrate_signal
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase, override_settings
from django.test.utils import _TestState
from django.urls import reverse

from pq import PQ, BlockError, JobsLeft, Limit
from pq.contrib.django import conf, pq, pqs
from pq.contrib.django.models import Job
from pq.errors import LeaseLost
from pq.testing import drain
from shop import tasks
from shop.models import Order


class Jobs:
    """What holds in a `TestCase` and in a `TransactionTestCase`."""

    def test_each_test_begins_with_an_empty_table(self):
        self.assertEqual(list(pq), [])
        pq["first"].put(1)
        self.assertEqual(list(pq), ["first"])

    def test_again(self):
        self.assertEqual(list(pq), [])
        pq["second"].put(1)
        self.assertEqual(list(pq), ["second"])

    def test_a_view_and_what_it_puts(self):
        self.assertEqual(self.client.get("/order/Ann").content, b"thank you")
        self.client.raise_request_exception = False
        self.assertEqual(self.client.get("/order/nobody").status_code, 500)
        self.assertEqual([order.customer for order in Order.objects.all()], ["Ann"])
        (job,) = pq["mails"].list()
        self.assertEqual(job.data["args"], [Order.objects.get().id])

    def test_a_block_that_is_rolled_back_takes_its_jobs_along(self):
        with transaction.atomic():
            pq["a"].put(1)
            with self.assertRaises(ZeroDivisionError), transaction.atomic():
                pq["a"].put(2)
                tasks.send(3)
                raise ZeroDivisionError
        self.assertEqual([job.data for job in pq["a"].list()], [1])
        self.assertEqual(len(pq["mails"]), 0)

    def test_a_block_of_a_queue_is_one_of_djangos(self):
        with pq["a"] as cursor:
            pq["a"].put(1)
            Order.objects.create(customer="Ann")
            cursor.execute("select customer from shop_order")
            self.assertEqual(cursor.fetchall(), [("Ann",)])
            self.assertTrue(connection.in_atomic_block)
        with self.assertRaises(ZeroDivisionError), pq["a"]:
            self.assertEqual(pq["a"].get().data, 1)
            Order.objects.create(customer="Bob")
            raise ZeroDivisionError
        self.assertEqual(len(pq["a"]), 1)
        self.assertEqual(Order.objects.count(), 1)

    def test_blocks_in_blocks(self):
        with pq["a"]:
            pq["a"].put(1)
            with self.assertRaises(ZeroDivisionError), pq["b"]:
                pq["b"].put(1)
                raise ZeroDivisionError
            with pq["b"], pq.using(connection):
                pq["b"].put(2)
        self.assertEqual([job.data for job in pq["b"].list()], [2])
        self.assertEqual(len(pq["a"]), 1)

    def test_a_block_that_django_is_told_to_roll_back_says_so(self):
        with self.assertRaisesMessage(transaction.TransactionManagementError, "marked to be rolled back"), pq["a"]:
            pq["a"].put(1)
            transaction.set_rollback(True)
        self.assertEqual(len(pq["a"]), 0)

    def test_items(self):
        pq["a"].put_many([1, 2])
        with pq["a"].item(0) as job:
            Order.objects.create(customer=str(job.data))
        with self.assertRaises(ZeroDivisionError), pq["a"].item(0) as job:
            Order.objects.create(customer=str(job.data))
            raise ZeroDivisionError
        self.assertEqual([order.customer for order in Order.objects.all()], ["1"])
        (job,) = pq["a"].list()
        self.assertEqual((job.data, job.state, job.error.type), (2, "scheduled", "ZeroDivisionError"))
        with pq["b"].item(0) as job:
            self.assertIsNone(job)

    def test_leases(self):
        pq["a"].put_many([1, 2, 3])
        with pq["a"].get(lease="1m") as job:
            Order.objects.create(customer=str(job.data))
        job = pq["a"].get(lease="1m")
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            job.done()
            raise ZeroDivisionError
        job.done()
        with self.assertRaises(LeaseLost):
            job.done()
        self.assertEqual([(each.data, each.state) for each in pq["a"].list()], [(3, "ready")])

    def test_many(self):
        pq["a"].put_many(range(2_001))
        self.assertEqual(pq["a"].load(range(10)), 10)
        self.assertEqual(len(pq["a"]), 2_011)
        pq["a"].clear()
        self.assertEqual(len(pq["a"]), 0)

    def test_a_model_of_the_jobs(self):
        ids = [*pq["a"].put_many([1, 2]), pq["a"].put(3, "1h")]
        pq["a"].get(timeout=0, lease="1m").fail("bad")
        pq["b"].pause()
        found = Job.objects.order_by("id").values_list("id", "queue", "state", "attempts")
        self.assertEqual(
            list(found),
            [(ids[0], "a", "dead", 1), (ids[1], "a", "ready", 0), (ids[2], "a", "scheduled", 0)],
        )
        self.assertEqual(str(Job.objects.get(state="dead")), f"a/{ids[0]}")

    def test_several_tables(self):
        self.assertEqual(list(pqs), ["default", "reports"])
        pqs["reports"]["a"].put(1)
        self.assertEqual(len(pq["a"]), 0)
        self.assertEqual(pqs["reports"]["a"].get(timeout=0, lease="1m").data, 1)


class InOneTransaction(Jobs, TestCase):
    """Each test is rolled back."""

    def test_tasks_are_performed_in_the_transaction_of_the_test(self):
        for given in (None, connection):
            with self.subTest(given):
                order = Order.objects.create(customer="Ann")
                tasks.send(order.id)
                tasks.send_once(order.id)
                done = drain(pq, given)
                self.assertEqual([(each.task, each.outcome) for each in done], [
                    ("shop.tasks.send", "done"), ("shop.tasks.send_once", "done"),
                ])  # fmt: skip
                order.refresh_from_db()
                self.assertEqual(order.mails, 2)
                self.assertEqual([job.data for job in pq["log"].list()], [{"order": order.id}])
                pq["log"].clear()

    def test_tasks_that_fail_in_it(self):
        order = Order.objects.create(customer="Ann")
        tasks.send_once(order.id, "error")
        with self.assertRaisesMessage(ValueError, "at first"):
            drain(pq)
        order.refresh_from_db()
        self.assertEqual(order.mails, 0)
        self.assertEqual([each.attempt for each in drain(pq, until="1m")], [2])
        order.refresh_from_db()
        self.assertEqual(order.mails, 1)

    def test_a_transactional_task_is_one_of_djangos_blocks(self):
        for given in (None, connection):
            with self.subTest(given):
                order = Order.objects.create(customer="Ann")
                tasks.send_once(order.id, "rollback")  # which a worker tells by an error, too
                done = drain(pq, given, until="1m", raises=False)
                self.assertEqual([each.outcome for each in done], ["retry", "done"])
                self.assertIn("marked to be rolled back", str(done[0].error))
                order.refresh_from_db()
                self.assertEqual(order.mails, 1)

    def test_another_connection_sees_nothing(self):
        pq["a"].put(1)
        seen = []

        def look():
            seen.append(len(pq["a"]))
            connection.close()

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        self.assertEqual(seen, [0])

    def test_settings_that_are_wrong(self):
        for wrong, text in [
            ([], "must be a dict"),
            ({"default": 1}, "must be a dict"),
            ({}, 'must have an entry "default"'),
            ({"default": {"database": "nowhere"}}, "must be one of"),
            ({"default": {"table": ""}}, "empty"),
            ({"default": {"conn": "x"}}, "connections are Django's"),
        ]:
            refused = self.assertRaisesMessage(ImproperlyConfigured, text)
            with self.subTest(wrong), override_settings(PQ=wrong), refused:
                conf.read()

    def test_the_admin(self):
        self.client.force_login(User.objects.create_superuser("boss"))
        ids = pq["a"].put_many(range(150))
        address = reverse("admin:pq_job_changelist")
        with self.assertNumQueries(3):  # of the session, the user and the jobs
            pages = [self.client.get(address).context["cl"]]
        self.assertEqual([job.id for job in pages[0].result_list], ids[:-101:-1])
        pages.append(self.client.get(address + pages[0].older).context["cl"])
        self.assertEqual([job.id for job in pages[1].result_list], ids[49::-1])
        self.assertIsNone(pages[1].older)
        self.assertEqual(pages[1].newest, "?")
        for query, count in {
            f"?q={ids[3]}": 1, "?q=Ann": 0, "?q=99999999999999999999": 0, "?queue=a": 100, "?queue=b": 0,
            "?state=dead": 0, "?state=ready": 100,
        }.items():  # fmt: skip
            self.assertEqual(self.client.get(address + query).context["cl"].result_count, count, query)
        page = self.client.get(reverse("admin:pq_job_change", args=(ids[0],))).content.decode()
        self.assertIn("ready", page)
        self.assertNotIn('name="_save"', page)
        self.assertIn(reverse("pq:page", args=("",)), self.client.get(address).content.decode())

    def test_what_postgresql_cannot_hold_is_no_error_of_the_admins(self):
        """In each field, of the list, of the page of a job and of the actions."""
        self.client.force_login(User.objects.create_superuser("boss"))
        address, (id,) = reverse("admin:pq_job_changelist"), pq["a"].put_many([1])
        bad = ["\0", "a\0b", "x" * 5000, "%00", "\ufffd", "9" * 30, "-1", "'\"%s"]
        for text in bad:
            for name in ("q", "queue", "state", "id__lt", "id", "p", "o", "all", "queue__exact", "worker"):
                status = self.client.get(f"{address}?{urlencode({name: text})}").status_code
                self.assertIn(status, (200, 302, 400), (name, text))
            for name in ("action", "when", "select_across"):  # a bad id is an error of Django's, for any model
                data = {"action": "reschedule", "_selected_action": [id], **{name: text}}
                self.assertIn(self.client.post(address, data).status_code, (200, 302), (name, text))
            self.assertIn(self.client.get(f"{address}{quote(text)}/change/").status_code, (302, 404), text)
        self.assertEqual(pq["a"][id].data, 1)

    def test_actions_of_the_admin(self):
        self.client.force_login(User.objects.create_superuser("boss"))
        ids = [*pq["a"].put_many(range(4)), pq["b"].put(1)]

        def act(action, chosen, **fields):
            data = {"action": action, "_selected_action": chosen, **fields}
            answer = self.client.post(reverse("admin:pq_job_changelist"), data, follow=True)
            return [str(message) for message in answer.context["messages"]]

        for job in pq["a"].get_many(2, 0, lease="1m"):
            job.fail("bad")
        others = "1 not: they are in another state, or in use"
        self.assertEqual(act("retry", [ids[0], ids[2]]), [f"1 of the jobs retried, {others}."])
        self.assertEqual(act("discard", ids[1:2]), ["1 of the jobs discarded."])
        self.assertEqual(act("cancel", ids[2:3]), ["1 of the jobs cancelled."])
        self.assertEqual(act("reschedule", [ids[3], ids[4]], when="1h"), ["2 of the jobs rescheduled."])
        self.assertEqual(pq["b"][ids[4]].state, "scheduled")
        self.assertEqual(act("reschedule", ids[4:], when=""), ["1 of the jobs rescheduled."])
        self.assertEqual(pq["b"][ids[4]].state, "ready")
        (refused,) = act("reschedule", ids[4:], when="soon")
        self.assertIn("soon", refused)
        self.assertEqual({job.data: job.state for job in pq["a"].list()}, {0: "ready", 3: "scheduled"})

    def test_who_may_do_what(self):
        address, (id,) = reverse("admin:pq_job_changelist"), pq["a"].put_many([1])
        staff = User.objects.create_user("staff", is_staff=True)
        self.assertEqual(self.client.get("/queues/").status_code, 302)  # nobody has logged in
        self.client.force_login(staff)
        self.assertEqual(self.client.get(address).status_code, 403)
        self.assertEqual(self.client.get("/queues/").status_code, 403)
        staff.user_permissions.add(Permission.objects.get(codename="view_job"))
        self.assertEqual(self.client.get(address).status_code, 200)
        self.client.post(address, {"action": "cancel", "_selected_action": [id]})
        self.assertEqual(pq["a"][id].state, "ready")
        page = self.client.get("/queues/")
        self.assertEqual(page.status_code, 200)
        self.assertIn("a", page.content.decode())
        self.assertEqual(self.client.get("/queues/queue?q=a").status_code, 200)
        self.assertEqual(self.client.get("/queues/static/pq.css").headers["Content-Type"], "text/css; charset=utf-8")
        self.client.force_login(User.objects.create_user("customer"))
        self.assertEqual(self.client.get("/queues/").status_code, 302)

    def test_the_page_acts(self):
        from pq.contrib.django import page

        self.client.force_login(User.objects.create_superuser("boss"))
        (id,) = pq["a"].put_many([1])
        token = page._app("default")._site.signer.token("boss")
        data = {"token": token, "queue": "a", "id": str(id), "back": "/queues/"}
        form = {"content_type": "application/x-www-form-urlencoded"}
        answer = self.client.post("/queues/do/cancel", urlencode(data), **form)
        self.assertIn(answer.status_code, (302, 303), answer.content)
        self.assertEqual(pq["a"][id].state, "finished")
        wrong = urlencode({**data, "token": "1.x"})
        self.assertEqual(self.client.post("/queues/do/cancel", wrong, **form).status_code, 403)


class Committed(Jobs, TransactionTestCase):
    """What is done is committed; the tables are emptied behind each test."""

    databases = {"default"}

    def test_what_stands_beside_the_jobs_is_emptied_with_them(self):
        pq.limits["a"] = Limit(running=1)
        self.addCleanup(pq.limits.pop, "a", None)
        pq["a"].put_many([1, 2])
        pq.key_state("a", "Ann", {"n": 1})
        pqs["reports"]["a"].put(1)
        self.assertEqual(pq["a"].get(lease="1m").data, 1)
        call_command("flush", interactive=False, verbosity=0)  # as behind each test
        self.assertEqual(pq.key_state("a", "Ann"), {})
        self.assertEqual(len(pqs["reports"]["a"]), 0)
        pq["a"].put_many([3, 4])
        self.assertEqual(pq["a"].get(lease="1m").data, 3)
        self.assertIsNone(pq["a"].get(timeout=0, lease="1m"))  # it is limited as before

    def test_the_connection_of_a_worker_is_closed_behind_a_transactional_task(self):
        self.set_max_age(0)
        with patch("pq.contrib.django.connections.is_own_thread", return_value=True), pq["a"]:
            self.assertEqual(Order.objects.count(), 0)
        self.assertIsNone(connection.connection)

    def test_a_block_inside_of_a_task_keeps_the_session(self):
        self.set_max_age(0)
        found = []

        @pq["session"].task(name="session")
        def session(job_id):
            with connection.cursor() as cursor:
                cursor.execute("select set_config('shop.tenant', 'Ann', false)")
            with pq["log"]:
                pq["log"].put(1)
            with connection.cursor() as cursor:
                cursor.execute("select current_setting('shop.tenant', true)")
                found.append(cursor.fetchone()[0])

        session()
        pq["session"].timeout = 0.2
        pq["session"].work(burst=True)
        pq.disconnect()
        self.assertEqual(found, ["Ann"])

    def set_max_age(self, seconds):
        connection.close()
        before = connection.settings_dict["CONN_MAX_AGE"]
        self.addCleanup(connection.settings_dict.__setitem__, "CONN_MAX_AGE", before)
        connection.settings_dict["CONN_MAX_AGE"] = seconds

    def test_drain_where_nothing_is_open(self):
        for given in (None, connection):
            with self.subTest(given):
                order = Order.objects.create(customer="Ann")
                tasks.send(order.id)
                tasks.send_once(order.id, "error")
                done = drain(pq, given, until="1m", raises=False)
                self.assertEqual([each.outcome for each in done], ["done", "retry", "done"])
                order.refresh_from_db()
                self.assertEqual(order.mails, 2)

    def test_who_else_sends_the_signal_of_flush_deletes_nothing(self):
        pq.limits["a"] = Limit(running=1)
        self.addCleanup(pq.limits.pop, "a", None)
        with connection.cursor() as cursor:
            cursor.execute("truncate queue")
        state = _TestState.saved_data
        del _TestState.saved_data
        try:
            pq["a"].put_many([1, 2])
            pqs["reports"]["a"].put(1)
            emit_post_migrate_signal(0, False, "default")
        finally:
            _TestState.saved_data = state
        self.assertEqual(len(pqs["reports"]["a"]), 1)
        self.assertEqual(pq["a"].get(lease="1m").data, 1)
        self.assertIsNone(pq["a"].get(timeout=0, lease="1m"))

    def test_a_worker_in_the_tests_process(self):
        order = Order.objects.create(customer="Ann")
        tasks.send(order.id)
        tasks.send_once(order.id, "error")
        tasks.look()
        pq["mails"].timeout = 1
        try:
            with self.assertLogs("pq", "WARNING"):
                pq["mails"].work(burst=True)
        finally:
            pq["mails"].timeout = type(pq["mails"]).timeout
            pq.disconnect()
        order.refresh_from_db()
        self.assertEqual(order.mails, 2)
        self.assertIn({"order": order.id}, [job.data for job in pq["log"].list()])
        self.assertEqual(len(pq["log"]), 2)

    def test_a_get_outside_of_a_transaction_says_what_to_do(self):
        with self.assertRaisesMessage(ValueError, "autocommit"):
            pq["a"].get()
        with self.assertRaisesMessage(TypeError, "from pq.contrib.django import pq"):
            PQ(connection)

    def test_a_block_that_is_left_elsewhere(self):
        block = pq["a"]._transaction()
        block.__enter__()
        pq["a"].put(1)
        errors = []

        def leave():
            try:
                block.__exit__(None, None, None)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=leave)
        thread.start()
        thread.join()
        self.assertIsInstance(errors[0], BlockError)
        self.assertIn("left in another thread", str(errors[0]))
        connection.in_atomic_block = False  # which Django can't know
        connection.close()
        self.assertEqual(len(pq["a"]), 0)

    def test_flush(self):
        pq["a"].put(1)
        call_command("flush", interactive=False, verbosity=0)
        self.assertEqual(len(pq["a"]), 0)

    def test_reset(self):
        pq["a"].put(1)
        with self.assertRaises(JobsLeft):
            pq.reset()
        pq.reset(force=True)
        self.assertEqual(len(pq["a"]), 0)

    def test_requests_in_an_event_loop(self):
        import asyncio

        from asgiref.sync import sync_to_async
        from django.core.exceptions import SynchronousOnlyOperation

        async def view():
            await sync_to_async(tasks.send)(1)
            await sync_to_async(lambda: connection.close())()  # which a request does
            with self.assertRaises(SynchronousOnlyOperation):
                connection.ensure_connection() if connection.connection is None else connection.cursor()

        asyncio.run(view())
        self.assertEqual(len(pq["mails"]), 1)


