"""What a Parquet file's footer says of its columns."""

from collections.abc import Mapping

import duckdb

from components.ingest.complaints import UNFIT, Fetched
from components.ingest.engine import identifier, literal
from components.ingest.form import EMPTY, Form, may_round
from components.ingest.text import check_names


def form(connection: duckdb.DuckDBPyConnection, file: Fetched) -> Form:
    """Names as they are in the file (DuckDB would rename duplicates) and DuckDB types.

    Raises:
        BadInput: a name occurs twice.
        duckdb.Error: it is no whole Parquet file.
    """
    names = _names(connection, file)
    check_names(names, file.name)
    described = connection.execute(
        f"DESCRIBE SELECT * FROM read_parquet({literal(file.path)}, hive_partitioning = false)"
    ).fetchall()
    kinds = [EMPTY if kind == '"NULL"' else kind for _, kind, *_ in described]
    return Form(types=dict(zip(names, kinds, strict=True)), first=len(names))


def columns(own: Mapping[str, str], types: Mapping[str, str]) -> str:
    """The list of a SELECT that reads a file of columns ``own`` as ``types``.

    Numbers that DOUBLE would round are refused in the run, with :data:`components.ingest.complaints.UNFIT`.
    """
    chosen = []
    for name, kind in types.items():
        column = identifier(name)
        if own.get(name) == kind:
            chosen.append(column)
        elif may_round(own[name], kind):
            chosen.append(
                f"CASE WHEN {column} IS NULL OR abs({column}) <= {2**53} THEN {column}::DOUBLE "
                f"ELSE error({literal(f'{UNFIT}: {name}')}) END AS {column}"
            )
        else:
            chosen.append(f"{column}::{kind} AS {column}")
    return ", ".join(chosen)


def _names(connection: duckdb.DuckDBPyConnection, file: Fetched) -> tuple[str, ...]:
    rows = connection.execute(
        f"SELECT name, coalesce(num_children, 0) FROM parquet_schema({literal(file.path)})"
    ).fetchall()
    names: list[str] = []
    inside = 0
    for name, children in rows[1:]:
        if inside == 0:
            names.append(name)
            inside = children
        else:
            inside += children - 1
    return tuple(names)
