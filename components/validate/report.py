"""The HTML report of a snapshot: Evidently's data summary, and drift against the champion's data."""

import gc
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.files import whole_file
from components.validate.contract import Contract
from components.validate.profile import Profile

if TYPE_CHECKING:
    import pandas as pd

WIDEST = 60
"""Columns shown in a report; its time grows with them, the first ones are shown."""

_CATEGORIES = 255


@dataclass(frozen=True)
class Drift:
    """How far a sample drifted from its reference: columns compared, columns that drifted."""

    columns: int
    drifted: int

    @property
    def share(self) -> float:
        """Share of the columns that drifted."""
        return self.drifted / self.columns if self.columns else 0.0


def write(sample: Path, reference: bytes | None, contract: Contract, profile: Profile, path: Path) -> Drift | None:
    """Write the report as one HTML file.

    Args:
        sample: Parquet file of the snapshot's sample.
        reference: content of the champion's sample, if there is one.
        contract: says what the columns mean.
        profile: says which columns can be shown.
        path: the file to write.

    Returns:
        The drift, if there is a reference.
    """
    import pandas as pd

    current = pd.read_parquet(sample)
    before = None if reference is None else pd.read_parquet(io.BytesIO(reference))
    columns = _shown(contract, profile, current, before)
    snapshot = _evaluated(current, before, columns, contract)
    with whole_file(path) as aside:
        snapshot.save_html(str(aside))
    return None if before is None else _drift(snapshot.dict(), len(columns))


def _evaluated(current: "pd.DataFrame", before: "pd.DataFrame | None", columns: list[str], contract: Contract) -> Any:
    with _imported_quickly():
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset, DataSummaryPreset

    kinds = {name: contract.columns[name].type for name in columns}
    definition = DataDefinition(
        numerical_columns=[name for name, kind in kinds.items() if kind in ("integer", "number")],
        categorical_columns=[name for name, kind in kinds.items() if kind in ("string", "boolean")],
        datetime_columns=[name for name, kind in kinds.items() if kind == "timestamp"],
    )
    presets = [DataSummaryPreset()] if before is None else [DataDriftPreset(), DataSummaryPreset()]
    tables = [None if frame is None else _plain(frame[columns], kinds) for frame in (current, before)]
    sets = [None if frame is None else Dataset.from_pandas(frame, data_definition=definition) for frame in tables]
    return Report(presets).run(sets[0], sets[1])


@contextmanager
def _imported_quickly() -> Iterator[None]:
    """Import without garbage collection: evidently's 4.3 s become 3.6 s. Its submodules cannot be had alone."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _shown(contract: Contract, profile: Profile, current: "pd.DataFrame", before: "pd.DataFrame | None") -> list[str]:
    """Columns that a person can compare: no identifiers, free texts, nested or empty ones."""
    shown = []
    for name, rule in contract.columns.items():
        text = rule.type == "string" and profile.columns[name].distinct > _CATEGORIES
        if rule.identifier or rule.empty or rule.type == "nested" or text:
            continue
        if any(frame is not None and (name not in frame or frame[name].isna().all()) for frame in (current, before)):
            continue
        shown.append(name)
    return shown[:WIDEST]


def _plain(frame: "pd.DataFrame", kinds: dict[str, Any]) -> "pd.DataFrame":
    """Truth values as the texts that Evidently's categories are."""
    flags = [name for name, kind in kinds.items() if kind == "boolean"]
    return frame.assign(**{name: frame[name].map({True: "true", False: "false"}) for name in flags})


def _drift(content: dict[str, Any], columns: int) -> Drift:
    for metric in content["metrics"]:
        if metric["metric_name"].startswith("DriftedColumnsCount"):
            return Drift(columns=columns, drifted=int(metric["value"]["count"]))
    raise LookupError("Evidently's report has no DriftedColumnsCount; its version changed.")
