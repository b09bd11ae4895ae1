"""What kind of prediction a target column asks for."""

from typing import Literal

from components.errors import BadInput
from components.validate.profile import ColumnProfile

Kind = Literal["classes", "regression"]

TASKS = ("auto", "classification", "binary", "multiclass", "regression")

MOST_CLASSES = 200

_FEW_INTEGERS = 20


def decide(task: str, target: ColumnProfile, rows: int) -> Kind:
    """Classes for texts, truth values and few different whole numbers, else regression; unless said explicitly.

    Args:
        task: what the user said, one of :data:`TASKS`.
        target: the target's profile.
        rows: rows of the snapshot.

    Raises:
        BadInput: the target cannot be predicted that way.
    """
    if task not in TASKS:
        raise BadInput(f"There is no task {task!r}; choose one of {', '.join(TASKS)}.")
    kind: Kind = _natural(target, rows) if task == "auto" else "regression" if task == "regression" else "classes"
    if kind == "regression" and target.type not in ("integer", "number"):
        raise BadInput(
            f"The target {target.name!r} holds {target.type} values, so it cannot be predicted as a number; use the "
            "task classification."
        )
    if kind == "classes" and target.distinct > MOST_CLASSES:
        raise BadInput(
            f"The target {target.name!r} has {target.distinct:,} different values, more than {MOST_CLASSES} classes; "
            "choose another target or the task regression."
        )
    return kind


def _natural(target: ColumnProfile, rows: int) -> Kind:
    if target.type == "number":
        return "regression"
    if target.type == "integer":
        few = target.distinct <= min(_FEW_INTEGERS, max(2, rows // 10))
        return "classes" if few else "regression"
    return "classes"
