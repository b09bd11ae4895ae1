"""Contracts from and to pandera's own YAML."""

from typing import Any

from components.errors import BadInput
from components.validate.contract import ColumnRule, Contract, Type
from components.validate.pandera_schema import schema

_FIELDS = {
    "greater_than_or_equal_to": {"min_value": "min"},
    "less_than_or_equal_to": {"max_value": "max"},
    "in_range": {"min_value": "min", "max_value": "max"},
    "isin": {"allowed_values": "allowed"},
    "str_matches": {"pattern": "pattern"},
    "str_length": {"min_value": "min_length", "max_value": "max_length"},
}
"""Which of pandera's checks are which of our words; the others are for a rule over the row."""


def write(contract: Contract) -> str:
    """The contract as pandera's YAML; what pandera's YAML has no words for is in comments."""
    import warnings

    from pandera.io.ibis_io import to_yaml

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that rules over rows are left out: the comments say it
        text: str = to_yaml(schema(contract))
    text = text.replace("dtype: timestamp(6)\n", "dtype: null\n")
    left = [f"rule {name}: {rule}" for name, rule in contract.rules.items()]
    words = ("max_age", "max_ahead", "max_missing", "max_share")
    # pandera reads no dtype of a timestamp that fits the columns of DuckDB.
    left += [f"{name}: type timestamp" for name, rule in contract.columns.items() if rule.type == "timestamp"]
    left += [
        f"{name}: {word} {getattr(rule, word)}"
        for name, rule in contract.columns.items()
        for word in words
        if getattr(rule, word) is not None
    ]
    return "".join(f"# Not in pandera's YAML: {line}\n" for line in left) + text


def read(text: str, dataset: str, where: str) -> Contract:
    """A contract of pandera's YAML.

    Raises:
        BadInput: it has checks that a contract has no words for, or is no schema.
    """
    from pandera.errors import SchemaDefinitionError
    from pandera.io.ibis_io import from_yaml

    try:
        found = from_yaml(text)
        columns = {name: _rule(name, column, where) for name, column in found.columns.items()}
    except (SchemaDefinitionError, TypeError, KeyError, AttributeError, ValueError) as error:
        raise BadInput(f"{where} cannot be read as a pandera schema: {error}") from error
    if found.checks:
        raise BadInput(f"{where} has checks of the whole table; write them as rules of a contract.")
    keys = found.unique or []
    keys = [keys] if keys and isinstance(keys[0], str) else keys
    return Contract(dataset=dataset, keys=tuple(tuple(key) for key in keys), columns=columns)


def _rule(name: str, column: Any, where: str) -> ColumnRule:
    if column.dtype is None:
        raise BadInput(f"{where}: {name} has no dtype; give it one, such as int64, float64, string, bool or datetime.")
    fields: dict[str, Any] = {"type": _type(column), "nullable": column.nullable, "unique": bool(column.unique)}
    for check in column.checks:
        words = _FIELDS.get(check.name)
        if words is None:
            raise BadInput(f"{where}: {name} has the check {check.name}; write it as a rule of a contract.")
        fields |= {word: check.statistics[key] for key, word in words.items() if check.statistics.get(key) is not None}
    return ColumnRule(**fields)


def _type(column: Any) -> Type:
    kind = str(column.dtype).lower()
    for start, meant in (("int", "integer"), ("uint", "integer"), ("float", "number"), ("decimal", "number")):
        if kind.startswith(start):
            return meant  # type: ignore[return-value]  # one of Type
    if kind.startswith(("timestamp", "date")):
        return "timestamp"
    return "boolean" if kind.startswith("bool") else "string"
