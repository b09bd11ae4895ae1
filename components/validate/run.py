"""Check a snapshot against its data contract."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from components.errors import BadInput
from components.files import whole_folder
from components.ingest import snapshot as snapshots
from components.ingest.engine import ROW, engine
from components.settings import settings
from components.store import Store, contract_name
from components.validate import bounds
from components.validate import quarantine as quarantines
from components.validate import sample as samples
from components.validate.contract import FILE, Contract, dumps, loads
from components.validate.counting import profile
from components.validate.facts import Facts, facts
from components.validate.first import first_contract
from components.validate.profile import FILE as PROFILE
from components.validate.profile import Profile, meaning
from components.validate.quarantine import Quarantine
from components.validate.reader import Reader
from components.validate.reporter import Drift, Reporter
from components.validate.rules import Rule, broken_by_value, by_value, doubtful, undecided
from components.validate.schema_diff import Change, Found, check_schema, close, differences
from components.validate.versions import keep

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
        changes: columns that the contract does not know.
        personal: kinds of personal data by column.
        sampled: rows of the sample.
        drift: against the champion's sample, if there is one.
    """

    rows: int
    quarantined: int
    broken: tuple[tuple[str, int], ...]
    contract: Contract
    contract_uri: str
    is_new: bool
    changes: tuple[Change, ...]
    personal: dict[str, str]
    sampled: int
    drift: Drift | None

    @property
    def added(self) -> tuple[str, ...]:
        """Columns that the contract does not know."""
        return tuple(change.column for change in self.changes if change.change == "added")


@dataclass(frozen=True)
class _Checked:
    contract: Contract
    profile: Profile
    reader: Reader
    rules: tuple[Rule, ...]
    is_new: bool
    changes: tuple[Change, ...]
    personal: dict[str, str]


@dataclass(frozen=True)
class _Asked:
    """What a run is asked to check: the snapshot, and where its contract is."""

    folder: Path
    described: snapshots.Snapshot
    dataset: str
    target: str
    store: Store
    now: datetime

    @property
    def where(self) -> str:
        return self.store.where(contract_name(self.dataset))


