"""A large object from Google Cloud Storage: the source's parallel ranges against one stream of the same library.

The store is the emulator, in a process of its own. It is written in Python and copies the whole object for each range,
so that it is itself what limits; therefore the same is measured behind a proxy (another process) that keeps a copy and
has a distance as real stores have one: a pause before each answer, and a limit of what one connection brings.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SIZE = int(os.environ.get("SLUICEWAY_BENCH_GCS_MB", "512")) * 2**20
REPEATS = 3
LATENCY = 0.03
PER_CONNECTION = 25 * 10**6

_EMULATOR = """
import threading
from gcp_storage_emulator.server import create_server
server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="data")
server.start()
print(f"http://127.0.0.1:{server._api._httpd.server_address[1]}", flush=True)
threading.Event().wait()
"""
_PROXY = f"""
import sys, threading
from tests.fault_proxy import FaultProxy
with FaultProxy(sys.argv[1], {LATENCY}, {PER_CONNECTION}, keep=True) as proxy:
    print(proxy.url, flush=True)
    threading.Event().wait()
"""


def measure() -> str:
    """Download the object by each way in turn; returns the section of RESULTS.md."""
    content = os.urandom(SIZE)
    ways = {"one stream": _one_stream, "parallel ranges": _ranges}
    speeds: dict[tuple[str, str], list[float]] = {}
    with _running(_EMULATOR) as store, _running(_PROXY, store) as distant:
        os.environ["STORAGE_EMULATOR_HOST"] = store
        _bucket().blob("big.parquet").upload_from_string(content)
        for place, url in (("the emulator itself", store), ("with distance", distant)):
            for _ in range(REPEATS):
                for way, download in ways.items():
                    speeds.setdefault((place, way), []).append(SIZE / _seconds(download, url, content) / 1e6)
        del os.environ["STORAGE_EMULATOR_HOST"]
    return _report({key: statistics.median(values) for key, values in speeds.items()})


def _seconds(download: Callable[[Path], Path], url: str, content: bytes) -> float:
    os.environ["STORAGE_EMULATOR_HOST"] = url
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        path = download(Path(folder))
        took = time.monotonic() - began
        assert path.read_bytes() == content
    return took


def _bucket() -> Any:
    from google.cloud import storage

    return storage.Client.create_anonymous_client().bucket("data")


def _one_stream(folder: Path) -> Path:
    path = folder / "big.parquet"
    _bucket().get_blob("big.parquet").download_to_filename(str(path), checksum="crc32c")
    return path


def _ranges(folder: Path) -> Path:
    from components.ingest.options import ReadOptions
    from components.ingest.sources.gcs import GcsSource

    source = GcsSource("gs://data/big.parquet", ReadOptions())
    (path,) = source.fetch(source.files(), folder)
    return path


@contextmanager
def _running(program: str, *arguments: str) -> Iterator[str]:
    """The address that a server in another process prints."""
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def _report(speeds: dict[tuple[str, str], float]) -> str:
    lines = [
        "## Google Cloud Storage: parallel ranges against one stream",
        "",
        f"One object of {SIZE / 2**20:,.0f} MiB, listed, downloaded and checked with CRC32C; median of {REPEATS} in "
        "turn, MB/s.",
        "",
        "| store | one stream | parallel ranges | ratio |",
        "| --- | --- | --- | --- |",
    ]
    for place in dict.fromkeys(place for place, _ in speeds):
        one, many = speeds[place, "one stream"], speeds[place, "parallel ranges"]
        lines.append(f"| {place} | {one:,.0f} | {many:,.0f} | {many / one:.1f} |")
    lines += [
        "",
        f"With distance: {LATENCY * 1000:.0f} ms before each answer and {PER_CONNECTION / 1e6:.0f} MB/s a connection,",
        "by a proxy in a process of its own that keeps a copy of the object. The emulator copies the whole object for",
        "each range: without distance, that is what is measured. Store, proxy and downloads share the same",
        f"{os.cpu_count()} cores, so with distance the ratio is a lower bound.",
        f"The machine's load was {os.getloadavg()[0]:.1f}.",
    ]
    return "\n".join(lines)
