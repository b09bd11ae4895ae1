"""The InferenceService document: which fields are read, and what is refused."""

import copy

import pytest

from components.errors import BadInput
from serving.local.document import bundle_folder, template_of, validated

GOOD = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "churn", "labels": {"team": "a"}},
    "spec": {
        "predictor": {
            "model": {"modelFormat": {"name": "mlflow"}, "storageUri": "file:///models/1", "resources": {}},
            "serviceAccountName": "x",
        }
    },
}


def changed(path, value):
    document = copy.deepcopy(GOOD)
    part = document
    *parents, last = path.split(".")
    for name in parents:
        part = part[name]
    part[last] = value
    return document


def test_unknown_fields_are_tolerated():
    assert validated(GOOD).spec.predictor.model.storage_uri == "file:///models/1"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("apiVersion", "v1", "apiVersion"),
        ("kind", "Service", "kind"),
        ("metadata.name", "Churn_1", r"metadata\.name: use at most 40 lower-case letters"),
        ("metadata.name", "c" * 50, r"metadata\.name"),
        ("metadata.annotations", {"sluiceway.dev/port": "http"}, "sluiceway.dev/port must be a port number"),
        ("spec.predictor.canaryTrafficPercent", 101, r"spec\.predictor\.canaryTrafficPercent"),
        ("spec.predictor.canaryTrafficPercent", -1, r"spec\.predictor\.canaryTrafficPercent"),
        ("spec.predictor.canaryTrafficPercent", "10", r"spec\.predictor\.canaryTrafficPercent"),
        ("spec.predictor.model.storageUri", "gs://bucket/model", "absolute path or file:///"),
        ("spec.predictor.model.storageUri", "models/1", "absolute path or file:///"),
        ("spec.predictor.model.env", [{"value": "x"}], r"spec\.predictor\.model\.env\.0\.name"),
        ("spec.predictor", {}, r"spec\.predictor\.model"),
    ],
)
def test_a_wrong_field_is_named(path, value, said):
    with pytest.raises(BadInput, match=said):
        validated(changed(path, value))


def test_the_share_of_traffic_is_no_part_of_the_template():
    assert template_of(changed("spec.predictor.canaryTrafficPercent", 10)) == template_of(GOOD)
    assert template_of(changed("spec.predictor.model.storageUri", "file:///models/2")) != template_of(GOOD)


@pytest.mark.parametrize("uri", ["file:///a%20b/c", "file://localhost/a b/c", "/a b/c"])
def test_a_storage_uri_is_a_folder_on_this_machine(uri):
    assert str(bundle_folder(uri)) == "/a b/c"
