"""The server's options: by argument, by variable, and as the page about it says."""

import re
from pathlib import Path

import pytest

from serving.server.__main__ import PREFIX, parser
from serving.server.limits import Limits

ROOT = Path(__file__).parents[2]
LEAST = ["--bundle", "b", "--port", "1"]


def test_an_option_can_be_a_variable_and_an_argument_counts_more():
    environment = {f"{PREFIX}{name}": value for name, value in {"WORKERS": "3", "BUNDLE": "x", "PORT": "80"}.items()}
    given = parser(environment).parse_args([])
    assert (given.workers, given.bundle, given.port) == (3, Path("x"), 80)
    assert parser(environment).parse_args(["--workers", "2"]).workers == 2
    flags = {f"{PREFIX}ANNOUNCE": "1", f"{PREFIX}TOKEN_FOR_METRICS": "false"}
    given = parser(flags).parse_args(LEAST)
    assert (given.announce, given.token_for_metrics) == (True, False)


@pytest.mark.parametrize(
    ("variable", "value"), [("WORKERS", "many"), ("WORKERS", "-1"), ("MODEL_CONTROL", "poll"), ("GRACE_SECONDS", "inf")]
)
def test_a_variable_that_does_not_read_is_named(capsys, variable, value):
    with pytest.raises(SystemExit):
        parser({f"{PREFIX}{variable}": value}).parse_args(LEAST)
    assert variable.lower().replace("_", "-") in capsys.readouterr().err.lower().replace("_", "-")


def test_the_page_names_options_that_there_are_and_every_limit_s_default():
    page = (ROOT / "docs" / "serving.md").read_text()
    known = set(parser({})._option_string_actions) | {"--help"}
    assert set(re.findall(r"--[a-z][a-z-]+", page)) <= known
    given = parser({}).parse_args(LEAST)
    stated = dict(re.findall(r"^\| `(--[a-z-]+)`[^|]*\| ([\d,]+)", page, re.MULTILINE))
    assert len(stated) > 6
    for option, number in stated.items():
        value = getattr(given, parser({})._option_string_actions[option].dest)
        assert int(number.replace(",", "")) == (value // 1024**2 if option == "--max-body-bytes" else value), option
    fixed = Limits()
    assert f"{fixed.columns:,} tensors, {fixed.text_chars:,} characters of a text, {fixed.depth} levels" in page
