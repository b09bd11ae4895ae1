"""The small language of row-wise features: a text such as ``log1p(balance) / age`` becomes an Ibis expression.

The text is parsed by Python's own parser and walked over a whitelist; nothing of it is ever executed as Python.
Numbers are doubles. Where arithmetic has no finite result (a division by zero, the logarithm of a negative number)
the value is missing, and missing values pass through everything but ``coalesce``, ``is_missing`` and conditions.
"""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from components.errors import BadInput
from components.features import functions
from components.features.functions import FUNCTIONS, NUMBER, TEXT, TIME, TRUTH, Engine, Function, kind_of
from components.features.parsing import floor

if TYPE_CHECKING:
    import ibis.expr.types as ir

LONGEST = 2000

_Arithmetic = Callable[["ir.Value", "ir.Value"], "ir.Value"]

_ARITHMETIC: dict[type[ast.operator], _Arithmetic] = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: lambda left, right: left * right,
    ast.Div: functions.divide,
    ast.FloorDiv: lambda left, right: floor(functions.divide(left, right)),
    ast.Mod: functions.modulo,
    ast.Pow: lambda left, right: left**right,
}

_COMPARISONS: dict[type[ast.cmpop], _Arithmetic] = {
    ast.Eq: lambda left, right: left == right,
    ast.NotEq: lambda left, right: left != right,
    ast.Lt: lambda left, right: left < right,
    ast.LtE: lambda left, right: left <= right,
    ast.Gt: lambda left, right: left > right,
    ast.GtE: lambda left, right: left >= right,
}


