"""Queues of plain text, and bounds on the size of data."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pq import PQ, DecodeError, NewJob, Queue, _codec

TEXTS = ["", "plain", "ünïcödé 🍎", "NUL \0", "lone \ud800", '"quoted"', "null", "[1]"]


def test_a_text_comes_back_and_is_stored_as_a_json_string(pq: PQ, sql: Callable[..., Any]) -> None:
    queue = pq["a/text"]
    assert queue.name == "a"
    queue.put(TEXTS[0])
    queue.put_many([*TEXTS[1:3], NewJob(TEXTS[3], schedule_at=None)])
    queue.load(TEXTS[4:])
    stored = [json.loads(text) for (text,) in sql("select data::text from queue order by id")]
    assert stored == TEXTS
    assert [job.data for job in queue.get_many(100)] == TEXTS


@pytest.mark.parametrize("data", [None, 5, ["a"]], ids=repr)
def test_what_is_no_text_can_not_be_read_as_one(pq: PQ, data: Any) -> None:
    pq["a"].put(data)
    with pytest.raises(DecodeError, match="must be a str"):
        pq["a/text"].get()
    assert len(pq["a"]) == 1


def test_a_subclass_with_another_text_keeps_it(dsn: str) -> None:
    class Upper(Queue):
        converters = {**Queue.converters, "text": (str.upper, str)}

    with PQ(dsn, queue_class=Upper) as pq:
        pq["a/text"].put("x")
        assert pq["a/text"].get().data == "X"  # type: ignore[union-attr]


def test_a_queue_whose_own_name_ends_in_text_can_be_reached(dsn: str, sql: Callable[..., Any]) -> None:
    sql("insert into queue (q_name, data) values ('a/text', '[1]')")
    with PQ(dsn, converters={}) as pq:
        assert list(pq) == ["a/text"]
        job = pq["a/text"].get()
        assert job is not None
        assert job.data == [1]


# -- sizes


@given(st.text(st.characters(codec=None), max_size=20))
def test_the_size_is_that_in_utf_8(text: str) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    assert _codec.check_size(text, size) is text
    if size:
        with pytest.raises(ValueError, match=f"{size} bytes .* {size - 1}"):
            _codec.check_size(text, size - 1)


def test_what_is_just_small_enough_is_put(dsn: str) -> None:
    with PQ(dsn, max_size=6, encode=lambda data: json.dumps(data, ensure_ascii=False)) as pq:
        id = pq["a"].put("éé")
        pq["a"].put_many(["éé"])
        pq["a"].load(["éé"])
        pq["a"].update(id, "1234")
        with pytest.raises(ValueError, match="7 bytes"):
            pq["a"].put("ééx")
        assert [job.data for job in pq["a"].get_many(9)] == ["1234", "éé", "éé"]


@pytest.mark.parametrize("how", ["put_many", "load"])
def test_one_that_is_too_large_keeps_all_away(dsn: str, how: str) -> None:
    with PQ(dsn, max_size=6) as pq, pytest.raises(ValueError, match="max_size of 6"):
        getattr(pq["a"], how)([*range(2500), "too large"])
    with PQ(dsn, max_size=6) as pq:
        assert len(pq["a"]) == 0


def test_a_job_is_not_made_too_large(dsn: str) -> None:
    with PQ(dsn, max_size=6) as pq:
        pq["a"].put(1)
        with pq["a"]:
            job = pq["a"].get()
            assert job is not None
            with pytest.raises(ValueError, match="max_size of 6"):
                job.data = "too large"
            assert job.data == 1
