"""Calls of a framework's own model in this process: ``python -m tests.bench.peers.native BUNDLE ROWS.json SECONDS``.

Prints calls per second and the 99th percentile in ms: one row per call, typed columns, no HTTP.
"""

import json
import statistics
import sys
import time
from pathlib import Path

from serving import bundle


def main() -> None:
    """Load, warm up, call."""
    model = bundle.load(Path(sys.argv[1]))
    rows = [{name: [value] for name, value in row.items()} for row in json.loads(Path(sys.argv[2]).read_text())]
    for row in rows:
        model.predict_columns(row)
    taken = []
    end = time.monotonic() + float(sys.argv[3])
    while time.monotonic() < end:
        began = time.perf_counter()
        model.predict_columns(rows[len(taken) % len(rows)])
        taken.append(time.perf_counter() - began)
    print(1 / statistics.mean(taken), statistics.quantiles(taken, n=100)[-1] * 1e3)


if __name__ == "__main__":
    main()