def columns_of(text: str, name: str) -> tuple[str, ...]:
    """The columns that an expression reads, in order of appearance.

    Args:
        text: the expression.
        name: the feature's name, for messages.

    Raises:
        BadInput: the text is no expression.
    """
    found: list[str] = []
    for node in ast.walk(_parsed(text, name)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "col":
            found += [argument.value for argument in node.args if _is_text(argument)]  # type: ignore[attr-defined]  # _is_text
        elif isinstance(node, ast.Name) and node.id not in FUNCTIONS and node.id != "col":
            found.append(node.id)
    return tuple(dict.fromkeys(found))


def compile_expression(
    text: str, columns: "Mapping[str, ir.Value]", name: str, engine: "Engine | None" = None
) -> "ir.Value":
    """Turn an expression into Ibis over parsed columns (doubles, texts, truth values, timestamps).

    Args:
        text: the expression.
        columns: what names stand for.
        name: the feature's name, for messages.
        engine: what makes constants; Ibis unless the columns are values of another engine.

    Raises:
        BadInput: the expression is wrong; the message names it and the position.
    """
    return _Compiler(text, columns, name, engine or functions.ibis_engine()).value(_parsed(text, name))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _parsed(text: str, name: str) -> ast.expr:
    if len(text) > LONGEST:
        raise BadInput(f"Feature {name!r}: the expression is longer than {LONGEST:,} characters; split it up.")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise BadInput(f"Feature {name!r}: {text!r}, position {error.offset or 1}: {error.msg}.") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise BadInput(f"Feature {name!r}: {text[:80]!r} cannot be read as an expression.") from error


@dataclass(frozen=True)
class _Compiler:
    """Walks one expression; every node that is not on the list is refused."""

    text: str
    columns: "Mapping[str, ir.Value]"
    name: str
    engine: Engine

    def value(self, node: ast.expr) -> "ir.Value":
        """Dispatch on the kind of node."""
        handlers: dict[type[ast.expr], Callable[[Any], ir.Value]] = {
            ast.Constant: self._constant,
            ast.Name: self._column,
            ast.UnaryOp: self._unary,
            ast.BinOp: self._binary,
            ast.BoolOp: self._logical,
            ast.Compare: self._comparison,
            ast.IfExp: self._choice,
            ast.Call: self._call,
        }
        handler = handlers.get(type(node))
        if handler is None:
            self._refuse(node, f"{type(node).__name__} is not part of the expression language")
        return handler(node)

    def _refuse(self, node: ast.expr, why: str) -> NoReturn:
        raise BadInput(f"Feature {self.name!r}: {self.text!r}, position {node.col_offset + 1}: {why}.")

    def _of_kind(self, node: ast.expr, *kinds: str) -> "ir.Value":
        value = self.value(node)
        kind = kind_of(value)
        if kind in kinds or kind is None:
            return value
        if kind == TRUTH and NUMBER in kinds:
            return value.cast("float64")
        self._refuse(node, f"this must be {' or '.join(kinds)}, not {kind}")

    def _constant(self, node: ast.Constant) -> "ir.Value":
        value = node.value
        if value is None:
            return self.engine.null("float64")
        if isinstance(value, bool | str):
            return self.engine.literal(value)
        if isinstance(value, int | float):
            try:
                # As a cast text, since DuckDB takes 0.1 for a decimal: 0.1 + 0.2 would be 0.3, which no double sum is.
                return self.engine.literal(repr(float(value))).cast("float64")
            except OverflowError:
                self._refuse(node, "the number is too large")
        self._refuse(node, f"{value!r} is neither a number, a text, True, False nor None")

    def _column(self, node: ast.Name) -> "ir.Value":
        return self._named(node, node.id)

    def _named(self, node: ast.expr, name: str) -> "ir.Value":
        if name in self.columns:
            return self.columns[name]
        shown = ", ".join(list(self.columns)[:30])
        self._refuse(node, f'there is no column {name!r} (columns with spaces are col("…")); the columns are {shown}')

    def _unary(self, node: ast.UnaryOp) -> "ir.Value":
        if isinstance(node.op, ast.Not):
            return functions.negate(self._of_kind(node.operand, TRUTH))
        if isinstance(node.op, ast.USub):
            return -self._of_kind(node.operand, NUMBER)
        if isinstance(node.op, ast.UAdd):
            return self._of_kind(node.operand, NUMBER)
        self._refuse(node, "this sign is not part of the expression language")

    def _binary(self, node: ast.BinOp) -> "ir.Value":
        operation = _ARITHMETIC.get(type(node.op))
        if operation is None:
            self._refuse(node, "the operators are + - * / // % and **")
        if isinstance(node.op, ast.Add):
            left, right = self._of_kind(node.left, NUMBER, TEXT), self._of_kind(node.right, NUMBER, TEXT)
            if kind_of(left) != kind_of(right):
                self._refuse(node, "a text and a number cannot be added")
            return left + right
        return operation(self._of_kind(node.left, NUMBER), self._of_kind(node.right, NUMBER))

    def _logical(self, node: ast.BoolOp) -> "ir.Value":
        result = self._of_kind(node.values[0], TRUTH)
        for part in node.values[1:]:
            other = self._of_kind(part, TRUTH)
            result = (result & other) if isinstance(node.op, ast.And) else (result | other)
        return result

    def _comparison(self, node: ast.Compare) -> "ir.Value":
        result: ir.Value | None = None
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            one = self._compared(node, left, operator, right)
            result = one if result is None else result & one
            left = right
        assert result is not None
        return result

    def _compared(self, node: ast.Compare, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> "ir.Value":
        if isinstance(operator, ast.In | ast.NotIn):
            if not isinstance(right, ast.Tuple | ast.List) or not right.elts:
                self._refuse(right, '"in" needs a list, as in plan in ("a", "b")')
            found = self._equal_to_one(node, left, right.elts)
            return found if isinstance(operator, ast.In) else functions.negate(found)
        compare = _COMPARISONS.get(type(operator))
        if compare is None:
            self._refuse(node, "the comparisons are == != < <= > >= and in")
        return compare(*self._alike(node, left, right))

    def _equal_to_one(self, node: ast.Compare, left: ast.expr, choices: list[ast.expr]) -> "ir.Value":
        result: ir.Value | None = None
        for choice in choices:
            one, other = self._alike(node, left, choice)
            result = (one == other) if result is None else result | (one == other)
        return result

    def _alike(self, node: ast.expr, left: ast.expr, right: ast.expr) -> "tuple[ir.Value, ir.Value]":
        one, other = self.value(left), self.value(right)
        kinds = {kind_of(one), kind_of(other)}
        if kinds == {NUMBER, TRUTH}:
            return one.cast("float64"), other.cast("float64")
        if kinds == {TIME, TEXT}:  # a moment compared with a written one
            return self._moment(left, one), self._moment(right, other)
        if len(kinds) > 1:
            self._refuse(node, f"{' and '.join(sorted(str(kind) for kind in kinds))} cannot be compared")
        return one, other

    def _moment(self, node: ast.expr, value: "ir.Value") -> "ir.Value":
        from components.features import parsing

        return parsing.timestamp(value)

    def _choice(self, node: ast.IfExp) -> "ir.Value":
        condition = self._of_kind(node.test, TRUTH)
        one, other = self._alike(node, node.body, node.orelse)
        return condition.fill_null(False).ifelse(one, other)

    def _call(self, node: ast.Call) -> "ir.Value":
        if not isinstance(node.func, ast.Name) or node.keywords:
            self._refuse(node, "functions are called by name, as in log(x), with plain arguments")
        called = node.func.id
        if called == "col":
            if len(node.args) != 1 or not _is_text(node.args[0]):
                self._refuse(node, 'col takes one quoted column name, as in col("Total Charges")')
            return self._named(node, node.args[0].value)  # type: ignore[attr-defined]  # _is_text
        function = FUNCTIONS.get(called)
        if function is None:
            self._refuse(
                node, f"there is no function {called!r}; the functions are {', '.join(sorted(FUNCTIONS))}, col"
            )
        return self._applied(node, called, function)

    def _applied(self, node: ast.Call, called: str, function: Function) -> "ir.Value":
        if not function.least <= len(node.args) <= function.most:
            count = str(function.least) if function.least == function.most else f"{function.least} or more"
            self._refuse(node, f"{called} takes {count} argument{'' if count == '1' else 's'}, not {len(node.args)}")
        values = [self._of_kind(argument, *function.kind(index)) for index, argument in enumerate(node.args)]
        kinds = {kind_of(value) for value in values}
        if function.alike and len(kinds) > 1:
            self._refuse(
                node, f"the arguments of {called} must be of one kind, not {' and '.join(sorted(map(str, kinds)))}"
            )
        return function.apply(*values)
