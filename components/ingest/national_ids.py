"""National identity numbers whose rules are public, told by their form and check digits.

Covered: United States (SSN), United Kingdom (NINO), France (NIR), Spain (DNI, NIE), Italy (codice fiscale), Germany
(Steuer-ID), Netherlands (BSN), Poland (PESEL), Sweden (personnummer), Brazil (CPF), Canada (SIN), India (Aadhaar).
Each rule was written from the issuing authority's own description.
"""

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass

_CONTROL = "TRWAGMYFPDXBNJZSQVHLCKE"
"""Spain: the letter at the number's remainder modulo 23."""

_ODD = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21] * 2 + [2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23],
        strict=True,
    )
)
"""Italy: what a character counts at an odd place (decree of 23 December 1976)."""

_DIHEDRAL = (
    "0123456789",
    "1234067895",
    "2340178956",
    "3401289567",
    "4012395678",
    "5987604321",
    "6598710432",
    "7659821043",
    "8765932104",
    "9876543210",
)
_PERMUTED = (
    "0123456789",
    "1576283094",
    "5803796142",
    "8916043527",
    "9453126870",
    "4286573901",
    "2793806415",
    "7046913258",
)
"""Verhoeff's tables: multiplication in the dihedral group of order 10, and the permutation by place."""


@dataclass(frozen=True)
class Rule:
    """A country's number.

    Attributes:
        name: the country's code and its name for the number.
        strict: whether a text is one beyond doubt of form.
        words: of column names that suggest it.
        loose: what counts in a column that is called so.
    """

    name: str
    strict: Callable[[str], bool]
    words: str
    loose: Callable[[str], bool] | None = None


def luhn(number: str) -> bool:
    """Whether the last digit is the Luhn digit of those before (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, character in enumerate(reversed(number)):
        digit = int(character) * (1 + place % 2)
        total += digit - 9 if digit > 9 else digit
    return total % 10 == 0


def _form(pattern: str, holds: Callable[[str], bool]) -> Callable[[str], bool]:
    """A written form, and what holds of its letters and digits alone, in upper case."""
    form = re.compile(pattern, re.IGNORECASE)

    def is_one(text: str) -> bool:
        return form.fullmatch(text) is not None and holds(re.sub(r"[^0-9A-Za-z]", "", text).upper())

    return is_one


def _ssn(number: str) -> bool:
    return number[:3] not in ("000", "666") and number[0] != "9" and number[3:5] != "00" and number[5:] != "0000"


def _nino(number: str) -> bool:
    return number[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


def _nir(number: str) -> bool:
    body = number[:13].replace("2A", "19").replace("2B", "18")  # Corsica
    return int(number[13:]) == 97 - int(body) % 97


def _dni(number: str) -> bool:
    body = number[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return number[-1] == _CONTROL[int(body) % 23]


def _codice_fiscale(number: str) -> bool:
    total = sum(
        _ODD[character] if place % 2 == 0 else int(character, 36) - (10 if character.isalpha() else 0)
        for place, character in enumerate(number[:15])
    )
    return number[15] == chr(ord("A") + total % 26)


def _steuer_id(number: str) -> bool:
    """ISO/IEC 7064 modulo 11, 10; of the first ten digits exactly one occurs twice or three times."""
    repeated = sorted(number[:10].count(digit) for digit in set(number[:10]))
    if repeated[-1] not in (2, 3) or repeated.count(1) != len(repeated) - 1:
        return False
    product = 10
    for digit in number[:10]:
        product = 2 * ((int(digit) + product) % 10 or 10) % 11
    return int(number[10]) == (11 - product) % 10


def _bsn(number: str) -> bool:
    weights = (9, 8, 7, 6, 5, 4, 3, 2, -1)
    total = sum(weight * int(digit) for weight, digit in zip(weights, number.zfill(9), strict=True))
    return int(number) > 0 and total % 11 == 0


def _pesel(number: str) -> bool:
    month = int(number[2:4])
    weights = (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)
    total = sum(weight * int(digit) for weight, digit in zip(weights, number, strict=True))
    return total % 10 == 0 and _is_date(1900, int(number[:2]), month % 20, int(number[4:6]))


def _personnummer(number: str) -> bool:
    day = int(number[-6:-4])
    return luhn(number[-10:]) and _is_date(1900, int(number[-10:-8]), int(number[-8:-6]), day - 60 * (day > 60))


def _cpf(number: str) -> bool:
    if len(set(number)) == 1:
        return False
    for length in (9, 10):
        total = sum(int(digit) * (length + 1 - place) for place, digit in enumerate(number[:length]))
        if int(number[length]) != total * 10 % 11 % 10:
            return False
    return True


def _aadhaar(number: str) -> bool:
    check = 0
    for place, digit in enumerate(reversed(number)):
        check = int(_DIHEDRAL[check][int(_PERMUTED[place % 8][int(digit)])])
    return check == 0


def _is_date(century: int, year: int, month: int, day: int) -> bool:
    try:
        datetime.date(century + year if year else century + 100, month, day)
    except ValueError:
        return False
    return True


RULES: tuple[Rule, ...] = (
    Rule(
        "US SSN",
        _form(r"[0-9]{3}-[0-9]{2}-[0-9]{4}|[0-9]{3} [0-9]{2} [0-9]{4}", _ssn),
        "ssn|social_security|social_security_(?:number|no)",
        _form(r"[0-9]{9}", _ssn),
    ),
    Rule(
        "UK NINO",
        _form(r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]", _nino),
        "nino|ni_?number|national_insurance(?:_number)?",
    ),
    Rule("FR NIR", _form(r"[1278] ?[0-9]{2} ?[0-9]{2} ?(?:[0-9]{2}|2[AB]) ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}", _nir), "nir"),
    Rule("ES DNI", _form(r"(?:[0-9]{8}|[XYZ]-?[0-9]{7})-?[A-Z]", _dni), "dni|nie|nif"),
    Rule(
        "IT codice fiscale",
        _form(r"[A-Z]{6}[0-9L-NP-V]{2}[A-EHLMPRST][0-9L-NP-V]{2}[A-Z][0-9L-NP-V]{3}[A-Z]", _codice_fiscale),
        "codice_?fiscale",
    ),
    Rule("DE Steuer-ID", _form(r"[1-9][0-9]{10}|[1-9][0-9](?: [0-9]{3}){3}", _steuer_id), "steuer_?id|idnr"),
    Rule("PL PESEL", _form(r"[0-9]{11}", _pesel), "pesel"),
    Rule("BR CPF", _form(r"[0-9]{11}|[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", _cpf), "cpf"),
    Rule(
        "SE personnummer",
        _form(r"(?:19|20)?[0-9]{6}[-+][0-9]{4}", _personnummer),
        "personnummer|pnr",
        _form(r"(?:19|20)?[0-9]{10}", _personnummer),
    ),
    Rule(
        "CA SIN",
        _form(r"[1-79][0-9]{2}([ -])[0-9]{3}\1[0-9]{3}", luhn),
        "sin|social_insurance(?:_number)?",
        _form(r"[1-79][0-9]{8}", luhn),
    ),
    Rule(
        "IN Aadhaar",
        _form(r"[2-9][0-9]{3} [0-9]{4} [0-9]{4}", _aadhaar),
        "aadhaar|aadhar|uidai",
        _form(r"[2-9][0-9]{11}", _aadhaar),
    ),
    Rule("NL BSN", lambda _text: False, "bsn|burgerservicenummer|sofi_?nummer", _form(r"[0-9]{8,9}", _bsn)),
)
"""Those that are bare digits with one check digit count only in a column called so, since one number in ten is one."""
