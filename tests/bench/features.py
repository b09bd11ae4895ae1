"""The features step against hand-written SQL on DuckDB, pandas and Spark: the same feature job on the same rows.

Rolling 7-day count and mean per user (strictly before the row), share of the train rows per category, both joined
back, split by a hash of the user, three Parquet files. Every contender runs in a process of its own.
"""

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.bench.tables import bench_data, orders_parquet

ROWS = int(os.environ.get("SLUICEWAY_BENCH_ROWS", "10000000"))

SPEC = """
key: [user_id]
time: ordered_at
windows:
  orders_7d: {value: count(), within: 7 days}
  spend_7d: {value: mean(price), within: 7 days}
encodings:
  category_rate: {column: category, how: rate}
  city_rate: {column: city, how: rate}
"""

COLUMNS = ("category", "city", "plan", "quantity", "price", "discount", "score", "device")
"""What the features step takes of the table; the rest are identifiers, times and free text."""

SPLITS = ("train", "valid", "test")


def measure() -> str:
    """Run all contenders and compare what they wrote."""
    folder = prepared(ROWS)
    results = {name: _apart(name, folder) for name in CONTENDERS}
    _compare(folder)
    base = results["sql"]["seconds"]
    lines = [
        f"## Features of {ROWS:,} rows\n",
        "Rolling 7-day count and mean per user, category rates joined back, split by user, three Parquet files.\n",
        "| | seconds | against hand-written SQL | peak memory |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, title in TITLES.items():
        if "seconds" not in results[name]:
            lines.append(f"| {title} | {results[name]['failed']} | | |")
            continue
        seconds, peak = results[name]["seconds"], results[name]["peak"] / 2**20
        lines.append(f"| {title} | {seconds:.1f} | {seconds / base:.2f} | {peak:,.0f} MiB |")
    return "\n".join(lines)


def prepared(rows: int) -> Path:
    """A folder with the snapshot of the orders and validate's outputs, made once and then kept."""
    from components.ingest.run import run as ingest
    from components.validate.run import run as validate

    folder = bench_data() / f"features-{rows}"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        os.environ["SLUICEWAY_HOME"] = str(folder / "home")
        ingest(str(orders_parquet(rows)), "", {}, folder / "snapshot")
        outputs = [folder / name for name in ("quarantine", "contract", "report.html")]
        validate(folder / "snapshot", "orders", "returned", 0.05, "", *outputs)
        (folder / "ready").touch()
    return folder


def _apart(name: str, folder: Path) -> dict[str, Any]:
    """Run a contender in its own process; its seconds, and the peak memory in bytes of it and its children."""
    code = f"from tests.bench.features import contend; contend({name!r}, {str(folder)!r})"
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        started = psutil.Popen([sys.executable, "-c", code], stdout=out, stderr=err)
        peak = 0
        while started.poll() is None:
            peak = max(peak, _memory(started))
            time.sleep(0.05)
        out.seek(0)
        err.seek(0)
        if started.returncode:
            said = err.read().strip().splitlines() or [f"killed by signal {-started.returncode}"]
            return {"failed": said[-1][:80]}
        return {"seconds": float(out.read().split()[-1]), "peak": peak}


def _memory(process: psutil.Process) -> int:
    total = 0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += one.memory_info().rss
    return total


def contend(name: str, folder: str) -> None:
    """Run one contender here, and print how many seconds it took."""
    out = Path(folder) / f"out-{name}"
    shutil.rmtree(out, ignore_errors=True)
    run, work = CONTENDERS[name], Path(folder)
    started = time.perf_counter()
    run(work, out)
    print(time.perf_counter() - started)


def _ours(folder: Path, out: Path, engine: str = "duckdb") -> None:
    from components.features.run import run

    inputs = [folder / name for name in ("snapshot", "quarantine", "contract")]
    run(*inputs, "returned", SPEC, "auto", "", 0, out, engine=engine)


def _spark(folder: Path, out: Path) -> None:
    _ours(folder, out, "local[2]")


_FRAME = "RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND INTERVAL 1 MICROSECOND PRECEDING"
_DIGITS = "left(md5('0|' || user_id::DOUBLE), 8)"


def _sql(folder: Path, out: Path, order: str = "ORDER BY order_id") -> None:
    """As a person would write it, with the memory and the settings of ours."""
    import duckdb

    out.mkdir()
    columns = ", ".join(COLUMNS)
    with tempfile.TemporaryDirectory(dir=folder) as spill:
        settings: dict[str, Any] = {"memory_limit": "800MB", "temp_directory": spill}
        with duckdb.connect(config=settings) as connection:
            connection.execute("SET enable_progress_bar = false")
            connection.execute(f"""
                CREATE TEMP TABLE rows AS
                SELECT order_id, {columns}, count(*) OVER past AS orders_7d, avg(price) OVER past AS spend_7d,
                    (returned = 'Yes')::BIGINT AS returned,
                    CASE WHEN {_DIGITS} < 'b3333334' THEN 'train' WHEN {_DIGITS} < 'd999999a' THEN 'valid'
                        ELSE 'test' END AS split
                FROM read_parquet('{folder / "snapshot" / "part-*.parquet"}')
                WINDOW past AS (PARTITION BY user_id ORDER BY ordered_at {_FRAME})""")
            for column in ("category", "city"):
                connection.execute(f"""
                    CREATE TEMP TABLE {column}_rates AS
                    SELECT {column}, count(*) / sum(count(*)) OVER () AS {column}_rate
                    FROM rows WHERE split = 'train' GROUP BY {column}""")
            for split in SPLITS:
                connection.execute(f"""
                    COPY (
                        SELECT {columns}, orders_7d::DOUBLE AS orders_7d, spend_7d,
                            coalesce(category_rate, 0) AS category_rate, coalesce(city_rate, 0) AS city_rate, returned
                        FROM rows LEFT JOIN category_rates USING (category) LEFT JOIN city_rates USING (city)
                        WHERE split = '{split}' {order}
                    ) TO '{out / split}.parquet' (FORMAT parquet, COMPRESSION zstd)""")


def _sql_unordered(folder: Path, out: Path) -> None:
    """Its files have the rows in an order that differs from run to run."""
    _sql(folder, out, order="")


def _pandas(folder: Path, out: Path) -> None:
    import hashlib

    import pandas as pd

    out.mkdir()
    needed = [*COLUMNS, "order_id", "user_id", "ordered_at", "returned"]
    parts = sorted((folder / "snapshot").glob("part-*.parquet"))
    frame = pd.concat([pd.read_parquet(part, columns=needed) for part in parts], ignore_index=True)
    by_time = frame.sort_values(["user_id", "ordered_at"], kind="stable")
    rolling = by_time.set_index("ordered_at").groupby("user_id")["price"].rolling("7D", closed="left")
    frame.loc[by_time.index, "orders_7d"] = rolling.count().to_numpy()
    frame.loc[by_time.index, "spend_7d"] = rolling.mean().to_numpy()
    frame["orders_7d"] = frame["orders_7d"].fillna(0.0)
    shares = {
        user: int(hashlib.md5(f"0|{float(user)}".encode()).hexdigest()[:8], 16) / 2**32
        for user in frame["user_id"].unique()
    }
    share = frame["user_id"].map(shares)
    splits = {"train": share < 0.70, "valid": (share >= 0.70) & (share < 0.85), "test": share >= 0.85}
    for column in ("category", "city"):
        rates = frame.loc[splits["train"], column].value_counts(normalize=True)
        frame[f"{column}_rate"] = frame[column].map(rates).fillna(0.0)
    frame["returned"] = (frame["returned"] == "Yes").astype("int64")
    names = [*COLUMNS, "orders_7d", "spend_7d", "category_rate", "city_rate", "returned"]
    for split, chosen in splits.items():
        frame.loc[chosen, names].to_parquet(out / f"{split}.parquet", compression="zstd", index=False)


def _compare(folder: Path) -> None:
    """Raise where a contender's splits are not ours: other rows, or sums that differ."""
    import duckdb

    sums = ", ".join(
        f"sum({name})" for name in ("orders_7d", "spend_7d", "category_rate", "city_rate", "quantity", "returned")
    )
    for split in SPLITS:
        found = {}
        for name in CONTENDERS:
            path = folder / f"out-{name}" / f"{split}.parquet"
            if path.exists():
                (found[name],) = duckdb.execute(f"SELECT count(*), {sums} FROM read_parquet('{path}')").fetchall()
        for name, values in found.items():
            for one, other in zip(values, found["ours"], strict=True):
                if abs(one - other) > 1e-6 * max(abs(other), 1):
                    raise AssertionError(f"{name} differs from ours in {split}: {values} is not {found['ours']}")


CONTENDERS: dict[str, Callable[[Path, Path], None]] = {
    "ours": _ours,
    "sql": _sql,
    "sql_unordered": _sql_unordered,
    "pandas": _pandas,
    "spark": _spark,
}
TITLES = {
    "ours": "the features step (DuckDB, 800 MB)",
    "sql": "hand-written SQL (DuckDB, 800 MB)",
    "sql_unordered": "the same without ordering its output",
    "pandas": "pandas",
    "spark": "the features step on Spark, local[2]",
}
