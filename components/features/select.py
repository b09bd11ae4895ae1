"""Which columns a model sees, which ones expressions need, and why the others are left out."""

import keyword
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.errors import BadInput
from components.features.aggregates import Aggregate
from components.features.expressions import feature_of, parsed
from components.features.functions import FUNCTIONS, TEXT, kind_of
from components.features.language import columns_of
from components.features.schema import DroppedColumn, Encoding, FeatureColumn, InputColumn, InputType
from components.features.spec import EncodingSpec, FeatureSpec
from components.validate.contract import ColumnRule, Contract, Type
from components.validate.profile import ColumnProfile, Profile

if TYPE_CHECKING:
    import ibis.expr.types as ir

MOST_CATEGORIES = 255
"""Categories that a tree can tell apart (histogram gradient boosting's limit)."""

MOST_NAMED = 40
"""A message names so many columns at most."""

_INPUT: dict[Type, InputType] = {
    "integer": "number",
    "number": "number",
    "string": "string",
    "boolean": "boolean",
    "timestamp": "timestamp",
}


@dataclass(frozen=True)
class Selection:
    """Inputs, features and left-out columns, all in the snapshot's order; made features last."""

    inputs: tuple[InputColumn, ...]
    features: tuple[FeatureColumn, ...]
    dropped: tuple[DroppedColumn, ...]


def select(
    table: "ir.Table",
    contract: Contract,
    profile: Profile,
    spec: FeatureSpec,
    target: str,
    computed: tuple[InputColumn, ...] = (),
) -> Selection:
    """Choose the columns.

    Args:
        table: the snapshot, with the computed columns beside its own.
        contract: which columns there should be.
        profile: what they hold.
        spec: a spec that :func:`check` has passed.
        target: the column to predict.
        computed: windows and joins.

    Raises:
        BadInput: an expression is wrong, or no feature is left.
    """
    names = [name for name in profile.columns if name != target]
    encodings = {name: as_expression(encoding.column) for name, encoding in spec.encodings.items()}
    read = {column for name, text in (spec.derive | encodings).items() for column in columns_of(text, name)}
    reasons = {name: _reason(profile.columns[name], contract.columns.get(name), profile.rows, spec) for name in names}
    usable = {name: kind for name in names if (kind := _INPUT.get(profile.columns[name].type)) is not None}
    inputs = tuple(InputColumn(name=n, type=kind) for n, kind in usable.items() if n in read or not reasons[n])
    left_out = {column.name for column in computed if column.name in spec.drop}
    inputs += tuple(column for column in computed if column.name not in left_out or column.name in read)
    values = parsed(table, inputs)
    features = [_as_it_is(column) for column in inputs if not reasons.get(column.name) and column.name not in left_out]
    features += [_derived(name, text, values) for name, text in spec.derive.items()]
    features += [_encoded(name, spec.encodings[name], text, values) for name, text in encodings.items()]
    if not features:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:10])
        raise BadInput(f"No feature is left ({why}); change feature_spec or the data.")
    dropped = tuple(DroppedColumn(name=name, reason=reason) for name, reason in reasons.items() if reason)
    return Selection(inputs=inputs, features=tuple(features), dropped=dropped)


def as_expression(column: str) -> str:
    """A column as an expression that reads it."""
    plain = column.isidentifier() and not keyword.iskeyword(column) and column not in FUNCTIONS and column != "col"
    return column if plain else f"col({column!r})"


def _reason(column: ColumnProfile, rule: ColumnRule | None, rows: int, spec: FeatureSpec) -> str:
    """Why a column is no feature; empty if it is one."""
    if column.name in spec.drop:
        return "dropped by the feature spec"
    if column.name in spec.key:
        return "key of the feature spec"
    if spec.time is not None and column.name == spec.time.column:
        return "time of the feature spec; use parts of it in an expression"
    if rule is None:
        return "not in the data contract; add it there to use it"
    if rule.identifier:
        return "identifier"
    if rule.empty or column.missing == rows:
        return "all values are missing"
    if column.type == "nested":
        return f"nested values ({column.stored})"
    if column.distinct <= 1 and column.missing == 0:
        return "constant"
    if column.type == "timestamp":
        return "timestamp; use parts of it in an expression of the feature spec"
    if column.type == "string" and column.distinct > MOST_CATEGORIES:
        return f"text with about {column.distinct:,} different values, more than {MOST_CATEGORIES} categories"
    return ""


