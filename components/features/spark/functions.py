"""What DuckDB's functions do where Spark's own differ, as functions of the session written in Spark's SQL.

Spark puts their bodies into the query before it is planned, so that they are compiled like any other expression.
"""

from collections.abc import Mapping

from components.features.schema import BLANK

PREFIX = "sluiceway_"
LAST = 2**63 - 1
"""Microseconds since 1970 that mean the infinite future, and negated the infinite past, as DuckDB keeps them."""


def _text(value: str) -> str:
    """A text as a literal of Spark's SQL, whose backslashes escape."""
    return "'" + "".join(f"\\u{ord(c):04x}" if c in "'\\" or not c.isprintable() else c for c in value) + "'"


# The grammars are those of components/features/scalars.py, which hold for DuckDB; Java's \z is the very end.
_NUMBER = r"^\+?-?(\d+(_\d+)*(\.(?!(\d{8})+_)(\d+(_\d+)*)?)?|\.(?!(\d{8})+_)\d+(_\d+)*)([eE][+-]?\d+(_\d+)*)?\z"
_COMMON_MOMENT = r"^\d{4}-(0\d|1[0-2])-[0-3]\d([ T]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?Z?)?\z"
_B = r"[ \t\n\r\x0b\f]"
_MOMENT = (
    rf"^{_B}*(-?)(0*\d{{1,7}})([ \-/\\])(\d{{1,2}})\3(\d{{1,2}})({_B}\([bB][cC]\))?(?!\d)"
    rf"(?:[ T]?{_B}*(\d{{1,9}}):(\d{{0,2}})(?:(?<=\d):(\d{{0,2}})(?:(?<=\d)\.(\d*))?)?"
    r"(?:(?:Z|([+-])(\d\d)(?::?(\d\d)|:(\d\d):(\d\d))?|(?:[+-]\d\d:(?:\d\d:)?)? ([A-Za-z0-9_/+\-]*))"
    rf"{_B}*)?)?\z"
)
_SPECIAL = rf"^{_B}*(-?)(?:inf|(?:infinity|epoch){_B}*)\z"


def _group(number: int) -> str:
    """What a group of the grammar of times found; null where it found nothing."""
    return f"nullif(regexp_extract(t, {_text(_MOMENT)}, {number}), '')"


# Spark writes most doubles as DuckDB does. The rest: the shortest digits that are read back as the same; 15 suffice
# for most, 17 for all. Within a CASE, since the argument of a function is computed for every row.
_IS_SIMPLE = "(x = 0 OR (abs(x) >= 0.001D AND abs(x) < 1e7D AND length(CAST(x AS STRING)) <= 16))"
_DIGITS = (
    f"CASE WHEN {_IS_SIMPLE} OR isnan(x) OR abs(x) = DOUBLE('Infinity') OR x IS NULL THEN NULL "
    "WHEN try_cast(format_string('%.14e', x) AS DOUBLE) = x THEN format_string('%.14e', x) "
    "WHEN try_cast(format_string('%.15e', x) AS DOUBLE) = x THEN format_string('%.15e', x) "
    "ELSE format_string('%.16e', x) END"
)

