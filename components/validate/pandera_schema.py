"""A contract as a pandera schema, and pandera's checks as Ibis expressions over a snapshot.

pandera's own way of validating on Ibis has no row locator, runs a query for each check and brings the outcome of every
row into pandas. So its built-in checks are asked for their expressions, and all of these are counted in one scan.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from components.errors import BadInput
from components.features.functions import TRUTH, kind_of
from components.features.language import columns_of, compile_expression
from components.validate.contract import ColumnRule, Contract, Type

if TYPE_CHECKING:
    from collections.abc import Mapping

    import ibis.expr.types as ir
    import pandera.ibis as pa


@dataclass(frozen=True)
class CheckSpec:
    """One of pandera's built-in checks: its name, its arguments, and what is wrong with a value that fails it."""

    check: str
    arguments: dict[str, Any]
    reason: str


def checks(rule: ColumnRule) -> Iterator[CheckSpec]:
    """The checks that a column's rule asks for."""
    if rule.min is not None:
        yield CheckSpec("greater_than_or_equal_to", {"min_value": rule.min}, f"below {_shown(rule.min)}")
    if rule.max is not None:
        yield CheckSpec("less_than_or_equal_to", {"max_value": rule.max}, f"above {_shown(rule.max)}")
    if rule.allowed is not None:
        shown = ", ".join(str(value) for value in rule.allowed[:5]) + (", …" if len(rule.allowed) > 5 else "")
        yield CheckSpec("isin", {"allowed_values": list(rule.allowed)}, f"not one of {shown}")
    if rule.pattern is not None:
        yield CheckSpec("str_matches", {"pattern": f"^(?:{rule.pattern})$"}, f"not of the form {rule.pattern}")
    if rule.min_length is not None:
        yield CheckSpec(
            "str_length",
            {"min_value": rule.min_length, "max_value": None},
            f"shorter than {rule.min_length} characters",
        )
    if rule.max_length is not None:
        yield CheckSpec(
            "str_length", {"min_value": None, "max_value": rule.max_length}, f"longer than {rule.max_length} characters"
        )


def passes(table: "ir.Table", column: str, spec: CheckSpec) -> "ir.BooleanColumn":
    """The expression of pandera for a check, over a table whose column has the contract's type."""
    from pandera.api.ibis.types import IbisData

    check = _check(spec)
    outcome = check._check_fn(IbisData(table, column), **check._check_kwargs)
    expression: ir.BooleanColumn = outcome.op().values[column].to_expr()
    return expression


def read_by(name: str, text: str) -> tuple[str, ...]:
    """The columns that a rule over a row reads.

    Raises:
        BadInput: it is no expression.
    """
    with _of_the_rules():
        return columns_of(text, name)


def row_rule(values: "Mapping[str, ir.Value]", name: str, text: str) -> "ir.BooleanValue":
    """A rule over a row as an expression; missing where a value that it needs is.

    Raises:
        BadInput: it is no expression that is true or false.
    """
    with _of_the_rules():
        value = compile_expression(text, values, name)
    if kind_of(value) != TRUTH:
        raise BadInput(f"The data contract's rule {name!r} must be true or false for a row, and {text!r} is a value.")
    return value


def schema(contract: Contract) -> "pa.DataFrameSchema":
    """The contract as pandera has it: for a table with each column of the contract's type.

    Shares, freshness and row counts are left to us: pandera has no words for them.
    """
    import pandera.ibis as pa

    columns = {
        name: pa.Column(_dtype(rule.type), [_check(spec) for spec in checks(rule)], nullable=rule.nullable, name=name)
        for name, rule in contract.columns.items()
        if not rule.empty and rule.type != "nested"
    }
    unique = [[name] for name, rule in contract.columns.items() if rule.unique] + [list(key) for key in contract.keys]
    return pa.DataFrameSchema(
        columns,
        checks=[_row_check(name, text) for name, text in contract.rules.items()],
        unique=unique or None,  # type: ignore[arg-type]  # its own back end takes several keys
        report_duplicates="exclude_first",
        name=contract.dataset,
        ordered=False,
        strict=False,
    )


def _dtype(kind: Type) -> Any:
    import ibis.expr.datatypes as dt

    kinds = {"integer": dt.int64, "number": dt.float64, "string": dt.string, "boolean": dt.boolean}
    return kinds.get(kind, dt.Timestamp(scale=6))


@contextmanager
def _of_the_rules() -> Iterator[None]:
    """Complaints of the expression language are about features unless said otherwise."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"The data contract's rules: {str(error).removeprefix('Feature ')}") from error


def _row_check(name: str, text: str) -> Any:
    import pandera.ibis as pa

    def holds(data: Any) -> Any:
        values = {column: data.table[column] for column in read_by(name, text)}
        return row_rule(values, name, text).fill_null(True)

    return pa.Check(holds, name=name, error=text)


def _check(spec: CheckSpec) -> Any:
    import pandera.ibis as pa
    from pandera.backends.ibis.register import register_ibis_backends

    register_ibis_backends()
    return getattr(pa.Check, spec.check)(**spec.arguments)


def _shown(bound: float | datetime) -> str:
    return f"{bound:%Y-%m-%d %H:%M:%S}".removesuffix(" 00:00:00") if isinstance(bound, datetime) else f"{bound:g}"
