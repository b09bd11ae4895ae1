"""Derived features of a few rows in microseconds: the expression language compiled to plain Python.

There is one definition of the language and of its functions, written in Ibis's vocabulary
(:mod:`components.features.language`, :mod:`components.features.functions`). Run on Ibis's values it gives SQL; run on
:class:`Cell` it gives a Python function over scalars: one statement per operation, each a template of this module. Of
the user's text only constants come through, by their ``repr``. Results equal those of
:func:`components.features.expressions.derive`, which is what the tests of this module are about.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.errors import BadInput
from components.features import scalars
from components.features.encodings import encoder
from components.features.expressions import feature_of
from components.features.functions import NUMBER, TEXT, TIME, TRUTH
from components.features.schema import FeatureSchema, InputType

Columns = Mapping[str, NDArray[Any]]

_LARGEST = "1.7976931348623157e308"
_NAT = -(2**63)

FINITE, INFINITE, ANY = range(3)
"""What a number may be: finite; also infinite; also NaN. It spares the checks that cannot matter."""

_NAMES: dict[str, Any] = {
    "__builtins__": {},
    "abs": abs,
    "exp": math.exp,
    "float": float,
    "inf": math.inf,
    "len": len,
    "ln": math.log,
    "nan": math.nan,
    "range": range,
    "sqrt": math.sqrt,
    "zip": zip,
    "power": scalars.power,
    "less": scalars.less,
    "equal": scalars.equal,
    "least": scalars.least,
    "greatest": scalars.greatest,
    "number": scalars.number,
    "upper": scalars.upper,
    "lower": scalars.lower,
    "strip": scalars.strip,
    "moment": scalars.moment,
    "year": scalars.year,
    "month": scalars.month,
    "day": scalars.day,
    "weekday": scalars.weekday,
    "hour": scalars.hour,
    "minute": scalars.minute,
}
"""All that compiled code can reach."""


def compile_rows(schema: FeatureSchema) -> "Callable[[Columns], dict[str, NDArray[Any]]] | None":
    """Compile a schema's derived features.

    Args:
        schema: what the features are.

    Returns:
        A function from the input columns, typed as :func:`serving.inputs.coerce` types them (arrays of shape (n,)), to
        the feature columns in the schema's order: float64 with NaN where numeric, object with None where categorical;
        inputs that are features themselves are handed through. It raises :class:`BadInput` where a text is not valid
        Unicode. None where nothing is derived.

    Raises:
        BadInput: an expression is wrong; the message names it and the position.
    """
    derived = [feature for feature in schema.features if feature.expression]
    if not derived:
        return None
    types = {column.name: column.type for column in schema.inputs}
    program = _Program()
    read = {name: program.column(name, kind) for name, kind in types.items()}
    results: list[Cell] = [feature_of(feature, read, program) for feature in derived]
    used = program.used(results)
    inputs = [(name, _LISTED[types[name]]) for name, cell in read.items() if cell.code in used]
    run = program.function([read[name] for name, _ in inputs], results)
    whole = [(feature.name, feature.kind == "numeric", bool(feature.expression)) for feature in schema.features]
    encoders = [encoder(feature.encoding) if feature.encoding else None for feature in derived]
    is_encoded = any(encoders)
    first = schema.inputs[0].name if schema.inputs else ""

    def derive(columns: Columns) -> dict[str, NDArray[Any]]:
        rows = len(columns[first]) if first else 0
        found = run(rows, *(listed(name, columns[name]) for name, listed in inputs))
        if is_encoded:
            found = [encode(values) if encode else values for encode, values in zip(encoders, found, strict=True)]
        lists = iter(found)
        return {
            name: _array(next(lists), numeric) if is_derived else columns[name] for name, numeric, is_derived in whole
        }

    return derive


def _array(values: list[Any], numeric: bool) -> NDArray[Any]:
    if numeric:
        return np.array(values, dtype=np.float64)  # None becomes NaN
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _numbers(_: str, values: NDArray[Any]) -> list[Any]:
    numbers: list[Any] = values.tolist()
    return numbers


def _texts(name: str, values: NDArray[Any]) -> list[Any]:
    texts: list[Any] = values.tolist()
    for text in texts:
        if text is not None and not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:  # JSON can carry half of a surrogate pair
                raise BadInput(f"Column {name!r} holds text that is not valid Unicode; send UTF-8.") from error
    return texts


def _times(_: str, values: NDArray[Any]) -> list[Any]:
    times: list[Any] = values.astype("datetime64[us]").astype(np.int64).tolist()
    return times


_LISTED: dict[InputType, Callable[[str, NDArray[Any]], list[Any]]] = {
    "number": _numbers,
    "boolean": _numbers,
    "string": _texts,
    "timestamp": _times,
}

_READ: dict[InputType, tuple[str, str]] = {
    "number": (NUMBER, f"{{0}} if -{_LARGEST} <= {{0}} <= {_LARGEST} else None"),
    "boolean": (TRUTH, "None if {0} != {0} else {0} != 0.0"),
    "string": (TEXT, "{0}"),
    "timestamp": (TIME, f"None if {{0}} == {_NAT} else {{0}}"),
}
"""By type of input: the kind of its cell, and the cell's value from what the typed column holds."""


