"""What Sluiceway relies on in a KFP server: shown by the one for tests, and by a real one with SLUICEWAY_TEST_KFP."""

import json

import httpx
import pytest

from components.errors import Refused
from pipelines.server.pages import every, where
from tests.kfp_api.contract import contract

pytest_plugins = ["tests.kfp_api.fixtures"]

PACKAGE = """\
pipelineInfo: {name: small}
components: {comp-a: {executorLabel: exec-a, inputDefinitions: {parameters: {n: {parameterType: NUMBER_INTEGER}}}}}
deploymentSpec: {executors: {exec-a: {container: {image: example.com/a}}}}
root:
  dag:
    tasks:
      a:
        componentRef: {name: comp-a}
        inputs: {parameters: {n: {componentInputParameter: n}}}
        taskInfo: {name: a}
  inputDefinitions: {parameters: {n: {parameterType: NUMBER_INTEGER}}}
schemaVersion: 2.1.0
sdkVersion: kfp-2.17.0
"""


@pytest.fixture
def pipeline(kfp, unique):
    return kfp.client.pipelines.pipeline_service_create_pipeline({"display_name": unique}).pipeline_id


@pytest.fixture
def add(kfp, pipeline, tmp_path):
    """Add a version to the pipeline."""
    path = tmp_path / "small.yaml"
    path.write_text(PACKAGE)
    return lambda name: kfp.client.pipeline_uploads.upload_pipeline_version(str(path), name=name, pipelineid=pipeline)


def status(call, *args, **named):
    with pytest.raises(Refused) as error:
        call(*args, **named)
    return error.value.status


def test_names_are_unique(kfp, unique, pipeline, add):
    assert status(kfp.client.pipelines.pipeline_service_create_pipeline, {"display_name": unique}) == 409
    add("v1")
    assert status(add, "v1") == 409


def test_a_pipeline_with_versions_is_not_deleted(kfp, pipeline, add):
    version = add("v1")
    assert status(kfp.client.delete_pipeline, pipeline) == 400
    kfp.client.delete_pipeline_version(pipeline, version.pipeline_version_id)
    kfp.client.delete_pipeline(pipeline)
    assert status(kfp.client.get_pipeline, pipeline) == 404


def test_lists_come_in_pages_and_are_filtered(kfp, pipeline, add):
    for number in range(5):
        add(f"v{number}-{'odd' if number % 2 else 'even'}")
    listed = kfp.client.list_pipeline_versions
    first = listed(pipeline, page_size=2)
    assert (len(first.pipeline_versions), first.total_size, bool(first.next_page_token)) == (2, 5, True)
    odd = every(
        listed, "pipeline_versions", pipeline_id=pipeline, page_size=1, filter=where("name", "IS_SUBSTRING", "odd")
    )
    assert sorted(one.display_name for one in odd) == ["v1-odd", "v3-odd"]
    assert status(listed, pipeline, filter=where("nonsense", "EQUALS", "x")) == 400
    assert status(listed, pipeline, page_token="nonsense") == 400


def test_a_package_that_is_none_is_refused(kfp, pipeline, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: 1\n")
    assert status(kfp.client.pipeline_uploads.upload_pipeline_version, str(path), name="v", pipelineid=pipeline) == 400


def test_a_run_of_something_that_is_not_there_is_the_servers_own_failure(kfp, kfp_api, unique):
    experiment = kfp.client.create_experiment(unique).experiment_id
    asked = {"display_name": "x", "experiment_id": experiment, "pipeline_version_reference": {"pipeline_id": "none"}}
    answer = httpx.post(f"{kfp_api.url}/apis/v2beta1/runs", json=asked)
    assert (answer.status_code, answer.json()["code"]) == (500, 13)


def test_runs_are_stopped_and_tried_again_only_where_it_makes_sense(kfp, kfp_api, pipeline, add, unique):
    client, version = kfp.client, add("v1").pipeline_version_id
    experiment = client.create_experiment(unique).experiment_id
    run = client.run_pipeline(experiment, "x", pipeline_id=pipeline, version_id=version, params={"n": 1}).run_id
    assert client.get_run(run).state == "PENDING"
    assert status(client.runs.run_service_retry_run, run) == 409
    client.terminate_run(run)
    assert client.get_run(run).state == "CANCELING"
    assert status(client.terminate_run, run) == 400
    kfp_api.runs.become(run, "FAILED", "stopped")
    client.runs.run_service_retry_run(run)
    assert client.get_run(run).state == "RUNNING"
    kfp_api.runs.become(run, "SUCCEEDED")
    assert status(client.runs.run_service_retry_run, run) == 409


def test_parameters_are_checked(kfp, pipeline, add, unique):
    given = {"pipeline_id": pipeline, "version_id": add("v1").pipeline_version_id}
    experiment = kfp.client.create_experiment(unique).experiment_id
    for params in ({}, {"n": "one"}, {"n": 1, "m": 2}):
        assert status(kfp.client.run_pipeline, experiment, "x", params=params, **given) == 400


def test_a_recurring_run_is_switched_and_deleted(kfp, pipeline, add, unique):
    client = kfp.client
    experiment = client.create_experiment(unique).experiment_id
    given = {"cron_expression": "0 0 2 * * *", "params": {"n": 1}, "max_concurrency": 1}
    given |= {"pipeline_id": pipeline, "version_id": add("v1").pipeline_version_id}
    made = client.create_recurring_run(experiment, unique, enabled=False, **given).recurring_run_id
    assert client.get_recurring_run(made).status == "DISABLED"
    client.enable_recurring_run(made)
    assert client.get_recurring_run(made).status == "ENABLED"
    client.delete_recurring_run(made)
    assert status(client.get_recurring_run, made) == 404


def test_a_request_that_breaks_the_contract_is_refused_and_kept(kfp_api):
    with httpx.Client(base_url=f"{kfp_api.url}/apis/v2beta1", trust_env=False) as http:
        bad = [
            http.post("/pipelines", json={"display_name": "x", "nonsense": 1}),
            http.post("/pipelines", json={"display_name": 1}),
            http.post("/pipelines"),
            http.get("/pipelines", params={"nonsense": 1}),
            http.get("/pipelines", params={"page_size": "many"}),
        ]
        assert [one.status_code for one in bad] == [400] * 5
        assert len(kfp_api.broken) == 5
        kfp_api.broken.clear()
        assert http.get("/nonsense").status_code == 404


def test_a_response_that_breaks_the_contract_is_noticed():
    found = contract().find("GET", "/apis/v2beta1/runs/1")
    assert found is not None
    operation, parts = found
    assert (operation.name, parts) == ("RunService_GetRun", ("1",))
    good = {"run_id": "1", "state": "RUNNING", "created_at": "2026-01-01T00:00:00Z"}
    assert contract().faults_of_response(operation, good) == []
    for wrong in ({"state": "ASLEEP"}, {"created_at": "yesterday"}, {"run_id": 1}, {"state_history": {}}):
        assert contract().faults_of_response(operation, good | wrong), json.dumps(wrong)
