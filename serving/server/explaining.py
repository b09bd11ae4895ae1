"""``:explain`` of the V1 protocol: one explanation at a time in a thread of its own, within bounds."""

import asyncio
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from components.errors import BadInput
from serving.server import v1
from serving.server.failures import BadRequest, NotImplementedHere, NotServing, Overloaded
from serving.server.limits import Limits
from serving.server.served import Served

MOST_ROWS = 64
"""Of one request; as many as :mod:`serving.explain` takes."""
LEAST_SECONDS = 0.05
"""What a client may ask for at least."""
_PARAMETERS = ("seconds", "class")


class Explainer:
    """Explains predictions of the models of one process."""

    def __init__(self, limits: Limits) -> None:
        """Keep the limits."""
        self._limits = limits
        self._waiting = 0
        self._turn = asyncio.Lock()
        # One thread: explaining is many predictions, and those of other clients come first.
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="explain")

    async def explain(self, body: bytes, served: Served) -> dict[str, Any]:
        """Answer a request.

        Args:
            body: as of a prediction; ``parameters`` may hold ``seconds``, after which the explanation is as good as it
                is, and ``class``, the one whose probability is explained (by default each row's most probable).
            served: the model.

        Raises:
            BadRequest: names the field.
            NotImplementedHere: the bundle keeps no rows to explain against.
            Overloaded: too many explanations wait.
            NotServing: this one waited too long, or the time was over before anything could be said of a single row.
        """
        limits = self._limits
        given = v1.rows_of(body, served.reader, limits)
        seconds, of = self._parameters(v1.parsed(body).get("parameters"))
        names = served.reader.names
        columns = dict(zip(names, zip(*given, strict=True), strict=True)) if given else dict.fromkeys(names, ())
        if self._waiting >= limits.explain_waiting:
            raise Overloaded(f"{limits.explain_waiting} explanations wait already; try again in a second.")
        self._waiting += 1
        try:
            async with asyncio.timeout(limits.seconds):
                await self._turn.acquire()
        except TimeoutError as error:
            raise NotServing(f"The explanation did not begin within {limits.seconds:g} s; try again.") from error
        finally:
            self._waiting -= 1
        try:
            work = partial(self._explained, served, columns, len(given), limits.explain_seconds, seconds, of)
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._turn.release()

    def _parameters(self, given: Any) -> tuple[float | None, str | None]:
        if given is None:
            return None, None
        if type(given) is not dict:
            raise BadRequest("parameters: an object is needed.")
        for name in given:
            if name not in _PARAMETERS:
                raise BadRequest(f"parameters.{name}: there is no such parameter; there are {', '.join(_PARAMETERS)}.")
        seconds, of = given.get("seconds"), given.get("class")
        most = self._limits.explain_seconds
        if seconds is not None and (type(seconds) not in (int, float) or not LEAST_SECONDS <= seconds <= most):
            raise BadRequest(f"parameters.seconds: a number from {LEAST_SECONDS:g} to {most:g} is needed.")
        if of is not None and type(of) is not str:
            raise BadRequest("parameters.class: a text is needed.")
        return seconds, of

    @staticmethod
    def _explained(
        served: Served,
        columns: Mapping[str, Any],
        rows: int,
        most_seconds: float,
        seconds: float | None,
        of: str | None,
    ) -> dict[str, Any]:
        from serving.explain import NoBackground, TooSlow, explain, reply

        try:
            found = explain(served, columns, rows, seconds=seconds or most_seconds, of=of)
        except BadInput as error:
            raise BadRequest(str(error)) from error
        except NoBackground as error:
            raise NotImplementedHere(str(error)) from error
        except TooSlow as error:
            if rows > 1 or seconds is not None:
                raise BadRequest(str(error)) from error
            raise NotServing(str(error)) from error
        for row, explanation in enumerate(found):
            if not math.isfinite(explanation.prediction):
                raise BadRequest(f"Row {row}: the model gives no finite number for it, so there is nothing to explain.")
        return reply(found)