def run(
    snapshot: Path,
    dataset: str,
    target: str,
    max_quarantine_share: float,
    champion_data_version: str,
    quarantine: Path,
    contract: Path,
    report: Path,
    now: datetime | None = None,
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
        now: the time by which ages are told; the present one by default.

    Raises:
        BadInput: the target is unusable, the columns do not fit, or too many rows break the contract.
        Unreachable: the store cannot be used.
    """
    _check_parameters(dataset, max_quarantine_share)
    present = (now or datetime.now(UTC)).astimezone(UTC).replace(tzinfo=None)
    store = Store(settings().store)
    asked = _Asked(snapshot, snapshots.read(snapshot), dataset, target, store, present)
    with TemporaryDirectory(prefix=".sample-", dir=_existing(report.parent)) as aside, Reporter() as reporter:
        sample = Path(aside) / "sample.parquet"
        with engine(report.parent) as connection:
            table = snapshots.relation(connection, snapshot, asked.described)
            checked = _checked(connection, table, asked)
            with whole_folder(quarantine) as folder:
                found = quarantines.write(connection, checked.reader, checked.rules, asked.described.parts, folder)
            _check_share(found, checked, max_quarantine_share, asked, quarantine)
            with whole_folder(contract) as folder:
                (folder / FILE).write_text(dumps(checked.contract), encoding="utf-8")
                (folder / PROFILE).write_text(checked.profile.model_dump_json(indent=1), encoding="utf-8")
            kept = quarantine / quarantines.FILE
            sampled = samples.write(connection, checked.reader, checked.contract, checked.profile, target, kept, sample)
        store.write(samples.name(asked.described.version), sample.read_bytes())
        added = [change.column for change in checked.changes if change.change == "added"]
        drift = reporter.report(
            sample,
            _reference(store, champion_data_version, Path(aside)),
            contract,
            report,
            {"quarantined": found.rows, "broken": found.broken, "added": added},
        )
    return Validation(
        rows=checked.profile.rows,
        quarantined=found.rows,
        broken=found.broken,
        contract=checked.contract,
        contract_uri=asked.where,
        is_new=checked.is_new,
        changes=checked.changes,
        personal=checked.personal,
        sampled=sampled,
        drift=drift,
    )


def _checked(connection: "duckdb.DuckDBPyConnection", table: "ir.Table", asked: _Asked) -> _Checked:
    """Read or infer the contract, and check everything that concerns the table as a whole."""
    _check_target_exists(asked.target, [column.name for column in asked.described.columns], asked.described)
    known = facts(connection, table, asked.described, asked.folder)
    columns = _columns(table, known)
    text = asked.store.read(contract_name(asked.dataset))
    if text is None:
        types = {name: found.meaning for name, found in columns.items()}
        reader = Reader(connection, table, known, types)
        counts, inferred = first_contract(
            connection, reader, asked.folder, asked.described, asked.dataset, asked.target, asked.now
        )
        _check_target(counts, asked.target)
        mine = dumps(inferred).encode()
        text = asked.store.create(contract_name(asked.dataset), mine)
        if text == mine:
            keep(asked.store, inferred)
            return _Checked(inferred, counts, reader, (), is_new=True, changes=(), personal=_personal(inferred))
    contract = loads(text.decode(), asked.where)
    return _held_to(contract, connection, table, known, columns, asked)


def _held_to(
    contract: Contract,
    connection: "duckdb.DuckDBPyConnection",
    table: "ir.Table",
    known: Facts,
    columns: dict[str, Found],
    asked: _Asked,
) -> _Checked:
    changes = differences(contract, columns)
    check_schema(changes, asked.where)
    if asked.target not in contract.columns:
        raise BadInput(f"The data contract {asked.where} does not know the target column {asked.target!r}; add it.")
    types = {name: found.meaning for name, found in columns.items()}
    types |= {name: rule.type for name, rule in contract.columns.items() if not rule.empty}
    reader = Reader(connection, table, known, types)
    rules = undecided(reader, contract)
    unique = {name for name, rule in contract.columns.items() if rule.unique}
    also = {rule: f"count_if({rule.broken})" for rule in rules if not by_value(reader, rule)}
    counted = profile(connection, reader, exact={asked.target}, unique=unique, also=also)
    counts = counted.profile
    _check_target(counts, asked.target)
    bounds.check(contract, counts, asked.where, asked.now)
    broken = [rule for rule in rules if counted.also.get(rule)]
    broken += broken_by_value(connection, reader, [rule for rule in rules if rule not in also], counted.texts)
    broken += doubtful(connection, reader, contract, counts, asked.now)
    return _Checked(contract, counts, reader, tuple(broken), False, changes, _personal(contract))


def _columns(table: "ir.Table", known: Facts) -> dict[str, Found]:
    return {
        name: Found(
            stored=stored,
            meaning=meaning(table[name], known.seen[name].shares),
            shares=known.seen[name].shares,
            empty=known.nulls[name] == known.rows,
        )
        for name, stored in known.stored.items()
    }


def _personal(contract: Contract) -> dict[str, str]:
    return {name: rule.personal for name, rule in contract.columns.items() if rule.personal}


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


def _check_share(found: Quarantine, checked: _Checked, most: float, asked: _Asked, quarantine: Path) -> None:
    """The share over all rules, and of each column that has a share of its own."""
    rows, see = checked.profile.rows, f"See {quarantine / quarantines.READABLE}; mend the data, edit {asked.where}"
    for name, rule in checked.contract.columns.items():
        if rule.max_share is not None and (count := found.columns.get(name, 0)) > rule.max_share * rows:
            raise BadInput(
                f"{asked.dataset}: {count:,} of {rows:,} rows ({count / rows:.1%}) break the data contract in {name}, "
                f"more than its max_share of {rule.max_share:.1%}. {see}."
            )
    if found.rows <= most * rows:
        return
    worst = ", ".join(f"{rule} ({count:,} rows)" for rule, count in found.broken[:3])
    raise BadInput(
        f"{asked.dataset}: {found.rows:,} of {rows:,} rows ({found.rows / rows:.1%}) break the data contract, more "
        f"than the allowed {most:.1%}: {worst}. {see} or raise max_quarantine_share."
    )


def _existing(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