@dataclass(frozen=True)
class _Type:
    """What :func:`components.features.functions.kind_of` asks of a type."""

    kind: str

    def is_boolean(self) -> bool:
        return self.kind == TRUTH

    def is_numeric(self) -> bool:
        return self.kind == NUMBER

    is_floating = is_numeric

    def is_string(self) -> bool:
        return self.kind == TEXT

    def is_timestamp(self) -> bool:
        return self.kind == TIME

    def is_date(self) -> bool:
        return False


class _Program:
    """The statements of one function, each of which sets a variable from earlier ones; equal ones are made once.

    It also stands in for the module ``ibis``, as the maker of constants and of functions of many values.
    """

    def __init__(self) -> None:
        self._texts: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._known: dict[str, str] = {}

    def column(self, name: str, kind: InputType) -> "Cell":
        """An input column."""
        raw = f"c{len(self._texts)}"
        kind_, template = _READ[kind]
        self._texts[f"v{len(self._texts)}"] = (template.format(raw), (raw,))
        return Cell(self, f"v{len(self._texts) - 1}", kind_, missing=True)

    def literal(self, value: Any) -> "Cell":
        """A constant."""
        if isinstance(value, bool):
            return Cell(self, repr(value), TRUTH, constant=True)
        if isinstance(value, str):
            return Cell(self, repr(value), TEXT, constant=True)
        number = float(value)
        level = FINITE if math.isfinite(number) else INFINITE if number == number else ANY
        return Cell(self, repr(number), NUMBER, level=level, constant=True)

    def null(self, kind: str = "float64") -> "Cell":
        """The missing number that the language calls None."""
        return Cell(self, "None", NUMBER, constant=True, missing=True, literal_null=True)

    def coalesce(self, *values: "Cell") -> "Cell":
        """The first value that is not missing."""
        text = values[-1].code
        for value in reversed(values[:-1]):
            text = f"{value.code} if {value.code} is not None else {text}" if value.missing else value.code
        missing = all(value.missing for value in values)
        return self.make(text, values, values[0].kind, missing, max(value.level for value in values))

    def least(self, *values: "Cell") -> "Cell":
        """The least of the values that are not missing."""
        return self._extreme("least", "<=", values)

    def greatest(self, *values: "Cell") -> "Cell":
        """The greatest of the values that are not missing."""
        return self._extreme("greatest", ">=", values)

    def _extreme(self, function: str, order: str, values: "tuple[Cell, ...]") -> "Cell":
        result = values[0]
        for value in values[1:]:
            one, other = result.code, value.code
            level = max(result.level, value.level)
            text = f"{function}({one}, {other})" if level == ANY else f"{one} if {one} {order} {other} else {other}"
            if value.missing:
                text = f"{one} if {other} is None else {text}"
            if result.missing:
                text = f"{other} if {one} is None else {text}"
            result = self.make(text, (result, value), result.kind, result.missing and value.missing, level)
        return result

    def make(self, text: str, reads: "Sequence[Cell]", kind: str, missing: bool, level: int = FINITE) -> "Cell":
        """A statement's result; what reads constants alone is computed at once."""
        if all(cell.constant for cell in reads):
            return self._folded(text, kind)
        code = self._known.get(text)
        if code is None:
            code = self._known[text] = f"v{len(self._texts)}"
            self._texts[code] = (text, tuple(cell.code for cell in reads if not cell.constant))
        return Cell(self, code, kind, missing=missing, level=level)

    def _folded(self, text: str, kind: str) -> "Cell":
        value = _evaluated(text, "eval")
        if value is None:
            return Cell(self, "None", kind, constant=True, missing=True)
        if kind == TIME:
            return Cell(self, repr(value), TIME, constant=True)
        return self.literal(value)

    def used(self, results: "Sequence[Cell]") -> set[str]:
        """The variables that the results depend on."""
        found: set[str] = set()
        waiting = [cell.code for cell in results]
        while waiting:
            code = waiting.pop()
            if code not in found:
                found.add(code)
                waiting += self._texts.get(code, ("", ()))[1]
        return found

    def function(self, columns: "Sequence[Cell]", results: "Sequence[Cell]") -> Callable[..., Sequence[list[Any]]]:
        """Compile: takes the number of rows and a list per column; returns a list per result."""
        needed = self.used(results)
        raw = [self._texts[cell.code][1][0] for cell in columns]
        lists = "".join(f", {name}s" for name in raw)
        lines = [f"def rows(n{lists}):"]
        lines += [f"    r{place} = []; a{place} = r{place}.append" for place in range(len(results))]
        lines.append(f"    for {', '.join(['_', *raw])}, in zip(range(n){lists}):")
        lines += [f"        {code} = {text}" for code, (text, _) in self._texts.items() if code in needed]
        lines += [f"        a{place}({cell.code})" for place, cell in enumerate(results)]
        lines.append(f"    return ({''.join(f'r{place}, ' for place in range(len(results)))})")
        rows: Callable[..., Sequence[list[Any]]] = _evaluated("\n".join(lines), "exec")["rows"]
        return rows


