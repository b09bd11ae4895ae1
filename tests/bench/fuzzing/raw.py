"""Broken, hostile and merely unusual HTTP."""

import json
import random
from collections.abc import Callable

from tests.bench.fuzzing.attack import Attack, request
from tests.bench.fuzzing.target import Target

Maker = Callable[[random.Random, Target], Attack]
_SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


def raw_attack(draw: random.Random, target: Target) -> Attack:
    """One of them."""
    return draw.choice(MAKERS)(draw, target)


def _body(target: Target) -> bytes:
    return json.dumps({"instances": [target.row]}).encode()


def _mutated(draw: random.Random, target: Target) -> Attack:
    """A proper request with a few bytes changed, dropped, doubled or put in."""
    wire = bytearray(request(target.v1_path, _body(target)))
    for _ in range(draw.choice([1, 1, 2, 4, 16])):
        at = draw.randrange(len(wire))
        what = draw.randrange(4)
        if what == 0:
            wire[at] = draw.randrange(256)
        elif what == 1:
            del wire[at : at + draw.choice([1, 2, 8])]
        elif what == 2:
            wire[at:at] = draw.choice([b"\r\n", b"\n", b"\r", b"\0", b":", b" ", b"\t", b"\xff", b"\r\n\r\n"])
        else:
            wire[at:at] = wire[at : at + draw.randrange(1, 40)]
        if not wire:
            break
    return Attack("mutated http", bytes(wire), end="probe", replies=3)


def _garbage(draw: random.Random, _: Target) -> Attack:
    starts = [
        b"",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET ",
        b"POST / HTTP/9.9\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"\r\n" * 50,
        b"CONNECT x:1 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/0.9\r\n\r\n",
        b"\0" * 8,
        b"SSH-2.0-OpenSSH\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"\xff" * 20,
    ]
    return Attack("garbage", draw.choice(starts) + draw.randbytes(draw.choice([0, 1, 30, 500])), end="probe", replies=2)


def _length(draw: random.Random, target: Target) -> Attack:
    """A Content-Length that lies or is no number."""
    body = _body(target)
    values = [
        "0",
        "1",
        str(len(body) - 1),
        str(len(body) + 1),
        "-1",
        "+5",
        "1e3",
        "0x10",
        "",
        " ",
        "99999999999999999999",
        "18446744073709551616",
        "16777217",
        "1073741824",
        "1, 2",
        f"{len(body)}, {len(body)}",
        "٣",
        "1 2",
        "NaN",
    ]
    wire = request(target.v1_path, body, [("Content-Length", draw.choice(values).encode())])
    return Attack("content-length", wire, end="probe", replies=2)


def _two_lengths(draw: random.Random, target: Target) -> Attack:
    body = _body(target)
    other = draw.choice([str(len(body)), "0", "5", str(len(body) + len(_SMUGGLED))])
    headers: list[tuple[str, str | bytes]] = [("Content-Length", str(len(body))), ("Content-Length", other)]
    if draw.random() < 0.5:
        headers.reverse()
    return Attack("two lengths", request(target.v1_path, body, headers) + _SMUGGLED, end="probe", replies=2)


def _both(draw: random.Random, target: Target) -> Attack:
    """Content-Length and Transfer-Encoding: a request smuggled behind a proxy that goes by the other one."""
    spellings = [
        b"chunked",
        b"Chunked",
        b"chunked, identity",
        b"identity, chunked",
        b"xchunked",
        b" chunked",
        b"chunked\t",
        b"chunked;q=1",
        b"gzip, chunked",
        b"\x0bchunked",
        b"chunked, chunked",
        b"identity",
        b"",
    ]
    body = b"0\r\n\r\n" + _SMUGGLED
    name = draw.choice(["Transfer-Encoding", "transfer-encoding", "Transfer_Encoding", "Transfer-Encoding "])
    headers: list[tuple[str, str | bytes]] = [("Content-Length", str(len(body))), (name, draw.choice(spellings))]
    if draw.random() < 0.5:
        headers.reverse()
    return Attack("length and chunks", request(target.v1_path, body, headers), end="probe")


