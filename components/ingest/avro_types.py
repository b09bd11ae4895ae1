"""Avro's types as Arrow's: records as structs, unions with null as missing values, logical types as what they say."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa

Convert = Callable[[Any], Any]

_NUMBERS = ["int", "long", "float", "double"]
"""A later one holds the values of those before it, as Avro itself has it."""

_MAX_DECIMAL = 38


@dataclass(frozen=True)
class Field:
    """A column: its Arrow type, and how fastavro's value becomes one that Arrow takes (None: as it is)."""

    name: str
    type: "pa.DataType"
    convert: Convert | None

    def value(self, given: Any) -> Any:
        """The value for Arrow."""
        return given if self.convert is None or given is None else self.convert(given)


def fields(schema: Any, name: str) -> tuple[Field, ...]:
    """The columns of a file.

    Args:
        schema: the writer's, as fastavro parsed it: names are full.
        name: of the file, for messages.

    Raises:
        BadInput: it is no record, refers to itself or has a type that no table holds.
    """
    if not isinstance(schema, Mapping) or schema.get("type") not in ("record", "error"):
        raise BadInput(f"{name}: its schema is not a record, so it has no columns; write records.")
    return _Types(name).of_record(schema)


class _Types:
    """Types by their full name, as they were met."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._named: dict[str, tuple[pa.DataType, Convert | None]] = {}
        self._open: set[str] = set()

    def of_record(self, schema: Mapping[str, Any]) -> tuple[Field, ...]:
        self._open.add(schema["name"])
        found = tuple(Field(field["name"], *self._of(field["type"])) for field in schema["fields"])
        self._open.discard(schema["name"])
        return found

    def _of(self, schema: Any) -> "tuple[pa.DataType, Convert | None]":
        import pyarrow as pa

        if isinstance(schema, list):
            return self._union(schema)
        if isinstance(schema, str):
            schema = {"type": schema}
        kind = schema["type"]
        if isinstance(kind, (list, Mapping)):
            return self._of(kind)
        if logical := self._logical(kind, schema):
            return logical
        plain = {
            "null": pa.null(),
            "boolean": pa.bool_(),
            "int": pa.int32(),
            "long": pa.int64(),
            "float": pa.float32(),
            "double": pa.float64(),
            "bytes": pa.binary(),
            "string": pa.string(),
        }
        if kind in plain:
            return plain[kind], None
        if kind == "array":
            inner, convert = self._of(schema["items"])
            return pa.list_(inner), convert and (lambda values: [_apply(convert, value) for value in values])
        if kind == "map":
            inner, convert = self._of(schema["values"])
            return pa.map_(pa.string(), inner), lambda values: [
                (key, _apply(convert, value)) for key, value in values.items()
            ]
        return self._by_name(kind, schema)

    def _by_name(self, kind: str, schema: Mapping[str, Any]) -> "tuple[pa.DataType, Convert | None]":
        import pyarrow as pa

        if kind in self._named:
            return self._named[kind]
        if kind in self._open:
            raise BadInput(f"{self._file}: the type {kind} refers to itself, which no table holds; flatten it.")
        found: tuple[pa.DataType, Convert | None]
        if kind in ("record", "error"):
            inner = self.of_record(schema)
            found = pa.struct([(field.name, field.type) for field in inner]), _struct(inner)
        elif kind == "fixed":
            found = pa.binary(), None
        elif kind == "enum":
            found = pa.string(), None
        else:
            raise BadInput(f"{self._file}: there is no Avro type {kind!r}.")
        self._named[schema["name"]] = found
        return found

    def _logical(self, kind: str, schema: Mapping[str, Any]) -> "tuple[pa.DataType, Convert | None] | None":
        import pyarrow as pa

        known = {
            "date": pa.date32(),
            "timestamp-millis": pa.timestamp("us", "UTC"),
            "timestamp-micros": pa.timestamp("us", "UTC"),
            "local-timestamp-millis": pa.timestamp("us"),
            "local-timestamp-micros": pa.timestamp("us"),
            "time-millis": pa.time64("us"),
            "time-micros": pa.time64("us"),
        }
        logical = schema.get("logicalType")
        if logical in known:
            return known[logical], None
        if logical == "uuid":
            return pa.string(), str
        if logical == "decimal":
            precision, scale = schema["precision"], schema.get("scale", 0)
            found = (pa.decimal128(precision, scale), None) if precision <= _MAX_DECIMAL else (pa.string(), str)
            if "name" in schema:  # a fixed one
                self._named[schema["name"]] = found
            return found
        return None

    def _union(self, branches: list[Any]) -> "tuple[pa.DataType, Convert | None]":
        import pyarrow as pa

        held = [branch for branch in branches if branch != "null"]
        if not held:
            return pa.null(), None
        if len(held) == 1:
            return self._of(held[0])
        if all(branch in _NUMBERS for branch in held):
            return self._of(max(held, key=_NUMBERS.index))
        for branch in held:  # names that are defined here may be used later
            self._of(branch)
        return pa.string(), _text


def _struct(inner: tuple[Field, ...]) -> Convert | None:
    if all(field.convert is None for field in inner):
        return None
    return lambda record: {field.name: field.value(record[field.name]) for field in inner}


def _apply(convert: Convert | None, value: Any) -> Any:
    return value if convert is None or value is None else convert(value)


def _text(value: Any) -> str:
    """Values of different types, in one column: texts as they are, others as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
