"""Requests that are there together are scored together, and each gets its own answer."""

import asyncio
import threading
import time

import numpy as np
import pytest

from serving.server.batching import Batcher
from serving.server.columns import Asked
from serving.server.failures import BadRequest, NotServing, Overloaded
from serving.server.limits import Limits
from serving.server.served import Served
from serving.server.v2 import Tensor, columns_of
from tests.serving_bundle import rows, write_bundle


class Counted:
    """Telemetry that keeps what it is told."""

    def __init__(self):
        self.batches = []
        self.rows = 0

    def predicted(self, scores, manifest):
        self.rows += len(scores)

    def scored(self, requests, rows, seconds):
        self.batches.append((requests, rows))

    def waiting(self, requests):
        pass


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batching") / "bundle"
    write_bundle(folder)
    return Served.load("m", "1", folder)


def instances(count):
    table = rows(count)
    return [tuple(row) for row in table.astype(object).where(table.notna(), None).to_numpy().tolist()]


def run(served, work, limits=None):
    async def main():
        counted = Counted()
        batcher = Batcher(served, limits or Limits(), counted)
        try:
            return await work(batcher), counted
        finally:
            batcher.close()

    return asyncio.run(main())


def test_requests_of_one_turn_are_one_batch_and_keep_their_rows(served):
    given = instances(20)
    wanted = served.model.predict(rows(20))

    async def work(batcher):
        sizes = [1, 5, 2, 12]
        starts = [0, 1, 6, 8]
        asked = [Asked(n, rows=given[at : at + n]) for at, n in zip(starts, sizes, strict=True)]
        return await asyncio.gather(*(batcher.predict(one) for one in asked))

    answers, counted = run(served, work)
    np.testing.assert_array_equal(np.concatenate(answers), wanted)
    assert counted.batches == [(4, 20)]
    assert counted.rows == 20


def test_rows_and_tensors_of_different_requests_are_scored_together(served):
    given = instances(3)
    names = served.reader.names
    tensors = [
        Tensor(name, "FP64", [3], np.array(values, dtype=float))
        if name != "size"
        else Tensor(name, "BYTES", [3], values)
        for name, values in zip(names, map(list, zip(*given, strict=True)), strict=True)
    ]

    async def work(batcher):
        return await asyncio.gather(
            batcher.predict(Asked(3, rows=given)), batcher.predict(columns_of(tensors, served.reader, Limits()))
        )

    (by_row, by_tensor), counted = run(served, work)
    np.testing.assert_array_equal(by_row, by_tensor)
    assert counted.batches == [(2, 6)]


def test_the_others_of_a_bad_request_are_still_scored_together(served):
    calls = []

    class Watched(Slow):
        def score(self, typed):
            calls.append(len(next(iter(typed.values()))))
            return super().score(typed)

    given = instances(6)
    asked = [Asked(1, rows=[row]) for row in given[:3]] + [Asked(1, rows=[("wide", *given[3][1:])])]

    async def work(batcher):
        return await asyncio.gather(*(batcher.predict(one) for one in asked), return_exceptions=True)

    answers, _ = run(Watched(served, 0.0), work)
    assert [type(answer).__name__ for answer in answers] == ["ndarray"] * 3 + ["BadRequest"]
    assert calls == [3]


def test_one_bad_request_does_not_spoil_the_others(served):
    given = instances(3)
    bad = ("wide", *given[1][1:])

    async def work(batcher):
        asked = [Asked(1, rows=[row]) for row in (given[0], bad, given[2])]
        return await asyncio.gather(*(batcher.predict(one) for one in asked), return_exceptions=True)

    (first, failed, third), counted = run(served, work)
    assert isinstance(failed, BadRequest)
    assert "'mean_radius', row 0: 'wide'" in str(failed)
    np.testing.assert_array_equal(np.concatenate([first, third]), served.model.predict(rows(3))[[0, 2]])
    assert counted.rows == 2


class Slow:
    """A served model that takes its time, in a thread."""

    is_parallel = False

    def __init__(self, served, seconds):
        self._served = served
        self._seconds = seconds
        self.model, self.reader = served.model, served.reader
        self.threads = set()

    def expected_seconds(self, rows):
        return self._seconds

    def score(self, typed):
        self.threads.add(threading.current_thread().name)
        time.sleep(self._seconds)
        return self._served.score(typed)


