"""Which columns a fitted pipeline uses."""

from typing import Any


def prepared_columns(pipeline: Any, kind: str) -> list[str]:
    """The columns that a pipeline uses as ``numeric`` or ``categorical``, in its order."""
    parts = pipeline.named_steps["prepare"].transformers_
    return [str(column) for name, _, columns in parts if name == kind for column in columns]
