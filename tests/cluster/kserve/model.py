"""A model server that starts in a twentieth of a second: V1 predict, V2 health and metadata, the server's metrics.

Run as ``python model.py --name NAME --revision REV --host H --port N``. A prediction is ``BASE + SLOPE * (sum of the
row's numbers mod 10) / 10``. Faults come by environment, all optional: ``MODEL_ERRORS`` (share answered with 500),
``MODEL_DELAY_MS``, ``MODEL_SHIFT`` (added to predictions), ``MODEL_CRASH_AFTER`` (requests until the process ends with
code 3), ``MODEL_NEVER_READY=1``, ``MODEL_REFUSE=1`` (ends at once with a reason, as for a bundle that does not load),
``MODEL_START_MS`` (loading time), ``MODEL_WORK_MS`` (one request after the other takes so long, and with more than ten
waiting the next are answered with 503).
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import time
from bisect import bisect_left

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BINS = tuple(step / 10 for step in range(1, 10))
_NUMBERS = ("ERRORS", "DELAY_MS", "SHIFT", "START_MS", "WORK_MS")
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 500: "Internal Server Error", 503: "Service Unavailable"}


class Histogram:
    def __init__(self, edges):
        self.edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.sum = 0.0

    def observe(self, value):
        self.counts[bisect_left(self.edges, value)] += 1
        self.sum += value

    def text(self, name, who):
        total, lines = 0, [f"# TYPE {name} histogram"]
        for edge, count in zip((*self.edges, float("inf")), self.counts, strict=True):
            total += count
            label = "+Inf" if edge == float("inf") else f"{edge}" if isinstance(edge, float) else f"{edge}.0"
            lines.append(f'{name}_bucket{{{who},le="{label}"}} {total}.0')
        return [*lines, f"{name}_count{{{who}}} {total}.0", f"{name}_sum{{{who}}} {self.sum}"]


class Model:
    def __init__(self, name, revision):
        number = {
            key: float(os.environ.get(f"MODEL_{key}", 0))
            for key in ("ERRORS", "DELAY_MS", "SHIFT", "START_MS", "WORK_MS")
        }
        self.name, self.revision = name, revision
        self.errors, self.delay, self.shift = number["ERRORS"], number["DELAY_MS"] / 1000, number["SHIFT"]
        self.crash_after = int(os.environ.get("MODEL_CRASH_AFTER", 0))
        self.never_ready = os.environ.get("MODEL_NEVER_READY") == "1"
        self.ready_at = time.monotonic() + number["START_MS"] / 1000
        self.codes = {200: 0, 400: 0, 500: 0}
        self.seconds, self.predictions = Histogram(SECONDS), Histogram(BINS)
        self.random = random.Random(0)
        self.in_flight = 0
        self.work, self.turn = number["WORK_MS"] / 1000, asyncio.Lock()

    @property
    def ready(self):
        return not self.never_ready and time.monotonic() >= self.ready_at

    def predict(self, row):
        numbers = row.values() if isinstance(row, dict) else row
        total = sum(abs(value) for value in numbers if isinstance(value, int | float) and not isinstance(value, bool))
        return min(1.0, max(0.0, 0.05 + 0.9 * (total % 10) / 10 + self.shift))

    async def answer(self, method, path, body):
        if method == "GET":
            return self._look(path)
        if path not in (f"/v1/models/{self.name}:predict", f"/v2/models/{self.name}/infer"):
            return 404, {"error": f"no {path} here"}
        began = time.perf_counter()
        if self.delay:
            await asyncio.sleep(self.delay)
        code, answer = await self._worked(body)
        self.codes[code] = self.codes.get(code, 0) + 1
        self.seconds.observe(time.perf_counter() - began)
        if self.crash_after and sum(self.codes.values()) >= self.crash_after:
            print("crashed on purpose", file=sys.stderr, flush=True)
            os._exit(3)
        return code, answer

    async def _worked(self, body):
        if not self.work:
            return self._predicted(body)
        if self.in_flight > 10:
            return 503, {"error": "too many requests at once"}
        async with self.turn:
            await asyncio.sleep(self.work)
            return self._predicted(body)

    def _predicted(self, body):
        if not self.ready:
            return 503, {"error": "not ready"}
        if self.random.random() < self.errors:
            return 500, {"error": "failed on purpose"}
        try:
            values = [self.predict(row) for row in json.loads(body)["instances"]]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            return 400, {"error": f"not a V1 request: {error!r}"}
        for value in values:
            self.predictions.observe(value)
        return 200, {"predictions": values}

    def _look(self, path):
        base = f"/v2/models/{self.name}"
        if path == "/metrics":
            return 200, "\n".join(self._metrics()) + "\n"
        if path in ("/v2/health/live", "/"):
            return 200, {"live": True}
        if path in (f"{base}/ready", "/v2/health/ready", f"/v1/models/{self.name}"):
            return (200 if self.ready else 503), {"name": self.name, "ready": self.ready}
        if path == base:
            return 200, {"name": self.name, "versions": [self.revision], "platform": "", "inputs": [], "outputs": []}
        return 404, {"error": f"no {path} here"}

    def _metrics(self):
        who = f'model_name="{self.name}",revision="{self.revision}"'
        yield "# TYPE sluiceway_requests_total counter"
        for code, count in sorted(self.codes.items()):
            yield f'sluiceway_requests_total{{{who},code="{code}"}} {count}.0'
        yield from self.seconds.text("sluiceway_request_seconds", who)
        yield from self.predictions.text("sluiceway_prediction", who)

    async def serve(self, reader, writer):
        try:
            while True:
                line = await reader.readline()
                if not line:
                    break
                method, path, _ = line.decode().split(" ", 2)
                headers = {}
                while (line := await reader.readline()).strip():
                    key, _, value = line.decode().partition(":")
                    headers[key.strip().lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.in_flight += 1
                try:
                    await self._write(writer, *await self.answer(method, path.split("?")[0], body))
                finally:
                    self.in_flight -= 1
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass  # the other side left, or does not speak HTTP
        finally:
            writer.close()

    async def _write(self, writer, code, answer):
        text = answer if isinstance(answer, str) else json.dumps(answer)
        kind = "text/plain; version=0.0.4" if isinstance(answer, str) else "application/json"
        head = f"HTTP/1.1 {code} {_REASONS.get(code, '-')}\r\ncontent-type: {kind}\r\n"
        writer.write(f"{head}content-length: {len(text.encode())}\r\n\r\n{text}".encode())
        await writer.drain()


async def main():
    parser = argparse.ArgumentParser()
    for name in ("--name", "--revision", "--host", "--port", "--bundle"):
        parser.add_argument(name, default="")
    given, _ = parser.parse_known_args()  # the real server takes more
    if os.environ.get("MODEL_REFUSE") == "1":
        print("BadBundle: the model was altered: its digest is not the one in bundle.json.", file=sys.stderr)
        return 1
    model, over = Model(given.name, given.revision), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    server = await asyncio.start_server(model.serve, given.host, int(given.port))
    await over.wait()
    server.close()
    ends = time.monotonic() + 5
    while model.in_flight and time.monotonic() < ends:  # drained
        await asyncio.sleep(0.02)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
