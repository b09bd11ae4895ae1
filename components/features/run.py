"""Make a feature set: parsed, derived, split."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from components.errors import BadInput
from components.features import parsing, tables
from components.features.counts import SPLIT, TARGET, check_pasts, check_splits, counted, labels
from components.features.encodings import MOST, bucket, fitted, looked_up
from components.features.engines import DUCKDB, KUBERNETES, Engine, Opener, open_engine
from components.features.expressions import feature_of, parsed
from components.features.history import Events, attached, pieces
from components.features.moments import micros, shown
from components.features.schema import FILE, SPLITS, FeatureSchema, Task
from components.features.select import Selection, check, select, some
from components.features.spec import FeatureSpec, Moment
from components.features.split import GAP, assigned, content, digits, key_text, periods
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

_CATEGORY, _COUNT = "__sluiceway_category", "__sluiceway_count"
_DIGITS = "__sluiceway_digits"
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
    import ibis

    spec = FeatureSpec.loads(feature_spec)
    rules = Contract.read(contract)
    profile = Profile.model_validate_json((contract / PROFILE).read_text(encoding="utf-8"))
    described = snapshots.read(snapshot)
    if target not in profile.columns:
        raise BadInput(f"There is no target column {target!r}; the columns are {some(profile.columns)}.")
    kind = decide(task, profile.columns[target], profile.rows)
    check(spec, profile, target)
    key = _key(split_key, spec, rules, profile, target)
    with (
        whole_folder(out) as folder,
        TemporaryDirectory(prefix=".tables-", dir=out.parent) as copies,
        open_engine(engine, spark, out.parent) as opened,
    ):
        paths = [snapshot / part.name for part in described.parts]
        source = opened.read(snapshots.VIEW, paths, [part.rows for part in described.parts])
        usable = _without_quarantined(opened, source, quarantine / QUARANTINE)
        events = Events(usable, _columns(usable, profile) if spec.time else {}, spec.time or Moment(column=""))
        past = pieces(spec, events, tables.opened(opened, spec, feature_tables, Path(copies)))
        planned = {piece.name: ibis.table(piece.expression.schema(), name=piece.name) for piece in past}
        table = attached(usable, past, planned)
        chosen = select(table, rules, profile, spec, target, tuple(one for piece in past for one in piece.features))
        values = _values(table, chosen, profile, target, kind)
        if spec.split.by == "key":  # a column of its own, as each of its uses would compute the digest again
            table = table.mutate(**{_DIGITS: digits(key_text(table, profile, key), split_seed)})
        split, how = _split(opened, usable, table, profile, spec, target, key, split_seed)
        for piece in past:
            opened.keep(piece.name, piece.expression)
        kept = _kept(opened, table, values | {SPLIT: split})
        found = counted(opened, kept)
        rows = {name: found[name].labelled for name in SPLITS}
        classes = labels(opened, kept, target, task) if kind == "classes" else {}
        check_splits(rows, classes, target)
        check_pasts(opened, kept, past)
        chosen, learnt = _fitted(opened, kept, chosen, rows["train"])
        _write(opened, kept, folder, chosen, learnt, target, list(classes))
        left_out = found[GAP].labelled
        schema = FeatureSchema(
            task=_task(kind, len(classes)),
            target=target,
            classes=tuple(classes),
            inputs=chosen.inputs,
            features=chosen.features,
            dropped=chosen.dropped,
            data_version=described.version,
            split=how | ({"left_out": left_out} if spec.split.by == "time" else {}),
            rows=rows,
        )
        (folder / FILE).write_text(schema.model_dump_json(indent=2) + "\n", encoding="utf-8")
    present = sum(split.rows for split in found.values())
    unlabelled = sum(split.rows - split.labelled for split in found.values())
    counts = {name: sum(per_split.values()) for name, per_split in classes.items()}
    return FeatureSet(schema, sum(rows.values()), described.rows - present, unlabelled, counts)


def _key(split_key: str, spec: FeatureSpec, rules: Contract, profile: Profile, target: str) -> tuple[str, ...]:
    named = tuple(name.strip() for name in split_key.split(",") if name.strip())
    if named and spec.split.by == "time":
        raise BadInput("split_key and the feature spec's split: {by: time} exclude each other; leave one of them out.")
    for name in named:
        if name not in profile.columns:
            raise BadInput(f"split_key names the column {name!r}, which is not among {some(profile.columns)}.")
        if name == target:
            raise BadInput(f"split_key is the target {target!r}; choose columns that name the row or entity.")
    identifiers = tuple(name for name in rules.identifiers if name in profile.columns)
    return named or spec.key or identifiers or content(profile, target)


def _columns(table: "ir.Table", profile: Profile) -> "dict[str, ir.Value]":
    """The snapshot's columns as windows see them."""
    usable = {name: column.type for name, column in profile.columns.items() if column.type != "nested"}
    return {name: typed(table[name], kind) for name, kind in usable.items()}


