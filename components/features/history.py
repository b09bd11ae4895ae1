"""Windows and point-in-time joins: for every row, what was known of its entity before it.

One definition for every engine. Rows and events of a table are put on one time axis per entity, by a union, so that
both an aggregate over a range of microseconds and the newest value at a moment are plain windows: no engine's own
as-of join is needed. Rows without an entity or a time have no past.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from components.errors import BadInput
from components.features.aggregates import Aggregate, finished
from components.features.entities import aligned
from components.features.functions import kind_of, settled
from components.features.moments import in_words, micros
from components.features.schema import InputColumn
from components.features.spec import FeatureSpec, Join, Moment, Window
from components.ingest.engine import ROW

if TYPE_CHECKING:
    import ibis.expr.types as ir

_PREFIX = "__sluiceway_"
_AT, _IS_ROW, _NUMBER, _GROUP = (_PREFIX + name for name in ("at", "is_row", "number", "newest"))
_WHEN = _PREFIX + "since"


@dataclass(frozen=True)
class Events:
    """A table that has happened: the snapshot itself, or one of ``feature_tables``.

    Attributes:
        table: the table; the snapshot has the column ROW.
        columns: parsed, as expressions see them.
        raw: how the entity is read, by column.
        moment: when.
    """

    table: "ir.Table"
    columns: "Mapping[str, ir.Value]"
    moment: Moment

    def at(self) -> "ir.IntegerValue":
        """When each row was.

        Raises:
            BadInput: the column's values are no times.
        """
        if self.moment.column not in self.columns:  # nested columns are none that an expression could read
            raise BadInput(f"The time column {self.moment.column!r} holds nested values; name one of times.")
        return micros(self.columns[self.moment.column], self.moment)


@dataclass(frozen=True)
class Piece:
    """Features that are computed together: of one table, by one entity.

    Attributes:
        name: of the table that holds them.
        expression: ``number`` of the row and a column per feature.
        features: them, as inputs of the model.
        finish: what makes the feature of the joined column.
    """

    name: str
    expression: "ir.Table"
    features: tuple[InputColumn, ...]
    finish: "Mapping[str, Aggregate | None]" = field(default_factory=dict)


def pieces(spec: FeatureSpec, rows: Events, tables: Mapping[str, Events]) -> list[Piece]:
    """Plan the windows and joins of a spec.

    Args:
        spec: asks for them.
        rows: the snapshot.
        tables: others by name.

    Raises:
        BadInput: a column does not exist, or cannot be used like that.
    """
    found: list[Piece] = []
    aggregates = {name: Aggregate.of_window(name, window) for name, window in spec.windows.items()}
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = {}
    for name, window in spec.windows.items():
        entity = spec.tables[window.table].entity if window.table else {c: c for c in window.entity or spec.key}
        groups.setdefault((window.table, tuple(entity.items())), []).append(name)
    for (table, group), names in groups.items():
        pairs = dict(group)
        events = tables[table] if table else rows
        ranged = [name for name in names if aggregates[name].how != "last"]
        made = []
        if ranged:
            made.append((ranged, _ranges(spec, aggregates, ranged, rows, events, pairs)))
        for name in names:
            if aggregates[name].how == "last":
                value = aggregates[name].value(name, events.columns)
                newest = {name: (value, spec.windows[name].within)}
                made.append(([name], _newest(rows, events, pairs, newest, is_before=True)))
        for some, expression in made:
            inputs = tuple(_input(name, expression, "windowed", _window_in_words(spec, name, pairs)) for name in some)
            found.append(Piece(f"past_{len(found)}", expression, inputs, {name: aggregates[name] for name in some}))
    for joined in dict.fromkeys(join.table for join in spec.joins.values()):
        events = tables[joined]
        joins = {name: join for name, join in spec.joins.items() if join.table == joined}
        columns = {name: (_column(name, join, events), join.within) for name, join in joins.items()}
        expression = _newest(rows, events, spec.tables[joined].entity, columns, is_before=False)
        inputs = tuple(_input(name, expression, "joined", _join_in_words(spec, name)) for name in joins)
        found.append(Piece(f"past_{len(found)}", expression, inputs, dict.fromkeys(joins)))
    return found


def attached(table: "ir.Table", found: Sequence[Piece], kept: "Mapping[str, ir.Table]") -> "ir.Table":
    """The snapshot with a column per feature.

    Args:
        table: the snapshot, with the column ROW.
        found: what was planned.
        kept: the computed pieces, by name.
    """
    for piece in found:
        past = kept[piece.name]
        joined = table.left_join(past, table[ROW] == past[_NUMBER]).drop(_NUMBER)
        finish = {}
        for name, aggregate in piece.finish.items():
            finish[name] = finished(aggregate, joined[name]) if aggregate else joined[name]
        table = joined.mutate(**finish)
    return table


def _ranges(
    spec: FeatureSpec,
    aggregates: Mapping[str, Aggregate],
    names: Sequence[str],
    rows: Events,
    events: Events,
    pairs: Mapping[str, str],
) -> "ir.Table":
    """Aggregates over a range of time that ends just before the row."""
    import ibis

    places = {name: f"v{place}" for place, name in enumerate(names)}
    values = {places[name]: aggregates[name].value(name, events.columns) for name in names}
    line = _line(rows, events, pairs, values)
    results = {}
    for name in names:
        frame = ibis.range_window(
            group_by=[line[column] for column in _entity(pairs)],
            order_by=line[_AT],
            preceding=(spec.windows[name].within, 1),
        )
        results[name] = aggregates[name].over(line[places[name]], frame)
    if events is rows:
        return line.select(_NUMBER, **results)
    made = line.select(_NUMBER, _IS_ROW, **results)
    return made.filter(made[_IS_ROW] == 1).drop(_IS_ROW)


def _line(rows: Events, events: Events, pairs: Mapping[str, str], values: "Mapping[str, ir.Value]") -> "ir.Table":
    """Rows and events on one time axis per entity; only events have values. Rows that are events are there once."""
    import ibis

    theirs, ours = aligned(events, rows, pairs)
    at = events.at()
    if events is rows:
        line = rows.table.select(**{_NUMBER: rows.table[ROW].cast("int64")}, **theirs, **{_AT: at}, **values)
        return _with_a_past(line, pairs)
    happened = events.table.select(
        **{_NUMBER: ibis.null("int64"), _IS_ROW: ibis.literal(0).cast("int8")}, **theirs, **{_AT: at}, **values
    )
    asked = rows.table.select(
        **{_NUMBER: rows.table[ROW].cast("int64"), _IS_ROW: ibis.literal(1).cast("int8")},
        **ours,
        **{_AT: rows.at()},
        **{name: ibis.null(value.type()) for name, value in values.items()},
    )
    return _with_a_past(happened, pairs).union(_with_a_past(asked, pairs))


def _newest(
    rows: Events,
    events: Events,
    pairs: Mapping[str, str],
    columns: "Mapping[str, tuple[ir.Value, int | None]]",
    *,
    is_before: bool,
) -> "ir.Table":
    """The newest values of an entity at a row's time, or strictly before it.

    Of events at the same moment the greatest value counts, whatever order they lie in.

    Args:
        rows: what asks.
        events: what answers.
        pairs: the events' columns that name the entity, and the rows'.
        columns: values by feature, and their time to live in microseconds.
        is_before: whether an event at the row's very time is too late. Then missing values are no events.
    """
    import ibis

    theirs, ours = aligned(events, rows, pairs)
    entity = _entity(pairs)
    places = {name: f"v{place}" for place, name in enumerate(columns)}
    happened = events.table.select(
        **theirs, **{_AT: events.at()}, **{places[name]: value for name, (value, _) in columns.items()}
    )
    happened = _with_a_past(happened, pairs)
    if is_before:
        happened = happened.filter(happened[place].notnull() for place in places.values())
    happened = happened.group_by(*entity, _AT).aggregate(**{place: happened[place].max() for place in places.values()})
    happened = happened.select(
        **{_NUMBER: ibis.null("int64"), _IS_ROW: ibis.literal(0).cast("int8")},
        **{name: happened[name] for name in (*entity, _AT, *places.values())},
    )
    asked = rows.table.select(
        **{_NUMBER: rows.table[ROW].cast("int64"), _IS_ROW: ibis.literal(1).cast("int8")},
        **ours,
        **{_AT: rows.at()},
        **{place: ibis.null(happened[place].type()) for place in places.values()},
    )
    line = happened.union(_with_a_past(asked, pairs))
    is_event = (line[_IS_ROW] == 0).cast("int64")
    order = ibis.desc(line[_IS_ROW]) if is_before else ibis.asc(line[_IS_ROW])
    so_far = ibis.window(group_by=[line[c] for c in entity], order_by=[line[_AT], order], preceding=None, following=0)
    line = line.mutate(**{_GROUP: is_event.sum().over(so_far).cast("int64")})
    same = ibis.window(group_by=[line[c] for c in (*entity, _GROUP)])
    since = (line[_IS_ROW] == 0).ifelse(line[_AT], None).max().over(same)
    newest = {place: line[place].max().over(same) for place in places.values()}
    line = line.select(_NUMBER, _IS_ROW, _AT, **{_WHEN: since}, **newest)
    line = line.filter(line[_IS_ROW] == 1)
    results = {}
    for name, (_, within) in columns.items():
        value = line[places[name]]
        results[name] = value if within is None else (line[_AT] - line[_WHEN] <= within).ifelse(value, None)
    return line.select(_NUMBER, **results)


def _entity(pairs: Mapping[str, str]) -> list[str]:
    return [f"e{place}" for place in range(len(pairs))]


def _with_a_past(line: "ir.Table", pairs: Mapping[str, str]) -> "ir.Table":
    return line.filter(line[column].notnull() for column in (*_entity(pairs), _AT))


def _column(name: str, join: Join, events: Events) -> "ir.Value":
    if join.column not in events.columns:
        raise BadInput(
            f"Join {name!r}: the table {join.table!r} has no column {join.column!r}; its columns are "
            f"{', '.join(list(events.columns)[:30])}."
        )
    value = events.columns[join.column]
    if value.type().is_timestamp():
        raise BadInput(f"Join {name!r}: {join.column!r} holds times, which no model can use.")
    return settled(value)


def _input(name: str, expression: "ir.Table", kind: str, description: str) -> InputColumn:
    typed = "string" if kind_of(expression[name]) == "a text" else "number"
    return InputColumn.model_validate({"name": name, "type": typed, "kind": kind, "description": description})


def _window_in_words(spec: FeatureSpec, name: str, pairs: Mapping[str, str]) -> str:
    window: Window = spec.windows[name]
    assert spec.time is not None
    where = f" where {window.where.strip()}" if window.where else ""
    source = f"of {window.table}" if window.table else "of earlier rows"
    back = f"in the {in_words(window.within)} before" if window.within else "before"
    return f"{window.value.strip()} {source}{where} by {', '.join(pairs.values())}, {back} {spec.time.column}"


def _join_in_words(spec: FeatureSpec, name: str) -> str:
    join = spec.joins[name]
    assert spec.time is not None
    pairs = spec.tables[join.table].entity
    old = f", not older than {in_words(join.within)}" if join.within else ""
    return f"{join.column} of {join.table} by {', '.join(pairs.values())}, the newest at {spec.time.column}{old}"
