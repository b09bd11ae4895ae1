"""The server's log as JSON lines, for the log agents of a cluster."""

import json
import logging
import sys
import time

import pytest

from serving.log import REQUEST_ID, JsonLines, Sparing


@pytest.fixture
def of_request():
    token = REQUEST_ID.set("9f3c" + "x" * 500)
    yield
    REQUEST_ID.reset(token)


def record(message, *arguments, **fields):
    return logging.LogRecord("kserve", logging.ERROR, "", 0, message, arguments, fields.get("exc_info"))


def test_a_line_holds_its_level_its_time_and_a_traceback_as_one_object(of_request):
    try:
        raise ValueError("a value\nin two lines")
    except ValueError:
        text = JsonLines().format(record("failed on %s", "row 3", exc_info=sys.exc_info()))
    assert "\n" not in text
    line = json.loads(text)
    assert (line["level"], line["logger"], line["message"]) == ("error", "kserve", "failed on row 3")
    assert line["exception"].endswith("ValueError: a value\nin two lines")
    assert line["time"] == pytest.approx(time.time(), abs=5)
    assert line["request"].startswith("9f3cxx")
    assert len(line["request"]) == 128  # a client may send anything


def test_a_line_outside_of_a_request_has_no_request():
    assert "request" not in json.loads(JsonLines().format(record("listening")))


def test_warnings_are_held_back_beyond_some_per_second_and_counted():
    now = 100.0
    sparing = Sparing(2, lambda: now)

    def warned():
        made = logging.LogRecord("serving", logging.WARNING, "", 0, "400: %s", ("bad",), None)
        return made.getMessage() if sparing.filter(made) else None

    assert [warned() for _ in range(5)] == ["400: bad", "400: bad", None, None, None]
    assert sparing.filter(record("an error"))  # never held back
    now += 1.5
    assert warned() == "400: bad (3 warnings before this one were not logged)"
    assert warned() == "400: bad"
    assert warned() is None
