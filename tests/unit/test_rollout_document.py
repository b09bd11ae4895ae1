"""The InferenceService that is emitted: what KServe reads, constant in the life of a release."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import images
from components.errors import BadInput
from components.rollout.deployment import Deployment, parse_deployment
from components.rollout.document import inference_service
from components.rollout.validation import validate
from serving.local.document import validated
from serving.server.__main__ import parser

ROOT = Path(__file__).parents[2]
SCHEMAS = next(
    (parent / "shared" / "schemas" for parent in ROOT.parents if (parent / "shared" / "schemas").is_dir()), None
)


def emitted(deployment: dict[str, Any], uri: str = "s3://models/churn/3", **options: Any) -> dict[str, Any]:
    return inference_service("churn", uri, "3", {}, deployment=parse_deployment(deployment), **options)


def model(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["spec"]["predictor"]["model"]
    return found


FULL = {
    "namespace": "models",
    "image": "ghcr.io/sluiceway/python-serving@sha256:" + "a" * 64,
    "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
    "accelerators": 1,
    "autoscaling": {"min_replicas": 2, "max_replicas": 5, "metric": "rps", "target": 20},
    "service_account": "models",
    "storage": {"key": "my-bucket"},
    "logger": {"url": "http://sink.models", "mode": "request"},
    "labels": {"team": "growth"},
}


def test_everything_that_can_be_asked_for_is_in_the_document_and_fits_the_schema():
    document = emitted(FULL, lineage={"data-version": "d1", "bundle-digest": "sha256:b", "git-commit": ""})
    validate(document)
    predictor = document["spec"]["predictor"]
    assert (predictor["minReplicas"], predictor["maxReplicas"], predictor["scaleMetric"]) == (2, 5, "rps")
    assert predictor["serviceAccountName"] == "models"
    assert predictor["logger"] == {"url": "http://sink.models", "mode": "request"}
    assert model(document)["image"] == FULL["image"]
    assert model(document)["storage"] == {"key": "my-bucket"}
    assert model(document)["resources"]["limits"] == {"memory": "2Gi", "nvidia.com/gpu": "1"}
    assert model(document)["resources"]["requests"]["nvidia.com/gpu"] == "1"


def test_lineage_is_kept_where_it_does_not_restart_the_champions_pods():
    document = emitted({}, lineage={"data-version": "d1", "run-id": "r7", "git-commit": ""})
    assert document["spec"]["predictor"]["annotations"] == {
        "sluiceway.dev/model-version": "3",
        "sluiceway.dev/data-version": "d1",
        "sluiceway.dev/run-id": "r7",
    }
    assert document["metadata"]["annotations"] == {}


@pytest.mark.parametrize("framework", ["sklearn", "torch", "tensorflow"])
def test_a_model_that_onnx_cannot_express_is_served_in_its_frameworks_image(framework):
    assert model(emitted({}, lineage={"native": framework}))["image"] == images.for_training(framework, gpu=False)
    assert model(emitted({}, lineage={"native": ""}))["image"] == images.SERVING
    mine = emitted({"image": "registry.example.com/mine:1"}, lineage={"native": framework})
    assert model(mine)["image"] == "registry.example.com/mine:1"


def test_the_metadata_of_two_releases_is_the_same():
    one = inference_service("churn", "s3://models/1", "1", {}, deployment=Deployment(), lineage={"run-id": "a"})
    two = inference_service("churn", "s3://models/2", "2", {}, deployment=Deployment(), lineage={"run-id": "b"})
    assert one["metadata"] == two["metadata"]


def test_the_legacy_fields_that_the_webhook_rewrites_are_never_sent():
    for runtime in ("sluiceway", "mlflow", "onnx", "triton", "tensorflow", "sklearn"):
        document = emitted({"runtime": runtime})
        validate(document)
        assert "model" in document["spec"]["predictor"]
        assert runtime not in document["spec"]["predictor"]


def test_kserves_own_server_is_found_by_the_model_format():
    document = emitted({"runtime": "onnx"})
    assert model(document)["modelFormat"] == {"name": "onnx"}
    assert not {"runtime", "image", "readinessProbe"} & set(model(document))
    assert model(emitted({"runtime": "tensorflow"}))["protocolVersion"] == "v1"  # it does not speak V2


def test_our_server_is_named_with_its_image_and_probes():
    found = model(emitted({}))
    assert (found["runtime"], found["image"]) == ("sluiceway", images.SERVING)
    assert found["readinessProbe"]["httpGet"]["path"] == "/v2/models/churn/ready"


def test_a_storage_path_takes_the_place_of_the_uri():
    document = emitted({"storage": {"key": "my-bucket", "path": "churn/3"}})
    validate(document)
    assert "storageUri" not in model(document)


def test_the_document_for_this_machine_is_as_it_was():
    document = inference_service("churn", "/models/3", "3", {"B": "2", "A": "1"}, 8123)
    assert document["metadata"]["annotations"] == {"sluiceway.dev/model-version": "3", "sluiceway.dev/port": "8123"}
    assert [variable.name for variable in validated(document).spec.predictor.model.env] == ["A", "B"]


def test_the_single_machine_accepts_what_a_cluster_gets():
    validated(emitted(FULL, uri="file:///models/3"))


def test_the_servers_last_words_can_be_read_without_access_to_logs():
    assert model(emitted({}))["terminationMessagePolicy"] == "FallbackToLogsOnError"


def runtime() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(
        (ROOT / "manifests" / "base" / "models" / "serving-runtime.yaml").read_text()
    )
    return found


def test_the_serving_runtime_fits_its_schema():
    if SCHEMAS is None:
        pytest.skip("no CRDs beside the project")
    from jsonschema import Draft202012Validator

    crd = yaml.load((SCHEMAS / "serving.kserve.io_servingruntimes.yaml").read_text(), Loader=yaml.CSafeLoader)
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    from components.rollout.validation import strict

    checked = Draft202012Validator(strict(schema) | {"additionalProperties": True})
    broken = copy.deepcopy(runtime())
    broken["spec"]["containers"][0]["colour"] = "red"
    assert [error.message for error in checked.iter_errors(runtime())] == []
    assert list(checked.iter_errors(broken))


def test_the_serving_runtime_starts_our_server_in_our_image():
    container = runtime()["spec"]["containers"][0]
    assert container["name"] == "kserve-container"
    assert container["image"] == images.SERVING
    started = parser({}).parse_args(container["args"])
    assert (started.host, started.port) == ("0.0.0.0", container["ports"][0]["containerPort"])
    # Kubernetes kills 30 seconds after SIGTERM; the payload log takes up to 10 of them.
    assert started.drain_seconds + started.grace_seconds + 10 < 30
    assert {probe for probe in container if probe.endswith("Probe")} >= {"readinessProbe", "livenessProbe"}
    assert container["securityContext"]["runAsNonRoot"]
    uid = re.search(r"^USER (\d+)", (ROOT / "images" / "Dockerfile").read_text(), re.MULTILINE)
    assert uid
    assert container["securityContext"]["runAsUser"] == int(uid[1])


def test_a_service_that_we_would_not_dare_to_send_is_refused():
    with pytest.raises(BadInput, match=r"spec\.predictor\.model\.storageUri"):
        validate(emitted({}, uri="ftp://models/3"))
