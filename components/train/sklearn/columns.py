"""Which columns of a feature set a trainer uses, and how finely it tells their categories apart."""

from components.errors import BadInput
from components.train.contract import Data


def with_values(data: Data) -> tuple[list[str], list[str]]:
    """The numeric columns that have a value in the train split, and the categorical ones.

    Raises:
        BadInput: there are none.
    """
    numeric = [name for name in data.columns("numeric") if data.train.inputs[name].notna().any()]
    categorical = data.columns("categorical")
    if not numeric and not categorical:
        raise BadInput("No feature has a value in the train split: there is nothing to learn from.")
    return numeric, categorical


def at_most(categories: int, data: Data) -> int | None:
    """An encoder's ``max_categories``: None where no column has more, since counting rows is slow in scikit-learn."""
    columns = data.train.inputs[data.columns("categorical")]
    return categories if columns.nunique().gt(categories).any() else None