def _chunks(draw: random.Random, target: Target) -> Attack:
    """Chunked bodies, some proper, most not."""
    body = _body(target)
    sizes = [
        b"%x" % len(body),
        b"%X;ext=1" % len(body),
        b"0%x" % len(body),
        b"-1",
        b"ffffffffffffffff",
        b"10000000000000000",
        b"%x;" % len(body) + b"e" * 5_000,
        b"0x10",
        b" 5",
        b"g",
        b"",
        b"%x" % (len(body) + 3),
    ]
    ends = [b"\r\n0\r\n\r\n", b"\r\n0\r\nX-Trailer: 1\r\n\r\n", b"0\r\n\r\n", b"\n0\n\n", b"\r\n", b""]
    start = b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % target.v1_path.encode()
    pieces = draw.choice([1, 1, 3])
    return Attack("chunks", start + draw.choice(sizes) + b"\r\n" + body + draw.choice(ends), "probe", 1, pieces)


def _endless_chunks(draw: random.Random, target: Target) -> Attack:
    start = b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % target.v1_path.encode()
    if draw.random() < 0.05:
        return Attack("endless chunks", start + (b"100000\r\n" + b" " * 0x100000 + b"\r\n") * 20, end="probe")
    return Attack("endless chunks", start + b"1\r\n \r\n" * draw.choice([10, 3_000]), end="probe")


def _headers(draw: random.Random, target: Target) -> Attack:
    """Too many, too long, or not headers."""
    body = _body(target)
    odd = draw.choice(
        [
            b"X: " + b"a" * draw.choice([8_000, 33_000, 200_000]) + b"\r\n",
            b"".join(b"X-%d: 1\r\n" % index for index in range(draw.choice([100, 5_000]))),
            b"X" * 40_000 + b": 1\r\n",
            b"no colon\r\n",
            b": no name\r\n",
            b"X : space\r\n",
            b"X: a\r\n folded\r\n",
            b"X: \x01\x7f\r\n",
            b"X: a\0b\r\n",
            b"X: \xff\xfe\r\n",
            b"X\xc3\xa9: 1\r\n",
            b"X: 1\n",
            b"X: 1\r",
            b"X-Request-Id: " + draw.choice([b"a" * 20_000, b"\xe9\xff", b"", b"a\tb", b"a\x01b", b"a\x7fb"]) + b"\r\n",
            b"Traceparent: "
            + draw.choice([b"\xff" * 55, b"a\tb", b"00-" + b"f" * 32 + b"-" + b"f" * 16 + b"-ff"])
            + b"\r\n",
            b"Expect: " + draw.choice([b"100-continue", b"200-ok", b"\xff"]) + b"\r\n",
            b"Upgrade: " + draw.choice([b"websocket", b"h2c"]) + b"\r\nConnection: upgrade\r\n",
            b"Connection: " + draw.choice([b"close", b"keep-alive, close", b"content-length", b"\xff"]) + b"\r\n",
            b"Content-Encoding: " + draw.choice([b"gzip", b"deflate", b"br", b"x"]) + b"\r\n",
            b"Authorization: " + draw.choice([b"Bearer", b"Bearer \xff", b"Basic " + b"A" * 9_000]) + b"\r\n",
            b"Host: y\r\n",
        ]
    )
    wire = request(target.v1_path, body).replace(b"\r\n\r\n", b"\r\n" + odd + b"\r\n", 1)
    return Attack("headers", wire, end="probe", replies=2)


