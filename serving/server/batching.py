"""Adaptive micro-batching: requests that are there at the same time are scored together.

No request waits for others. Whatever has arrived in one turn of the event loop, or while the model was busy, is one
batch: a single request at low load, all connections' requests at high load. There is nothing to tune.

A batch that takes about as long as reading a request is scored on the event loop itself, since handing it to a thread
would cost more than it saves. Others go to a thread, so that the loop goes on reading.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np

from components.errors import BadInput
from serving.bundle import Predictions
from serving.server.columns import Asked, Typed
from serving.server.failures import BadRequest, NotServing, Overloaded
from serving.server.limits import Limits
from serving.server.served import Served
from serving.server.telemetry import Telemetry

log = logging.getLogger("sluiceway.serving")

INLINE_SECONDS = 0.002
"""A batch expected to take longer is scored in a thread."""
MOST_ROWS = 1_024
"""Requests are merged up to this many rows; one with more rows is a batch of its own."""
_TOO_LATE = "The prediction did not begin within {seconds:g} s, since the model is busy; try again."


class Pending(Protocol):
    """A request that waits for its prediction."""

    asked: Asked
    since: float
    """When it arrived, by ``time.perf_counter()``."""

    def done(self, scores: Predictions) -> None:
        """Take the predictions of the request's rows."""

    def failed(self, failure: Exception) -> None:
        """Take what went wrong."""


class Batcher:
    """The queue in front of one model."""

    def __init__(self, served: Served, limits: Limits, telemetry: Telemetry) -> None:
        """Make an empty queue; belongs to the running event loop."""
        self.served = served
        self._limits = limits
        self._telemetry = telemetry
        self._loop = asyncio.get_running_loop()
        self._arrived: list[Pending] = []
        self._queue: deque[Pending] = deque()
        self._rows = 0
        """Rows that wait."""
        self._scheduled = False
        self._busy = False
        self._closed = False
        # One thread: where scoring holds the GIL a second gains nothing, and not every framework is thread-safe.
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._arrived) + len(self._queue)

    def check_room(self) -> None:
        """Ask before a request is read: to refuse it then costs next to nothing.

        Raises:
            Overloaded: too many requests wait.
        """
        if len(self._arrived) + len(self._queue) >= self._limits.waiting:
            raise Overloaded(f"{self._limits.waiting:,} requests wait already; try again in a second.")
        if self._rows and self.served.expected_seconds(self._rows) > self._limits.waiting_seconds:
            raise Overloaded(f"{self._rows:,} rows wait already, and take the model too long; try again in a second.")

    def submit(self, pending: Pending) -> None:
        """Have a request scored; it is told the outcome later, on the event loop."""
        try:
            self.check_room()
        except Overloaded as failure:
            pending.failed(failure)
            return
        self._arrived.append(pending)
        self._rows += pending.asked.count
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    async def predict(self, asked: Asked) -> Predictions:
        """Have a request scored and wait for it.

        Raises:
            BadRequest: an input does not fit.
            Overloaded: too many requests wait.
        """
        waiting = _Waiting(asked, self._loop.create_future())
        self.submit(waiting)
        return await waiting.future

    def close(self) -> None:
        """Let the thread go once what waits is answered."""
        self._closed = True
        self._loop.call_soon(self._let_go)  # after the turn that may be scheduled already

    def _let_go(self) -> None:
        if self._closed and not self._busy:
            self._pool.shutdown(wait=False)

    def _turn(self) -> None:
        """All that arrived in this turn of the loop."""
        self._scheduled = False
        arrived, self._arrived = self._arrived, []
        rows = sum([pending.asked.count for pending in arrived])
        if rows <= MOST_ROWS and self.served.is_parallel and self.served.expected_seconds(rows) <= INLINE_SECONDS:
            self._rows -= rows
            self._tell(arrived, _scored(self.served, arrived))
            return
        self._queue.extend(arrived)
        self._telemetry.waiting(len(self._queue))
        if not self._busy:
            self._next()

    def _next(self) -> None:
        """Hand the thread what waits, up to a batch."""
        batch: list[Pending] = []
        rows = 0
        too_late = time.perf_counter() - self._limits.seconds
        while self._queue and (not batch or rows + self._queue[0].asked.count <= MOST_ROWS):
            pending = self._queue.popleft()
            self._rows -= pending.asked.count
            if pending.since < too_late:
                pending.failed(NotServing(_TOO_LATE.format(seconds=self._limits.seconds)))
                continue
            batch.append(pending)
            rows += pending.asked.count
        self._telemetry.waiting(len(self._queue))
        self._busy = bool(batch)
        if batch:
            work = self._loop.run_in_executor(self._pool, _scored, self.served, batch)
            work.add_done_callback(lambda done: self._worked(batch, done))
        elif self._closed:
            self._let_go()

    def _worked(self, batch: list[Pending], done: "asyncio.Future[_Scored]") -> None:
        self._next()  # first, so that the thread is not idle while replies are written
        self._tell(batch, done.result())

    def _tell(self, batch: list[Pending], scored: "_Scored") -> None:
        for scores in scored.predictions:
            self._telemetry.predicted(scores, self.served.model.manifest)
        self._telemetry.scored(len(batch), sum(map(len, scored.predictions)), scored.seconds)
        for pending, outcome in zip(batch, scored.outcomes, strict=True):
            try:
                if isinstance(outcome, Exception):
                    pending.failed(outcome)
                else:
                    pending.done(outcome)
            except Exception:
                log.exception("A reply could not be written")


