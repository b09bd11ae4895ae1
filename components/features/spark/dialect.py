"""Ibis expressions as Spark's SQL, where Spark means by a function what DuckDB means by it.

Ibis compiles each function to the one of that name; where the engines disagree about its result, this compiler writes
one of :mod:`components.features.spark.functions`. Which ones those are was found by running each on both engines over
odd values, as the tests do again.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

import ibis.expr.datatypes as dt
import sqlglot.expressions as sge
from ibis.backends.sql.compilers.base import NULL, SQLGlotCompiler
from ibis.backends.sql.compilers.pyspark import PySparkCompiler
from ibis.backends.sql.datatypes import PySparkType

from components.features.spark.functions import PREFIX

if TYPE_CHECKING:
    import ibis.expr.types as ir

_ZONED, _UNZONED = sge.DataType.Type.TIMESTAMPLTZ, sge.DataType.Type.TIMESTAMPNTZ

# Ibis dispatches by the names of its operations.
# ruff: noqa: N802


def sql(expression: "ir.Table") -> str:
    """Compile an Ibis expression to Spark's SQL."""
    return str(_compiler().to_sqlglot(expression.unbind()).sql(dialect=_Compiler.dialect))


@cache
def _compiler() -> "_Compiler":
    return _Compiler()


def _ours(name: str, *arguments: sge.Expression) -> sge.Expression:
    return sge.Anonymous(this=f"{PREFIX}{name}", expressions=list(arguments))


class _Types(PySparkType):
    """Ibis's types, where a time without a zone has none in Spark either."""

    @classmethod
    def _from_ibis_Timestamp(cls, dtype: dt.Timestamp) -> sge.DataType:
        return sge.DataType(this=_ZONED if dtype.timezone else _UNZONED)


class _Compiler(PySparkCompiler):
    """Ibis's compiler for Spark, with DuckDB's meaning."""

    __slots__ = ()

    type_mapper = _Types

    def visit_Field(self, op: Any, *, rel: Any, name: str) -> Any:
        """As it is: Ibis would ask an option that only its own connection to Spark declares."""
        return SQLGlotCompiler.visit_Field(self, op, rel=rel, name=name)

    def visit_NonNullLiteral(self, op: Any, *, value: Any, dtype: dt.DataType) -> Any:
        """A double is a double: Spark takes 0.1 for a decimal."""
        if dtype.is_floating():
            return self.cast(sge.convert(repr(float(value))), dt.float64)
        return super().visit_NonNullLiteral(op, value=value, dtype=dtype)

    def visit_IsNull(self, op: Any, *, arg: sge.Expression) -> Any:
        """NaN is a value."""
        return arg.is_(NULL)

    def visit_NotNull(self, op: Any, *, arg: sge.Expression) -> sge.Expression:
        """NaN is a value."""
        return sge.Not(this=sge.Paren(this=arg.is_(NULL)))

    def visit_Cast(self, op: Any, *, arg: sge.Expression, to: dt.DataType) -> Any:
        """Doubles and times as DuckDB writes them."""
        kind = op.arg.dtype
        if to.is_string() and kind.is_floating():
            return _ours("text", self.cast(arg, dt.float64))
        if to.is_string() and kind.is_timestamp():
            return _ours("shown", self.cast(arg, dt.timestamp))
        return super().visit_Cast(op, arg=self._rounded(arg, kind, to), to=to)

    def visit_TryCast(self, op: Any, *, arg: sge.Expression, to: dt.DataType) -> Any:
        """Numbers and times as DuckDB reads them."""
        if op.arg.dtype.is_string() and to.is_floating():
            return _ours("number", arg)
        if op.arg.dtype.is_string() and to.is_timestamp():
            return self.cast(_ours("moment", arg), to)
        return sge.TryCast(this=self._rounded(arg, op.arg.dtype, to), to=self.type_mapper.from_ibis(to), safe=True)

    def _rounded(self, arg: sge.Expression, kind: dt.DataType, to: dt.DataType) -> Any:
        """A double on its way to a whole number, which Spark would cut off."""
        return self.f.anon.rint(arg) if kind.is_floating() and to.is_integer() else arg

    def visit_Strip(self, op: Any, *, arg: sge.Expression) -> sge.Expression:
        """ASCII's white space."""
        return _ours("strip", arg)

    def visit_Lowercase(self, op: Any, *, arg: sge.Expression) -> sge.Expression:
        """Code point by code point."""
        return _ours("lower", arg)

    def visit_Uppercase(self, op: Any, *, arg: sge.Expression) -> sge.Expression:
        """Code point by code point."""
        return _ours("upper", arg)

    def visit_Power(self, op: Any, *, left: sge.Expression, right: sge.Expression) -> sge.Expression:
        """As C has it."""
        return _ours("power", self.cast(left, dt.float64), self.cast(right, dt.float64))

    def visit_ExtractYear(self, op: Any, *, arg: sge.Expression) -> Any:
        """The year."""
        return self._part("year", arg, op.arg.dtype)

    def visit_ExtractMonth(self, op: Any, *, arg: sge.Expression) -> Any:
        """The month."""
        return self._part("month", arg, op.arg.dtype)

    def visit_ExtractDay(self, op: Any, *, arg: sge.Expression) -> Any:
        """The day of the month."""
        return self._part("day", arg, op.arg.dtype)

    def visit_DayOfWeekIndex(self, op: Any, *, arg: sge.Expression) -> Any:
        """The day of the week, Monday being 0."""
        return self._part("weekday", arg, op.arg.dtype)

    def visit_ExtractHour(self, op: Any, *, arg: sge.Expression) -> Any:
        """The hour."""
        return self._part("hour", arg, op.arg.dtype)

    def visit_ExtractMinute(self, op: Any, *, arg: sge.Expression) -> Any:
        """The minute."""
        return self._part("minute", arg, op.arg.dtype)

    def _part(self, function: str, arg: sge.Expression, kind: dt.DataType) -> Any:
        """A part of a time; an infinite one has none."""
        part = self.f.anon[function](arg)
        if not kind.is_timestamp():
            return part
        endless = _ours("is_endless", self.cast(arg, dt.Timestamp("UTC")))
        return sge.Case(ifs=[self.if_(endless, NULL)], default=part)
