"""What the objects of a JSON-lines file have for columns."""

import json

import duckdb

from components.errors import BadInput
from components.ingest.complaints import Fetched
from components.ingest.engine import identifier, literal, mapping
from components.ingest.form import EMPTY, Form
from components.ingest.options import ReadOptions, compression
from components.ingest.text import check_names, head


def check(file: Fetched, options: ReadOptions) -> None:
    """Look at the first line.

    Raises:
        components.ingest.text.Empty: there is none.
        BadInput: it is no JSON object, or has a key twice.
    """
    line = next((line for line in head(file.path, file.name, options).splitlines() if line.strip()), "")
    try:
        pairs = json.loads(line, object_pairs_hook=tuple)
    except json.JSONDecodeError as error:
        if line.lstrip().startswith(("[", "{")):
            raise BadInput(
                f"{file.name}, line 1: not one JSON object per line ({error.msg}); write the file as JSON lines."
            ) from error
        raise BadInput(f"{file.name}, line 1: not JSON ({error.msg}); each line must be one JSON object.") from error
    if not isinstance(pairs, tuple) or not all(isinstance(pair, tuple) for pair in pairs):
        raise BadInput(f'{file.name}, line 1: not a JSON object; each line must be one, as in {{"a": 1}}.')
    check_names(tuple(name for name, _ in pairs), file.name)


def form(connection: duckdb.DuckDBPyConnection, file: Fetched) -> Form:
    """The columns of all objects: a key may come for the first time in the last one.

    Raises:
        duckdb.Error: a line is no JSON object.
    """
    types = _described(connection, file)
    mixed = [name for name, kind in types.items() if kind == "JSON"]
    if mixed:  # values of several kinds, or none at all
        columns = mapping(dict.fromkeys(mixed, "VARCHAR"))
        counts = ", ".join(f"count({identifier(name)})" for name in mixed)
        source = f"read_json({_read(file)}, columns = {columns})"
        (found,) = connection.execute(f"SELECT {counts} FROM {source}").fetchall()
        types.update((name, "VARCHAR" if count else EMPTY) for name, count in zip(mixed, found, strict=True))
    types = {name: "VARCHAR" if "HUGEINT" in kind else kind for name, kind in types.items()}
    return Form(types=types, first=len(types))


def _described(connection: duckdb.DuckDBPyConnection, file: Fetched) -> dict[str, str]:
    arguments = f"{_read(file)}, sample_size = -1"
    described = connection.execute(f"DESCRIBE SELECT * FROM read_json({arguments})").fetchall()
    if [name for name, *_ in described] == ["json"]:  # so many keys that DuckDB takes them for data
        arguments += ", map_inference_threshold = -1"
        described = connection.execute(f"DESCRIBE SELECT * FROM read_json({arguments})").fetchall()
    return {name: kind for name, kind, *_ in described}


def _read(file: Fetched) -> str:
    return (
        f"{literal(file.path)}, format = 'newline_delimited', compression = {literal(compression(file.name))}, "
        "hive_partitioning = false"
    )
