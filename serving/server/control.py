"""The line between a worker and its parent: what each says to the other, one JSON object in a line.

A worker says that it is ready, that it failed, that a client asks for a model to be loaded or unloaded, and that it has
done what it was told. A parent tells all workers to prepare, commit, abandon or unload a model, or that the server
ends, one worker to accept connections in place of another, and the worker that asked how it went.
"""

import asyncio
import itertools
import json
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from serving.server.failures import Failure, NotServing
from serving.server.repository import Repository

log = logging.getLogger("sluiceway.serving")


class Control:
    """A worker's end of the line."""

    def __init__(
        self,
        channel: socket.socket,
        repository: Repository,
        adopt: Callable[[int], Coroutine[Any, Any, None]],
        release: Callable[[int], None],
        end: Callable[[], None],
    ) -> None:
        """Keep what orders are about; :meth:`run` listens.

        Args:
            channel: to the parent.
            repository: of this worker.
            adopt: begins to accept connections at a place.
            release: ceases to.
            end: called when the server ends, or the parent is gone.
        """
        self._channel = channel
        self._repository = repository
        self._adopt = adopt
        self._release = release
        self._end = end
        self._writer: asyncio.StreamWriter | None = None
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Listen to the parent until it is gone."""
        reader, self._writer = await asyncio.open_connection(sock=self._channel)
        while line := await reader.readline():
            said = json.loads(line)
            if "answer" in said:
                self._answered(said)
            else:
                task = asyncio.create_task(self._obey(said))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        self._end()

    def ready(self, models: list[dict[str, str]]) -> None:
        """Say that this worker answers.

        Args:
            models: name, runtime and an example of a request of each.
        """
        self._say(ready=models)

    async def ask_all(self, verb: str, name: str) -> None:
        """Have all workers load or unload a model, and wait for it.

        Raises:
            Failure: they did not.
        """
        number = next(self._numbers)
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        self._say(ask=verb, name=name, number=number)
        await future

    def _answered(self, said: dict[str, Any]) -> None:
        future = self._asked.pop(said["answer"])
        if future.done():
            return  # the client that asked is gone
        if said["status"] == 200:
            future.set_result(None)
        else:
            future.set_exception(_failure(said["status"], said["said"]))

    async def _obey(self, said: dict[str, Any]) -> None:
        repository = self._repository
        try:
            match said["do"]:
                case "prepare":
                    await repository.prepare(said["name"])
                case "commit":
                    repository.commit(said["name"])
                case "abandon":
                    repository.abandon(said["name"])
                    return
                case "unload":
                    repository.unload_here(said["name"])
                case "adopt":
                    await self._adopt(said["place"])
                    return
                case "end":
                    self._end()
                    return
                case "release":
                    self._release(said["place"])
                    return
        except Failure as failure:
            self._say(done=failure.status, said=str(failure))
        except Exception:
            log.exception("This worker could not do what it was told: %s", said)
            self._say(done=500, said="A worker failed; the server's log has more.")
        else:
            self._say(done=200, said="")

    def _say(self, **what: Any) -> None:
        if self._writer is None or self._writer.is_closing():
            raise NotServing("The server is ending.")
        self._writer.write(json.dumps(what).encode() + b"\n")


def _failure(status: int, said: str) -> Failure:
    failure = Failure(said)
    failure.status = status
    return failure