class _Scored(NamedTuple):
    """A batch that was scored: what each request is told, all predictions, and how long it took."""

    outcomes: list[Predictions | Exception]
    predictions: list[Predictions]
    seconds: float


_NOT_YET = RuntimeError("not scored yet")


class _Waiting:
    """A request whose prediction is awaited."""

    def __init__(self, asked: Asked, future: "asyncio.Future[Predictions]") -> None:
        self.asked = asked
        self.since = time.perf_counter()
        self.future = future

    def done(self, scores: Predictions) -> None:
        if not self.future.done():
            self.future.set_result(scores)

    def failed(self, failure: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(failure)


def _scored(served: Served, batch: list[Pending]) -> _Scored:
    began = time.perf_counter()
    asked = [pending.asked for pending in batch]
    try:
        outcomes, predictions = _split(served, asked, served.reader.joined_rows(asked))
    except Exception:  # noqa: BLE001 - which request is at fault, and how, is found by looking at each
        outcomes, predictions = _one_by_one(served, asked)
    return _Scored(outcomes, predictions, time.perf_counter() - began)


def _split(
    served: Served, asked: Sequence[Asked], typed: Typed
) -> tuple[list[Predictions | Exception], list[Predictions]]:
    """Score the rows of several requests at once; gives each its own, and all.

    Raises:
        ArithmeticError: a prediction is not finite.
    """
    scores = served.score(typed)
    if not np.isfinite(scores).all():
        raise ArithmeticError
    if len(asked) == 1:
        return [scores], [scores]
    outcomes: list[Predictions | Exception] = []
    at = 0
    for one in asked:
        outcomes.append(scores[at : at + one.count])
        at += one.count
    return outcomes, [scores]


def _one_by_one(served: Served, asked: Sequence[Asked]) -> tuple[list[Predictions | Exception], list[Predictions]]:
    """Type each request alone, and score those that are right together: one that is wrong must not cost the others."""
    outcomes: list[Predictions | Exception] = []
    good: list[int] = []
    parts: list[Typed] = []
    for place, one in enumerate(asked):
        try:
            parts.append(served.reader.typed(one))
        except BadInput as error:
            outcomes.append(BadRequest(str(error)))
        except Exception as error:  # noqa: BLE001 - a mistake of ours; logged where the client is told
            outcomes.append(error)
        else:
            good.append(place)
            outcomes.append(_NOT_YET)
    if not good:
        return outcomes, []
    try:
        scores, predictions = _split(served, [asked[place] for place in good], served.reader.joined(parts))
    except Exception:  # noqa: BLE001 - as above
        scores = [_alone(served, typed) for typed in parts]
        predictions = [score for score in scores if not isinstance(score, Exception)]
    for place, score in zip(good, scores, strict=True):
        outcomes[place] = score
    return outcomes, predictions


def _alone(served: Served, typed: Typed) -> Predictions | Exception:
    try:
        scores = served.score(typed)
        return scores if np.isfinite(scores).all() else BadRequest(_why_not_finite(served, typed, scores))
    except BadInput as error:
        return BadRequest(str(error))
    except Exception as error:  # noqa: BLE001 - a library's; logged where the client is told
        return error


def _why_not_finite(served: Served, typed: Typed, scores: Predictions) -> str:
    row = int(np.argmin(np.isfinite(scores).reshape(len(scores), -1).all(axis=1)))
    columns = typed if isinstance(typed, dict) else dict(zip(served.reader.names, typed.T, strict=True))
    largest = max(
        ((abs(float(values[row])), name) for name, values in columns.items() if values.dtype.kind == "f"),
        key=lambda found: -1.0 if found[0] != found[0] else found[0],
        default=(0.0, ""),
    )
    said = f"Row {row}: the model gives no finite number for it."
    return said + (f" Its largest value is {largest[0]:g}, of input column {largest[1]!r}." if largest[1] else "")
