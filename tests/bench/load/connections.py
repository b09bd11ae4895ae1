"""Keep-alive HTTP/1.1 connections for the load generator: prebuilt requests out, whole replies in, nothing decoded."""

import select
import socket
import time

CHUNK = 262_144


class Connection:
    """One non-blocking connection, with one request under way at a time."""

    __slots__ = ("address", "began", "buffer", "fd", "kind", "socket", "unsent")

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.began = 0
        self.kind = -1
        self.open()

    def open(self) -> None:
        """Connect, waiting for it."""
        self.socket = socket.create_connection(self.address, timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.fd = self.socket.fileno()
        self.buffer = b""
        self.unsent = b""

    def send(self, request: bytes, kind: int, began: int) -> None:
        """Begin a request; ``began`` is what its latency counts from, ns of the monotonic clock."""
        self.kind, self.began = kind, began
        try:
            sent = self.socket.send(request)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the reader sees the same, and counts it
        if sent < len(request):
            self.unsent = request[sent:]

    def push(self) -> None:
        """Send what did not fit before; large requests only."""
        try:
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except OSError:
            return

    def receive(self) -> bytes | None:
        """One whole reply, or None while it is not there.

        Raises:
            OSError: the connection is broken.
        """
        try:
            data = self.socket.recv(CHUNK)
        except BlockingIOError:
            return None
        if not data:
            raise ConnectionResetError("closed by the server")
        if self.buffer:
            data = self.buffer + data
        if whole(data):
            self.buffer = b""
            return data
        self.buffer = data
        return None


def whole(data: bytes) -> bool:
    """Whether a reply is complete: by its length, or by its last chunk."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return False
    at = data.find(b"ontent-length: ", 0, head)
    if at < 0:
        at = data.find(b"ontent-Length: ", 0, head)
    if at < 0:
        return b"hunked" in data[:head] and data.endswith(b"0\r\n\r\n")
    end = data.find(b"\r", at + 15)
    return len(data) - head - 4 >= int(data[at + 15 : end])


class Pool:
    """Connections behind one epoll."""

    def __init__(self, address: tuple[str, int], count: int) -> None:
        self.epoll = select.epoll()
        self.all = []
        self.by_fd: dict[int, Connection] = {}
        for _ in range(count):
            connection = Connection(address)
            self.all.append(connection)
            self.watch(connection)

    def watch(self, connection: Connection) -> None:
        """Wait for this connection's replies."""
        self.by_fd[connection.fd] = connection
        self.epoll.register(connection.fd, select.EPOLLIN)

    def renew(self, connection: Connection) -> None:
        """Replace a broken connection; waits out a server that restarts, for 30 s."""
        self.by_fd.pop(connection.fd, None)
        connection.socket.close()  # epoll forgets it
        for attempt in range(300):
            try:
                connection.open()
                break
            except OSError:
                if attempt == 299:
                    raise
                time.sleep(0.1)
        self.watch(connection)

    def close(self) -> None:
        """Close them all."""
        for connection in self.all:
            connection.socket.close()
        self.epoll.close()
