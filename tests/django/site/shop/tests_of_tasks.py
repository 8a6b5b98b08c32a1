"""What Django asks of a backend of ``django.tasks``, and what pq adds."""

import dataclasses
import pickle
import unittest
from datetime import datetime, timedelta

import django
from django.db import transaction
from django.test import TestCase, TransactionTestCase, override_settings
from django.utils import timezone

from pq.contrib.django import pq
from pq.contrib.django.backend import PQBackend, PQTask
from pq.contrib.django.compat import (
    InvalidTask,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_backends,
    task_enqueued,
    task_finished,
    task_started,
)
from pq.testing import drain, inline
from shop import django_tasks as tasks
from shop.models import Order

LOG = "django.tasks" if django.VERSION >= (6, 0) else "django_tasks"
BACKEND = "pq.contrib.django.backend.PQBackend"


class Told:
    """Notes what the signals tell, inside of ``with``."""

    def __enter__(self):
        self.told = []
        for name, signal in (("enqueued", task_enqueued), ("started", task_started), ("finished", task_finished)):
            signal.connect(self._note, dispatch_uid=f"told {name}")
            setattr(self, name, signal)
        return self.told

    def __exit__(self, *exc):
        for name in ("enqueued", "started", "finished"):
            getattr(self, name).disconnect(dispatch_uid=f"told {name}")

    def _note(self, sender, task_result, signal, **kwargs):
        name = next(name for name in ("enqueued", "started", "finished") if getattr(self, name) is signal)
        self.told.append((name, sender, str(task_result.status), task_result.id))


