"""The table of the data benches: orders of users over a year, 14 columns, about 190 bytes a row as CSV.

Every value follows from its row's number, so that the file is the same on any machine.
"""

import os
import tempfile
from pathlib import Path

import duckdb

COLUMNS = (
    "order_id",
    "user_id",
    "ordered_at",
    "category",
    "city",
    "plan",
    "quantity",
    "price",
    "discount",
    "score",
    "birthday",
    "note",
    "device",
    "returned",
)

_YEAR = 365 * 86_400

_ROWS = """
SELECT
    1000000 + i AS order_id,
    hash(i * 7 + 1) % {users} AS user_id,
    TIMESTAMP '2025-01-01' + to_seconds(i * {year} // {rows}) AS ordered_at,
    'category-' || (hash(i * 7 + 2) % 40) AS category,
    'city number ' || (hash(i * 7 + 3) % 400) AS city,
    CASE hash(i * 7 + 4) % 3 WHEN 0 THEN 'free' WHEN 1 THEN 'monthly' ELSE 'yearly' END AS plan,
    1 + hash(i * 7 + 5) % 20 AS quantity,
    round((hash(i * 7 + 6) % 1000000) / 97.0, 2) AS price,
    CASE WHEN i % 11 = 0 THEN NULL ELSE (hash(i * 13 + 1) % 50) / 100.0 END AS discount,
    (hash(i * 13 + 2) % 1000000007) / 1000000007.0 AS score,
    DATE '1940-01-01' + (hash(i * 13 + 3) % 25000)::INTEGER AS birthday,
    md5(i::VARCHAR) || ' left at the ' || (hash(i * 13 + 4) % 900) || 'th door, to be signed' AS note,
    CASE WHEN i % 17 = 0 THEN NULL ELSE 'device ' || (hash(i * 13 + 5) % 9) END AS device,
    CASE WHEN hash(i * 13 + 6) % 9 = 0 THEN 'Yes' ELSE 'No' END AS returned
FROM range({first}, {last}) AS r(i)
"""


def rows_sql(rows: int, first: int = 0, last: int | None = None) -> str:
    """The SELECT of a table of that many rows, or of its rows from ``first`` to before ``last``.

    A user has about a hundred orders, whatever the table's size; rows are in the order of time.
    """
    end = rows if last is None else last
    return _ROWS.format(users=max(rows // 100, 1), year=_YEAR, rows=rows, first=first, last=end)


def orders_csv(rows: int, folder: Path | None = None) -> Path:
    """The table as one CSV file, made once and then kept.

    Args:
        rows: how many.
        folder: where; by default ``SLUICEWAY_BENCH_DATA``, or a folder of the system's temporary one.
    """
    return _made(rows, folder, "csv", "FORMAT csv, HEADER")


def orders_parquet(rows: int, folder: Path | None = None) -> Path:
    """The same table as one zstd Parquet file."""
    return _made(rows, folder, "parquet", "FORMAT parquet, COMPRESSION zstd")


def bench_data() -> Path:
    """Where the benches keep their tables."""
    default = Path(tempfile.gettempdir()) / "sluiceway-bench"
    return Path(os.environ.get("SLUICEWAY_BENCH_DATA", str(default)))


def _made(rows: int, folder: Path | None, suffix: str, written: str) -> Path:
    path = (folder or bench_data()) / f"orders-{rows}.{suffix}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        with duckdb.connect(config={"memory_limit": "1GB"}) as connection:
            connection.execute("SET enable_progress_bar = false")
            connection.execute(f"COPY ({rows_sql(rows)}) TO '{aside}' ({written})")
        aside.replace(path)
    return path