def _as_it_is(column: InputColumn) -> FeatureColumn:
    return FeatureColumn(name=column.name, kind="categorical" if column.type == "string" else "numeric")


def _derived(name: str, text: str, values: "Mapping[str, ir.Value]") -> FeatureColumn:
    text = text.strip()
    column = FeatureColumn(name=name, kind="numeric", expression=text)
    if kind_of(feature_of(column, values)) == TEXT:
        return column.model_copy(update={"kind": "categorical"})
    return column


def _encoded(name: str, asked: EncodingSpec, text: str, values: "Mapping[str, ir.Value]") -> FeatureColumn:
    """An encoding that has not been fitted yet."""
    value = feature_of(FeatureColumn(name=name, kind="numeric", expression=text), values)
    if asked.how == "hash":
        if kind_of(value) != TEXT:
            raise BadInput(f"Encoding {name!r}: {asked.column!r} holds no texts, and hash is for texts; use count.")
        encoding = Encoding(how="hash", buckets=asked.buckets)
        return FeatureColumn(name=name, kind="categorical", expression=text, encoding=encoding)
    return FeatureColumn(name=name, kind="numeric", expression=text, encoding=Encoding(how=asked.how))


def some(names: Iterable[str]) -> str:
    """Names for a message; of many, the first and how many more there are."""
    listed = list(names)
    more = len(listed) - MOST_NAMED
    return ", ".join(listed[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def check(spec: FeatureSpec, profile: Profile, target: str) -> None:
    """Refuse a spec that names columns which are not there, names that are taken, or the target.

    Raises:
        BadInput: says which key of the spec.
    """
    names = [name for name in profile.columns if name != target]
    known = some(names)
    named: list[tuple[str, str]] = [("key", column) for column in spec.key]
    named += [("drop", column) for column in spec.drop if column not in spec.windows and column not in spec.joins]
    named += [("time", spec.time.column)] if spec.time else []
    named += [(f"encodings.{name}", encoding.column) for name, encoding in spec.encodings.items()]
    named += [(f"windows.{name}", column) for name, window in spec.windows.items() for column in window.entity]
    named += [(f"tables.{name}", column) for name, table in spec.tables.items() for column in table.entity.values()]
    for what, column in named:
        if column == target:
            raise BadInput(f"feature_spec {what} names the target {target!r}; choose other columns.")
        if column not in profile.columns:
            raise BadInput(f"feature_spec {what} names the column {column!r}, which is not among {known}.")
    taken = {name.casefold() for name in profile.columns}
    for name, what in spec.made:
        if name.casefold() in taken:
            raise BadInput(f"feature_spec {what}: {name!r} is already a column; give the feature another name.")
        taken.add(name.casefold())
    for name, text in spec.derive.items():
        read = columns_of(text, name)
        if not read:
            raise BadInput(f"Feature {name!r}: {text!r} reads no column, so it is the same for every row.")
        if target in read:
            raise BadInput(f"Feature {name!r}: {text!r} reads the target {target!r}, which is unknown when predicting.")
    _check_targets_of_others(spec, target)


def _check_targets_of_others(spec: FeatureSpec, target: str) -> None:
    """Earlier rows' targets are fair, unless these rows are in another split: then train learns what test asks."""
    for name, window in spec.windows.items():
        if window.table or target not in Aggregate.of_window(name, window).reads(name):
            continue
        if spec.split.by == "key" and not set(spec.key) <= set(window.entity or spec.key):
            raise BadInput(
                f"Window {name!r} reads the target {target!r} of rows that share {', '.join(window.entity)}, which "
                f"a split by {', '.join(spec.key) or 'row'} puts into different splits; use split: {{by: time}}."
            )
