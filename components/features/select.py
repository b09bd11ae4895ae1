"""Which columns a model sees, which ones expressions need, and why the others are left out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.errors import BadInput
from components.features.expressions import feature_of, parsed
from components.features.functions import TEXT, kind_of
from components.features.language import columns_of
from components.features.schema import DroppedColumn, FeatureColumn, InputColumn, InputType
from components.features.spec import FeatureSpec
from components.validate.contract import ColumnRule, Contract, Type
from components.validate.profile import ColumnProfile, Profile

if TYPE_CHECKING:
    import ibis.expr.types as ir

MOST_CATEGORIES = 255
"""Categories that a tree can tell apart (histogram gradient boosting's limit)."""

_INPUT: dict[Type, InputType] = {
    "integer": "number",
    "number": "number",
    "string": "string",
    "boolean": "boolean",
    "timestamp": "timestamp",
}


@dataclass(frozen=True)
class Selection:
    """Inputs, features and left-out columns, all in the snapshot's order, derived features last."""

    inputs: tuple[InputColumn, ...]
    features: tuple[FeatureColumn, ...]
    dropped: tuple[DroppedColumn, ...]


def select(table: "ir.Table", contract: Contract, profile: Profile, spec: FeatureSpec, target: str) -> Selection:
    """Choose the columns.

    Raises:
        BadInput: the spec names columns that do not exist, or no feature is left.
    """
    names = [name for name in profile.columns if name != target]
    _check(spec, names, target)
    read = {column for name, text in spec.derive.items() for column in columns_of(text, name)}
    reasons = {name: _reason(profile.columns[name], contract.columns.get(name), profile.rows, spec) for name in names}
    usable = {name: kind for name in names if (kind := _INPUT.get(profile.columns[name].type)) is not None}
    inputs = tuple(InputColumn(name=n, type=kind) for n, kind in usable.items() if n in read or not reasons[n])
    values = parsed(table, inputs)
    features = [_as_it_is(column) for column in inputs if not reasons[column.name]]
    features += [_derived(name, text, values) for name, text in spec.derive.items()]
    if not features:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:10])
        raise BadInput(f"No feature is left ({why}); change feature_spec or the data.")
    dropped = tuple(DroppedColumn(name=name, reason=reason) for name, reason in reasons.items() if reason)
    return Selection(inputs=inputs, features=tuple(features), dropped=dropped)


def _reason(column: ColumnProfile, rule: ColumnRule | None, rows: int, spec: FeatureSpec) -> str:
    """Why a column is no feature; empty if it is one."""
    if column.name in spec.drop:
        return "dropped by the feature spec"
    if column.name in spec.key:
        return "key of the feature spec"
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


def _check(spec: FeatureSpec, names: list[str], target: str) -> None:
    known = ", ".join(names[:40])
    for what, columns in (("drop", spec.drop), ("key", spec.key)):
        for column in columns:
            if column == target:
                raise BadInput(f"feature_spec {what} names the target {target!r}; choose other columns.")
            if column not in names:
                raise BadInput(f"feature_spec {what} names the column {column!r}, which is not among {known}.")
    taken = {name.casefold() for name in [*names, target]}
    for name, text in spec.derive.items():
        if name.casefold() in taken:
            raise BadInput(f"feature_spec derive: {name!r} is already a column; give the feature another name.")
        taken.add(name.casefold())
        if not columns_of(text, name):
            raise BadInput(f"Feature {name!r}: {text!r} reads no column, so it is the same for every row.")
        if target in columns_of(text, name):
            raise BadInput(f"Feature {name!r}: {text!r} reads the target {target!r}, which is unknown when predicting.")
