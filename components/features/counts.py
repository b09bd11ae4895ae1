"""What the computed rows are counted for: splits, classes, and whether they are enough to learn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.errors import BadInput
from components.features.engines import Engine
from components.features.history import Piece
from components.features.schema import SPLITS
from components.features.split import GAP

if TYPE_CHECKING:
    import ibis.expr.types as ir

SPLIT, TARGET = "__sluiceway_split", "__sluiceway_target"
"""Columns of the computed rows: which split a row is in, and what it is labelled."""


@dataclass(frozen=True)
class SplitRows:
    """How many usable rows a split has, and how many of them have a target."""

    rows: int = 0
    labelled: int = 0


def counted(engine: Engine, kept: "ir.Table") -> dict[str, SplitRows]:
    """The rows of every split, and of the gap between them."""
    per_split = kept.group_by(SPLIT).aggregate(rows=kept.count(), labelled=kept[TARGET].count())
    found = {row[SPLIT]: SplitRows(int(row["rows"]), int(row["labelled"])) for row in engine.rows(per_split)}
    return {name: found.get(name, SplitRows()) for name in (*SPLITS, GAP)}


def check_pasts(engine: Engine, kept: "ir.Table", past: Sequence[Piece]) -> None:
    """Refuse windows and joins that no row has: mostly an entity that is called differently, or a unit of time.

    Raises:
        BadInput: names the first.
    """
    names = [feature.name for piece in past for feature in piece.features]
    if not names:
        return
    (found,) = engine.rows(kept.aggregate(**{str(n): _is_known(kept[name]).any() for n, name in enumerate(names)}))
    for place, name in enumerate(names):
        if not found[str(place)]:
            raise BadInput(
                f"No row has a value of {name!r}: nothing of its entity lies before it. Look at the entity's columns "
                "and the times (a number is in seconds since 1970 unless the spec gives its unit)."
            )


def _is_known(value: "ir.Value") -> "ir.BooleanValue":
    return value.fill_null(0.0) != 0.0 if value.type().is_numeric() else value.notnull()


def labels(engine: Engine, kept: "ir.Table", target: str, task: str) -> dict[str, dict[str, int]]:
    """Rows per split for each class; numbers are ordered as numbers, texts as texts.

    Raises:
        BadInput: there is one class only, or not two where there must be.
    """
    labelled = kept.filter(kept[TARGET].notnull())
    counted = engine.rows(labelled.group_by(TARGET, SPLIT).aggregate(rows=labelled.count()))
    labels = {str(row[TARGET]) for row in counted}
    order = sorted(labels, key=float) if all(_is_number(label) for label in labels) else sorted(labels)
    found: dict[str, dict[str, int]] = {label: {} for label in order}
    for row in counted:
        found[row[TARGET]][row[SPLIT]] = int(row["rows"])
    if len(found) < 2:
        raise BadInput(f"The target {target!r} has only the class {', '.join(order) or '(none)'} in the usable rows.")
    if task == "binary" and len(found) != 2:
        raise BadInput(f"The target {target!r} has {len(found)} classes ({', '.join(order[:5])}), so it is not binary.")
    return found


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True


def check_splits(rows: Mapping[str, int], labels: Mapping[str, Mapping[str, int]], target: str) -> None:
    """Refuse too little to learn from.

    Raises:
        BadInput: a split is empty, or a class is not in train.
    """
    total = sum(rows.values())
    empty = [name for name in SPLITS if not rows[name]]
    if empty:
        raise BadInput(
            f"Only {total} usable rows: the {empty[0]} split is empty; bring more data or another split_seed."
        )
    for label, counts in labels.items():
        if not counts.get("train"):
            raise BadInput(
                f"Class {label!r} of {target!r} has {sum(counts.values())} rows and none of them in the train split; "
                "bring more of them, leave that class out, or choose another split_seed."
            )
