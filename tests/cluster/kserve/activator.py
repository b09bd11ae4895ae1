"""Knative's activator: holds the requests of a revision that has no pod ready, until it has one."""

import asyncio
import threading
from collections.abc import Callable, Mapping

from tests.cluster.kserve.names import new_address

HEADER = "x-simulated-backend"
PORT = 8012
Address = tuple[str, int]
_LONGEST = 30.0


class Activator:
    """A proxy; which revision a request is for stands in a header that the gateway adds."""

    def __init__(self, pods: Callable[[], Mapping[str, list[Address]]]) -> None:
        """Take the ready pods by backend from a function."""
        self.address: Address = (new_address(), PORT)
        self._pods = pods
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="activator", daemon=True)
        self._listening = threading.Event()

    def start(self) -> None:
        self._thread.start()
        assert self._listening.wait(5)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self) -> None:
        self._loop.run_until_complete(asyncio.start_server(self._serve, *self.address))
        self._listening.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await _message(reader):
                lines, body = head
                names = (line.decode().partition(":") for line in lines[1:])
                backend = next(value.strip() for name, _, value in names if name.lower() == HEADER)
                writer.write(await self._forwarded(backend, lines, body))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, StopIteration):
            pass  # one of the sides has left
        finally:
            writer.close()

    async def _forwarded(self, backend: str, lines: list[bytes], body: bytes) -> bytes:
        ends = self._loop.time() + _LONGEST
        while not (pods := self._pods().get(backend)):
            if self._loop.time() > ends:
                return b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
            await asyncio.sleep(0.02)
        reader, writer = await asyncio.open_connection(*pods[0])
        try:
            writer.write(b"\r\n".join([*lines, b"", body]))
            answer = await _message(reader)
        finally:
            writer.close()
        assert answer is not None
        return b"\r\n".join([*answer[0], b"", answer[1]])


async def _message(reader: asyncio.StreamReader) -> tuple[list[bytes], bytes] | None:
    """Head as lines, and body, of a message whose length is given; None when there is no more."""
    lines: list[bytes] = []
    while line := (await reader.readline()).rstrip(b"\r\n"):
        lines.append(line)
    if not lines:
        return None
    pairs = (line.partition(b":") for line in lines[1:])
    length = next((int(value) for name, _, value in pairs if name.lower() == b"content-length"), 0)
    return lines, await reader.readexactly(length)
