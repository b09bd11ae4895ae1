"""What personal data looks like: e-mails, telephone, card and account numbers, national identity numbers.

Numbers with public check digits are checked by them. A kind says of one text whether it is one; whether a column holds
such data is decided over many by :mod:`components.ingest.personal`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from components.ingest import national_ids

_SEPARATORS = str.maketrans("", "", " -./()\u00a0")

_EMAIL = re.compile(
    r"[A-Za-z0-9._%+'-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*\.[A-Za-z]{2,24}(?![A-Za-z0-9])"
)

_INTERNATIONAL = re.compile(r"(?:\+|00 ?)[1-9](?:[ ().-]{0,2}[0-9]){6,14}(?: ?(?:x|ext\.?) ?[0-9]{1,5})?")
_NORTH_AMERICAN = re.compile(
    r"(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}(?: ?x[0-9]{1,5})?"
)
_AREA_CODE = re.compile(r"\(0[1-9][0-9]{0,4}\)[ /-]?[0-9]{3,8}(?:[ -][0-9]{2,4}){0,3}")
_GROUPS = re.compile(r"0[1-9][0-9]{0,4}(?:[ .][0-9]{2,4}){2,4}")
_PLAIN = re.compile(r"\+?[0-9]{7,15}|0[1-9][0-9]{1,4}[ /-]?[0-9]{4,9}")

_CARD = re.compile(r"[0-9]{13,19}|[0-9]{4}(?:[ -][0-9]{4}){2}[ -][0-9]{1,7}|[0-9]{4}[ -][0-9]{6}[ -][0-9]{4,5}")
_ISSUERS = re.compile(
    r"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})"  # Visa
    r"|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"  # Mastercard
    r"|3[47][0-9]{13}"  # American Express
    r"|(?:6011|64[4-9][0-9]|65[0-9]{2})[0-9]{12,15}"  # Discover
    r"|3(?:0[0-5]|[68][0-9])[0-9]{11}"  # Diners Club
    r"|35(?:2[89]|[3-8][0-9])[0-9]{12}"  # JCB
    r"|62[0-9]{14,17}"  # UnionPay
    r"|(?:50[0-9]{2}|5[6-9][0-9]{2}|6304|6759|676[1-3])[0-9]{8,15}"  # Maestro
)
_IBAN = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}")


@dataclass(frozen=True)
class Kind:
    """A kind of personal data.

    Attributes:
        name: as reports show it.
        is_one: whether a text, stripped of blanks around it, is one (or, for e-mails, holds one).
        share: the least share of a column's values that makes it such a column.
        called: column names that suggest it, for which ``hinted`` is enough.
        hinted: the least share in a column that is called so.
        loose: what counts only in a column that is called so: digits that could be anything.
        least: how many different values it takes, so that a single coincidence is none.
    """

    name: str
    is_one: Callable[[str], bool]
    share: float
    called: re.Pattern[str]
    hinted: float
    loose: Callable[[str], bool] | None = None
    least: int = 3


def digits(text: str) -> str:
    """The text without blanks and separators."""
    return text.translate(_SEPARATORS)


def is_email(text: str) -> bool:
    """Whether a text holds an e-mail address."""
    return "@" in text and _EMAIL.search(text) is not None


def is_phone(text: str) -> bool:
    """Whether a text is written as telephone numbers are: international with + or 00, or in a national way.

    Bare digits are none, nor are dates, decimals, and numbers in two groups such as order numbers.
    """
    if text.startswith("00") and text.isdigit():
        return False
    return any(form.fullmatch(text) for form in (_INTERNATIONAL, _NORTH_AMERICAN, _AREA_CODE, _GROUPS)) and (
        7 <= sum(character.isdigit() for character in text) <= 20
    )


def is_plain_phone(text: str) -> bool:
    """Whether a text could be a telephone number in a column that is called so."""
    return is_phone(text) or _PLAIN.fullmatch(text) is not None


def is_card(text: str) -> bool:
    """Whether a text is a payment card number: an issuer's range and length, and the Luhn digit (ISO/IEC 7812-1)."""
    if not _CARD.fullmatch(text):
        return False
    number = digits(text)
    return _ISSUERS.fullmatch(number) is not None and len(set(number)) > 1 and national_ids.luhn(number)


def is_iban(text: str) -> bool:
    """Whether a text is an IBAN: country, length and the remainder 1 modulo 97 (ISO 13616)."""
    compact = text.replace(" ", "").upper()
    if not _IBAN.fullmatch(compact):
        return False
    moved = compact[4:] + compact[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def _named(words: str) -> re.Pattern[str]:
    """Column names that end with one of the words: ``home_phone`` and ``phone_no``, and not ``phone_minutes``."""
    return re.compile(rf"(?:^|[^a-z])(?:{words})(?:_?(?:no|nr|num|number|text|raw|[0-9]{{1,2}}))?$")


def spelled(column: str) -> str:
    """A column's name in lower case, its words apart: ``homePhone`` becomes ``home_phone``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column).lower()


KINDS: tuple[Kind, ...] = (
    Kind("e-mail", is_email, 0.01, _named("e?_?mails?|mail_addr(?:ess)?"), 0.01, least=1),
    Kind("IBAN", is_iban, 0.5, _named("iban|bank_account|account"), 0.1),
    Kind(
        "card number",
        is_card,
        0.5,
        _named("(?:credit_?|debit_?)?cards?|cc|pan|kreditkarte"),
        0.1,
    ),
    *(
        Kind(f"national id ({rule.name})", rule.strict, 0.8, _named(rule.words), 0.5, rule.loose)
        for rule in national_ids.RULES
    ),
    Kind(
        "phone",
        is_phone,
        0.6,
        _named("(?:tele|cell_?)?phones?|tel|telefono?|mobile|msisdn|fax|handy|whatsapp"),
        0.5,
        is_plain_phone,
    ),
)
"""In the order in which a column is taken for one of them: a national id is never also reported as a telephone."""
