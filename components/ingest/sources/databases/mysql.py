"""MySQL and MariaDB: rows come unbuffered, as the texts that the server sends, and DuckDB gives them their types."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from components.errors import BadInput, SluicewayError, Unreachable
from components.ingest.sources.arriving import Column, Rows
from components.ingest.sources.databases import BATCH, Interrupted, refuse_password
from components.ingest.text import check_names
from components.settings import settings

if TYPE_CHECKING:
    import pyarrow as pa

_TLS = {"ssl_ca", "ssl_cert", "ssl_key"}
_BINARY = 63
"""The character set of bytes, in the protocol."""

_UNSIGNED = 32
"""A flag of columns, in the protocol."""

_WAIT = 600
"""Seconds for which the server is to wait while batches are being sorted."""

_WRITES = {1792, 1290, 1836}
_REFUSED = {1044, 1045, 1049, 1142, 1143, 1370, 1698, 1227}
_BROKEN = {1040, 1053, 1152, 1158, 1159, 1160, 1161, 1203, 1205, 1213, 2002, 2003, 2006, 2013, 2055}


class MySql:
    """A ``mysql://user@host[:port]/database`` URI; further parameters are ssl_ca, ssl_cert and ssl_key (files)."""

    dialect = "mysql"

    def __init__(self, uri: str) -> None:
        """Check the URI.

        Raises:
            BadInput: it holds a password, names no database or has unknown parameters.
        """
        parts = urlsplit(uri)
        options = dict(parse_qsl(parts.query))
        refuse_password(uri, parts.password, set(options))
        if not parts.hostname or not parts.path.strip("/"):
            raise BadInput(f"{uri} names no host or no database; write mysql://user@host:3306/database.")
        if unknown := set(options) - _TLS - {"unix_socket"}:
            raise BadInput(f"{uri}: unknown parameter {sorted(unknown)[0]!r}; known are {', '.join(sorted(_TLS))}.")
        self._login: dict[str, Any] = {
            "host": parts.hostname,
            "port": parts.port or 3306,
            "database": unquote(parts.path.strip("/")),
            **options,
        }
        if parts.username:
            self._login["user"] = unquote(parts.username)
        self._where = f"The database {parts.path.strip('/')} at {parts.hostname}"

    def quoted(self, name: str) -> str:
        """With backticks."""
        return "`" + name.replace("`", "``") + "`"

    @contextmanager
    def rows(self, query: str, ordered: bool) -> Iterator[Rows]:
        """Run the query in a read-only transaction with one snapshot; see Database."""
        import pymysql

        try:
            connection = pymysql.connect(**self._with_secrets(), cursorclass=pymysql.cursors.SSCursor)
        except (pymysql.Error, RuntimeError, OSError) as error:
            raise self._explained(error) from error
        cursor = connection.cursor()
        try:
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute(f"SET SESSION time_zone = '+00:00', net_write_timeout = {_WAIT}")
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            cursor.execute(query)
            titles = tuple(column[0] for column in cursor.description)
            check_names(titles, f"{self._where}, read_options query")
            fields = cursor._result.fields  # flags and character set, which the description leaves out
            names = [f"c{index}" for index in range(len(titles))]
            types = [_type(field) for field in fields]
            yield Rows(
                schema=_schema(names, types),
                batches=_batches(cursor, names, types),
                columns=tuple(
                    Column(title, _read(name, kind)) for name, title, kind in zip(names, titles, types, strict=True)
                ),
                ordered=ordered,
            )
        except pymysql.Error as error:
            raise self._explained(error) from error
        finally:
            if cursor._result:  # closed politely, it would first be read to its end
                cursor._result.unbuffered_active = False
            connection._force_close()

    def _with_secrets(self) -> dict[str, Any]:
        from pymysql.converters import encoders

        given = settings()
        user = self._login.get("user") or given.database_user
        password = given.database_password.get_secret_value()
        return {
            **self._login,
            "user": user or None,
            "password": password,
            "charset": "utf8mb4",
            "connect_timeout": 10,
            "read_timeout": _WAIT,
            "conv": encoders,  # and no decoders: values stay the texts that they are
        }

    def _explained(self, error: Exception) -> SluicewayError:
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        said = str(error.args[1] if len(error.args) > 1 else error).strip().rstrip(".")
        if code in _REFUSED:
            return Unreachable(
                f"{self._where} refuses ({said}): check user, SLUICEWAY_DATABASE_PASSWORD and the database's name."
            )
        if code in _WRITES:
            return BadInput(f"read_options query would write to the database ({said}); only a SELECT is run.")
        if code in _BROKEN or not code:
            return Interrupted(f"{self._where} cannot be reached, or broke off ({said})")
        return BadInput(f"{self._where} cannot run the query: {said}; mend read_options.")


def _type(field: Any) -> str:
    """The DuckDB type of a column; VARCHAR for what has none of its own there, such as times, enums and JSON."""
    from pymysql.constants import FIELD_TYPE as KIND

    unsigned = bool(field.flags & _UNSIGNED)
    whole = {
        KIND.TINY: "SMALLINT",
        KIND.SHORT: "INTEGER" if unsigned else "SMALLINT",
        KIND.YEAR: "SMALLINT",
        KIND.INT24: "INTEGER",
        KIND.LONG: "BIGINT" if unsigned else "INTEGER",
        KIND.LONGLONG: "UBIGINT" if unsigned else "BIGINT",
        KIND.FLOAT: "FLOAT",
        KIND.DOUBLE: "DOUBLE",
        KIND.DATE: "DATE",
        KIND.DATETIME: "TIMESTAMP",
        KIND.TIMESTAMP: "TIMESTAMPTZ",
        KIND.BIT: "BIT",
    }
    if field.type_code in whole:
        return whole[field.type_code]
    if field.type_code in (KIND.DECIMAL, KIND.NEWDECIMAL):
        digits = field.length - (not unsigned) - (field.scale > 0)
        return f"DECIMAL({digits}, {field.scale})" if 0 < digits <= 38 else "DOUBLE"
    texts = {KIND.JSON, KIND.ENUM, KIND.SET, KIND.TIME, KIND.NULL}
    return "BLOB" if field.charsetnr == _BINARY and field.type_code not in texts else "VARCHAR"


def _read(name: str, kind: str) -> str:
    if kind in ("VARCHAR", "BLOB", "BIT"):
        return name
    if kind in ("DATE", "TIMESTAMP", "TIMESTAMPTZ"):  # MySQL's "zero" dates mean that there is none
        return f"CASE WHEN {name} NOT LIKE '0000-00-00%' THEN {name}::{kind} END"
    return f"{name}::{kind}"


def _schema(names: list[str], types: list[str]) -> "pa.Schema":
    import pyarrow as pa

    special = {"BLOB": pa.binary(), "BIT": pa.uint64()}
    return pa.schema([(name, special.get(kind, pa.string())) for name, kind in zip(names, types, strict=True)])


def _batches(cursor: Any, names: list[str], types: list[str]) -> Iterator["pa.RecordBatch"]:
    import pyarrow as pa

    schema = _schema(names, types)
    while fetched := cursor.fetchmany(BATCH):
        arrays = []
        for values, kind, field in zip(zip(*fetched, strict=True), types, schema, strict=True):
            held = values
            if kind == "BIT":
                held = tuple(None if value is None else int.from_bytes(value, "big") for value in values)
            arrays.append(pa.array(held, field.type))
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)
