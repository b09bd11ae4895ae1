"""Check a snapshot against its data contract."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from components.errors import BadInput
from components.files import whole_folder
from components.ingest import snapshot as snapshots
from components.ingest.engine import ROW, engine
from components.settings import settings
from components.store import Store, contract_name
from components.validate import quarantine as quarantines
from components.validate import sample as samples
from components.validate.contract import FILE, Contract, Type, dumps, loads
from components.validate.infer import infer
from components.validate.profile import FILE as PROFILE
from components.validate.profile import Profile, meaning, profile, readable_shares
from components.validate.quarantine import Quarantine
from components.validate.reporter import Drift, Reporter
from components.validate.rules import doubtful
from components.validate.schema_diff import Found, check_schema, close

if TYPE_CHECKING:
    import duckdb
    import ibis.expr.types as ir


@dataclass(frozen=True)
class Validation:
    """What the check found.

    Attributes:
        rows: rows checked.
        quarantined: rows set aside.
        broken: broken rules with row counts, worst first.
        contract: the contract.
        contract_uri: where people edit it.
        is_new: whether it was inferred now.
        added: columns that the contract does not know.
        sampled: rows of the sample.
        drift: against the champion's sample, if there is one.
    """

    rows: int
    quarantined: int
    broken: tuple[tuple[str, int], ...]
    contract: Contract
    contract_uri: str
    is_new: bool
    added: tuple[str, ...]
    sampled: int
    drift: Drift | None


@dataclass(frozen=True)
class _Checked:
    contract: Contract
    profile: Profile
    is_new: bool
    added: tuple[str, ...]


def run(
    snapshot: Path,
    dataset: str,
    target: str,
    max_quarantine_share: float,
    champion_data_version: str,
    quarantine: Path,
    contract: Path,
    report: Path,
) -> Validation:
    """Check a snapshot; infer the contract if its data set has none yet.

    Args:
        snapshot: the snapshot folder.
        dataset: the data set's name, by which the store keeps its contract.
        target: the column to predict.
        max_quarantine_share: share of the rows (0 to 1) that may break the contract.
        champion_data_version: snapshot version that the champion was trained on, for drift; may be empty.
        quarantine: folder for ``quarantine.parquet`` and ``quarantine.csv``.
        contract: folder for ``contract.yaml`` and ``profile.json``.
        report: the HTML file to write.

    Raises:
        BadInput: the target is unusable, the columns do not fit, or too many rows break the contract.
        Unreachable: the store cannot be used.
    """
    _check_parameters(dataset, max_quarantine_share)
    store, name = Store(settings().store), contract_name(dataset)
    described = snapshots.read(snapshot)
    with TemporaryDirectory(prefix=".sample-", dir=_existing(report.parent)) as aside, Reporter() as reporter:
        sample = Path(aside) / "sample.parquet"
        with engine(report.parent) as connection:
            table = snapshots.relation(connection, snapshot, described)
            checked = _checked(connection, table, described, store, name, target)
            found = _set_aside(connection, table, checked, quarantine)
            _check_share(found, checked, max_quarantine_share, dataset, store.where(name), quarantine)
            with whole_folder(contract) as folder:
                (folder / FILE).write_text(dumps(checked.contract), encoding="utf-8")
                (folder / PROFILE).write_text(checked.profile.model_dump_json(indent=1), encoding="utf-8")
            types = {column: rule.type for column, rule in checked.contract.columns.items()}
            kept = quarantine / quarantines.FILE
            sampled = samples.write(connection, table, types, target, kept, sample)
        store.write(samples.name(described.version), sample.read_bytes())
        drift = reporter.report(sample, _reference(store, champion_data_version, Path(aside)), contract, report)
    return Validation(
        rows=checked.profile.rows,
        quarantined=found.rows,
        broken=found.broken,
        contract=checked.contract,
        contract_uri=store.where(name),
        is_new=checked.is_new,
        added=checked.added,
        sampled=sampled,
        drift=drift,
    )


def _checked(
    connection: "duckdb.DuckDBPyConnection",
    table: "ir.Table",
    described: snapshots.Snapshot,
    store: Store,
    name: str,
    target: str,
) -> _Checked:
    """Read or infer the contract, and check everything that concerns the table as a whole."""
    columns = _columns(connection, table, described)
    _check_target_exists(target, list(columns), described)
    stored = {column: found.stored for column, found in columns.items()}
    types: dict[str, Type] = {column: found.meaning for column, found in columns.items()}
    text = store.read(name)
    fresh: Profile | None = None
    if text is None:
        fresh = profile(connection, table, stored, types)
        _check_target(fresh, target)
        inferred = infer(fresh, name.removeprefix("contracts/").removesuffix(".yaml"), described.version, target)
        text = store.create(name, dumps(inferred).encode())
        if text == dumps(inferred).encode():
            return _Checked(inferred, fresh, is_new=True, added=())
    contract = loads(text.decode(), store.where(name))
    added = check_schema(contract, columns, store.where(name))
    types.update({column: rule.type for column, rule in contract.columns.items() if not rule.empty})
    counted = profile(connection, table, stored, types)
    _check_target(counted, target)
    if target not in contract.columns:
        raise BadInput(f"The data contract {store.where(name)} does not know the target column {target!r}; add it.")
    _check_rows(contract, counted, store.where(name))
    return _Checked(contract, counted, is_new=False, added=added)


def _columns(
    connection: "duckdb.DuckDBPyConnection", table: "ir.Table", described: snapshots.Snapshot
) -> Mapping[str, Found]:
    shares = readable_shares(connection, table)
    return {
        column.name: Found(
            stored=column.type,
            meaning=meaning(table[column.name], shares.get(column.name, {})),
            shares=shares.get(column.name, {}),
            empty=column.nulls == described.rows,
        )
        for column in described.columns
    }


def _set_aside(
    connection: "duckdb.DuckDBPyConnection", table: "ir.Table", checked: _Checked, folder: Path
) -> Quarantine:
    with whole_folder(folder) as aside:
        return quarantines.write(connection, table, doubtful(table, checked.contract, checked.profile), aside)


def _reference(store: Store, data_version: str, folder: Path) -> Path | None:
    """A local copy of the champion's sample, if there is a champion and its sample is still kept."""
    content = store.read(samples.name(data_version)) if data_version else None
    if content is None:
        return None
    path = folder / "reference.parquet"
    path.write_bytes(content)
    return path