DEFINITIONS: Mapping[str, str] = {
    # As C's pow: Java has NaN where the base is one, or minus one with an infinite exponent.
    "power(x DOUBLE, y DOUBLE) RETURNS DOUBLE": (
        "CASE WHEN x IS NULL OR y IS NULL THEN NULL "
        "WHEN x = 1 OR (x = -1 AND abs(y) = DOUBLE('Infinity')) THEN DOUBLE(1) ELSE pow(x, y) END"
    ),
    "number(t STRING) RETURNS DOUBLE": (
        f"CASE WHEN regexp(t, {_text(_NUMBER)}) THEN try_cast(replace(ltrim('+', t), '_', '') AS DOUBLE) END"
    ),
    # DuckDB writes a double like Python: 0.0001, 1e-05, 1000000000000000.0, 1e+16.
    "plain(s STRING, d STRING, e INT) RETURNS STRING": (
        "s || CASE "
        "WHEN e BETWEEN 0 AND 15 AND length(d) > e + 1 THEN substring(d, 1, e + 1) || '.' || substring(d, e + 2) "
        "WHEN e BETWEEN 0 AND 15 THEN rpad(d, e + 1, '0') || '.0' "
        "WHEN e BETWEEN -4 AND -1 THEN '0.' || repeat('0', -e - 1) || d "
        "ELSE substring(d, 1, 1) || CASE WHEN length(d) > 1 THEN '.' || substring(d, 2) ELSE '' END || 'e' || "
        "CASE WHEN e < 0 THEN '-' ELSE '+' END || CASE WHEN abs(e) < 10 THEN '0' ELSE '' END || CAST(abs(e) AS STRING) "
        "END"
    ),
    "split(t STRING) RETURNS STRING": (
        f"{PREFIX}plain(CASE WHEN startswith(t, '-') THEN '-' ELSE '' END, "
        "regexp_replace(regexp_replace(substring_index(t, 'e', 1), '[-.]', ''), '(?<=.)0+$', ''), "
        "try_cast(substring_index(t, 'e', -1) AS INT))"
    ),
    "text(x DOUBLE) RETURNS STRING": (
        "CASE WHEN isnan(x) THEN 'nan' WHEN x = DOUBLE('Infinity') THEN 'inf' WHEN x = DOUBLE('-Infinity') THEN '-inf' "
        f"WHEN {_IS_SIMPLE} THEN CAST(x AS STRING) ELSE {PREFIX}split({_DIGITS}) END"
    ),
    "is_endless(x TIMESTAMP) RETURNS BOOLEAN": f"abs(unix_micros(x)) = {LAST}",
    # A time as DuckDB writes it; it has years before Christ, and no plus before those after 9999.
    "shown(x TIMESTAMP_NTZ) RETURNS STRING": (
        f"CASE WHEN {PREFIX}is_endless(CAST(x AS TIMESTAMP)) THEN if(year(x) > 0, 'infinity', '-infinity') "
        "WHEN year(x) BETWEEN 1 AND 9999 THEN CAST(x AS STRING) "
        "WHEN year(x) > 0 THEN ltrim('+', CAST(x AS STRING)) "
        "ELSE lpad(CAST(1 - year(x) AS STRING), greatest(4, length(CAST(1 - year(x) AS STRING))), '0') || "
        "regexp_replace(CAST(x AS STRING), '^-?\\\\d+(-\\\\d\\\\d-\\\\d\\\\d)', '$1 (BC)') END"
    ),
    "clock(h BIGINT, m BIGINT, s BIGINT, f STRING) RETURNS BIGINT": (
        "CASE WHEN m > 59 OR s > 59 THEN NULL "
        "WHEN ((h * 60 + m) * 60 + s) * 1000000 + CAST(rpad(substring(f, 1, 6), 6, '0') AS BIGINT) <= 86400000000 "
        "THEN ((h * 60 + m) * 60 + s) * 1000000 + CAST(rpad(substring(f, 1, 6), 6, '0') AS BIGINT) END"
    ),
    "day(y INT, m INT, d INT) RETURNS BIGINT": (
        "CASE WHEN y BETWEEN -290307 AND 294246 "
        "THEN unix_micros(CAST(try_make_timestamp_ntz(y, m, d, 0, 0, 0) AS TIMESTAMP)) END"
    ),
    "read(t STRING, zone STRING) RETURNS BIGINT": (
        "CASE WHEN zone IS NOT NULL AND lower(zone) NOT IN ('utc', 'gmt') THEN CAST(raise_error("
        "'A time names the zone ' || zone || ': on Spark, times name UTC or an offset.') AS BIGINT) "
        f"WHEN {_group(6)} IS NOT NULL AND ({_group(1)} IS NOT NULL OR CAST({_group(2)} AS INT) = 0) THEN NULL "
        f"ELSE {PREFIX}day("
        f"CASE WHEN {_group(6)} IS NOT NULL THEN 1 - CAST({_group(2)} AS INT) "
        f"WHEN {_group(1)} IS NOT NULL THEN -CAST({_group(2)} AS INT) ELSE CAST({_group(2)} AS INT) END, "
        f"CAST({_group(4)} AS INT), CAST({_group(5)} AS INT)) + {PREFIX}clock("
        f"coalesce(CAST({_group(7)} AS BIGINT), 0), coalesce(CAST({_group(8)} AS BIGINT), 0), "
        f"coalesce(CAST({_group(9)} AS BIGINT), 0), coalesce({_group(10)}, '0')) - "
        f"CASE {_group(11)} WHEN '+' THEN 1 WHEN '-' THEN -1 ELSE 0 END * 1000000 * ("
        f"coalesce(CAST({_group(12)} AS BIGINT), 0) * 3600 + "
        f"coalesce(CAST({_group(13)} AS BIGINT), CAST({_group(14)} AS BIGINT), 0) * 60 + "
        f"coalesce(CAST({_group(15)} AS BIGINT), 0)) END"
    ),
    "moment(t STRING) RETURNS TIMESTAMP": (
        f"CASE WHEN regexp(t, {_text(_COMMON_MOMENT)}) THEN CAST(try_cast(t AS TIMESTAMP_NTZ) AS TIMESTAMP) "
        f"WHEN regexp(t, {_text(_MOMENT)}) THEN timestamp_micros({PREFIX}read(t, {_group(16)})) "
        f"WHEN regexp(lower(t), {_text(_SPECIAL)}) THEN CASE WHEN contains(lower(t), 'epoch') THEN timestamp_micros(0) "
        f"WHEN contains(t, '-') THEN timestamp_micros(-{LAST}) ELSE timestamp_micros({LAST}) END END"
    ),
    # Code point by code point: Spark's own may lengthen a text.
    "lower(t STRING) RETURNS STRING": (
        "CASE WHEN regexp(t, '[^\\\\x00-\\\\x7f]') THEN array_join(transform(split(t, ''), c -> CASE WHEN c = 'İ' THEN "
        "'i' WHEN length(lower(c)) = 1 THEN lower(c) WHEN length(initcap(c)) = 1 THEN initcap(c) ELSE c END), '') "
        "ELSE lower(t) END"
    ),
    "upper(t STRING) RETURNS STRING": (
        "CASE WHEN regexp(t, '[^\\\\x00-\\\\x7f]') THEN array_join(transform(split(t, ''), c -> CASE WHEN c = 'ß' THEN "
        "'ẞ' WHEN length(upper(c)) = 1 THEN upper(c) WHEN length(initcap(c)) = 1 THEN initcap(c) ELSE c END), '') "
        "ELSE upper(t) END"
    ),
    "strip(t STRING) RETURNS STRING": f"btrim(t, {_text(BLANK)})",
}
"""The functions, a later one built on earlier ones."""


def statements() -> list[str]:
    """What makes the functions in a session."""
    return [f"CREATE OR REPLACE TEMPORARY FUNCTION {PREFIX}{head} RETURN {body}" for head, body in DEFINITIONS.items()]
