"""The OpenAPI document is about the routes that there are."""

import json

import pytest

from serving.server.app import Application
from serving.server.core import Core
from serving.server.limits import Limits
from serving.server.openapi import OPERATIONS, document
from serving.server.repository import Repository
from serving.server.served import Served
from tests.serving_bundle import write_bundle


@pytest.fixture(scope="module")
def paths():
    return Application(Core(Limits(), Repository(Limits())), "1", lambda: b"").paths()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openapi") / "bundle"
    write_bundle(folder)
    return Served.load("my model", "r1", folder)


def test_every_route_is_described_and_nothing_else(paths):
    assert sorted(paths) == sorted(OPERATIONS)
    assert len(set(paths)) == len(paths)


def test_it_names_the_models_paths_columns_and_classes(paths, served):
    whole = document(paths, [served], "1", Limits(), has_tokens=False)
    assert "/v1/models/my%20model:predict" in whole["paths"]
    assert "/v2/models/my%20model/versions/r1/infer" in whole["paths"]
    schemas = whole["components"]["schemas"]
    as_object, as_array = schemas["0.my-model.instances"]["properties"]["instances"]["items"]["anyOf"]
    assert as_object["required"] == list(served.reader.names)
    assert len(as_array["prefixItems"]) == len(served.reader.names)
    assert as_object["properties"]["size"]["type"] == ["string", "null"]
    assert "Yes" in json.dumps(schemas["0.my-model.predictions"])
    assert "security" not in whole


def test_a_model_that_cannot_be_explained_has_no_such_path(paths, served):
    assert served.model.background is None
    assert not [
        path for path in document(paths, [served], "1", Limits(), has_tokens=False)["paths"] if "explain" in path
    ]


def test_references_lead_somewhere_and_operations_have_names_of_their_own(paths, served):
    whole = document(paths, [served], "1", Limits(), has_tokens=True)
    text = json.dumps(whole)
    for reference in {part.split('"')[0] for part in text.split('"$ref": "#/components/schemas/')[1:]}:
        assert reference in whole["components"]["schemas"]
    names = [operation["operationId"] for path in whole["paths"].values() for operation in path.values()]
    assert len(set(names)) == len(names)
    assert whole["security"] == [{"token": []}]
    assert all("401" in operation["responses"] for path in whole["paths"].values() for operation in path.values())
