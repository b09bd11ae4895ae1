"""What happens on a connection, byte by byte: forms of HTTP that are rare, slow, too long or broken."""

import json
import signal
import socket
import subprocess
import sys
import time

import pytest

from serving.local.processes import free_port
from tests.serving_bundle import write_bundle
from tests.serving_process import ROOT, ROW

BODY = json.dumps({"instances": [ROW]}).encode()
LIMITS = "--max-body-bytes=20000 --request-seconds=1 --idle-seconds=3 --max-connections=40 --drain-seconds=0"


class Connection:
    """A raw connection."""

    def __init__(self, port, receive_buffer=0):
        self.socket = socket.socket()
        self.socket.settimeout(10)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", port))
        self._rest = b""

    def send(self, data):
        self.socket.sendall(data)
        return self

    def reply(self):
        """Status, headers and body of the next reply; None once the server has closed."""
        while b"\r\n\r\n" not in self._rest:
            if not self._more():
                return None
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        size = int(headers.get("content-length", 0))
        while len(self._rest) < size:
            assert self._more()
        body, self._rest = self._rest[:size], self._rest[size:]
        return int(first.split()[1]), headers, body

    def is_closed(self):
        try:
            return not self._more()
        except ConnectionResetError:
            return True

    def _more(self):
        part = self.socket.recv(65536)
        self._rest += part
        return bool(part)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


def post(body=BODY, path="/v1/models/m:predict", version="1.1", headers=()):
    lines = [f"POST {path} HTTP/{version}", "Host: m", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    folder = tmp_path_factory.mktemp("connections")
    write_bundle(folder / "bundle")
    port = free_port()
    log = (folder / "log").open("wb")
    command = [sys.executable, "-m", "serving.server", "--bundle", str(folder / "bundle"), "--name", "m"]
    command += ["--port", str(port), *LIMITS.split()]
    process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            with Connection(port) as probe:
                if probe.send(b"GET /v2/models/m/ready HTTP/1.1\r\nHost: m\r\n\r\n").reply()[0] == 200:
                    break
        except ConnectionRefusedError:
            pass
        time.sleep(0.05)
    yield port
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    said = (folder / "log").read_text()
    assert "Traceback" not in said, said


@pytest.fixture
def connection(port):
    with Connection(port) as connection:
        yield connection


def test_requests_follow_each_other_on_one_connection(connection):
    for _ in range(3):
        status, headers, body = connection.send(post()).reply()
        assert status == 200
        assert "connection" not in headers
        assert json.loads(body)["predictions"][0]["label"] in ("No", "Yes")


def test_request_ids_and_trace_context_are_given_back(connection):
    trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for path in ("/v1/models/m:predict", "/v1/models/m:predict?x=1"):  # the hot way and the other
        _, headers, _ = connection.send(post(path=path, headers=["X-Request-Id: 7f", trace])).reply()
        assert headers["x-request-id"] == "7f"
        assert headers["traceparent"] == trace.split(": ")[1]
    assert len(connection.send(post(headers=["X-Request-Id:"])).reply()[1]["x-request-id"]) > 8
    made = [connection.send(post(path=path)).reply()[1]["x-request-id"] for path in ["/v1/models/m:predict"] * 3]
    assert len(set(made)) == 3


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(headers=["Expect: 100-continue"]),
        post(path="/v1/models/m:predict?x=1"),
        post(path="/v1/models/%6d:predict"),
        post(headers=["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"]),
        b"POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n"
        + f"{len(BODY):x}\r\n".encode()
        + BODY
        + b"\r\n0\r\n\r\n",
    ],
    ids=["expect", "query", "escaped", "upgrade", "chunked"],
)
def test_rare_forms_of_a_prediction_are_answered_alike(connection, request_bytes):
    usual = connection.send(post()).reply()[2]
    status, _, body = connection.send(request_bytes).reply()
    if status == 100:
        status, _, body = connection.reply()
    assert (status, body) == (200, usual)
    assert connection.send(post()).reply()[0] == 200  # and the connection goes on


def test_an_http_1_0_request_is_answered_and_the_connection_closed(connection):
    assert connection.send(post(version="1.0")).reply()[0] == 200
    assert connection.is_closed()


def test_connection_close_is_obeyed(connection):
    status, headers, _ = connection.send(post(headers=["Connection: close"])).reply()
    assert (status, headers["connection"]) == (200, "close")
    assert connection.is_closed()


def test_pipelined_requests_are_answered_in_their_order(connection):
    bad = post(b'{"instances": 3}')
    connection.send(post() + bad + post(path="/v2/models/m/infer", body=b"{}") + post())
    assert [connection.reply()[0] for _ in range(4)] == [200, 400, 400, 200]


def test_a_request_without_rows_has_no_predictions(connection):
    assert connection.send(post(b'{"instances": []}')).reply()[2] == b'{"predictions":[]}'


def test_a_body_that_arrives_in_pieces_is_one_body(connection):
    request = post()
    for at in range(0, len(request), 40):
        connection.send(request[at : at + 40])
        time.sleep(0.002)
    assert connection.reply()[0] == 200


