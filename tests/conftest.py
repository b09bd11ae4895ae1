"""What every test process needs."""

import contextlib
import sys

import pytest

# PyPI's PyTorch brings Triton, which crashes when it is loaded after TensorFlow. No program of ours loads both.
with contextlib.suppress(ImportError):
    import triton  # noqa: F401


@pytest.fixture(autouse=True)
def _own_duckdb_connection():
    """What a test leaves unfinished on DuckDB's default connection is nothing to the next one."""
    if "duckdb" in sys.modules:
        duckdb = sys.modules["duckdb"]
        duckdb.set_default_connection(duckdb.connect())
