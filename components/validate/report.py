"""The HTML report of a snapshot: Evidently's data summary, and drift against the champion's data.

It is a program of its own, started by :mod:`components.validate.reporter`: evidently takes 3 to 5 s to import, which
runs on another core while DuckDB checks the rows, and another second to be torn down, which is skipped.
"""

import gc
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.files import whole_file, write_json
from components.validate.contract import Contract
from components.validate.profile import FILE as PROFILE
from components.validate.profile import Profile
from components.validate.summary import insert, section

if TYPE_CHECKING:
    import pandas as pd

WIDEST = 40
"""Columns shown in a report, the first ones: it draws seven figures for each, at 20 ms a figure."""

_CATEGORIES = 255


def write(
    sample: Path, reference: Path | None, contract_folder: Path, path: Path, found: Mapping[str, Any]
) -> dict[str, int] | None:
    """Write the report as one HTML file.

    Args:
        sample: Parquet file of the snapshot's sample.
        reference: the champion's sample, if there is one.
        contract_folder: the validate step's output, which says what the columns are.
        path: the file to write.
        found: what the check found; see :func:`components.validate.summary.section`.

    Returns:
        How many columns were compared and how many drifted, if there is a reference.
    """
    import pandas as pd

    contract = Contract.read(contract_folder)
    profile = Profile.model_validate_json((contract_folder / PROFILE).read_text(encoding="utf-8"))
    current = pd.read_parquet(sample)
    before = None if reference is None else pd.read_parquet(reference)
    columns = _shown(contract, profile, current, before)
    snapshot = _evaluated(current, before, columns, contract)
    with whole_file(path) as aside:
        snapshot.save_html(str(aside))
        page = insert(aside.read_text(encoding="utf-8"), section(contract, profile, found))
        aside.write_text(page, encoding="utf-8")
    return None if before is None else {"columns": len(columns), "drifted": _drifted(snapshot.dict())}


def _evaluated(current: "pd.DataFrame", before: "pd.DataFrame | None", columns: list[str], contract: Contract) -> Any:
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


def _drifted(content: dict[str, Any]) -> int:
    for metric in content["metrics"]:
        if metric["metric_name"].startswith("DriftedColumnsCount"):
            return int(metric["value"]["count"])
    raise LookupError("Evidently's report has no DriftedColumnsCount; its version changed.")


def main() -> None:
    """Import evidently, then wait for one request (JSON) on standard input, and write the report.

    The request has ``sample``, ``reference`` (or null), ``contract``, ``path``, ``found`` and ``result``, where the
    drift is written as JSON. An end of input without a request means that there is nothing to report.
    """
    gc.disable()  # 4.3 s of import become 3.6 s; the process is short
    import evidently.presets  # noqa: F401  the import is what this waits for

    line = sys.stdin.readline()
    if not line:
        return
    request = json.loads(line)
    reference = Path(request["reference"]) if request["reference"] else None
    drift = write(
        Path(request["sample"]), reference, Path(request["contract"]), Path(request["path"]), request["found"]
    )
    write_json(Path(request["result"]), drift)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # tearing evidently down takes a second and frees nothing that the exit does not


if __name__ == "__main__":
    main()
