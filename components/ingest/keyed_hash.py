"""Values replaced by a keyed hash: HMAC-SHA256, computed by DuckDB column by column.

Without the key nobody can find out by trying which telephone number or e-mail a hash stands for; with the same key a
value has the same hash in every table, so that hashed columns still join.
"""

import hashlib
import hmac
import re
import string
from typing import TYPE_CHECKING

from components.errors import BadInput
from components.settings import settings

if TYPE_CHECKING:
    import duckdb

_BLOCK = 64
"""Bytes of a SHA-256 block (RFC 2104)."""

_SHORTEST = 32
"""Characters that a key has at least: sixteen bytes in hexadecimal."""

_BLANK = " \t\n\r"
_BLANK_SQL = r"E' \t\n\r'"

_INNER, _OUTER = "sluiceway_hash_inner", "sluiceway_hash_outer"

_SPACED = (
    r"^\+[0-9][0-9 ().-]+$",
    r"^[0-9]{4}([ -][0-9]{2,6}){2,3}$",
    r"^[A-Za-z]{2}[0-9]{2}( [A-Za-z0-9]{1,4}){3,8}$",
)
"""International telephone numbers, card numbers, IBANs: written in groups or not, they are the same number."""


def key() -> bytes:
    """The key, from the environment.

    Raises:
        BadInput: there is none, or it is short enough to be guessed.
    """
    text = settings().hash_key.get_secret_value()
    make = (
        "make one with: python -c 'import secrets; print(secrets.token_hex(32))', and keep it, for with another one "
        "the hashes differ"
    )
    if not text:
        raise BadInput(f"Personal data is to be hashed, but SLUICEWAY_HASH_KEY is not set; {make}.")
    if len(text) < _SHORTEST:
        raise BadInput(f"SLUICEWAY_HASH_KEY has fewer than {_SHORTEST} characters and could be guessed; {make}.")
    return text.encode()


def fingerprint(expected: str = "") -> str:
    """What tells keys apart without revealing them: sixteen hexadecimal digits of the key's HMAC of a fixed text.

    Raises:
        BadInput: there is no key, or it is not the expected one.
    """
    found = hmac.new(key(), b"sluiceway: fingerprint of the key", hashlib.sha256).hexdigest()[:16]
    if expected and found != expected:
        raise BadInput(
            f"Personal data was hashed with the key {expected}, but SLUICEWAY_HASH_KEY is the key {found} (these are "
            "fingerprints): set the former one, or leave the key out of personal_data for a version of its own."
        )
    return found


def of(value: str) -> str | None:
    """The hash of one value, as :func:`expression` computes it: for looking somebody up, or for erasing them.

    Raises:
        BadInput: there is no key.
    """
    text = normalised(value)
    return hmac.new(key(), text.encode(), hashlib.sha256).hexdigest() if text else None


def normalised(value: str) -> str:
    """What is hashed of a value: without blanks around it; an e-mail in lower case; numbers without their spacing.

    It depends on nothing but the value, so that tables join whatever else their columns hold.
    """
    text = value.strip(_BLANK)
    if "@" in text:
        return text.translate(str.maketrans(string.ascii_uppercase, string.ascii_lowercase))
    if any(re.search(pattern, text) for pattern in _SPACED):
        return re.sub(r"[ ().-]", "", text).upper()
    return text


def prepare(connection: "duckdb.DuckDBPyConnection") -> None:
    """Put the key into variables of the connection, so that it stands in no SQL and in no message."""
    secret = key()
    padded = (hashlib.sha256(secret).digest() if len(secret) > _BLOCK else secret).ljust(_BLOCK, b"\0")
    for variable, mask in ((_INNER, 0x36), (_OUTER, 0x5C)):
        connection.execute(f"SET VARIABLE {variable} = ?", [bytes(byte ^ mask for byte in padded)])


def expression(column: str) -> str:
    """SQL for the hash of a quoted column as 64 hexadecimal digits; blank values become missing.

    The connection must have been prepared.
    """
    text = f"trim({column}::VARCHAR, {_BLANK_SQL})"
    spaced = " OR ".join(f"regexp_matches({text}, '{pattern}')" for pattern in _SPACED)
    value = (
        f"CASE WHEN {text} = '' THEN NULL WHEN contains({text}, '@') THEN {_lower(text)} "
        f"WHEN {spaced} THEN upper(regexp_replace({text}, '[ ().-]', '', 'g')) ELSE {text} END"
    )
    inner = f"unhex(sha256(getvariable('{_INNER}') || encode({value})))"
    return f"sha256(getvariable('{_OUTER}') || {inner})"


def _lower(text: str) -> str:
    """ASCII letters in lower case; databases and Python differ in what they make of others."""
    return f"translate({text}, '{string.ascii_uppercase}', '{string.ascii_lowercase}')"