def _split(
    engine: Engine,
    usable: "ir.Table",
    table: "ir.Table",
    profile: Profile,
    spec: FeatureSpec,
    target: str,
    key: tuple[str, ...],
    seed: int,
) -> "tuple[ir.StringValue, dict[str, str | int | list[str]]]":
    """Every row's split, and what features.json says of it; by time, the shares are those of the labelled rows."""
    if spec.split.by == "key":
        return assigned(table[_DIGITS]), {"key": list(key), "seed": seed}
    assert spec.time is not None
    kind = profile.columns[spec.time.column].type
    labelled = usable.filter(typed(usable[target], profile.columns[target].type).notnull())
    found = periods(
        engine, micros(typed(labelled[spec.time.column], kind), spec.time), spec.split.gap, spec.time.column
    )
    how: dict[str, str | int | list[str]] = {"time": spec.time.column, "gap_seconds": spec.split.gap // 1_000_000}
    how |= {"valid_from": shown(found.valid), "test_from": shown(found.test)}
    return found.of(micros(typed(table[spec.time.column], kind), spec.time)), how


def _values(table: "ir.Table", chosen: Selection, profile: Profile, target: str, kind: Kind) -> "dict[str, ir.Value]":
    """The columns of the feature set by name: inputs as parsed (truth values as 0 and 1), features, target."""
    inputs = parsed(table, chosen.inputs)
    values = {name: value.cast("float64") if value.type().is_boolean() else value for name, value in inputs.items()}
    values.update({column.name: feature_of(column, inputs) for column in chosen.features})
    for feature in chosen.features:
        if feature.encoding and feature.encoding.how == "hash":
            values[feature.name] = bucket(values[feature.name], feature.encoding.buckets)
    column = profile.columns[target]
    label = typed(table[target], column.type)
    if kind == "classes" and column.type in ("integer", "number"):
        whole = label == parsing.floor(label)
        label = whole.ifelse(label.try_cast("int64").cast("string"), label.cast("string"))
    values[TARGET] = label.cast("string" if kind == "classes" else "float64")
    return values


def _kept(engine: Engine, table: "ir.Table", values: "dict[str, ir.Value]") -> "ir.Table":
    """The table with these columns, computed once: what two of them have in common (a text and its encoding) too."""
    first: dict[Any, str] = {}
    for name, value in values.items():
        first.setdefault(value.op(), name)
    kept = engine.keep(_KEPT, table.select(ROW, **{name: values[name] for name in first.values()}), ROW)
    return kept.mutate(**{name: kept[first[value.op()]] for name, value in values.items() if name not in kept.columns})


def _without_quarantined(engine: Engine, source: "ir.Table", quarantine: Path) -> "ir.Table":
    set_aside = engine.read("quarantine", [quarantine])
    ((count,),) = (row.values() for row in engine.rows(set_aside.aggregate(count=set_aside.count())))
    return source.anti_join(set_aside, source[ROW] == set_aside["row"]) if count else source


def _fitted(engine: Engine, kept: "ir.Table", chosen: Selection, rows: int) -> "tuple[Selection, dict[str, ir.Table]]":
    """Learn the encodings from the train rows; counts per category stay with the engine, by feature."""
    train = kept.filter(kept[SPLIT] == "train", kept[TARGET].notnull())
    features, learnt = [], {}
    for place, feature in enumerate(chosen.features):
        if feature.encoding is None or feature.encoding.how == "hash":
            features.append(feature)
            continue
        known = train.filter(train[feature.name].notnull())
        counts = known.group_by(category=known[feature.name]).aggregate(count=known.count()).limit(MOST + 1)
        learnt[feature.name] = engine.keep(f"categories_{place}", counts)
        counted = [(row["category"], row["count"]) for row in engine.rows(learnt[feature.name])]
        features.append(fitted(feature, counted, rows))
    return replace(chosen, features=tuple(features)), learnt


def _write(
    engine: Engine,
    kept: "ir.Table",
    folder: Path,
    chosen: Selection,
    learnt: "Mapping[str, ir.Table]",
    target: str,
    labels: list[str],
) -> None:
    import ibis

    names = dict.fromkeys([column.name for column in chosen.inputs] + [column.name for column in chosen.features])
    label = kept[TARGET].cast("float64")
    if labels:
        place = ibis.array(labels).index(kept[TARGET])
        label = place.cast("int32").cast("int64")  # DuckDB's is an int32, of which Ibis does not know
    encoded = kept.mutate(**{TARGET: label})
    for feature in chosen.features:
        if feature.encoding and feature.name in learnt:
            counts = learnt[feature.name].rename({_CATEGORY: "category", _COUNT: "count"})
            encoded = encoded.left_join(counts, encoded[feature.name] == counts[_CATEGORY])
            value = looked_up(encoded[feature.name], encoded[_COUNT], feature.encoding)
            encoded = encoded.mutate(**{feature.name: value}).drop(_CATEGORY, _COUNT)
    for split in SPLITS:
        rows = encoded.filter(encoded[SPLIT] == split, encoded[TARGET].notnull())
        engine.write(rows.select(ROW, *names, **{target: rows[TARGET]}), folder / f"{split}.parquet")


def _task(kind: Kind, classes: int) -> Task:
    if kind == "regression":
        return "regression"
    return "binary" if classes == 2 else "multiclass"