def _check_parameters(dataset: str, share: float) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", dataset):
        raise BadInput(f"The data set name {dataset!r} must consist of letters, digits, dots, dashes and underscores.")
    if not 0 <= share <= 1:
        raise BadInput(f"max_quarantine_share is {share}, but a share lies between 0 and 1.")


def _check_target_exists(target: str, columns: list[str], described: snapshots.Snapshot) -> None:
    if target in columns and target != ROW:
        return
    near = close(target, columns)
    hint = f"did you mean {' or '.join(repr(name) for name in near)}? " if near else ""
    shown = ", ".join(columns[:40]) + (f" and {len(columns) - 40} more" if len(columns) > 40 else "")
    raise BadInput(f"{described.source_uri} has no target column {target!r}; {hint}Its columns are {shown}.")


def _check_target(counted: Profile, target: str) -> None:
    column = counted.columns[target]
    if column.type == "nested":
        raise BadInput(f"The target column {target!r} holds {column.stored} values; choose a plain column.")
    if column.missing == counted.rows:
        raise BadInput(f"The target column {target!r} is missing in all {counted.rows:,} rows; nothing can be learned.")
    if column.distinct < 2:
        value = f" ({column.values[0]})" if column.values else ""
        raise BadInput(
            f"The target column {target!r} has only one class{value}; a model needs at least two to tell apart."
        )


def _check_rows(contract: Contract, counted: Profile, where: str) -> None:
    bounds = contract.rows
    if counted.rows < bounds.min or (bounds.max is not None and counted.rows > bounds.max):
        most = f" and at most {bounds.max:,}" if bounds.max is not None else ""
        raise BadInput(
            f"The snapshot has {counted.rows:,} rows, but the data contract asks for at least {bounds.min:,}{most}; "
            f"check that the export is whole, or edit rows in {where}."
        )


def _check_share(found: Quarantine, checked: _Checked, most: float, dataset: str, where: str, quarantine: Path) -> None:
    share = found.rows / checked.profile.rows
    if share <= most:
        return
    worst = ", ".join(f"{rule} ({count:,} rows)" for rule, count in found.broken[:3])
    raise BadInput(
        f"{dataset}: {found.rows:,} of {checked.profile.rows:,} rows ({share:.1%}) break the data contract, more than "
        f"the allowed {most:.1%}: {worst}. See {quarantine / quarantines.READABLE}; mend the data, edit {where} or "
        "raise max_quarantine_share."
    )


def _existing(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
