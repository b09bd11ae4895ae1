"""What a comparison of two versions says; the JSON of ``sluiceway data diff --json``."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Kind = Literal["number", "time", "category"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Side(_Frozen):
    """One of the two versions."""

    version: str
    rows: int
    bytes: int
    source_uri: str


class Keyed(_Frozen):
    """Rows matched by their key.

    Attributes:
        key: the columns that name a row.
        added: keys that only the later version has.
        removed: keys that only the earlier version has.
        changed: keys that both have, with other values in the columns that both have.
        repeated: keys that occur more than once in one of them; their rows are taken together.
    """

    key: tuple[str, ...]
    added: int
    removed: int
    changed: int
    repeated: int


class Retyped(_Frozen):
    """A column whose type is another."""

    name: str
    before: str
    after: str


class Profile(_Frozen):
    """A column in one version.

    Attributes:
        missing: share of the rows without a value.
        distinct: about how many different values there are (HyperLogLog, a few per cent off).
        mean: of finite numbers.
        quantiles: about the 0, 25, 50, 75 and 100 % quantiles of finite numbers, or of times as ISO 8601.
    """

    missing: float
    distinct: int
    mean: float | None = None
    quantiles: tuple[float | str, ...] = ()


class Bin(_Frozen):
    """One bin of a column's distribution: its share of the rows before and after.

    Attributes:
        label: the category, or the upper bound, or what values there are none of ("missing", "not finite", "others").
        upper: the upper bound (included) of numbers and times (in seconds of 1970); infinite for the last.
        before: share of the rows of the earlier version.
        after: share of the rows of the later version.
    """

    label: str
    upper: float | None = None
    before: float
    after: float


class ColumnChange(_Frozen):
    """A column that both versions have.

    Attributes:
        name: of the column.
        type: in the later version.
        kind: how its distribution is told.
        distance: Jensen-Shannon distance of the bins, 0 to 1; None where the types cannot be compared.
        psi: population stability index of the bins.
        before: in the earlier version.
        after: in the later version.
        bins: what the distance is made from: twentieths of the earlier version for numbers and times, the most
            frequent values of either for others, and what is missing.
    """

    name: str
    type: str
    kind: Kind
    distance: float | None
    psi: float | None
    before: Profile
    after: Profile
    bins: tuple[Bin, ...] = ()


class Diff(_Frozen):
    """Two versions of a data set.

    Attributes:
        dataset: its name.
        before: the earlier version; whichever was named first.
        after: the later version.
        identical: whether the rows are the same bytes.
        options: the ingest options that differ, each as before and after.
        keyed: rows matched by key; None without a key.
        added: columns that only the later version has.
        removed: columns that only the earlier version has.
        retyped: columns of other types.
        columns: what both have, the most changed first.
    """

    dataset: str
    before: Side
    after: Side
    identical: bool
    options: dict[str, tuple[object, object]] = {}
    keyed: Keyed | None = None
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    retyped: tuple[Retyped, ...] = ()
    columns: tuple[ColumnChange, ...] = ()
