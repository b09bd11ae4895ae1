"""Clients that take their time, or never take their reply."""

import contextlib
import json
import select
import socket
import threading
import time

from tests.bench.fuzzing.attack import request
from tests.bench.fuzzing.target import Target


class Slow:
    """Connections that send a byte now and then, in a thread, until it is left."""

    def __init__(self, port: int, target: Target, count: int) -> None:
        body = json.dumps({"instances": [target.row]}).encode()
        whole = request(target.v1_path, body)
        head = whole.index(b"\r\n\r\n")
        # Half of them never end their head, half stop within their body; a byte each is left, so that they never stop.
        endless = whole[:head] + b"\r\nX: " + b"x" * 2_000, whole[: head + 4] + b" " * (len(body) - 1)
        self._wires = [endless[index % 2] for index in range(count)]
        self._port = port
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.opened = 0
        self.ended: list[float] = []
        """Seconds after which the server ended a connection."""
        self.statuses: list[int] = []

    def __enter__(self) -> "Slow":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        open_ = [self._connect(wire) for wire in self._wires]
        while not self._over.wait(0.2):
            kept = []
            readable = set(select.select([one for one, _, _ in open_], [], [], 0)[0])
            for connection, rest, since in open_:
                if connection in readable:
                    self._read(connection, since)
                    kept.append(self._connect(self._wires[len(kept)]))
                    continue
                with contextlib.suppress(OSError):
                    connection.send(rest[:1])
                kept.append((connection, rest[1:], since))
            open_ = kept
        for connection, _, _ in open_:
            connection.close()

    def _connect(self, wire: bytes) -> tuple[socket.socket, bytes, float]:
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        connection.send(wire[:1])
        self.opened += 1
        return connection, wire[1:], time.monotonic()

    def _read(self, connection: socket.socket, since: float) -> None:
        with contextlib.suppress(OSError):
            reply = connection.recv(65_536)
            if reply:
                self.statuses.append(int(reply[9:12]))
        self.ended.append(time.monotonic() - since)
        connection.close()


def never_reads(port: int, target: Target, connections: int, requests: int, rows: int) -> list[socket.socket]:
    """Connections that ask for much and read nothing; what the server does not take is not sent.

    Returns:
        the connections, to be closed by the caller.
    """
    body = json.dumps({"instances": [target.row] * rows}).encode()
    wire = request(target.v1_path, body) * requests
    made = []
    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", port), timeout=2)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        with contextlib.suppress(TimeoutError, ConnectionError):
            connection.sendall(wire)
        made.append(connection)
    return made
