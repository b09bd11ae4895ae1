"""Twenty million requests of all kinds at full speed: memory has to stay flat, and every reply what the first was.

``python -m tests.bench serving_soak`` takes twenty minutes and more; ``python -m tests.bench.serving_soak --requests
100000`` is a short one by hand, without recording.
"""

import argparse
import json
import struct
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench import plots
from tests.bench.fuzzing.target import BUNDLE, DATATYPES
from tests.bench.load.client import GENERATOR_CORE, SERVER_CORE, Load, closed, post
from tests.bench.peers.models import Served
from tests.bench.peers.servers import OURS, Running, dumps, running
from tests.serving_bundle import write_bundle

REQUESTS = 20_000_000
CONNECTIONS = 32
SAMPLES = 600
SETTLED = 0.1
"""Share of the requests after which caches and allocators have what they need."""


@dataclass(frozen=True)
class Soak:
    """What came of it.

    Attributes:
        load: of the generator.
        seconds: of each sample.
        rss: MB.
        files: open file descriptors, after a tenth of the time and at the end.
        wrong: kinds of request with a status that is not due to them.
        processes: whether the same ones served from the first to the last request.
    """

    load: Load
    seconds: list[float]
    rss: list[float]
    files: tuple[int, int]
    wrong: dict[str, int]
    processes: bool

    @property
    def slope(self) -> float:
        """MB per million requests, by least squares, once settled."""
        begin = int(len(self.rss) * SETTLED)
        done = np.interp(self.seconds, *zip(*[(0.0, 0), *self.load.samples], strict=True))
        return float(np.polyfit(done[begin:] / 1e6, self.rss[begin:], 1)[0])


def measure() -> str:
    """Send them all; gives the section of RESULTS.md."""
    soak = _soak(REQUESTS)
    return _report(soak, plots.save(_plot(soak), "serving_soak"))


@dataclass(frozen=True)
class Kind:
    """A kind of request: its name, the status that is due, its bytes, and how often it is sent for others' once."""

    name: str
    due: int
    wire: bytes
    weight: int = 1


def kinds() -> list[Kind]:
    """What is sent."""
    row, values = BUNDLE.row, list(BUNDLE.row.values())
    tensors = [
        {"name": name, "shape": [1], "datatype": DATATYPES[kind], "data": [row[name]]} for name, kind in BUNDLE.columns
    ]
    bad_row = {**row, "mean_radius": "wide"}
    return [
        Kind("V1, objects", 200, post(BUNDLE.v1_path, dumps({"instances": [row]})), 8),
        Kind("V1, arrays", 200, post(BUNDLE.v1_path, dumps({"instances": [values]})), 8),
        Kind("V1, 32 rows", 200, post(BUNDLE.v1_path, dumps({"instances": [values] * 32}))),
        Kind("V2 JSON", 200, post(BUNDLE.v2_path, dumps({"id": "1", "inputs": tensors})), 4),
        Kind("V2 binary", 200, _binary(), 4),
        Kind("V2 binary, both ways", 200, _binary(output=True)),
        Kind("not JSON", 400, post(BUNDLE.v1_path, b'{"instances": [')),
        Kind("a wrong value", 400, post(BUNDLE.v1_path, dumps({"instances": [bad_row]}))),
        Kind("a missing column", 400, post(BUNDLE.v2_path, dumps({"inputs": tensors[1:]}))),
        Kind("no such model", 404, post("/v1/models/absent:predict", dumps({"instances": [values]}))),
        Kind("metadata", 200, b"GET /v2/models/ours HTTP/1.1\r\nHost: x\r\n\r\n"),
        Kind("chunked", 200, _chunked(dumps({"instances": [values]}))),
    ]


def _binary(*, output: bool = False) -> bytes:
    tensors, parts = [], []
    for name, kind in BUNDLE.columns:
        value = BUNDLE.row[name]
        if kind == "number":
            raw = struct.pack("<d", float("nan") if value is None else value)
        elif kind == "boolean":
            raw = bytes([value])
        else:
            raw = struct.pack("<I", len(value)) + value.encode()
        datatype = {"number": "FP64", "boolean": "BOOL"}.get(kind, "BYTES")
        size = {"binary_data_size": len(raw)}
        tensors.append({"name": name, "shape": [1], "datatype": datatype, "parameters": size})
        parts.append(raw)
    head = json.dumps({"id": "1", "inputs": tensors, "parameters": {"binary_data_output": output}}).encode()
    return post(BUNDLE.v2_path, head + b"".join(parts), {"Inference-Header-Content-Length": str(len(head))})


