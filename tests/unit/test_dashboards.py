"""The dashboards' files are those of their pages, and Grafana's own types read them whole."""

import importlib.util
import json
import re

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.manifests import FOLDER

_SPEC = importlib.util.spec_from_file_location("dashboards", FOLDER / "monitoring/dashboards.py")
dashboards = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(dashboards)
register_default_plugins()

pytestmark = pytest.mark.parametrize("file", dashboards.PAGES, ids=lambda file: file.stem)


def test_a_file_is_what_its_page_says_now(file):
    made = dashboards.as_grafana(dashboards.page(file))
    assert file.with_suffix(".json").read_text() == made, "run make dashboards"


def test_grafana_s_types_know_every_field(file):
    content = json.loads(file.with_suffix(".json").read_text())
    assert lost(content, read_and_written(content)) == []
    content["panels"][1]["targets"][0]["exprr"] = "up"
    assert lost(content, read_and_written(content)) == ["/panels/1/targets/0/exprr"]


def read_and_written(content):
    return json.loads(JSONEncoder().encode(Dashboard.from_json(content)))


def lost(before, after, where=""):
    """What Grafana's types did not take over."""
    if isinstance(before, dict):
        known = after if isinstance(after, dict) else {}
        parts = [lost(value, known.get(key), f"{where}/{key}") for key, value in before.items()]
        return [path for part in parts for path in part]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [path for number, (one, other) in pairs for path in lost(one, other, f"{where}/{number}")]
    return [] if before == after else [where]


def test_panels_have_numbers_of_their_own_and_use_variables_that_there_are(file):
    content = json.loads(file.with_suffix(".json").read_text())
    numbers = [panel["id"] for panel in content["panels"]]
    assert len(set(numbers)) == len(numbers)
    known = {variable["name"] for variable in content["templating"]["list"]} | {"__rate_interval", "__range"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(content))) <= known
