"""The expression language: what it computes, and that it refuses everything else with the place."""

import datetime
import math
from typing import Any

import pandas as pd
import pytest

from components.errors import BadInput
from components.features.expressions import derive
from components.features.language import columns_of
from components.features.schema import FeatureColumn, FeatureSchema, InputColumn

INPUTS = (
    InputColumn(name="x", type="number"),
    InputColumn(name="y", type="number"),
    InputColumn(name="plan", type="string"),
    InputColumn(name="total charges", type="number"),
    InputColumn(name="active", type="boolean"),
    InputColumn(name="since", type="timestamp"),
)
ROW = {
    "x": 4.0,
    "y": 0.0,
    "plan": "Gold Plus",
    "total charges": 10.0,
    "active": True,
    "since": "2026-03-01T22:15:00+02:00",
}


def value(expression: str, kind: str = "numeric", **changes: Any) -> Any:
    schema = FeatureSchema(
        task="regression",
        target="t",
        inputs=INPUTS,
        features=(FeatureColumn(name="f", kind=kind, expression=expression),),
        data_version="v",
    )
    result = derive(pd.DataFrame([{**ROW, **changes}]), schema)["f"].iloc[0]
    return None if result is None or result != result else result


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("x + 2 * 3 - 1", 9.0),
        ("-x ** 2", -16.0),
        ("x / y", None),
        ("7 // 2 + x % 3", 4.0),
        ("-7 % x", 1.0),
        ("x % y", None),
        ("log(x)", math.log(4)),
        ("log(y)", None),
        ("log1p(x)", math.log(5)),
        ("sqrt(0 - x)", None),
        ("exp(x * 1000)", None),
        ("round(x - 1.5)", 3.0),
        ("round(x / 3, 2)", 1.33),
        ("clip(x, 0, 3)", 3.0),
        ("min(x, y, 9)", 0.0),
        ("max(x, 9)", 9.0),
        ("coalesce(x / y, -1)", -1.0),
        ("nullif(x, 4)", None),
        ("is_missing(x / y)", 1.0),
        ("x > 3 and not y", "refused"),
        ("x > 3 and not y > 0", 1.0),
        ("1 < x <= 4", 1.0),
        ("x in (1, 4)", 1.0),
        ("plan not in ('a', 'b')", 1.0),
        ("1 if plan == 'Gold Plus' else 0", 1.0),
        ("2 if x / y > 1 else 3", 3.0),
        ("length(plan)", 9.0),
        ("contains(lower(plan), 'gold')", 1.0),
        ("active + 1", 2.0),
        ("active == 1", 1.0),
        ('col("total charges") / x', 2.5),
        ("year(since) * 100 + month(since)", 202603.0),
        ("hour(since)", 20.0),
        ("weekday(since)", 6.0),
        ("since > '2026-03-01 20:00'", 1.0),
        ("x ** 1000", None),
    ],
)
def test_an_expression_computes(expression, expected):
    if expected == "refused":
        with pytest.raises(BadInput, match="must be true or false, not a number"):
            value(expression)
    elif expected is None:
        assert value(expression) is None
    else:
        assert value(expression) == pytest.approx(expected)


def test_texts_are_categories():
    assert value("upper(plan) + '!'", kind="categorical") == "GOLD PLUS!"
    assert value("lower(plan)", kind="categorical", plan="  ") is None


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("x + * y", "position 5: invalid syntax"),
        ("x + nope", "position 5: there is no column 'nope'"),
        ("__import__('os').system('true')", "position 1: functions are called by name"),
        ("eval('1')", "there is no function 'eval'"),
        ("x.real", "Attribute is not part"),
        ("[x for x in (1,)]", "ListComp is not part"),
        ("(lambda: 1)()", "functions are called by name"),
        ("x if plan else y", "must be true or false, not a text"),
        ("plan + 1", "a text and a number cannot be added"),
        ("plan > x", "cannot be compared"),
        ("log(x, y)", "log takes 1 argument, not 2"),
        ("log(plan)", "position 5: this must be a number, not a text"),
        ("x is None", "the comparisons are"),
        ("x in y", '"in" needs a list'),
        ("x & 1", "the operators are"),
        ("since", "is a time, which no model can use"),
        ("1e999 + x", None),
        ("x + 1j", "neither a number"),
        ("x" + " + x" * 1000, "longer than 2,000"),
        ("f'{x}'", "JoinedStr is not part"),
        ("(x := 1)", "NamedExpr is not part"),
    ],
)
def test_a_wrong_expression_is_refused_with_its_place(expression, says):
    if says is None:
        assert value(expression) is None
        return
    with pytest.raises(BadInput) as caught:
        value(expression)
    assert says in str(caught.value)
    assert "Feature 'f'" in str(caught.value)


def test_the_columns_of_an_expression_are_found():
    found = columns_of('log(x) + col("total charges") * (1 if plan == "x" else y)', "f")
    assert set(found) == {"x", "total charges", "plan", "y"}


def test_a_request_may_send_numbers_and_times_as_text_or_as_what_they_are():
    for sent in ("4", " 4.0 ", 4, 4.0):
        assert value("x * 2", x=sent) == 8.0
    for sent in ("", "  ", None, float("nan"), float("inf"), "inf", "abc"):
        assert value("x * 2", x=sent) is None
    for sent in (datetime.datetime(2026, 3, 1, 20, 15), pd.Timestamp("2026-03-01T22:15", tz="Europe/Athens")):
        assert value("hour(since)", since=sent) == 20.0
    for sent in (True, "TRUE", 1):
        assert value("1 if active else 0", active=sent) == 1.0


def test_a_request_without_an_input_is_refused():
    with pytest.raises(BadInput, match="lacks the column 'plan'"):
        schema = FeatureSchema(
            task="regression",
            target="t",
            inputs=INPUTS,
            features=(FeatureColumn(name="x", kind="numeric"),),
            data_version="v",
        )
        derive(pd.DataFrame([{key: item for key, item in ROW.items() if key != "plan"}]), schema)


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(BadInput, match="not valid Unicode"):
        value("length(plan)", plan="\ud800")