def _chunked(body: bytes) -> bytes:
    head = f"POST {BUNDLE.v1_path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def _soak(requests: int) -> Soak:
    sent = [kind for kind in kinds() for _ in range(kind.weight)]
    with tempfile.TemporaryDirectory() as scratch:
        write_bundle(Path(scratch) / "bundle")
        model = Served(BUNDLE.name, Path(scratch) / "bundle", Path(scratch), None, [], [])
        with running(OURS.named(BUNDLE.name), model) as server:
            sampler = _Sampler(server)
            sampler.start()
            load = closed(server.port, [kind.wire for kind in sent], CONNECTIONS, warm=0, count=requests, same=True)
            sampler.over.set()
            sampler.join()
    wrong: dict[str, int] = {}
    for (index, status), count in load.statuses.items():
        kind = sent[index]
        if status != kind.due:
            what = f"{kind.name}: {status}"
            wrong[what] = wrong.get(what, 0) + count
    return Soak(
        load,
        sampler.seconds,
        sampler.rss,
        (sampler.files[len(sampler.files) // 10], sampler.files[-1]),
        wrong,
        sampler.same,
    )


class _Sampler(threading.Thread):
    """Looks at the server's processes now and then; keeps every other sample when there are too many."""

    def __init__(self, server: Running) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._every = 0.5
        self.over = threading.Event()
        self.seconds: list[float] = []
        self.rss: list[float] = []
        self.files: list[int] = []
        self.same = True

    def run(self) -> None:
        began = time.monotonic()
        first = self._pids()
        while True:
            self.seconds.append(time.monotonic() - began)
            self.rss.append(self._server.memory()[0])
            self.files.append(self._server.process.num_fds())
            self.same &= self._pids() == first
            if len(self.rss) > 2 * SAMPLES:
                self.seconds, self.rss, self.files = self.seconds[::2], self.rss[::2], self.files[::2]
                self._every *= 2
            if self.over.wait(self._every):
                return

    def _pids(self) -> set[int]:
        process = self._server.process
        return {process.pid, *(one.pid for one in process.children(recursive=True))}


def _report(soak: Soak, plot: str) -> str:
    load = soak.load
    begin = int(len(soak.rss) * SETTLED)
    return "\n".join(
        [
            "## Soak",
            "",
            f"`python -m tests.bench serving_soak`: **{load.requests:,}** requests in {soak.seconds[-1]:,.0f} s "
            f"({load.rate:,.0f}/s), {CONNECTIONS} connections,",
            f"server on core {SERVER_CORE}, generator on core {GENERATOR_CORE}; in random turn "
            f"{', '.join(f'{kind.weight} {kind.name} ({kind.due})' for kind in kinds())}.",
            "",
            f"- RSS: {soak.rss[begin]:.1f} MB after {SETTLED:.0%} of the time, {soak.rss[-1]:.1f} MB at the end, most "
            f"{max(soak.rss):.1f} MB; slope **{soak.slope:+.3f} MB per million requests**.",
            f"- Open files: {soak.files[0]} after a tenth of the time, {soak.files[1]} at the end.",
            f"- Replies with another status than is due: **{sum(soak.wrong.values())}** {soak.wrong or ''}; that "
            f"differ from the first to the same request: **{len(load.different)}**; connections broken: {load.broken}.",
            f"- The same process from the first to the last request: {'yes' if soak.processes else 'no'}.",
            f"- Latency: p50 {load.latency['p50']:.2f} ms, p99 {load.latency['p99']:.2f} ms, "
            f"p99.9 {load.latency['p99.9']:.2f} ms, longest {load.latency['max']:.0f} ms.",
            "",
            plot,
        ]
    )


def _plot(soak: Soak) -> Any:
    drawn, ((memory, rate),) = plots.figure(1, 2, width=10, height=3.5)
    done = np.interp(soak.seconds, *zip(*[(0.0, 0), *soak.load.samples], strict=True)) / 1e6
    memory.plot(done, soak.rss)
    memory.set(title="RSS, MB", xlabel="million requests", ylim=(0, max(soak.rss) * 1.3))
    seconds, counts = zip(*soak.load.samples, strict=True)
    step = max(1, len(seconds) // SAMPLES)
    rate.plot(np.array(seconds[step::step]) / 60, np.diff(counts[::step]) / np.diff(seconds[::step]))
    rate.set(title="requests/s", xlabel="minutes", ylim=(0, None))
    return drawn


def main() -> None:
    """By hand, without recording."""
    parser = argparse.ArgumentParser(prog="tests.bench.serving_soak")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    soak = _soak(parser.parse_args().requests)
    print(_report(soak, ""), *soak.load.different[:5], sep="\n")
    sys.exit(bool(soak.wrong or soak.load.different or soak.load.broken or not soak.processes))


if __name__ == "__main__":
    main()
