"""The functions of the expression language, in the vocabulary of Ibis.

They run on Ibis's values, and on whatever speaks alike: :mod:`components.features.rowwise` makes Python of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from components.features.parsing import finite, floor, number

if TYPE_CHECKING:
    import ibis.expr.types as ir

NUMBER, TEXT, TRUTH, TIME = "a number", "a text", "true or false", "a time"
_ANY = (NUMBER, TEXT, TRUTH, TIME)
_MANY = 20
_MOST_DIGITS = 15


def kind_of(value: "ir.Value") -> str | None:
    """Which of the language's four kinds a value is."""
    kind = value.type()
    if kind.is_boolean():
        return TRUTH
    if kind.is_numeric():
        return NUMBER
    if kind.is_string():
        return TEXT
    return TIME if kind.is_timestamp() or kind.is_date() else None


class Engine(Protocol):
    """What the module ``ibis`` offers beside methods of values."""

    def literal(self, value: Any) -> Any:
        """A constant."""

    def null(self, kind: str) -> Any:
        """The missing value of a type."""

    def least(self, *values: Any) -> Any:
        """The least of the values that are not missing."""

    def greatest(self, *values: Any) -> Any:
        """The greatest of the values that are not missing."""


def ibis_engine() -> Engine:
    """Ibis, imported where it is needed: it takes longer than a prediction."""
    import ibis

    return cast(Engine, ibis)


def engine_of(value: "ir.Value") -> Engine:
    """What a value belongs to: Ibis, unless it says otherwise."""
    engine: Engine | None = getattr(value, "engine", None)
    return engine or ibis_engine()


@dataclass(frozen=True)
class Function:
    """A function: what it does, the kinds of its arguments (the last one repeats), and how many it takes."""

    apply: "Callable[..., ir.Value]"
    kinds: tuple[tuple[str, ...], ...]
    least: int
    most: int
    alike: bool = False

    def kind(self, index: int) -> tuple[str, ...]:
        """The kinds that the argument at this place may have."""
        return self.kinds[min(index, len(self.kinds) - 1)]


def negate(value: "ir.Value") -> "ir.Value":
    """Not true; as a comparison, since Ibis writes ``NOT (x) IS NULL`` and ``NOT (x) < y``: SQL negates those whole."""
    result: ir.Value = value == engine_of(value).literal(False)
    return result


def divide(left: "ir.Value", right: "ir.Value") -> "ir.Value":
    """A quotient; missing when the divisor is zero."""
    return left / right.nullif(0.0)


def modulo(left: "ir.Value", right: "ir.Value") -> "ir.Value":
    """The remainder with the divisor's sign, as in Python; missing when the divisor is zero."""
    return left - right * floor(divide(left, right))


def _where(condition: "ir.Value", value: "ir.Value") -> "ir.Value":
    return condition.ifelse(value, None)


def _log(value: "ir.Value") -> "ir.Value":
    return _where(value > 0, value).ln()


def _round(value: "ir.Value", *digits: "ir.Value") -> "ir.Value":
    """Half away from zero, done by scaling, so that it is the same on every engine."""
    if not digits:
        return _half_away(value)
    scale = _ten_to(digits[0])
    return _half_away(value * scale) / scale


def _half_away(value: "ir.Value") -> "ir.Value":
    return (value < 0).ifelse(_ceil(value - 0.5), floor(value + 0.5))


def _ceil(value: "ir.Value") -> "ir.Value":
    return -floor(-value)


def _ten_to(digits: "ir.Value") -> "ir.Value":
    return engine_of(digits).literal(10.0) ** digits.clip(-_MOST_DIGITS, _MOST_DIGITS)


def _clip(value: "ir.Value", low: "ir.Value", high: "ir.Value") -> "ir.Value":
    engine = engine_of(value)
    return value.isnull().ifelse(None, engine.least(engine.greatest(value, low), high))


def _least(*values: "ir.Value") -> "ir.Value":
    return _present(values, "least")


def _greatest(*values: "ir.Value") -> "ir.Value":
    return _present(values, "greatest")


def _present(values: "tuple[ir.Value, ...]", function: str) -> "ir.Value":
    """Missing as soon as one value is (engines differ there)."""
    missing = values[0].isnull()
    for value in values[1:]:
        missing = missing | value.isnull()
    return missing.ifelse(None, getattr(engine_of(values[0]), function)(*values))


def _coalesce(*values: "ir.Value") -> "ir.Value":
    return values[0].coalesce(*values[1:])


def _double(value: "ir.Value") -> "ir.Value":
    return value.cast("float64")


def _one(apply: "Callable[..., ir.Value]", kind: str) -> Function:
    return Function(apply, ((kind,),), 1, 1)


def _two_texts(apply: "Callable[..., ir.Value]") -> Function:
    return Function(apply, ((TEXT,),), 2, 2)


FUNCTIONS: dict[str, Function] = {
    "log": _one(_log, NUMBER),
    "log1p": _one(lambda x: _log(x + 1.0), NUMBER),
    "exp": _one(lambda x: _where(x < 709.0, x).exp(), NUMBER),
    "sqrt": _one(lambda x: _where(x >= 0, x).sqrt(), NUMBER),
    "abs": _one(lambda x: x.abs(), NUMBER),
    "floor": _one(floor, NUMBER),
    "ceil": _one(_ceil, NUMBER),
    "round": Function(_round, ((NUMBER,),), 1, 2),
    "clip": Function(_clip, ((NUMBER,),), 3, 3),
    "min": Function(_least, ((NUMBER,),), 2, _MANY),
    "max": Function(_greatest, ((NUMBER,),), 2, _MANY),
    "coalesce": Function(_coalesce, (_ANY,), 2, _MANY, alike=True),
    "nullif": Function(lambda x, y: x.nullif(y), (_ANY,), 2, 2, alike=True),
    "is_missing": Function(lambda x: x.isnull(), (_ANY,), 1, 1),
    "number": Function(number, ((TEXT, NUMBER),), 1, 1),
    "length": _one(lambda x: _double(x.length()), TEXT),
    "lower": _one(lambda x: x.lower(), TEXT),
    "upper": _one(lambda x: x.upper(), TEXT),
    "strip": _one(lambda x: x.strip(), TEXT),
    "contains": _two_texts(lambda x, y: x.contains(y)),
    "startswith": _two_texts(lambda x, y: x.startswith(y)),
    "endswith": _two_texts(lambda x, y: x.endswith(y)),
    "year": _one(lambda x: _double(x.year()), TIME),
    "month": _one(lambda x: _double(x.month()), TIME),
    "day": _one(lambda x: _double(x.day()), TIME),
    "weekday": _one(lambda x: _double(x.day_of_week.index()), TIME),
    "hour": _one(lambda x: _double(x.hour()), TIME),
    "minute": _one(lambda x: _double(x.minute()), TIME),
}


def settled(value: "ir.Value") -> "ir.Value":
    """What a feature's column holds: a finite double, or a text."""
    kind = kind_of(value)
    if kind == TEXT:
        return value
    return value.cast("float64") if kind == TRUTH else finite(value.cast("float64"))
