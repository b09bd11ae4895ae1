"""Target-free encodings of categories: fitted on the train split, applied to every split and at serving.

=========  ============================================  ==================  ==========
how        a category                                    an unseen one       a missing one
=========  ============================================  ==================  ==========
``rate``   its share of the train rows                   0                   missing
``count``  how many train rows have it                   0                   missing
``hash``   one of N buckets, ``"0"`` to ``"N - 1"``      as any other        missing
=========  ============================================  ==================  ==========
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from components.errors import BadInput
from components.features.parsing import floor
from components.features.schema import Encoding, FeatureColumn

if TYPE_CHECKING:
    import ibis.expr.types as ir

MOST = 10_000
"""Categories that one encoding may learn: the model's ``features.json`` carries them."""

_DIGITS = 6
"""Hexadecimal digits of the md5 that make a bucket: 16.7 million, of which the buckets are remainders."""

_HEX = "0123456789abcdef"


def fitted(feature: FeatureColumn, counted: Sequence[tuple[Any, int]], total: int) -> FeatureColumn:
    """The feature with what it learnt.

    Args:
        feature: has a ``rate`` or ``count`` to fit.
        counted: categories that are not missing, and how many train rows have them; at most ``MOST`` + 1 of them.
        total: how many train rows there are.

    Raises:
        BadInput: there are too many categories.
    """
    assert feature.encoding is not None
    if len(counted) > MOST:
        raise BadInput(
            f"Encoding {feature.name!r}: {feature.expression} has more than {MOST:,} categories in the train split, "
            "which a model should not carry; use how: hash."
        )
    counts = tuple(sorted((category, int(count)) for category, count in counted))
    return feature.model_copy(
        update={"encoding": feature.encoding.model_copy(update={"counts": counts, "total": total})}
    )


def looked_up(value: "ir.Value", count: "ir.Value", encoding: Encoding) -> "ir.Value":
    """The encoded value of a category whose count was joined, missing for a category that was not seen."""
    known = count.fill_null(0).cast("float64")
    encoded = known / float(encoding.total) if encoding.how == "rate" else known
    return value.isnull().ifelse(None, encoded)


def bucket(value: "ir.StringValue", buckets: int) -> "ir.StringValue":
    """The bucket of a text as text: the first digits of its md5 as a number, less all whole multiples of N."""
    import ibis

    digest = value.hexdigest("md5")
    number: Any = ibis.literal(0.0)
    for place in range(_DIGITS):
        number = number * 16.0 + ibis.literal(_HEX).find(digest.substr(place, 1)).cast("float64")
    remainder = number - floor(number / float(buckets)) * float(buckets)
    return remainder.cast("int64").cast("string")


def encoder(encoding: Encoding) -> Callable[[list[Any]], list[Any]]:
    """A function that encodes categories, None or NaN being a missing one, as the splits were encoded."""
    if encoding.how == "hash":
        return lambda values: [None if value is None else _bucket(value, encoding.buckets) for value in values]
    share = float(encoding.total) if encoding.how == "rate" else 1.0
    known: dict[Any, float] = {category: count / share for category, count in encoding.counts}
    return lambda values: [None if value is None or value != value else known.get(value, 0.0) for value in values]


def _bucket(value: str, buckets: int) -> str:
    digest = hashlib.md5(value.encode(), usedforsecurity=False).hexdigest()
    return str(int(digest[:_DIGITS], 16) % buckets)
