"""Load on a server from a process of its own, on a core of its own."""

import base64
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[3]
SERVER_CORE = 0
GENERATOR_CORE = 1


@dataclass(frozen=True)
class Load:
    """What a closed loop measured.

    Attributes:
        rate: replies per second.
        latency: ms by percentile: p50, p90, p99, p99.9, max.
        statuses: replies by kind of request and status.
        broken: connections that the server closed.
        different: replies that differ from the first to the same request.
        samples: (seconds, replies until then), once a second.
    """

    rate: float
    latency: dict[str, float]
    statuses: dict[tuple[int, int], int]
    broken: int
    different: list[str]
    samples: list[tuple[float, int]]

    @property
    def requests(self) -> int:
        """Replies counted."""
        return sum(self.statuses.values())

    def failed(self, expected: int = 200) -> int:
        """Replies with another status."""
        return sum(count for (_, status), count in self.statuses.items() if status != expected)


@dataclass(frozen=True)
class Offered:
    """What an open loop measured.

    Attributes:
        due: when each request was due, s.
        seconds: what it took from then; NaN where it was never answered.
        status: of its reply; 0 where it was never answered.
        late: share that the generator sent over a millisecond late although a connection was free.
        rude: refusals without ``Retry-After``.
    """

    due: NDArray[np.float64]
    seconds: NDArray[np.float64]
    status: NDArray[np.int64]
    late: float
    rude: int = 0

    def between(self, begin: float, end: float) -> "Offered":
        """Those that were due in a window."""
        chosen = (self.due >= begin) & (self.due < end)
        return Offered(self.due[chosen], self.seconds[chosen], self.status[chosen], self.late)

    def percentile(self, percent: float) -> float:
        """Milliseconds, of the requests that were answered with 200."""
        good = self.seconds[self.status == 200]
        return float(np.percentile(good, percent) * 1e3) if len(good) else float("nan")

    def count(self, *statuses: int) -> int:
        """How many were answered with one of these; 0 is not answered."""
        return int(np.isin(self.status, statuses).sum())


def post(path: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """A whole POST request."""
    fields = {"Host": "localhost", "Content-Type": "application/json", **(headers or {}), "Content-Length": len(body)}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def closed(
    port: int,
    requests: list[bytes],
    connections: int,
    *,
    seconds: float = 3.0,
    warm: float = 0.5,
    count: int = 0,
    same: bool = False,
    core: int | None = GENERATOR_CORE,
) -> Load:
    """Load by so many connections that each wait for their reply."""
    wish = {"seconds": seconds, "warm": warm, "count": count, "same": same}
    found = _generate(port, requests, connections, core, wish)
    return Load(
        rate=found["requests"] / found["seconds"],
        latency=found["latency"],
        statuses={(kind, status): count for kind, status, count in found["statuses"]},
        broken=found["broken"],
        different=found["different"],
        samples=[(second, count) for second, count in found["samples"]],
    )


def offered(
    port: int,
    requests: list[bytes],
    phases: list[tuple[float, float]],
    *,
    connections: int = 3000,
    core: int | None = GENERATOR_CORE,
) -> Offered:
    """Load at given rates, (requests per second, seconds) each, whatever the server does."""
    found = _generate(port, requests, connections, core, {"phases": phases})
    return Offered(
        np.array(found["due"]),
        np.array(found["seconds"], dtype=float),
        np.array(found["status"]),
        found["late"],
        found["rude"],
    )


def _generate(
    port: int, requests: list[bytes], connections: int, core: int | None, wish: dict[str, Any]
) -> dict[str, Any]:
    wish |= {
        "host": "127.0.0.1",
        "port": port,
        "connections": connections,
        "core": core,
        "seed": 0,
        "requests": [base64.b64encode(one).decode() for one in requests],
    }
    command = [sys.executable, "-m", "tests.bench.load.generator"]
    done = subprocess.run(command, input=json.dumps(wish).encode(), stdout=subprocess.PIPE, cwd=ROOT, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
