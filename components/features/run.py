"""Make a feature set: parsed, derived, split."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from components.errors import BadInput
from components.features import parsing
from components.features.engines import DUCKDB, KUBERNETES, Engine, Opener, open_engine
from components.features.expressions import feature_of, parsed
from components.features.schema import FILE, SPLITS, FeatureSchema, Task
from components.features.select import Selection, select
from components.features.spec import FeatureSpec
from components.features.split import assigned, content, in_order, key_text
from components.features.task import Kind, decide
from components.files import whole_folder
from components.ingest import snapshot as snapshots
from components.ingest.engine import ROW
from components.validate.contract import Contract
from components.validate.profile import FILE as PROFILE
from components.validate.profile import Profile, typed
from components.validate.quarantine import FILE as QUARANTINE

if TYPE_CHECKING:
    import ibis.expr.types as ir

_SPLIT, _TARGET = "__sluiceway_split", "__sluiceway_target"
_KEPT = "rows"


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
    feature_tables: Mapping[str, Any] = MappingProxyType({}),
    engine: str | Opener = DUCKDB,
    spark: Mapping[str, Any] = MappingProxyType({}),
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
        feature_tables: what the spec joins, as :func:`components.ingest.resolve.resolve_tables` pinned it.
        engine: where to compute; see :func:`components.features.engines.open_engine`. ``kubernetes`` runs all of this
            in the driver of a SparkApplication.
        spark: what a Spark job asks for, where it is not the default.

    Raises:
        BadInput: a parameter is wrong, or the data is too little to learn from.
        Unreachable: the engine cannot be reached.
        StorageFull: the disk ran out.
    """
    if engine == KUBERNETES:
        from components.features.spark.step import on_kubernetes

        given: dict[str, Any] = {"target": target, "feature_spec": feature_spec, "task": task, "split_key": split_key}
        given |= {"split_seed": split_seed, "feature_tables": dict(feature_tables)}
        folders = {"snapshot": snapshot, "quarantine": quarantine, "contract": contract}
        return on_kubernetes(folders, out, given, spark)
    spec = FeatureSpec.loads(feature_spec)
    rules = Contract.read(contract)
    profile = Profile.model_validate_json((contract / PROFILE).read_text(encoding="utf-8"))
    described = snapshots.read(snapshot)
    if target not in profile.columns:
        raise BadInput(f"There is no target column {target!r}; the columns are {', '.join(profile.columns)}.")
    kind = decide(task, profile.columns[target], profile.rows)
    key = _key(split_key, spec, rules, profile, target)
    with whole_folder(out) as folder, open_engine(engine, spark, out.parent) as opened:
        paths = [snapshot / part.name for part in described.parts]
        table = opened.read(snapshots.VIEW, paths, [part.rows for part in described.parts])
        chosen = select(table, rules, profile, spec, target)
        values = _values(table, chosen, profile, target, kind)
        how: dict[str, str | int | list[str]]
        if spec.order:
            split, how = in_order(table, profile, spec.order), {"order": spec.order}
        else:
            split, how = assigned(key_text(table, profile, key), split_seed), {"key": list(key), "seed": split_seed}
        made = table.select(ROW, **values, **{_SPLIT: split})
        kept = opened.keep(_KEPT, _without_quarantined(opened, made, quarantine / QUARANTINE))
        counted = _counted(opened, kept)
        rows = {name: counted[name].labelled for name in SPLITS}
        labels = _labels(opened, kept, target, task) if kind == "classes" else {}
        _check_splits(rows, labels, target)
        _write(opened, kept, folder, chosen, target, list(labels))
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
    usable = sum(split.rows for split in counted.values())
    counts = {name: sum(per_split.values()) for name, per_split in labels.items()}
    return FeatureSet(schema, sum(rows.values()), described.rows - usable, usable - sum(rows.values()), counts)


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


def _without_quarantined(engine: Engine, made: "ir.Table", quarantine: Path) -> "ir.Table":
    set_aside = engine.read("quarantine", [quarantine])
    ((count,),) = (row.values() for row in engine.rows(set_aside.aggregate(count=set_aside.count())))
    if not count:
        return made
    return made.anti_join(set_aside, made[ROW] == set_aside["row"]).order_by(ROW)  # a join may not keep the order


@dataclass(frozen=True)
class _Split:
    """How many usable rows a split has, and how many of them have a target."""

    rows: int = 0
    labelled: int = 0


def _counted(engine: Engine, kept: "ir.Table") -> dict[str, _Split]:
    per_split = kept.group_by(_SPLIT).aggregate(rows=kept.count(), labelled=kept[_TARGET].count())
    found = {row[_SPLIT]: _Split(int(row["rows"]), int(row["labelled"])) for row in engine.rows(per_split)}
    return {name: found.get(name, _Split()) for name in SPLITS}


def _labels(engine: Engine, kept: "ir.Table", target: str, task: str) -> dict[str, dict[str, int]]:
    """Rows per split for each class; numbers are ordered as numbers, texts as texts."""
    labelled = kept.filter(kept[_TARGET].notnull())
    counted = engine.rows(labelled.group_by(_TARGET, _SPLIT).aggregate(rows=labelled.count()))
    labels = {str(row[_TARGET]) for row in counted}
    order = sorted(labels, key=float) if all(_is_number(label) for label in labels) else sorted(labels)
    found: dict[str, dict[str, int]] = {label: {} for label in order}
    for row in counted:
        found[row[_TARGET]][row[_SPLIT]] = int(row["rows"])
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


def _write(engine: Engine, kept: "ir.Table", folder: Path, chosen: Selection, target: str, labels: list[str]) -> None:
    import ibis

    names = dict.fromkeys([column.name for column in chosen.inputs] + [column.name for column in chosen.features])
    label = kept[_TARGET].cast("float64")
    if labels:
        place = ibis.array(labels).index(kept[_TARGET])
        label = place.cast("int32").cast("int64")  # DuckDB's is an int32, of which Ibis does not know
    for split in SPLITS:
        rows = kept.filter(kept[_SPLIT] == split, kept[_TARGET].notnull())
        engine.write(rows.select(ROW, *names, **{target: label}), folder / f"{split}.parquet")


def _task(kind: Kind, classes: int) -> Task:
    if kind == "regression":
        return "regression"
    return "binary" if classes == 2 else "multiclass"
