"""Time and memory of an ingest against the size of its source."""

import os
import shutil

from tests.bench.contender import measured
from tests.bench.ingest import INGEST, RESOLVE, VALIDATE
from tests.bench.tables import bench_data, orders_csv

MILLIONS = [float(size) for size in os.environ.get("SLUICEWAY_BENCH_MILLIONS", "1 10 50").split()]


def measure() -> str:
    """Ingest and validate tables of growing size."""
    lines = [
        "## Ingest and validation against size\n",
        "A CSV file of 14 columns; resolve and ingest, then validate without its HTML report, a process each.\n",
        "| rows | CSV | ingest | a million rows | peak memory | validate | a million rows | peak memory |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for millions in MILLIONS:
        path = orders_csv(int(millions * 1e6))
        folder = bench_data() / "linear"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        os.environ["SLUICEWAY_HOME"] = str(folder / "home")
        ingest = measured(RESOLVE + INGEST, path, folder)
        validate = measured(VALIDATE, path, folder, "bare")
        lines.append(
            f"| {millions:g}M | {path.stat().st_size / 1e9:.1f} GB "
            f"| {ingest.seconds:.1f} s | {ingest.seconds / millions:.2f} s | {ingest.memory:,.0f} MB "
            f"| {validate.seconds:.1f} s | {validate.seconds / millions:.2f} s | {validate.memory:,.0f} MB |"
        )
        shutil.rmtree(folder, ignore_errors=True)
    return "\n".join(lines)