class Enqueued(TestCase):
    """Before a worker has it."""

    def test_the_backend(self):
        backend = task_backends["default"]
        self.assertIsInstance(backend, PQBackend)
        self.assertIsInstance(tasks.add, PQTask)
        for what in ("defer", "async_task", "get_result", "priority"):
            self.assertIs(getattr(backend, f"supports_{what}"), True)
        self.assertEqual(list(backend.check()), [])

    def test_enqueue(self):
        for task in (tasks.add, tasks.add_async):
            with self.subTest(task), Told() as told, self.assertLogs(LOG, "DEBUG") as logs:
                result = task.enqueue(1, b=2)
                self.assertEqual(result.status, TaskResultStatus.READY)
                self.assertIs(result.is_finished, False)
                self.assertIsNone(result.started_at)
                self.assertIsNone(result.last_attempted_at)
                self.assertIsNone(result.finished_at)
                self.assertLess(abs(result.enqueued_at - timezone.now()), timedelta(seconds=60))
                with self.assertRaisesMessage(ValueError, "Task has not finished yet"):
                    _ = result.return_value
                self.assertEqual(result.task, task)
                self.assertEqual((result.args, result.kwargs), ([1], {"b": 2}))
                self.assertEqual((result.attempts, result.errors, result.worker_ids), (0, [], []))
                self.assertEqual(result.backend, "default")
                self.assertEqual(told, [("enqueued", PQBackend, "READY", result.id)])
                self.assertIn(result.id, logs.output[0])

    async def test_in_an_event_loop(self):
        result = await tasks.add.aenqueue(1, b=2)
        self.assertEqual(result, await tasks.add.aget_result(result.id))
        await result.arefresh()
        self.assertEqual(result.args, [1])

    def test_get_result(self):
        result = tasks.add.enqueue(1)
        self.assertEqual(tasks.add.get_result(result.id), result)
        self.assertEqual(task_backends["default"].get_result(result.id), result)
        before = dataclasses.asdict(result)
        result.refresh()
        self.assertEqual(dataclasses.asdict(result), before)

    def test_results_that_are_not_there(self):
        queue = pq["default"]
        other = [f"default/{queue.put({'django': 1})}", f"default/{queue.put(1)}", f"other/{queue.put(1)}"]
        name, number = tasks.add.enqueue(1).id.split("/")
        other += [f"{name}/{wrong}{number}" for wrong in (" ", "+", "0", "1_")]
        other.append(f"{name}/{number}\n")
        other.append(f"{name}/{number.translate({digit + 48: digit + 0x660 for digit in range(10)})}")
        for id in ["default/99999", "99", "", "default/x", f"default/{10**30}", "/1", *other]:
            with self.subTest(id), self.assertRaises(TaskResultDoesNotExist):
                task_backends["default"].get_result(id)
        with self.assertRaises(TaskResultDoesNotExist):
            task_backends["once"].get_result(tasks.add.enqueue(1).id)
        with self.assertRaisesMessage(Exception, "Task does not match"):
            tasks.tell.get_result(tasks.add.enqueue(1).id)

    def test_a_task_that_was_just_enqueued_is_ready_whatever_became_of_it(self):
        with inline(pq):
            result = tasks.add.enqueue(1, b=2)
        self.assertEqual((result.status, result.attempts, result.finished_at), (TaskResultStatus.READY, 0, None))
        result.refresh()
        self.assertEqual((result.status, result.return_value), (TaskResultStatus.SUCCESSFUL, 3))
        pq.create(retain=0)  # so that nothing is left of it
        try:
            with inline(pq):
                result = tasks.add.enqueue(1, b=2)
        finally:
            pq.create(retain="7d")
        self.assertEqual((result.status, result.task), (TaskResultStatus.READY, tasks.add))
        self.assertLess(abs(result.enqueued_at - timezone.now()), timedelta(seconds=60))
        with self.assertRaises(TaskResultDoesNotExist):
            result.refresh()

    def test_a_queue_that_was_taken_from_the_setting(self):
        at = timezone.now() - timedelta(hours=1)
        result = tasks.add.using(queue_name="other", priority=3, run_after=at).enqueue(1, b=2)
        with override_settings(TASKS={"default": {"BACKEND": BACKEND, "QUEUES": ["default"]}}):
            self.assertEqual(task_backends["default"].get_result(result.id), result)
            self.assertEqual([each.outcome for each in drain(pq, queues=["other"])], ["done"])
            result.refresh()
        self.assertEqual((result.status, result.return_value), (TaskResultStatus.SUCCESSFUL, 3))

    def test_arguments_that_json_does_not_have(self):
        for argument, error in ((datetime.now(), TypeError), (object(), TypeError), (float("nan"), ValueError)):
            with self.subTest(argument), self.assertRaises(error):
                tasks.add.enqueue(argument)
        self.assertEqual(len(pq["default"]), 0)

    def test_what_is_changed_for_one_call(self):
        at = timezone.now() + timedelta(hours=1)
        task = tasks.add.using(priority=7, queue_name="other", run_after=at)
        result = task.enqueue(1)
        self.assertEqual(result.task, task)
        self.assertEqual(task_backends["default"].get_result(result.id).task, task)
        self.assertEqual(result.status, TaskResultStatus.READY)
        self.assertEqual(pq["other"].list()[0].state, "scheduled")
        if django.VERSION >= (6, 1):
            self.assertEqual(pickle.loads(pickle.dumps(task)), task)

    def test_calls_that_are_refused(self):
        for changed in ({"priority": 101}, {"priority": -101}, {"priority": 1.5}, {"queue_name": "unknown"}):
            with self.subTest(changed), self.assertRaises(InvalidTask):
                tasks.add.using(**changed)
        with self.assertRaises(InvalidTask):
            tasks.add.using(run_after=datetime.now())
        with self.assertRaises(InvalidTask):
            PQTask(func=lambda: 0, priority=0, backend="default", queue_name="default", run_after=None)
        for wrong in ({"max_retries": -1}, {"retry_in": "soon"}, {"timeout": "-1s"}, {"lease": "1ms"}):
            with self.subTest(wrong), self.assertRaises(InvalidTask):
                dataclasses.replace(tasks.add, **wrong)

    @unittest.skipIf((6, 0) <= django.VERSION < (6, 1), "the decorator of Django 6.0 takes no further arguments")
    def test_arguments_of_the_decorator(self):
        own = tasks.task(max_retries=2, retry_in="1s", timeout="1m", lease="1m", transactional=True)(tasks.add.func)
        options = task_backends["default"].options_of(own)
        self.assertEqual((options.max_retries, options.retry_in, options.transactional), (2, "1s", True))
        self.assertEqual((options.lease, options.timeout), (timedelta(minutes=1), timedelta(minutes=1)))

    def test_a_queue_that_the_settings_drop(self):
        task = tasks.add.using(queue_name="other")
        with override_settings(TASKS={"default": {"BACKEND": BACKEND}}), self.assertRaises(InvalidTask):
            task.enqueue(1)

    def test_checks(self):
        for options, id in (({"pq": "x"}, "E102"), ({"retries": 1}, "E103"), ({"max_retries": -1}, "E104")):
            with self.subTest(options), override_settings(TASKS={"default": {"BACKEND": BACKEND, "OPTIONS": options}}):
                self.assertEqual([found.id for found in task_backends["default"].check()], [f"pq.{id}"])

    def test_tasks_are_performed_in_the_transaction_of_the_test(self):
        order = Order.objects.create(customer="Ann")
        sum, paid = tasks.add.enqueue(1, b=2), tasks.pay.enqueue(order.id, how="error")
        with Told() as told:
            performed = drain(pq, until="1m", raises=False)
        self.assertEqual([each.outcome for each in performed if each.task.endswith("pay")], ["retry", "retry", "done"])
        for result, value, attempts in ((sum, 3, 1), (paid, 1, 3)):
            result.refresh()
            self.assertEqual((result.status, result.return_value), (TaskResultStatus.SUCCESSFUL, value))
            self.assertEqual((result.attempts, len(result.worker_ids)), (attempts, attempts))
        self.assertEqual([error.traceback.splitlines()[-1][-9:] for error in paid.errors], ["attempt 1", "attempt 2"])
        self.assertNotIn("?", paid.worker_ids)
        self.assertEqual([name for name, *_, id in told if id == sum.id], ["started", "finished"])

    def test_a_transaction_that_is_rolled_back_takes_the_task_along(self):
        with transaction.atomic():
            result = tasks.add.enqueue(1)
            self.assertEqual(tasks.add.get_result(result.id).status, TaskResultStatus.READY)
            transaction.set_rollback(True)
        with self.assertRaises(TaskResultDoesNotExist):
            tasks.add.get_result(result.id)


