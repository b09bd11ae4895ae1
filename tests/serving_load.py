"""Clients that ask a server again and again, and note what became of every request."""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.serving_process import ROW

BODY = json.dumps({"instances": [ROW]}).encode()
_REFUSED = "refused"
LOST = "lost"


async def status_of(port, path):
    """The status that a GET is answered with."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    return int(line.split(b" ", 2)[1])


@dataclass
class Load:
    """Closed-loop clients of one server.

    Attributes:
        outcomes: how often which status was answered; ``refused`` counts connections that were not made, ``lost``
            requests that were sent and got no reply.
        seconds: of each reply, by status.
        heads: of the last reply, by status.
        bodies: of the last reply, by status.
    """

    port: int
    body: bytes = BODY
    outcomes: Counter = field(default_factory=Counter)
    seconds: dict = field(default_factory=dict)
    heads: dict = field(default_factory=dict)
    bodies: dict = field(default_factory=dict)
    _stop: bool = False

    async def __aenter__(self):
        self._tasks = []
        return self

    async def __aexit__(self, *_):
        self._stop = True
        await asyncio.gather(*self._tasks)

    def start(self, count, keep_alive=True):
        """Start clients; each has a connection, or one for each request."""
        self._tasks += [asyncio.create_task(self._client(keep_alive)) for _ in range(count)]

    @property
    def lost(self):
        return self.outcomes[LOST]

    @property
    def statuses(self):
        return {outcome for outcome in self.outcomes if isinstance(outcome, int)}

    async def _client(self, keep_alive):
        while not self._stop:
            try:
                reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self.port), 5)
            except (OSError, TimeoutError):
                self.outcomes[_REFUSED] += 1
                await asyncio.sleep(0.05)
                continue
            try:
                while await self._ask(reader, writer, keep_alive) and not self._stop:
                    pass
            finally:
                writer.close()

    async def _ask(self, reader, writer, keep_alive):
        began = time.perf_counter()
        more = b"" if keep_alive else b"connection: close\r\n"
        try:
            writer.write(b"POST /v1/models/ours:predict HTTP/1.1\r\nhost: x\r\n%bcontent-length: " % more)
            writer.write(b"%d\r\n\r\n%b" % (len(self.body), self.body))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
        except (OSError, EOFError):
            self.outcomes[LOST] += 1
            return False
        status = int(head.split(b" ", 2)[1])
        self.outcomes[status] += 1
        self.seconds.setdefault(status, []).append(time.perf_counter() - began)
        self.heads[status], self.bodies[status] = head, body
        return keep_alive and b"connection: close" not in head