def _evaluated(source: str, mode: str) -> Any:
    """Run text of this module's templates: the value of an expression, or the names that statements define."""
    names = dict(_NAMES)
    if mode == "eval":
        return eval(compile(source, "<feature>", "eval"), names)  # noqa: S307  # templates and repr of constants
    exec(compile(source, "<features>", "exec"), names)  # noqa: S102  # as above
    return names


@dataclass(frozen=True, eq=False)
class Cell:
    """A value of one row, as a variable or a constant of a program; speaks as an Ibis value as far as is needed.

    Attributes:
        engine: the program it belongs to.
        code: the variable's name, or the constant.
        kind: which of the language's four kinds it is.
        missing: whether it may be None.
        level: what a number may be.
        constant: whether ``code`` is a constant.
        literal_null: whether it is a written None; comparing with it asks whether the other is missing.
        proves: the cell that is finite if this condition holds.
    """

    engine: _Program
    code: str
    kind: str
    missing: bool = False
    level: int = FINITE
    constant: bool = False
    literal_null: bool = False
    proves: "Cell | None" = None

    __hash__ = None  # type: ignore[assignment]  # == makes a cell

    def type(self) -> _Type:
        """The type, by kind."""
        return _Type(self.kind)

    def _cell(self, value: Any) -> "Cell":
        if isinstance(value, Cell):
            return value
        if value is None:
            return Cell(self.engine, "None", self.kind, constant=True, missing=True)
        return self.engine.literal(value)

    def _make(
        self, template: str, *others: "Cell", kind: str = NUMBER, level: int = FINITE, fails: bool = False
    ) -> "Cell":
        """Fill in a template; the result is missing where a value is, or where the template ``fails``."""
        cells = (self, *others)
        text = template.format(*(cell.code for cell in cells))
        absent = dict.fromkeys(f"{cell.code} is None" for cell in cells if cell.missing)
        if absent:
            text = f"None if {' or '.join(absent)} else {text}"
        return self.engine.make(text, cells, kind, fails or bool(absent), level)

    def __add__(self, other: Any) -> "Cell":
        other = self._cell(other)
        return self._make("{0} + {1}", other, kind=self.kind, level=self._sum_level(other))

    def __sub__(self, other: Any) -> "Cell":
        other = self._cell(other)
        return self._make("{0} - {1}", other, level=self._sum_level(other))

    def __mul__(self, other: Any) -> "Cell":
        other = self._cell(other)
        return self._make("{0} * {1}", other, level=self._sum_level(other))

    def _sum_level(self, other: "Cell") -> int:
        return INFINITE if self.level == other.level == FINITE else ANY

    def __truediv__(self, other: Any) -> "Cell":
        other = self._cell(other)  # never zero: `functions.divide` sees to it, and a power of ten is none
        return self._make("{0} / {1}", other, level=self._sum_level(other))

    def __pow__(self, other: Any) -> "Cell":
        return self._make("power({0}, {1})", self._cell(other), level=ANY)

    def __neg__(self) -> "Cell":
        return self._make("-{0}", level=self.level)

    def __invert__(self) -> "Cell":
        return self._make("not {0}", kind=TRUTH)

    def __and__(self, other: "Cell") -> "Cell":
        return self._logical(other, "and", "False")

    def __or__(self, other: "Cell") -> "Cell":
        return self._logical(other, "or", "True")

    def _logical(self, other: "Cell", word: str, decisive: str) -> "Cell":
        """Kleene's logic: one decisive value decides, whatever the other one is."""
        one, two = self.code, other.code
        text = f"{one} {word} {two}"
        if self.missing or other.missing:
            undecided = " or ".join(f"{cell.code} is None" for cell in (self, other) if cell.missing)
            decided = " or ".join(f"{code} is {decisive}" for code in (one, two))
            text = f"{decisive} if {decided} else None if {undecided} else {text}"
        return self.engine.make(text, (self, other), TRUTH, self.missing or other.missing)

    def __eq__(self, other: object) -> "Cell":  # type: ignore[override]
        two = self._cell(other)
        if two.literal_null:
            return self.isnull()
        if self.literal_null:
            return two.isnull()
        return self._make("equal({0}, {1})" if self._odd(two) else "{0} == {1}", two, kind=TRUTH)

    def __ne__(self, other: object) -> "Cell":  # type: ignore[override]
        return ~(self == other)

    def __lt__(self, other: Any) -> "Cell":
        two = self._cell(other)
        return self._make("less({0}, {1})" if self._odd(two) else "{0} < {1}", two, kind=TRUTH)

    def __gt__(self, other: Any) -> "Cell":
        two = self._cell(other)
        return self._make("less({1}, {0})" if self._odd(two) else "{0} > {1}", two, kind=TRUTH)

    def __le__(self, other: Any) -> "Cell":
        return ~self.__gt__(other)  # the order is total

    def __ge__(self, other: Any) -> "Cell":
        return ~self.__lt__(other)

    def _odd(self, other: "Cell") -> bool:
        return ANY in (self.level, other.level)

    def between(self, low: float, high: float) -> "Cell":
        """Whether it is within the bounds, which are those of the finite doubles."""
        inside = f"{low!r} <= {{0}} <= {high!r}"
        found = ~self.isnull() if self.level == FINITE else self._make(inside, kind=TRUTH)
        return Cell(self.engine, found.code, TRUTH, found.missing, constant=found.constant, proves=self)

    def ifelse(self, value: Any, other: Any) -> "Cell":
        """One value where this condition holds, the other where it does not or is missing."""
        one, two = self._cell(value), self._cell(other)
        kind, level = (two.kind, two.level) if value is None else (one.kind, max(one.level, two.level))
        if self.proves is value and other is None:
            if one.level == FINITE:
                return replace(one, literal_null=False)
            level = FINITE
        if self.constant:
            chosen = one if self.code == "True" else two
            return Cell(self.engine, chosen.code, kind, chosen.missing, chosen.level, chosen.constant)
        text = f"{one.code} if {self.code} else {two.code}"
        return self.engine.make(text, (self, one, two), kind, one.missing or two.missing, level)

    def fill_null(self, value: Any) -> "Cell":
        """This value, or another one where it is missing."""
        return self.engine.coalesce(self, self._cell(value))

    def coalesce(self, *others: "Cell") -> "Cell":
        """The first value that is not missing."""
        return self.engine.coalesce(self, *others)

    def nullif(self, other: Any) -> "Cell":
        """Missing where it equals the other value."""
        two = self._cell(other)
        same = f"equal({self.code}, {two.code})" if self._odd(two) else f"{self.code} == {two.code}"
        text = f"None if {same} else {self.code}"  # nothing but None equals None, and None is what remains
        return self.engine.make(text, (self, two), self.kind, True, self.level)

    def isnull(self) -> "Cell":
        """Whether it is missing."""
        if not self.missing:
            return self.engine.literal(False)
        return self.engine.make(f"{self.code} is None", (self,), TRUTH, False)

    def cast(self, target: str) -> "Cell":
        """A truth value or a constant text as a double; what is of the kind already stays."""
        if target == "float64" and self.kind == TRUTH:
            return self._make("1.0 if {0} else 0.0")
        if target == "float64" and self.kind == TEXT:
            return self._make("float({0})", level=INFINITE)
        return self

    def try_cast(self, target: str) -> "Cell":
        """A text as a double or a time, missing where it is none."""
        if target == "float64":
            return self._make("number({0})", fails=True)
        return self._make("moment({0})", kind=TIME, fails=True)

    def abs(self) -> "Cell":
        """The absolute value."""
        return self._make("abs({0})", level=self.level)

    def floor(self) -> "Cell":
        """The next lower whole number of a finite one."""
        return self._make("{0} // 1.0", level=self.level)

    def ln(self) -> "Cell":
        """The logarithm of a positive number."""
        return self._make("ln({0})", level=self.level)

    def exp(self) -> "Cell":
        """The exponential of a number below 709."""
        return self._make("exp({0})", level=self.level)

    def sqrt(self) -> "Cell":
        """The square root of a number that is not negative."""
        return self._make("sqrt({0})", level=self.level)

    def clip(self, low: float, high: float) -> "Cell":
        """The number, moved into bounds; NaN is the greatest."""
        bounded = self.engine.least(self.engine.literal(high), self)
        return self.isnull().ifelse(None, self.engine.greatest(self.engine.literal(low), bounded))

    def length(self) -> "Cell":
        """The number of code points."""
        return self._make("float(len({0}))")

    def lower(self) -> "Cell":
        """Small letters."""
        return self._make("lower({0})", kind=TEXT)

    def upper(self) -> "Cell":
        """Capital letters."""
        return self._make("upper({0})", kind=TEXT)

    def strip(self) -> "Cell":
        """The text without white space around it."""
        return self._make("strip({0})", kind=TEXT)

    def contains(self, other: "Cell") -> "Cell":
        """Whether the other text is part of this one."""
        return self._make("{1} in {0}", other, kind=TRUTH)

    def startswith(self, other: "Cell") -> "Cell":
        """Whether this text starts with the other one."""
        return self._make("{0}.startswith({1})", other, kind=TRUTH)

    def endswith(self, other: "Cell") -> "Cell":
        """Whether this text ends with the other one."""
        return self._make("{0}.endswith({1})", other, kind=TRUTH)

    def year(self) -> "Cell":
        """The year of a time."""
        return self._make("year({0})", fails=True)

    def month(self) -> "Cell":
        """The month of a time."""
        return self._make("month({0})", fails=True)

    def day(self) -> "Cell":
        """The day of a time."""
        return self._make("day({0})", fails=True)

    def hour(self) -> "Cell":
        """The hour of a time."""
        return self._make("hour({0})", fails=True)

    def minute(self) -> "Cell":
        """The minute of a time."""
        return self._make("minute({0})", fails=True)

    @property
    def day_of_week(self) -> "Cell":
        """As in Ibis: what has the index of the day of the week."""
        return self

    def index(self) -> "Cell":
        """The day of the week of a time, Monday being 0."""
        return self._make("weekday({0})", fails=True)
