"""The feature spec: what a person wants beyond the columns as they are. YAML."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from components.errors import BadInput
from components.parameters import parsed
from components.validate.durations import seconds

LONGEST_DAYS = 36_500
"""How long a window, a time to live and a gap may be."""

MOST_BUCKETS = 255
"""A hashed column is a category, and a tree tells so many apart."""

KEYS = "derive, drop, key, time, split, tables, windows, joins and encodings"


def _microseconds(value: Any) -> int:
    amount = seconds(str(value))
    if amount > LONGEST_DAYS * 86_400:
        raise ValueError(f"{value!r} is longer than {LONGEST_DAYS:,} days")
    return round(amount * 1_000_000)


def _names(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _pairs(value: Any) -> Any:
    """Columns of the same name on both sides may be listed."""
    listed = _names(value)
    return listed if isinstance(listed, Mapping) else {name: name for name in listed or ()}


def _moment(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


Duration = Annotated[int, BeforeValidator(_microseconds)]
"""Microseconds, written as ``7 days``, ``90 minutes``."""

Names = Annotated[tuple[str, ...], BeforeValidator(_names)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Moment(_Frozen):
    """The column that says when something was: of times, or of numbers since 1970 in a unit."""

    column: str
    unit: Literal["seconds", "milliseconds", "microseconds"] = "seconds"


class Table(_Frozen):
    """How a table of ``feature_tables`` belongs to the rows.

    Attributes:
        entity: the table's columns that name the entity, and what the snapshot calls them.
        time: when a row of the table happened, or began to hold.
    """

    entity: Annotated[dict[str, str], BeforeValidator(_pairs)] = Field(min_length=1)
    time: Annotated[Moment, BeforeValidator(_moment)]


class Window(_Frozen):
    """An aggregate of what an entity did before the row: at its moment or later counts nothing.

    Attributes:
        table: a table of the spec; empty for the snapshot's own rows.
        entity: for own rows: the columns whose values the rows share; by default the spec's key.
        value: ``count()``, or count, sum, mean, min, max, std or last of an expression.
        within: how far back; without it, all that was before.
        where: an expression; rows where it is not true do not count.
    """

    table: str = ""
    entity: Names = ()
    value: str
    within: Duration | None = None
    where: str = ""

    @field_validator("within")
    @classmethod
    def _some_time(cls, value: int | None) -> int | None:
        if value is not None and value < 1:
            raise ValueError("a window must be longer than nothing")
        return value

    @model_validator(mode="after")
    def _one_entity(self) -> Self:
        if self.table and self.entity:
            raise ValueError("entity is for windows over the snapshot's own rows; a table says its own under tables")
        return self


class Join(_Frozen):
    """A column of another table, as it was at the row's time: the newest at or before it.

    Attributes:
        table: a table of the spec.
        column: the column.
        within: its time to live: what is older is missing.
    """

    table: str
    column: str
    within: Duration | None = None


class EncodingSpec(_Frozen):
    """A number or category for a category, learnt from the train split without its target.

    Attributes:
        column: a column of the snapshot.
        how: ``rate`` (its share of the train rows), ``count`` (how many they are) or ``hash`` (one of ``buckets``).
        buckets: of ``hash``.
    """

    column: str
    how: Literal["rate", "count", "hash"]
    buckets: int = Field(default=32, ge=2, le=MOST_BUCKETS)


class Split(_Frozen):
    """How rows become train, valid and test.

    Attributes:
        by: ``key``: by a hash of the entity, whose rows stay together; ``time``: the past trains, the future tests.
        gap: of ``time``: rows so close before the first row of the next split are left out.
    """

    by: Literal["key", "time"] = "key"
    gap: Duration = 0


class FeatureSpec(_Frozen):
    """What features are made of.

    For instance::

        derive:
          charges_per_month: TotalCharges / tenure
        drop: [gender]
        key: [user_id]
        time: ts
        split: {by: time, gap: 7 days}
        tables:
          orders: {entity: user_id, time: ordered_at}
        windows:
          spend_7d: {table: orders, value: mean(amount), within: 7 days, where: status == "paid"}
        joins:
          tier: {table: customers, column: tier, within: 90 days}
        encodings:
          city_rate: {column: city, how: rate}

    Attributes:
        derive: row-wise features by name; see :mod:`components.features.language`. They may read windows and joins.
        drop: columns that are no features; expressions may still read them.
        key: columns that name the entity: no features, and rows with the same key are in the same split.
        time: when the row was; no feature by itself.
        split: by key unless said otherwise.
        tables: how other tables belong to the rows, by their names in ``feature_tables``.
        windows: aggregates over what was before, by the feature's name.
        joins: what held at the time, by the feature's name.
        encodings: of categories, by the feature's name.
    """

    derive: dict[str, str] = {}
    drop: Names = ()
    key: Names = ()
    time: Annotated[Moment | None, BeforeValidator(_moment)] = None
    split: Split = Split()
    tables: dict[str, Table] = {}
    windows: dict[str, Window] = {}
    joins: dict[str, Join] = {}
    encodings: dict[str, EncodingSpec] = {}

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.split.gap and self.split.by != "time":
            raise ValueError("a split has a gap only by time; add by: time")
        for what in [
            *(["split by time"] if self.split.by == "time" else []),
            *[f"windows.{name}" for name in self.windows],
            *[f"joins.{name}" for name in self.joins],
        ]:
            if self.time is None:
                raise ValueError(f"{what} needs to know when a row was; name the column as time")
        uses = {f"windows.{name}": window.table for name, window in self.windows.items() if window.table}
        uses |= {f"joins.{name}": join.table for name, join in self.joins.items()}
        for what, table in uses.items():
            if table not in self.tables:
                raise ValueError(f"{what} takes the table {table!r}, which is not among tables")
        for name, window in self.windows.items():
            if not (window.table or window.entity or self.key):
                raise ValueError(f"windows.{name} needs an entity, whose rows it aggregates; name its columns as key")
        return self

    @property
    def made(self) -> list[tuple[str, str]]:
        """The names of all features that the spec makes, each with where it does."""
        kinds: dict[str, Mapping[str, Any]] = {
            "derive": self.derive,
            "windows": self.windows,
            "joins": self.joins,
            "encodings": self.encodings,
        }
        return [(name, kind) for kind, named in kinds.items() for name in named]

    @classmethod
    def loads(cls, text: str) -> "FeatureSpec":
        """Parse the YAML of a pipeline parameter; an empty text is an empty spec.

        Raises:
            BadInput: it is no spec; the message says where it is wrong.
        """
        try:
            content: Any = yaml.safe_load(text) or {}
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f" at line {mark.line + 1}" if mark else ""
            raise BadInput(f"feature_spec is not valid YAML{where}; it has the keys {KEYS}.") from error
        if not isinstance(content, dict):
            raise BadInput(f"feature_spec must be a YAML mapping with the keys {KEYS}.")
        if "order" in content:
            raise BadInput("feature_spec has no order any more: name the column as time, and split: {by: time}.")
        derive = content.get("derive")
        if isinstance(derive, dict):  # an expression such as 1 is read as a number by YAML
            content["derive"] = {str(name): str(expression) for name, expression in derive.items()}
        return parsed(cls, content, "feature_spec")
