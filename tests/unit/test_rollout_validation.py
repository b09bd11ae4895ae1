"""What KServe would refuse or ignore is said before anything is sent, in one sentence with the field's path."""

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.errors import BadInput
from components.rollout import validation
from components.rollout.deployment import Deployment
from components.rollout.document import inference_service
from components.rollout.validation import has_field, validate

ROOT = Path(__file__).parents[2]
SCHEMAS = next(
    (parent / "shared" / "schemas" for parent in ROOT.parents if (parent / "shared" / "schemas").is_dir()), None
)


def service(version: str = "1") -> dict[str, Any]:
    return inference_service("churn", f"s3://models/{version}", version, {}, deployment=Deployment())


def predictor_with(**fields: Any) -> dict[str, Any]:
    document = service()
    document["spec"]["predictor"] |= fields
    return document


def model_with(**fields: Any) -> dict[str, Any]:
    document = service()
    document["spec"]["predictor"]["model"] |= fields
    return document


def annotated(document: dict[str, Any], **annotations: str) -> dict[str, Any]:
    document["metadata"]["annotations"] |= {f"serving.kserve.io/{key}": value for key, value in annotations.items()}
    return document


def canary(percent: int = 10, **fields: Any) -> dict[str, Any]:
    """A service in Standard mode with a canary."""
    document = annotated(service(), deploymentMode="Standard")
    document["spec"]["predictor"]["name"] = "v1"
    challenger = copy.deepcopy(service("2")["spec"]["predictor"]) | {"name": "v2", "minReplicas": 1} | fields
    challenger["model"]["name"] = "kserve-container"
    document["spec"]["canary"] = [{"trafficPercent": percent, "predictor": challenger}]
    return document


def refused(document: dict[str, Any]) -> str:
    with pytest.raises(BadInput) as refusal:
        validate(document)
    message = str(refusal.value)
    assert message.count(". ") == 0
    assert message.endswith(".")
    return message.removeprefix("The InferenceService churn is not valid at ")


def test_what_is_right_passes():
    validate(service())
    validate(canary())
    validate(predictor_with(canaryTrafficPercent=0))


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (model_with(colour="red"), "spec.predictor.model.colour:"),
        (predictor_with(minReplicas="two"), "spec.predictor.minReplicas:"),
        (predictor_with(logger={"url": "http://x", "mode": "some"}), "spec.predictor.logger.mode:"),
        (predictor_with(scaleMetric="queue"), "spec.predictor.scaleMetric:"),
        (model_with(env=[{"value": "1"}]), "spec.predictor.model.env[0].name:"),
    ],
)
def test_a_field_that_does_not_fit_the_schema_is_named(document: dict[str, Any], path: str):
    assert refused(document).startswith(path)


def test_a_number_or_text_where_kubernetes_takes_both():
    for amount in ("500m", 2):
        validate(model_with(resources={"requests": {"cpu": amount}}))


@pytest.mark.parametrize("percent", [-1, 101])
def test_the_share_in_knative_mode_has_no_bounds_in_the_api_so_we_check_it(percent: int):
    assert refused(predictor_with(canaryTrafficPercent=percent)).startswith("spec.predictor.canaryTrafficPercent:")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (predictor_with(minReplicas=3, maxReplicas=2), "spec.predictor.minReplicas: it is 3, above maxReplicas"),
        (predictor_with(scaleMetric="cpu"), "spec.predictor.scaleMetric: cpu needs the annotation"),
        (annotated(predictor_with(scaleMetric="rps"), deploymentMode="Standard"), "spec.predictor.scaleMetric: rps"),
        (
            annotated(predictor_with(minReplicas=0), deploymentMode="Standard"),
            "spec.predictor.minReplicas: only Knative",
        ),
        (annotated(service(), autoscalerClass="magic"), "metadata.annotations[serving.kserve.io/autoscalerClass]"),
        (model_with(storageUri="ftp://models"), "spec.predictor.model.storageUri: KServe cannot load from"),
        (model_with(storage={"path": "a"}), "spec.predictor.model.storage.path: only one"),
        (model_with(env=[{"name": "PYTHONPATH", "value": "/x"}]), "spec.predictor.model.env[0]: KServe does not allow"),
        (predictor_with(sklearn={"storageUri": "s3://x"}), "spec.predictor: exactly one model"),
    ],
)
def test_kserves_own_rules(document: dict[str, Any], said: str):
    assert refused(document).startswith(said)


