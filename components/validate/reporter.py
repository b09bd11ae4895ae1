"""Starts the report's process early and asks it for the report when the sample is there."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Drift:
    """How far a sample drifted from its reference: columns compared, columns that drifted."""

    columns: int
    drifted: int

    @property
    def share(self) -> float:
        """Share of the columns that drifted."""
        return self.drifted / self.columns if self.columns else 0.0


class Reporter:
    """The report's process (:mod:`components.validate.report`); a context manager that ends it in any case."""

    def __enter__(self) -> "Reporter":
        """Start it; it imports evidently while the caller goes on."""
        command = [sys.executable, "-m", "components.validate.report"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def report(
        self, sample: Path, reference: Path | None, contract: Path, path: Path, found: Mapping[str, Any]
    ) -> Drift | None:
        """Have the report written to ``path``; see :func:`components.validate.report.write`.

        Raises:
            RuntimeError: the process failed; its traceback is on standard error.
        """
        result = sample.with_name("drift.json")
        request = {
            "sample": str(sample.absolute()),
            "reference": str(reference.absolute()) if reference else None,
            "contract": str(contract.absolute()),
            "path": str(path.absolute()),
            "found": dict(found),
            "result": str(result.absolute()),
        }
        self._process.communicate(json.dumps(request) + "\n")
        if self._process.returncode or not result.exists():
            raise RuntimeError(f"The data report failed with code {self._process.returncode}; see the traceback above.")
        drift = json.loads(result.read_text(encoding="utf-8"))
        return Drift(**drift) if drift else None
