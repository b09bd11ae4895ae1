"""Exchanges as the rows of a table: one row per instance, with its inputs and its prediction."""

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from components.errors import SluicewayError
from components.features.schema import FeatureSchema, InputType
from serving.inputs import Columns
from serving.payloads.exchange import Exchange
from serving.payloads.redaction import Redaction, Unreadable
from serving.schema import BundleManifest
from serving.server import v1, v2
from serving.server.columns import Asked, Reader, Typed
from serving.server.limits import Limits

Column = NDArray[Any]

_MOST = 2**31
_LIMITS = Limits(body_bytes=_MOST, rows=_MOST, columns=_MOST, text_chars=_MOST)  # the server has refused what it does
_COMPACT = 512  # exchanges whose small arrays are put together, so that they take little memory
_TYPES: dict[InputType, str] = {
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "string": "VARCHAR",
    "timestamp": "TIMESTAMP",
}
_ABOUT = {
    "id": "VARCHAR",
    "index": "INTEGER",
    "time": "TIMESTAMP",
    "model": "VARCHAR",
    "revision": "VARCHAR",
    "protocol": "VARCHAR",
    "status": "INTEGER",
    "seconds": "DOUBLE",
}
_RAW = {"request": "BLOB", "reply": "BLOB"}


class Layout:
    """The columns of the table of one model, and how exchanges become them."""

    def __init__(self, schema: FeatureSchema, redact: Iterable[str], *, raw: bool) -> None:
        """Lay out a table.

        Args:
            schema: the model's inputs, task and classes.
            redact: input columns that stay empty.
            raw: whether the bodies are columns, too.
        """
        self.reader = Reader(schema)
        self.raw = raw
        self.redact = frozenset(redact)
        self.redaction = Redaction(self.reader, sorted(self.redact)) if self.redact else None
        # v2 asks it for nothing but the task, of which it knows the outputs; a schema has that as well.
        self._manifest = cast(BundleManifest, schema)
        self._classes = schema.classes
        self._is_regression = schema.task == "regression"
        outputs = {"value": "DOUBLE"} if self._is_regression else {"label": "VARCHAR"}
        outputs |= {f"probability_{name}": "DOUBLE" for name in schema.classes}
        self.types = _unique(outputs, set(_ABOUT) | set(_RAW), "prediction_")
        self.output_names = list(self.types)
        inputs = {column.name: _TYPES[column.type] for column in schema.inputs}
        named = _unique(inputs, {name.casefold() for name in (*_ABOUT, *_RAW, *self.types)}, "input_")
        self._inputs = dict(zip(inputs, named, strict=True))
        self._kinds = {column.name: column.type for column in schema.inputs}
        self.types = _ABOUT | named | self.types | (_RAW if raw else {})
        """The table's columns in order, with their types in SQL."""

    def inputs(self, exchange: Exchange) -> tuple[Typed | None, int]:
        """The typed inputs of an exchange and how many rows; None and one row where the request cannot be read."""
        try:
            if exchange.protocol == "v1":
                rows = v1.rows_of(exchange.request, self.reader, _LIMITS)
                asked = Asked(len(rows), rows=rows)
            else:
                head = exchange.request_header_length
                asked, _ = v2.asked(exchange.request, head, self.reader, self._manifest, _LIMITS)
            return self.reader.typed(asked) if asked.count else None, asked.count
        except SluicewayError:
            return None, 1

    def no_inputs(self) -> Typed:
        """One row without values."""
        if self.reader.is_matrix:
            return np.full((1, len(self.reader.names)), np.nan)
        empty: dict[InputType, Column] = {
            "number": np.array([np.nan]),
            "boolean": np.array([np.nan]),
            "string": np.array([None], dtype=object),
            "timestamp": np.array(["NaT"], dtype="datetime64[us]"),
        }
        return {name: empty[kind] for name, kind in self._kinds.items()}

    def input_columns(self, typed: Typed) -> Columns:
        """Typed inputs by the names of the table's columns; missing and redacted values are masked, or None."""
        columns: Columns = {}
        for place, (name, column) in enumerate(self._inputs.items()):
            values: Column = typed[:, place] if isinstance(typed, np.ndarray) else typed[name]
            if name in self.redact:
                values = np.full(len(values), None, dtype=object)
            columns[column] = np.ma.masked_invalid(values) if values.dtype.kind == "f" else values
        return columns

    def outputs(self, exchange: Exchange, rows: int) -> list[list[Any]]:
        """Per output column the values of each row; None where the reply does not tell."""
        if exchange.status != 200:
            return [[None] * rows for _ in self.output_names]
        read = self._v1_outputs if exchange.protocol == "v1" else self._v2_outputs
        try:
            columns = read(exchange)
        except (KeyError, TypeError, ValueError, IndexError):  # not as this version of the server replies
            columns = [None] * len(self.output_names)
        return [values if values is not None and len(values) == rows else [None] * rows for values in columns]

    def _v1_outputs(self, exchange: Exchange) -> list[list[Any] | None]:
        predictions = orjson.loads(exchange.reply)["predictions"]
        if self._is_regression:
            return [predictions]
        probabilities = [one["probabilities"] for one in predictions]
        return [
            [one["label"] for one in predictions],
            *([row[name] for row in probabilities] for name in self._classes),
        ]

    def _v2_outputs(self, exchange: Exchange) -> list[list[Any] | None]:
        head = exchange.reply_header_length
        told = orjson.loads(exchange.reply if head is None else exchange.reply[:head])
        at = head or 0
        tensors: dict[str, list[Any]] = {}
        for tensor in told["outputs"]:
            data = tensor.get("data")
            if data is None:
                size = tensor["parameters"]["binary_data_size"]
                data = _decoded(exchange.reply[at : at + size], tensor["datatype"])
                at += size
            tensors[tensor["name"]] = data
        if self._is_regression:
            return [tensors.get("value")]
        flat = tensors.get("probabilities")
        width = len(self._classes)
        columns = [None] * width if flat is None else [flat[place::width] for place in range(width)]
        return [tensors.get("label"), *columns]