def test_the_webhook_refuses_a_container_name_on_the_stable_predictor():
    assert refused(model_with(name="kserve-container")).startswith("spec.predictor.model.name:")


def test_a_canary_without_a_container_name_is_refused_as_a_real_api_server_does():
    document = canary()
    del document["spec"]["canary"][0]["predictor"]["model"]["name"]
    assert refused(document).startswith("spec.canary[0].predictor.model.name: it is required")


def test_a_canary_needs_standard_mode():
    document = canary()
    del document["metadata"]["annotations"]["serving.kserve.io/deploymentMode"]
    assert refused(document).startswith("spec.canary: it needs the annotation serving.kserve.io/deploymentMode")


def test_a_canary_with_a_transformer_is_refused():
    document = canary()
    document["spec"]["transformer"] = {"containers": [{"name": "transformer", "image": "x"}]}
    assert refused(document).startswith("spec.canary: KServe sends what is meant for a transformer")


@pytest.mark.parametrize("field", [{"maxReplicas": 2}, {"scaleTarget": 5}, {"scaleMetric": "cpu"}])
def test_a_canary_takes_no_autoscaling_fields(field: dict[str, Any]):
    assert refused(canary(**field)).startswith(f"spec.canary[0].predictor.{next(iter(field))}: a canary has a fixed")


def test_a_canary_has_at_most_as_many_servers_as_the_champion():
    assert refused(canary(minReplicas=2)).startswith("spec.canary[0].predictor.minReplicas: it is 2, above")


def test_names_of_canaries_differ_and_their_shares_are_at_most_100_together():
    assert refused(canary(name="v1")).startswith("spec.canary[0].predictor.name: 'v1' is the name of another")
    document = canary(60)
    document["spec"]["canary"].append(copy.deepcopy(document["spec"]["canary"][0]))
    document["spec"]["canary"][1]["predictor"]["name"] = "v3"
    assert refused(document).startswith("spec.canary: the trafficPercent of all canaries")


def test_an_annotation_that_would_make_kserve_ignore_our_own_changes_is_refused():
    """serving.kserve.io/disable-auto-update skips every reconciliation of a service that is ready, not only those that
    a changed runtime brings: with it no step of a rollout would come into force."""
    said = refused(annotated(service(), **{"disable-auto-update": "true"}))
    assert said.startswith("metadata.annotations[serving.kserve.io/disable-auto-update]")


def test_a_name_too_long_for_its_revisions_is_refused():
    document = service()
    document["metadata"]["name"] = "c" * 50
    with pytest.raises(BadInput, match="longer than 63"):
        validate(document)


def test_the_clusters_own_schema_is_asked_where_it_publishes_one():
    older = copy.deepcopy(json.loads(gzip.decompress(validation._SHIPPED.read_bytes())))
    del older["properties"]["spec"]["properties"]["canary"]
    assert has_field(None, "spec", "canary")
    assert not has_field(older, "spec", "canary")
    with pytest.raises(BadInput, match=r"spec\.canary: this version of KServe knows no such field"):
        validate(canary(), older)


def test_the_schema_that_is_shipped_is_that_of_the_crd():
    if SCHEMAS is None:
        pytest.skip("no CRDs beside the project")
    crd = yaml.load((SCHEMAS / "serving.kserve.io_inferenceservices.yaml").read_text(), Loader=yaml.CSafeLoader)
    theirs = next(version for version in crd["spec"]["versions"] if version["name"] == "v1beta1")
    assert _undescribed(theirs["schema"]["openAPIV3Schema"]) == json.loads(
        gzip.decompress(validation._SHIPPED.read_bytes())
    )


def _undescribed(part: Any, names: bool = False) -> Any:
    """A schema without its descriptions; ``names`` where the keys are names of fields."""
    if isinstance(part, list):
        return [_undescribed(item) for item in part]
    if not isinstance(part, dict):
        return part
    kept = {key: value for key, value in part.items() if names or key != "description" or isinstance(value, dict)}
    return {key: _undescribed(value, key == "properties" and not names) for key, value in kept.items()}
