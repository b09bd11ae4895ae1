"""What a window computes: ``count()``, or one of a few functions of an expression."""

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from components.errors import BadInput
from components.features.functions import NUMBER, TEXT, TRUTH, kind_of, settled
from components.features.language import columns_of, compile_expression
from components.features.parsing import finite
from components.features.spec import Window

if TYPE_CHECKING:
    from collections.abc import Mapping

    import ibis.expr.types as ir

How = Literal["count", "sum", "mean", "min", "max", "std", "last"]
HOWS: tuple[How, ...] = ("count", "sum", "mean", "min", "max", "std", "last")

_MOST_SQUARED = 1e150
"""Larger values are missing for ``std``: their squares overflow, which engines take badly."""


@dataclass(frozen=True)
class Aggregate:
    """A parsed window.

    Attributes:
        how: the function.
        of: the expression that it is of; empty for ``count()``.
        where: the condition; empty for none.
    """

    how: How
    of: str
    where: str

    @classmethod
    def of_window(cls, name: str, window: Window) -> "Aggregate":
        """Read a window's value.

        Raises:
            BadInput: it is no aggregate.
        """
        text = window.value.strip()
        try:
            node = ast.parse(text, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise BadInput(f"Window {name!r}: {text[:80]!r} cannot be read; write it like mean(amount).") from error
        called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        if not isinstance(node, ast.Call) or called not in HOWS or node.keywords:
            raise BadInput(f"Window {name!r}: {text!r} is none of {', '.join(f'{how}(…)' for how in HOWS)}.")
        if len(node.args) != 1 and not (called == "count" and not node.args):
            raise BadInput(f"Window {name!r}: {text!r}: {called} takes one expression.")
        of = ast.get_source_segment(text, node.args[0]) or "" if node.args else ""
        return cls(called, of, window.where.strip())

    def reads(self, name: str) -> tuple[str, ...]:
        """The columns that it needs."""
        read = [column for text in (self.of, self.where) if text for column in columns_of(text, name)]
        return tuple(dict.fromkeys(read))

    def value(self, name: str, columns: "Mapping[str, ir.Value]") -> "ir.Value":
        """What is aggregated, missing in rows that do not count: numbers as doubles, or texts to take the last of.

        Raises:
            BadInput: an expression is wrong.
        """
        import ibis

        value = compile_expression(self.of, columns, name) if self.of else ibis.literal(1.0).cast("float64")
        kind = kind_of(value)
        if self.how == "count":
            value = value.notnull().ifelse(ibis.literal(1.0).cast("float64"), None)
        elif kind not in ((NUMBER, TRUTH, TEXT) if self.how == "last" else (NUMBER, TRUTH)):
            raise BadInput(f"Window {name!r}: {self.how} needs numbers, and {self.of!r} is {kind}.")
        else:
            value = settled(value)
        if self.how == "std":
            value = value.between(-_MOST_SQUARED, _MOST_SQUARED).ifelse(value, None)
        if not self.where:
            return value
        condition = compile_expression(self.where, columns, name)
        if kind_of(condition) != TRUTH:
            raise BadInput(
                f"Window {name!r}: where must be true or false, as in status == 'paid'; {self.where!r} is not."
            )
        return condition.ifelse(value, None)

    def over(self, value: "ir.Value", window: object) -> "ir.Value":
        """The aggregate over a frame, as a double."""
        aggregated = {
            "count": value.count,
            "sum": value.sum,
            "mean": value.mean,
            "min": value.min,
            "max": value.max,
            "std": lambda: value.std(how="sample"),
        }[self.how]()
        return aggregated.over(window).cast("float64")


def finished(aggregate: Aggregate, value: "ir.Value") -> "ir.Value":
    """The feature once joined: a count without a past is zero, and what overflowed is missing."""
    if aggregate.how == "count":
        return value.fill_null(0.0)
    return finite(value) if value.type().is_floating() else value
