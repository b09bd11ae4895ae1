"""From a CSV file to a versioned, validated snapshot, against a bare DuckDB COPY and pandas."""

import os
import shutil
from pathlib import Path

from tests.bench.contender import Measured, measured
from tests.bench.tables import bench_data, orders_csv

ROWS = int(os.environ.get("SLUICEWAY_BENCH_ROWS", "10000000"))

ROUNDS = 3
"""Contenders take turns so many times; the fastest of each counts."""

COPY = """
import duckdb, sys
duckdb.execute("SET enable_progress_bar = false")
csv, parquet = sys.argv[1], f"{sys.argv[2]}/bare.parquet"
duckdb.execute(f"COPY (FROM read_csv('{csv}')) TO '{parquet}' (FORMAT parquet, COMPRESSION zstd)")
"""

PANDAS = """
import pandas, sys
pandas.read_csv(sys.argv[1]).to_parquet(f"{sys.argv[2]}/pandas.parquet", compression="zstd")
"""

RESOLVE = """
import sys
from pathlib import Path
from components.ingest.resolve import resolve
Path(sys.argv[2], "version").write_text(resolve(sys.argv[1], {}).version)
"""

INGEST = """
import sys
from pathlib import Path
from components.ingest.run import run
run(sys.argv[1], Path(sys.argv[2], "version").read_text(), {}, Path(sys.argv[2], "snapshot"), "orders")
"""

VALIDATE = """
import sys
from pathlib import Path
from components.validate import run as module
class Silent:
    __enter__ = lambda self: self
    __exit__ = lambda self, *given: None
    report = lambda self, *given, **more: None

if sys.argv[3] == "bare":  # the contract's check and the sample, without the page about them
    module.Reporter = Silent
out = Path(sys.argv[2])
module.run(out / "snapshot", "orders", "returned", 0.05, "", out / "quarantine", out / "contract", out / "report.html")
"""

AT_ONCE = f"""
import sys
from pathlib import Path
from components.ingest.run import run
run(sys.argv[1], "", {{}}, Path(sys.argv[2], "snapshot"), "orders")
{VALIDATE}
"""
"""Nothing has pinned the version before, as with ``sluiceway data ingest``: the file is digested while it is read."""


def measure() -> str:
    """Run all contenders on the same file."""
    path = orders_csv(ROWS)
    folder = bench_data() / "ingest"
    names = ("copy", "pandas", "steps", "one", "page")
    best: dict[str, list[Measured]] = {}
    for _ in range(ROUNDS):
        for name in names:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            os.environ["SLUICEWAY_HOME"] = str(folder / "home")
            once = _contend(name, path, folder)
            if name not in best or _total(once) < _total(best[name]):
                best[name] = once
    shutil.rmtree(folder, ignore_errors=True)
    return _table(path, best)


def _contend(name: str, path: Path, folder: Path) -> list[Measured]:
    if name == "copy":
        return [measured(COPY, path, folder)]
    if name == "pandas":
        return [measured(PANDAS, path, folder)]
    if name == "one":
        return [measured(AT_ONCE, path, folder, "bare")]
    last = "page" if name == "page" else "bare"
    return [measured(RESOLVE, path, folder), measured(INGEST, path, folder), measured(VALIDATE, path, folder, last)]


def _table(path: Path, best: dict[str, list[Measured]]) -> str:
    copy, pandas = (_total(best[name]) for name in ("copy", "pandas"))
    titles = {
        "copy": "DuckDB: bare `COPY` to zstd Parquet",
        "pandas": "pandas: `read_csv`, `to_parquet`",
        "steps": "Sluiceway: resolve, ingest, validate, as three processes",
        "one": "ingest, which digests what it reads, and validate in one process",
        "page": "as three processes, with the HTML report",
    }
    lines = [
        f"## A CSV file of {ROWS:,} rows becomes a versioned, validated snapshot\n",
        f"{path.stat().st_size / 1e9:.2f} GB, 14 columns; Python's start included; the best of {ROUNDS} turns. The "
        "snapshot is put into the remote, and its contract is inferred and checked.\n",
        "| | seconds | against `COPY` | against pandas | peak memory |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, title in titles.items():
        seconds, memory = _total(best[name]), max(one.memory for one in best[name])
        lines.append(f"| {title} | {seconds:.1f} | {seconds / copy:.2f} | {seconds / pandas:.2f} | {memory:,.0f} MB |")
    each = ", ".join(
        f"{step} {one.seconds:.1f} s"
        for step, one in zip(("resolve", "ingest", "validate"), best["steps"], strict=True)
    )
    return "\n".join([*lines, "", f"The three processes: {each}."])


def _total(runs: list[Measured]) -> float:
    return sum(one.seconds for one in runs)