@pytest.mark.parametrize("path", ["/v1/models/m:predict", "/v2/models/m/infer", "/v1/models", "/nowhere"])
def test_a_body_that_is_too_long_is_refused_before_it_is_sent(connection, path):
    connection.send(f"POST {path} HTTP/1.1\r\nHost: m\r\nContent-Length: 20001\r\n\r\n".encode() + b"x" * 9_000)
    status, headers, body = connection.reply()
    assert (status, headers["connection"]) == (413, "close")
    assert b"longer than 20,000 bytes" in body
    connection.send(b"x" * 11_001)  # a client that sends on still gets to read the reply


def test_a_chunked_body_that_is_too_long_is_refused(connection):
    connection.send(b"POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n")
    connection.send((b"2000\r\n" + b"x" * 0x2000 + b"\r\n") * 3)
    assert connection.reply()[0] == 413


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\nX: " + b"a" * 33_000 + b"\r\nContent-Length: 0\r\n\r\n",
        b"POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\n" + b"X-Y: 1\r\n" * 5_000 + b"Content-Length: 0\r\n\r\n",
        b"GET /" + b"a" * 33_000,
        b"GET / HTTP/1.1\r\nHost: m\r\nX: " + b"a" * 33_000,
    ],
    ids=["one header", "many headers", "path", "header without end"],
)
def test_a_head_that_is_too_long_is_refused(connection, head):
    assert connection.send(head).reply()[0] == 431
    assert connection.is_closed()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/models/m:predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/models/m:predict HTTP/1.1\r\nX-\x00: 1\r\n\r\n",
        b"POST /v1/models/m:predict HTTP/1.1\r\n X: 1\r\n\r\n",
    ],
)
def test_what_is_no_http_is_400_and_the_connection_closed(connection, sent):
    status, headers, body = connection.send(sent).reply()
    assert (status, headers["connection"]) == (400, "close")
    assert json.loads(body) == {"error": "This is not an HTTP request."}
    assert connection.is_closed()


@pytest.mark.parametrize("path", ["/v1/models/m:predict", "/v1/models/m:predict?x"])
@pytest.mark.parametrize(
    "wrong",
    [
        b"\x00\x01",
        post()[:30] + b"\x00",
        b"POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\nContent-Length: 20001\r\n\r\n",
        b"POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\nzz\r\n",
    ],
)
def test_what_is_wrong_after_proper_requests_does_not_spoil_their_replies(connection, wrong, path):
    connection.send(post(path=path) * 3 + wrong)
    assert [connection.reply()[0] for _ in range(3)] == [200, 200, 200]
    while (reply := connection.reply()) is not None:
        assert reply[0] in (400, 413)


@pytest.mark.parametrize(
    "part", [b"POST /v1/models/m:predict HTT", post()[:-5], post(path="/v1/models/m:predict?x")[:-5]]
)
def test_a_request_that_does_not_arrive_in_time_is_given_up(connection, part):
    status, headers, _ = connection.send(part).reply()
    assert (status, headers["connection"]) == (408, "close")


def test_a_connection_without_requests_is_closed(connection):
    assert connection.send(post()).reply()[0] == 200
    began = time.monotonic()
    assert connection.is_closed()
    assert 1.5 < time.monotonic() - began < 6


def test_a_client_that_leaves_in_the_middle_is_forgotten(port):
    for part in (b"", b"POST", post()[:-5], post()):
        with Connection(port) as connection:
            connection.send(part)
    with Connection(port) as connection:
        assert connection.send(post()).reply()[0] == 200


def test_no_more_is_read_from_a_client_that_reads_no_replies(port):
    """The kernel holds a few megabytes for both sides; the server would hold the rest, were it to read on."""
    with Connection(port, receive_buffer=65_536) as connection:
        connection.socket.settimeout(0.5)
        sent = 0
        request = post(json.dumps({"instances": [ROW] * 100}).encode())
        with pytest.raises(TimeoutError):
            while sent < 60_000_000:
                connection.send(request)
                sent += len(request)
    with Connection(port) as connection:
        assert connection.send(post()).reply()[0] == 200


def test_too_many_connections_are_told_to_come_back(port):
    held = [Connection(port) for _ in range(60)]
    try:
        time.sleep(0.2)
        told = []
        for connection in held[45:]:
            reply = connection.reply()
            told.append((reply[0], reply[1]["retry-after"]))
        assert told == [(503, "1")] * 15
    finally:
        for connection in held:
            connection.socket.close()
    time.sleep(0.2)
    with Connection(port) as connection:
        assert connection.send(post()).reply()[0] == 200


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /v1/models/m:predict HTTP/1.1\r\nHost: m\r\n\r\n", 405),
        (b"DELETE /v2/models/m/infer HTTP/1.1\r\nHost: m\r\n\r\n", 405),
        (post(path="/v1/models/other:predict"), 404),
        (post(path="/v2/models/m/versions/9/infer"), 404),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: m\r\n\r\n", 404),
        (b"GET /v2/models/%00 HTTP/1.1\r\nHost: m\r\n\r\n", 404),
        (b"CONNECT m:80 HTTP/1.1\r\nHost: m\r\n\r\n", 400),
        (post(b""), 400),
        (post(b"\xff\xfe"), 400),
    ],
)
def test_every_refusal_is_json_with_an_error(connection, request_bytes, status):
    found, headers, body = connection.send(request_bytes).reply()
    assert (found, headers["content-type"]) == (status, "application/json")
    assert list(json.loads(body)) == ["error"]
