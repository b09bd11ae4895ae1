"""Evidently's report, in its process."""

import os
import subprocess
import sys
import time

import duckdb
import pytest

from components.ingest.run import run as ingest
from components.validate.reporter import Reporter
from components.validate.run import run


def make(path, shift: int, name: str = "'c' || i") -> None:
    query = f"""
        SELECT {name} AS id, (i * 37) % 101 + {shift} AS amount, ['a', 'b', 'c'][i % 3 + 1] AS plan,
               i % 2 = 0 AS active, NULL AS nothing, i % 5 = 0 AS churn
        FROM range(600) t(i)"""
    duckdb.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)").fetchall()


def test_the_report_shows_the_data_and_its_drift_from_the_champions(tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICEWAY_HOME", str(tmp_path / "home"))
    outputs = [tmp_path / "q", tmp_path / "c", tmp_path / "r.html"]
    make(tmp_path / "old.parquet", 0)
    champion = ingest(str(tmp_path / "old.parquet"), "", {}, tmp_path / "s").version
    first = run(tmp_path / "s", "d", "churn", 0.05, "gone", *outputs)
    assert first.drift is None
    assert "amount" in outputs[2].read_text()
    make(tmp_path / "new.parquet", 40, "'c' || greatest(i, 1)")
    ingest(str(tmp_path / "new.parquet"), "", {}, tmp_path / "s")
    second = run(tmp_path / "s", "d", "churn", 0.5, champion, *outputs)
    assert second.drift is not None
    assert (second.drift.columns, second.drift.drifted) == (4, 1)
    page = outputs[2].read_text()
    assert "drift" in page.lower()
    assert page.index("Broken: <b>id occurs more than once") < page.index("Empty columns: nothing") < len(page) / 10


def test_a_report_that_fails_fails_the_step(tmp_path):
    (tmp_path / "sample.parquet").write_bytes(b"")
    with pytest.raises(RuntimeError, match="failed with code 1"), Reporter() as reporter:
        reporter.report(tmp_path / "sample.parquet", None, tmp_path, tmp_path / "r.html", {})
    assert not (tmp_path / "r.html").exists()


def test_no_process_is_left_when_the_check_fails():
    with pytest.raises(ValueError, match="bad"), Reporter() as reporter:
        raise ValueError("bad")
    assert reporter._process.poll() is not None


ORPHANING = """
import os
from components.validate.reporter import Reporter
print(Reporter().__enter__()._process.pid, flush=True)
os._exit(9)
"""


def test_the_process_ends_when_its_parent_is_killed():
    ended = subprocess.run([sys.executable, "-c", ORPHANING], capture_output=True, text=True)
    pid = int(ended.stdout)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the report's process is still there")