class Performed(TransactionTestCase):
    """By a worker, in this process."""

    def work(self, *names, patience=0.5):
        for name in names:
            pq[name].timeout = patience
            try:
                pq[name].work(burst=True)
            finally:
                del pq[name].timeout
        pq.disconnect()

    def test_results(self):
        results = [tasks.add.enqueue(1, b=2), tasks.add_async.enqueue(1, 2)]
        with Told() as told:
            self.work("default")
        for result in results:
            self.assertEqual(result.status, TaskResultStatus.READY)
            result.refresh()
            self.assertEqual((result.status, result.return_value), (TaskResultStatus.SUCCESSFUL, 3))
            self.assertIs(result.is_finished, True)
            self.assertLessEqual(result.enqueued_at, result.started_at)
            self.assertEqual(result.started_at, result.last_attempted_at)
            self.assertLessEqual(result.started_at, result.finished_at)
            self.assertEqual((result.attempts, len(result.worker_ids), result.errors), (1, 1, []))
            self.assertIn(("started", PQBackend, "RUNNING", result.id), told)
            self.assertIn(("finished", PQBackend, "SUCCESSFUL", result.id), told)

    def test_the_context(self):
        result = tasks.tell.enqueue(5)
        self.work("default")
        result.refresh()
        expected = {"id": result.id, "attempt": 1, "args": [5], "status": "RUNNING", "priority": 5, "workers": 1}
        self.assertEqual(result.return_value, expected)

    def test_failures(self):
        kinds = {"value": ValueError, "exit": SystemExit, "nan": ValueError, "object": TypeError}
        results = {how: tasks.fail.enqueue(how) for how in kinds}
        with Told() as told, self.assertLogs(LOG, "ERROR") as logs, self.assertLogs("pq"):
            self.work("default")
        self.assertEqual(len(logs.output), 4)
        for how, result in results.items():
            result.refresh()
            self.assertEqual(result.status, TaskResultStatus.FAILED)
            with self.assertRaisesMessage(ValueError, "Task failed"):
                _ = result.return_value
            self.assertEqual([error.exception_class for error in result.errors], [kinds[how]])
            self.assertLessEqual(result.started_at, result.finished_at)
            self.assertEqual(result.started_at, result.last_attempted_at)
            self.assertEqual((result.attempts, len(result.worker_ids)), (1, 1))
            self.assertEqual([name for name, *_, id in told if id == result.id], ["started", "finished"])
        self.assertTrue(results["value"].errors[0].traceback.endswith("ValueError: This task failed\n"))

    def test_attempts(self):
        order = Order.objects.create(customer="Ann")
        result = tasks.pay.enqueue(order.id, how="error")
        with Told() as told, self.assertLogs("pq"):
            self.work("once")
        result.refresh()
        self.assertEqual((result.status, result.return_value), (TaskResultStatus.SUCCESSFUL, 1))
        self.assertEqual((result.attempts, len(result.worker_ids)), (3, 3))
        texts = [error.traceback.splitlines()[-1] for error in result.errors]
        self.assertEqual(texts, ["ValueError: attempt 1", "ValueError: attempt 2"])
        self.assertLess(result.started_at, result.last_attempted_at)
        self.assertLessEqual(result.last_attempted_at, result.finished_at)
        self.assertEqual([name for name, *_ in told], ["started", "started", "started", "finished"])

    def test_priorities_and_times(self):
        order = []
        with Told() as told:
            for priority in (0, -100, 100, 0, 5):
                order.append((-priority, tasks.add.using(priority=priority).enqueue(1).id))
            late = tasks.add.using(priority=100, run_after=timezone.now() + timedelta(seconds=0.2)).enqueue(1)
            self.work("default")
            late.refresh()
        ran = [id for name, *_, id in told if name == "started"]
        self.assertEqual([id for id in ran if id != late.id], [id for _, id in sorted(order, key=lambda each: each[0])])
        self.assertGreaterEqual(late.started_at, late.task.run_after)

    def test_a_task_that_is_cancelled(self):
        result = tasks.add.enqueue(1)
        pq["default"].cancel(int(result.id.split("/")[1]))
        result.refresh()
        self.assertEqual((result.status, result.attempts), (TaskResultStatus.FAILED, 0))
        self.assertIsNotNone(result.finished_at)
        self.assertEqual([error.exception_class.__name__ for error in result.errors], ["JobCancelled"])

    def test_a_connection_that_is_terminated_costs_one_attempt(self):
        order = Order.objects.create(customer="Ann")
        result = tasks.pay.enqueue(order.id, how="terminate")
        with self.assertLogs("pq"):
            self.work("once", patience=5)
        result.refresh()
        self.assertEqual((result.status, result.return_value, result.attempts), (TaskResultStatus.SUCCESSFUL, 1, 2))

    def test_a_row_can_name_a_task_alone(self):
        names = ["os.getcwd", "shop.models.Order", "shop.django_tasks.nothing", "shop.tasks.send"]
        for name in names:
            pq["default"].put({"function": name, "args": [], "kwargs": {}, "django": {"backend": "default"}})
        backends = ["none", None, ["default"]]
        for alias in backends:
            data = {"function": "shop.django_tasks.add", "args": [1], "kwargs": {}, "django": {"backend": alias}}
            pq["default"].put(data)
        with self.assertLogs("pq") as logs:
            self.work("default")
        dead = pq["default"].dead.list(newest=False)
        self.assertEqual(len(dead), len(names) + len(backends), logs.output)
        self.assertEqual({job.error.type for job in dead}, {"pq.errors.TaskNotFound"})
