"""A client that sends bytes as they are and reads replies strictly."""

import contextlib
import socket
import struct
import time
from dataclasses import dataclass, field

from tests.bench.fuzzing.attack import Attack

PATIENCE = 20.0
"""Seconds for a reply that is due; other work may share the machine."""
PROBE = 0.02


class Malformed(Exception):
    """What came back is no HTTP reply."""


@dataclass(frozen=True)
class Reply:
    """One reply."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Exchange:
    """What became of an attack."""

    replies: list[Reply] = field(default_factory=list)
    closed: bool = False
    hung: bool = False
    malformed: str = ""


class Client:
    """Keeps a connection as long as the server does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def send(self, attack: Attack) -> Exchange:
        """Send an attack and read what comes."""
        exchange = Exchange()
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._write(attack)
            if attack.end == "reset":
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                exchange.closed = True
            else:
                self._read(attack, exchange)
        except (BrokenPipeError, ConnectionResetError):
            exchange.closed = True
        except TimeoutError:
            exchange.hung = True
        except Malformed as error:
            exchange.malformed = str(error)
        if exchange.closed or exchange.hung or exchange.malformed:
            self.close()
        return exchange

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _write(self, attack: Attack) -> None:
        assert self._socket is not None
        self._socket.settimeout(PATIENCE)
        step = -(-len(attack.wire) // attack.pieces) or 1
        for start in range(0, len(attack.wire), step):
            # A server that refused in the middle may have closed; its reply is still to be read.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._socket.sendall(attack.wire[start : start + step])
            if attack.pieces > 1:
                time.sleep(0.0005)

    def _read(self, attack: Attack, exchange: Exchange) -> None:
        assert self._socket is not None
        data = b""
        while True:
            self._socket.settimeout(PATIENCE if attack.end == "reply" else PROBE)
            try:
                chunk = self._socket.recv(1 << 20)
            except TimeoutError:
                if attack.end == "reply":
                    raise
                self._socket.shutdown(socket.SHUT_WR)
                chunk = self._rest()
                exchange.closed = True
            exchange.closed |= not chunk
            data = _parse(data + chunk, attack, exchange)
            if exchange.replies and exchange.replies[-1].headers.get("connection", "").lower() == "close":
                data = _parse(data + self._rest(), attack, exchange)
                exchange.closed = True
            if exchange.closed:
                if data:
                    raise Malformed(f"cut off: {data[:200]!r}")
                return
            if attack.end == "reply" and len(exchange.replies) >= attack.replies:
                return

    def _rest(self) -> bytes:
        """What comes until the server closes."""
        assert self._socket is not None
        self._socket.settimeout(PATIENCE)
        data = b""
        while chunk := self._socket.recv(1 << 20):
            data += chunk
        return data


def _parse(data: bytes, attack: Attack, exchange: Exchange) -> bytes:
    """Take whole replies off the front; gives back what is left.

    Raises:
        Malformed: it is no HTTP reply.
    """
    while data:
        if not data.startswith(b"HTTP/1.1 "[: len(data)]):
            raise Malformed(f"no status line: {data[:200]!r}")
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return data
        first, *lines = data[:end].split(b"\r\n")
        try:
            status = int(first[9:12])
            headers = {
                name.decode("latin-1").lower(): value.strip().decode("latin-1")
                for name, value in (line.split(b":", 1) for line in lines)
            }
        except ValueError as error:
            raise Malformed(f"bad head: {data[:300]!r}") from error
        if b"\n" in b"".join(lines) or b"\0" in data[:end]:
            raise Malformed(f"a line break or NUL within the head: {data[:300]!r}")
        if 100 <= status < 200:
            data = data[end + 4 :]
            continue
        body_at = end + 4
        if not attack.has_body and not (status >= 400 and headers.get("connection") == "close"):
            length = 0  # a server that could not read the head does not know that it was HEAD
        elif "content-length" in headers:
            length = int(headers["content-length"])
        else:
            raise Malformed(f"no length: {data[:300]!r}")
        if len(data) < body_at + length:
            return data
        exchange.replies.append(Reply(status, headers, data[body_at : body_at + length]))
        data = data[body_at + length :]
    return data