def test_while_a_slow_model_works_the_loop_goes_on_and_what_arrives_is_the_next_batch(served):
    slow = Slow(served, 0.15)
    given = instances(8)

    async def work(batcher):
        first = asyncio.create_task(batcher.predict(Asked(1, rows=given[:1])))
        ticks = 0
        later = []
        while not first.done():
            await asyncio.sleep(0.01)
            ticks += 1
            if ticks < 8:
                later.append(asyncio.create_task(batcher.predict(Asked(1, rows=given[ticks : ticks + 1]))))
        await asyncio.gather(*later)
        return ticks

    ticks, counted = run(slow, work)
    assert ticks >= 4
    assert [requests for requests, _ in counted.batches] == [1, 7]
    assert all(name.startswith("model") for name in slow.threads)


def test_more_than_may_wait_are_refused_at_once_and_the_rest_answered(served):
    given = instances(1)

    async def work(batcher):
        asked = [batcher.predict(Asked(1, rows=given)) for _ in range(12)]
        return await asyncio.gather(*asked, return_exceptions=True)

    answers, _ = run(served, work, Limits(waiting=5))
    refused = [answer for answer in answers if isinstance(answer, Overloaded)]
    assert len(refused) == 7
    assert {failure.headers["retry-after"] for failure in refused} == {"1"}
    assert sum(isinstance(answer, np.ndarray) for answer in answers) == 5


def test_rows_that_would_take_too_long_are_refused_whatever_their_number(served):
    slow = Slow(served, 0.05)
    slow.expected_seconds = lambda rows: rows * 0.01
    given = instances(20)

    async def work(batcher):
        asked = [batcher.predict(Asked(20, rows=given)) for _ in range(4)]
        return await asyncio.gather(*asked, return_exceptions=True)

    answers, _ = run(slow, work, Limits(waiting_seconds=0.3))
    assert [type(answer).__name__ for answer in answers] == ["ndarray", "ndarray", "Overloaded", "Overloaded"]


def test_a_request_that_waited_too_long_is_not_scored_any_more(served):
    slow = Slow(served, 0.2)
    given = instances(1)

    async def work(batcher):
        first = asyncio.create_task(batcher.predict(Asked(1, rows=given)))
        await asyncio.sleep(0.02)
        second = asyncio.create_task(batcher.predict(Asked(1, rows=given)))
        return await asyncio.gather(first, second, return_exceptions=True)

    (first, second), counted = run(slow, work, Limits(seconds=0.1))
    assert isinstance(first, np.ndarray)
    assert isinstance(second, NotServing)
    assert counted.batches == [(1, 1)]


def test_what_waits_is_answered_though_the_model_was_swapped_away(served):
    slow = Slow(served, 0.1)
    given = instances(1)

    async def work(batcher):
        asked = [asyncio.create_task(batcher.predict(Asked(1, rows=given))) for _ in range(3)]
        await asyncio.sleep(0.02)
        asked.append(asyncio.create_task(batcher.predict(Asked(1, rows=given))))
        await asyncio.sleep(0)
        batcher.close()
        return await asyncio.gather(*asked)

    answers, _ = run(slow, work)
    assert len(answers) == 4


def test_a_model_that_fails_fails_the_request_and_not_the_server(served):
    class Broken(Slow):
        def score(self, typed):
            raise RuntimeError("segment 7 at /secret/path")

    async def work(batcher):
        return await asyncio.gather(batcher.predict(Asked(1, rows=instances(1))), return_exceptions=True)

    ((failure,), _) = run(Broken(served, 0.1), work)
    assert isinstance(failure, RuntimeError)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_row_too_large_for_the_model_is_refused_and_named(tmp_path):
    write_bundle(tmp_path / "bundle", task="regression")
    served = Served.load("m", "1", tmp_path / "bundle")
    given = instances(2)
    huge = (1e300, *given[1][1:])

    async def work(batcher):
        asked = [Asked(1, rows=given[:1]), Asked(2, rows=[given[1], huge])]
        return await asyncio.gather(*(batcher.predict(one) for one in asked), return_exceptions=True)

    (first, failed), _ = run(served, work)
    np.testing.assert_array_equal(first, served.model.predict(rows(1)))
    assert str(failed) == (
        "Row 1: the model gives no finite number for it. Its largest value is 1e+300, of input column 'mean_radius'."
    )