def _paths(draw: random.Random, target: Target) -> Attack:
    """Paths and methods that are nobody's."""
    model = target.name
    path = draw.choice(
        [
            "/",
            "//",
            "/..",
            "/../../etc/passwd",
            "/%00",
            "/%2e%2e/",
            "/v1",
            "/v1/models",
            f"/v1/models/{model}",
            f"/v1/models/{model}:predict/",
            f"/v1/models/{model}:predict?x=%ff",
            f"/v1/models/{model}%00:predict",
            f"/v1/models/{model}:",
            "/v1/models/:predict",
            f"/v1/models/{model}:explode",
            "/v1/models/absent:predict",
            "/v1/models/..%2f..%2fetc:predict",
            f"/v2/models/{model}/versions/9/infer",
            f"/v2/models/{model}/versions/%ff",
            f"/v2/models/{model}/infer/",
            f"/v2/models/{model}",
            "/v2/models/absent/infer",
            "/v2",
            "/v2/models/%F0%9F%92%A5",
            "/v2/health/live",
            "/v2/health/ready",
            "/metrics",
            "/metrics?name[]=x",
            "/openapi.json",
            "/docs",
            "/favicon.ico",
            f"http://evil/v1/models/{model}:predict",
            "*",
            "/" + "a" * draw.choice([1_000, 40_000]),
            "/v1/models/" + "é",
            "/?" + "&".join(f"a{index}=1" for index in range(300)),
            "/\x7f",
            "/#x",
            "?",
            f"/V1/models/{model}:predict",
            "/v2/repository/models/../../x/load",
            "/v2/repository/models/absent/load",
            "/v2/repository/index",
        ]
    )
    method = draw.choice(
        ["GET", "GET", "POST", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "BREW", "get"]
    )
    body = draw.choice([b"", _body(target), b"\xff\0", b"[]", b"{}"])
    wire = request(path.encode(), body, method=method)
    return Attack("paths", wire, end="probe", replies=2, has_body=method != "HEAD")


def _pipelined(draw: random.Random, target: Target) -> Attack:
    """Several requests at once, the last of them broken."""
    count = draw.choice([2, 5, 20, 100])
    proper = request(target.v1_path, _body(target)) + request("/v2/health/live", b"", method="GET")
    broken = draw.choice([b"", b"\0\0\0", b"GET / HTTP/1.1\r\n", request(target.v2_path, b"{")])
    return Attack("pipelined", proper * count + broken, "probe", 2 * count + 1, draw.choice([1, 4]))


def _cut(draw: random.Random, target: Target) -> Attack:
    """A client that goes away in the middle, or before its reply."""
    wire = request(draw.choice([target.v1_path, target.v2_path]), _body(target))
    return Attack("gone", wire[: draw.randrange(1, len(wire) + 1)], end=draw.choice(["reset", "probe"]))


def _dripped(draw: random.Random, target: Target) -> Attack:
    """A proper request in many small parts."""
    return Attack("in parts", request(target.v1_path, _body(target)), pieces=draw.choice([2, 7, 30]))


def _big(draw: random.Random, target: Target) -> Attack:
    """Bodies at and over the limits."""
    row = json.dumps(list(target.row.values())).encode()
    what = draw.randrange(5)
    if what == 0:
        body = b'{"instances":[' + b",".join([row] * draw.choice([9_999, 10_001])) + b"]}"
    elif what == 1:
        body = b" " * draw.choice([16 * 2**20 - 10, 16 * 2**20 + 1])
    elif what == 2:
        body = b'{"inputs":[' + b",".join([b'{"name":"a","shape":[0],"datatype":"FP64","data":[]}'] * 10_001) + b"]}"
        return Attack("big", request(target.v2_path, body))
    elif what == 3:
        body = b'{"instances":[[' + b"9" * draw.choice([400, 5_000, 1_000_000]) + b"]]}"
    else:
        body = b"[" * draw.choice([1_000, 1_000_000])
    return Attack("big", request(target.v1_path, body))


CHEAP: tuple[Maker, ...] = (
    _mutated,
    _garbage,
    _length,
    _two_lengths,
    _both,
    _chunks,
    _headers,
    _paths,
    _pipelined,
    _cut,
    _dripped,
)
MAKERS = (*CHEAP * 20, *(_endless_chunks,) * 10, _big)