class Table:
    """Rows of exchanges with one revision, until they are written."""

    def __init__(self, layout: Layout) -> None:
        """Begin with no rows."""
        self._layout = layout
        self._typed: list[Typed] = []
        self._loose = 0
        self._about: dict[str, list[Any]] = {name: [] for name in (*_ABOUT, *layout.output_names)}
        self._raw: dict[str, list[Any]] = {name: [] for name in _RAW}
        self.exchanges = 0
        self.rows = 0
        self.bytes = 0

    def add(self, exchange: Exchange) -> None:
        """Add an exchange's rows."""
        layout = self._layout
        self.exchanges += 1
        self.bytes += exchange.bytes
        typed, rows = layout.inputs(exchange)
        if rows == 0:
            return
        if typed is None:
            typed = layout.no_inputs()
        outputs = layout.outputs(exchange, rows)
        about = self._about
        time = np.datetime64(round(exchange.at * 1e6), "us")
        for name, value in (
            ("id", exchange.id),
            ("time", time),
            ("model", exchange.model),
            ("revision", exchange.revision),
            ("protocol", exchange.protocol),
            ("status", exchange.status),
            ("seconds", exchange.seconds),
        ):
            about[name] += [value] * rows
        about["index"] += range(rows)
        for name, values in zip(layout.output_names, outputs, strict=True):
            about[name] += values
        if layout.raw:
            request, reply = self._bodies(exchange)
            self._raw["request"] += [request, *[None] * (rows - 1)]
            self._raw["reply"] += [reply, *[None] * (rows - 1)]
        self._typed.append(typed)
        self._loose += 1
        if self._loose >= _COMPACT:
            self._typed[-self._loose :] = [Reader.joined(self._typed[-self._loose :])]
            self._loose = 0
        self.rows += rows

    def columns(self) -> dict[str, Column]:
        """The table's columns, in the order of the layout's types."""
        layout = self._layout
        made: dict[str, Column] = {}
        for name, values in self._about.items():
            made[name] = _column(values, layout.types[name])
        made |= layout.input_columns(Reader.joined(self._typed))
        if layout.raw:
            made |= {name: _column(values, "BLOB") for name, values in self._raw.items()}
        return {name: made[name] for name in layout.types}

    def _bodies(self, exchange: Exchange) -> tuple[bytes | None, bytes | None]:
        redaction = self._layout.redaction
        if redaction is None:
            return exchange.request, exchange.reply
        # What a failed request is told may quote a value.
        reply = exchange.reply if exchange.status == 200 else None
        try:
            return redaction.request(exchange)[0], reply
        except Unreadable:
            return None, reply


def _column(values: list[Any], kind: str) -> Column:
    if kind == "TIMESTAMP":
        return np.array(values, dtype="datetime64[us]")
    if kind == "INTEGER":
        return np.array(values, dtype=np.int32)
    if kind == "DOUBLE":
        return np.ma.masked_invalid(np.array([np.nan if value is None else value for value in values], dtype=float))
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _decoded(raw: bytes, datatype: str) -> list[Any]:
    if datatype == "BYTES":
        return [text.decode() for text in v2.texts_of(raw, "")]
    values: list[Any] = np.frombuffer(raw, v2.DTYPES[datatype]).tolist()
    return values


def _unique(columns: dict[str, str], taken: set[str], prefix: str) -> dict[str, str]:
    """Columns under names that differ by more than case from each other and those taken: SQL does not tell case."""
    named: dict[str, str] = {}
    used = set(taken)
    for name, kind in columns.items():
        unique = name
        while unique.casefold() in used:
            unique = prefix + unique
        used.add(unique.casefold())
        named[unique] = kind
    return named
