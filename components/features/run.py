"""Make a feature set: parsed, derived, split."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import BadInput
from components.features import parsing
from components.features.expressions import feature_of, parsed
from components.features.schema import FILE, SPLITS, FeatureSchema, Task
from components.features.select import Selection, select
from components.features.spec import FeatureSpec
from components.features.split import assigned, content, in_order, key_text
from components.features.task import Kind, decide
from components.files import whole_folder
from components.ingest import snapshot as snapshots
from components.ingest.engine import ROW, engine, identifier, literal, sql, write_parquet
from components.validate.contract import Contract
from components.validate.profile import FILE as PROFILE
from components.validate.profile import Profile, typed
from components.validate.quarantine import FILE as QUARANTINE

if TYPE_CHECKING:
    import duckdb
    import ibis.expr.types as ir

_SPLIT, _TARGET = "__sluiceway_split", "__sluiceway_target"


@dataclass(frozen=True)
class FeatureSet:
    """What was made.

    Attributes:
        schema: what ``features.json`` says.
        rows: rows of all splits.
        quarantined: rows left out because they break the contract.
        unlabelled: rows left out because their target is missing.
        classes: rows per class, in index order; empty for regression.
    """

    schema: FeatureSchema
    rows: int
    quarantined: int
    unlabelled: int
    classes: dict[str, int]


def run(
    snapshot: Path,
    quarantine: Path,
    contract: Path,
    target: str,
    feature_spec: str,
    task: str,
    split_key: str,
    split_seed: int,
    out: Path,
) -> FeatureSet:
    """Make the feature set ``out`` (see :mod:`components.features.schema`), whole or not at all.

    Args:
        snapshot: the snapshot folder.
        quarantine: validate's folder of rows to leave out.
        contract: validate's folder with contract and profile.
        target: the column to predict.
        feature_spec: YAML; see :class:`components.features.spec.FeatureSpec`.
        task: ``auto``, ``classification``, ``binary``, ``multiclass`` or ``regression``.
        split_key: columns, separated by commas, whose rows stay together; by default the spec's key, else the
            contract's identifiers, else the whole row.
        split_seed: another seed is another split.
        out: the folder to make.

    Raises:
        BadInput: a parameter is wrong, or the data is too little to learn from.
        StorageFull: the disk ran out.
    """
    spec = FeatureSpec.loads(feature_spec)
    rules = Contract.read(contract)
    profile = Profile.model_validate_json((contract / PROFILE).read_text(encoding="utf-8"))
    described = snapshots.read(snapshot)
    if target not in profile.columns:
        raise BadInput(f"There is no target column {target!r}; the columns are {', '.join(profile.columns)}.")
    kind = decide(task, profile.columns[target], profile.rows)
    key = _key(split_key, spec, rules, profile, target)
    with whole_folder(out) as folder, engine(out.parent) as connection:
        table = snapshots.relation(connection, snapshot, described)
        chosen = select(table, rules, profile, spec, target)
        values = _values(table, chosen, profile, target, kind)
        how: dict[str, str | int | list[str]]
        if spec.order:
            split, how = in_order(table, profile, spec.order), {"order": spec.order}
        else:
            split, how = assigned(key_text(table, profile, key), split_seed), {"key": list(key), "seed": split_seed}
        _materialise(connection, table, values, split, quarantine / QUARANTINE)
        quarantined = described.rows - sum(_rows(connection).values())
        unlabelled = _drop_unlabelled(connection)
        rows = _rows(connection)
        labels = _labels(connection, target, task) if kind == "classes" else {}
        _check_splits(rows, labels, target)
        _write(connection, folder, chosen, target, list(labels))
        schema = FeatureSchema(
            task=_task(kind, len(labels)),
            target=target,
            classes=tuple(labels),
            inputs=chosen.inputs,
            features=chosen.features,
            dropped=chosen.dropped,
            data_version=described.version,
            split=how,
            rows=rows,
        )
        (folder / FILE).write_text(schema.model_dump_json(indent=2) + "\n", encoding="utf-8")
    counts = {name: sum(per_split.values()) for name, per_split in labels.items()}
    return FeatureSet(schema, sum(rows.values()), quarantined, unlabelled, counts)


def _key(split_key: str, spec: FeatureSpec, rules: Contract, profile: Profile, target: str) -> tuple[str, ...]:
    named = tuple(name.strip() for name in split_key.split(",") if name.strip())
    for name in named:
        if name not in profile.columns:
            raise BadInput(f"split_key names the column {name!r}, which is not among {', '.join(profile.columns)}.")
        if name == target:
            raise BadInput(f"split_key is the target {target!r}; choose columns that name the row or entity.")
    identifiers = tuple(name for name in rules.identifiers if name in profile.columns)
    return named or spec.key or identifiers or content(profile, target)


def _values(table: "ir.Table", chosen: Selection, profile: Profile, target: str, kind: Kind) -> "dict[str, ir.Value]":
    """The columns of the feature set by name: inputs as parsed (truth values as 0 and 1), features, target."""
    inputs = parsed(table, chosen.inputs)
    values = {name: value.cast("float64") if value.type().is_boolean() else value for name, value in inputs.items()}
    values.update({column.name: feature_of(column, inputs) for column in chosen.features})
    column = profile.columns[target]
    label = typed(table[target], column.type)
    if kind == "classes" and column.type in ("integer", "number"):
        whole = label == parsing.floor(label)
        label = whole.ifelse(label.try_cast("int64").cast("string"), label.cast("string"))
    values[_TARGET] = label.cast("string" if kind == "classes" else "float64")
    return values


def _materialise(
    connection: "duckdb.DuckDBPyConnection",
    table: "ir.Table",
    values: "Mapping[str, ir.Value]",
    split: "ir.Value",
    quarantine: Path,
) -> None:
    """Compute everything once, into a table that DuckDB spills when it is large."""
    query = sql(table.select(ROW, **values, **{_SPLIT: split}))
    row = identifier(ROW)
    set_aside = f"read_parquet({literal(quarantine)})"
    ((count,),) = connection.execute(f"SELECT count(*) FROM {set_aside}").fetchall()
    if count:  # the join may not keep the order
        query = f"SELECT * FROM ({query}) WHERE {row} NOT IN (SELECT row FROM {set_aside}) ORDER BY {row}"
    connection.execute(f"CREATE TEMP TABLE rows AS {query}").fetchall()


def _rows(connection: "duckdb.DuckDBPyConnection") -> dict[str, int]:
    counted = dict(connection.execute(f"SELECT {_SPLIT}, count(*) FROM rows GROUP BY ALL").fetchall())
    return {name: int(counted.get(name, 0)) for name in SPLITS}


def _drop_unlabelled(connection: "duckdb.DuckDBPyConnection") -> int:
    ((count,),) = connection.execute(f"DELETE FROM rows WHERE {_TARGET} IS NULL").fetchall()
    return int(count)


def _labels(connection: "duckdb.DuckDBPyConnection", target: str, task: str) -> dict[str, dict[str, int]]:
    """Rows per split for each class; numbers are ordered as numbers, texts as texts."""
    counted = connection.execute(f"SELECT {_TARGET}, {_SPLIT}, count(*) FROM rows GROUP BY ALL").fetchall()
    labels = {str(label) for label, _, _ in counted}
    order = sorted(labels, key=float) if all(_is_number(label) for label in labels) else sorted(labels)
    found: dict[str, dict[str, int]] = {label: {} for label in order}
    for label, split, count in counted:
        found[label][split] = int(count)
    if len(found) < 2:
        raise BadInput(f"The target {target!r} has only the class {', '.join(order) or '(none)'} in the usable rows.")
    if task == "binary" and len(found) != 2:
        raise BadInput(f"The target {target!r} has {len(found)} classes ({', '.join(order[:5])}), so it is not binary.")
    return found


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True


def _check_splits(rows: Mapping[str, int], labels: Mapping[str, Mapping[str, int]], target: str) -> None:
    total = sum(rows.values())
    empty = [name for name in SPLITS if not rows[name]]
    if empty:
        raise BadInput(
            f"Only {total} usable rows: the {empty[0]} split is empty; bring more data or another split_seed."
        )
    for label, counts in labels.items():
        if not counts.get("train"):
            raise BadInput(
                f"Class {label!r} of {target!r} has {sum(counts.values())} rows and none of them in the train split; "
                "bring more of them, leave that class out, or choose another split_seed."
            )


def _write(
    connection: "duckdb.DuckDBPyConnection", folder: Path, chosen: Selection, target: str, labels: list[str]
) -> None:
    names = dict.fromkeys([column.name for column in chosen.inputs] + [column.name for column in chosen.features])
    columns = ", ".join(identifier(name) for name in names)
    label = f"{_TARGET}::DOUBLE"
    if labels:
        listed = ", ".join(literal(name) for name in labels)
        label = f"(list_position([{listed}], {_TARGET}) - 1)::BIGINT"
    for split in SPLITS:
        query = f"SELECT {columns}, {label} AS {identifier(target)} FROM rows WHERE {_SPLIT} = '{split}'"
        write_parquet(connection, query, folder / f"{split}.parquet")


def _task(kind: Kind, classes: int) -> Task:
    if kind == "regression":
        return "regression"
    return "binary" if classes == 2 else "multiclass"
