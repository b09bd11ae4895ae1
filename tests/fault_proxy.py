"""A proxy before an object store that misbehaves as real ones do: busy answers, broken connections, distance.

``faults`` decides per request: None forwards it, a number is the status of a refusal, :class:`Cut` forwards a part of
the body. A distance adds ``latency`` to each request and caps each connection's throughput.
"""

import contextlib
import http.client
import http.server
import re
import socket
import struct
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

_BLOCK = 64 * 1024


@dataclass(frozen=True)
class Cut:
    """Break the connection after so many bytes of the body: by a reset, or by an orderly end."""

    after: int
    reset: bool = False


Fault = int | Cut | None


class FaultProxy:
    """Stands at ``url`` before ``target`` while its context lasts."""

    def __init__(self, target: str, latency: float = 0.0, per_second: float = 0.0, keep: bool = False) -> None:
        """Choose the store and its distance.

        Args:
            target: the store's address.
            latency: seconds before each answer.
            per_second: bytes that one connection brings; 0 for no limit.
            keep: answer ranges out of copies of whole objects, for stores that take long for each range.
        """
        self.faults: Callable[[str, str, dict[str, str]], Fault] = lambda method, path, headers: None
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        kept: dict[str, bytes] = {}
        lock = threading.Lock()
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked = (self.command, self.path, dict(self.headers))
                proxy.seen.append(asked)
                time.sleep(latency)
                fault = proxy.faults(*asked)
                if isinstance(fault, int):
                    self._refuse(fault)
                    return
                span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                if keep and span:
                    self._slice(int(span[1]), int(span[2]) + 1, fault)
                    return
                host, port = urlsplit(target).netloc.split(":")
                upstream = http.client.HTTPConnection(host, int(port), timeout=60)
                upstream.request(self.command, self.path, body, dict(self.headers))
                answer = upstream.getresponse()
                # A target that closes chunked or without length is not told apart from one with a length.
                content = None if answer.length is not None else answer.read()
                if "json" in answer.getheader("Content-Type", ""):  # links of the store to itself
                    content = answer.read().replace(target.encode(), proxy.url.encode())
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", length or str(answer.length if content is None else len(content)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    self._send(answer.read if content is None else _reader(content), fault)
                upstream.close()

            def _slice(self, start: int, stop: int, fault: Cut | None) -> None:
                with lock:
                    if self.path not in kept:
                        with urllib.request.urlopen(target + self.path) as answer:
                            kept[self.path] = answer.read()
                content = kept[self.path]
                stop = min(stop, len(content))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
                self.send_header("Content-Length", str(stop - start))
                self.end_headers()
                self._send(_reader(memoryview(content)[start:stop]), fault)

            def _send(self, read: Callable[[int], bytes], fault: Cut | None) -> None:
                began, sent = time.monotonic(), 0
                while block := read(_BLOCK if fault is None else min(_BLOCK, fault.after - sent)):
                    self.wfile.write(block)
                    sent += len(block)
                    if per_second:
                        time.sleep(max(0.0, sent / per_second - (time.monotonic() - began)))
                if fault is not None:
                    if fault.reset:
                        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_WR) if not fault.reset else self.connection.close()

            def _refuse(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def __getattr__(self, name: str) -> Callable[[], None]:
                if name.startswith("do_"):  # every method
                    return self._forward
                raise AttributeError(name)

            def log_message(self, *arguments: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 64

            def handle_error(self, *arguments: object) -> None:
                pass  # clients that hang up are part of the tests

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FaultProxy":
        """Start listening."""
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def fail(self, *faults: Fault, where: Callable[[str, str], bool]) -> None:
        """Let the requests for which ``where(method, path)`` holds meet these faults, one each; later ones none."""
        left = list(faults)
        lock = threading.Lock()

        def next_fault(method: str, path: str, headers: dict[str, str]) -> Fault:
            with lock:
                return left.pop(0) if left and where(method, path) else None

        self.faults = next_fault


def _reader(content: bytes | memoryview) -> Callable[[int], bytes]:
    at = 0

    def read(size: int) -> bytes:
        nonlocal at
        block = bytes(content[at : at + size])
        at += len(block)
        return block

    return read
