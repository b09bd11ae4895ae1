"""The model server as clients meet it: a real process, over HTTP."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from serving.bundle import load
from tests.serving_bundle import NUMBERS, rows, write_bundle

ROOT = Path(__file__).resolve().parents[2]
ROW = {
    "mean_radius": 14.2,
    "mean_texture": None,
    "mean_smoothness": 0.1,
    "mean_concavity": 0.08,
    "size": "large",
    "rough": True,
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(bundle, log, **env):
    port = free_port()
    command = [sys.executable, "-m", "serving.server", "--bundle", str(bundle), "--name", "m", "--revision", "m-1"]
    with log.open("w") as stream:
        process = subprocess.Popen(
            [*command, "--port", str(port)], stderr=stream, stdout=stream, cwd=ROOT, env={**os.environ, **env}
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            for _ in range(600):
                with contextlib.suppress(httpx.TransportError):
                    if client.get("/v2/models/m/ready").status_code == 200:
                        break
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            yield client, process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def bundle(folder):
    write_bundle(folder / "bundle")
    return folder / "bundle"


@pytest.fixture(scope="module")
def client(folder, bundle):
    with serving(bundle, folder / "log") as (client, _):
        yield client


def v2(**changed):
    types = {**dict.fromkeys(NUMBERS, "FP64"), "size": "BYTES", "rough": "BOOL"}
    tensors = {
        name: {"name": name, "shape": [1], "datatype": kind, "data": [ROW[name]]} for name, kind in types.items()
    }
    tensors.update(changed)
    return {"inputs": [tensor for tensor in tensors.values() if tensor is not None]}


def test_v1_answers_rows_as_objects_with_label_and_probabilities(client, bundle):
    table = rows(20)
    instances = table.astype(object).where(table.notna(), None).to_dict("records")
    answer = client.post("/v1/models/m:predict", json={"instances": instances}).json()["predictions"]
    wanted = load(bundle).predict(table)
    np.testing.assert_allclose([list(row["probabilities"].values()) for row in answer], wanted, atol=1e-12)
    assert [list(row["probabilities"]) for row in answer] == [["No", "Yes"]] * 20
    assert [row["label"] for row in answer] == [("No", "Yes")[i] for i in wanted.argmax(axis=1)]


def test_v1_answers_rows_as_arrays_in_the_order_of_the_inputs(client):
    as_object = client.post("/v1/models/m:predict", json={"instances": [ROW]}).json()
    assert client.post("/v1/models/m:predict", json={"instances": [list(ROW.values())]}).json() == as_object


def test_v2_answers_one_tensor_per_column(client):
    answer = client.post("/v2/models/m/infer", json={"id": "7", **v2()}).json()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("7", "m", "m-1")
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert (outputs["probabilities"]["shape"], outputs["probabilities"]["datatype"]) == ([1, 2], "FP64")
    assert (outputs["label"]["shape"], outputs["label"]["datatype"]) == ([1], "BYTES")
    row = client.post("/v1/models/m:predict", json={"instances": [ROW]}).json()["predictions"][0]
    assert outputs["probabilities"]["data"] == list(row["probabilities"].values())
    assert outputs["label"]["data"] == [row["label"]]


def test_kserve_s_own_client_understands_the_server_in_json_and_in_binary(client, bundle, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["test"])  # kserve parses it
    from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

    table = rows(5)
    table["mean_texture"] = table["mean_texture"].fillna(20.0)
    table["size"] = table["size"].fillna("small")

    def request(binary):
        inputs = []
        for name in table.columns:
            values = table[name].to_numpy(dtype=object if name == "size" else None)
            kind = {"O": "BYTES", "b": "BOOL", "f": "FP64"}[values.dtype.kind]
            tensor = InferInput(name, [5], kind)
            tensor.set_data_from_numpy(values, binary_data=binary)
            inputs.append(tensor)
        return InferRequest("m", inputs, request_id="1", parameters={"binary_data_output": binary})

    async def infer(binary):
        rest = InferenceRESTClient(RESTConfig(protocol="v2"))
        return await rest.infer(str(client.base_url).rstrip("/"), request(binary), model_name="m")

    for binary in (False, True):
        answer = asyncio.run(infer(binary))
        found = answer.get_output_by_name("probabilities").as_numpy()
        np.testing.assert_allclose(found, load(bundle).predict(table), atol=1e-12)


def test_v2_metadata_names_the_columns(client):
    answer = client.get("/v2/models/m").json()
    assert {"name": "size", "datatype": "BYTES", "shape": [-1]} in answer["inputs"]
    assert [output["name"] for output in answer["outputs"]] == ["probabilities", "label"]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/models/m:predict", {"instances": [{**ROW, "mean_radius": "wide"}]}, "'mean_radius', row 0: 'wide'"),
        ("/v1/models/m:predict", {"instances": [ROW, {"size": "large"}]}, "instances[1]: Input column 'mean_radius'"),
        ("/v1/models/m:predict", {"instances": [[1, 2]]}, "instances[0] has 2 values"),
        ("/v1/models/m:predict", {"instances": [3]}, "instances[0] is neither"),
        ("/v1/models/m:predict", {"instances": ROW}, '"instances"'),
        ("/v1/models/m:predict", [ROW], '"instances"'),
        ("/v2/models/m/infer", {"outputs": []}, "inputs: Field required"),
        ("/v2/models/m/infer", v2(size=None), "'size' is missing"),
        (
            "/v2/models/m/infer",
            v2(size={"name": "size", "shape": [2], "datatype": "BYTES", "data": ["a"]}),
            "'size' has shape [2] and 1 values",
        ),
        (
            "/v2/models/m/infer",
            v2(size={"name": "size", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}),
            "'size' has 2 rows, others have 1",
        ),
        ("/v2/models/m/infer", v2(rough={"name": "rough", "datatype": "BOOL"}), "inputs.5.shape: Field required"),
    ],
)
def test_a_bad_request_is_400_and_names_the_field(client, path, body, said):
    answer = client.post(path, json=body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


def test_bodies_that_are_not_json_or_not_the_binary_form_are_400(client):
    head = {"content-type": "application/json"}
    assert client.post("/v1/models/m:predict", content=b"{", headers=head).status_code == 400
    assert client.post("/v2/models/m/infer", content=b"{", headers=head).status_code == 400
    binary = {"content-type": "application/octet-stream", "inference-header-content-length": "2"}
    answer = client.post("/v2/models/m/infer", content=b"{}", headers=binary)
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": "The V2 request cannot be read: inputs: Field required, a list of tensors."},
    )


def test_a_content_type_with_a_charset_is_read(client):
    import json

    head = {"content-type": "application/json; charset=utf-8"}
    body = json.dumps({"instances": [ROW]}).encode()
    assert client.post("/v1/models/m:predict", content=body, headers=head).status_code == 200


def test_a_reply_does_not_wait_for_a_delayed_acknowledgement(client):
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        client.post("/v1/models/m:predict", json={"instances": [ROW]})
        seconds.append(time.perf_counter() - began)
    assert min(seconds[2:]) < 0.03  # it was 0.044, every time


def test_another_model_is_not_found(client):
    assert client.post("/v1/models/other:predict", json={"instances": []}).status_code == 404


def sample(client, line):
    for text in client.get("/metrics").text.splitlines():
        if text.startswith(line + " "):
            return float(text.rpartition(" ")[2])
    raise AssertionError(f"{line} is not exported")


def test_requests_and_predictions_are_counted(client):
    who = 'model_name="m",revision="m-1"'
    lines = [
        f'sluiceway_requests_total{{code="200",{who}}}',
        f'sluiceway_requests_total{{code="400",{who}}}',
        f"sluiceway_request_seconds_count{{{who}}}",
        f'sluiceway_prediction_bucket{{le="+Inf",{who}}}',
    ]
    before = [sample(client, line) for line in lines]
    client.post("/v1/models/m:predict", json={"instances": [ROW, ROW, ROW]})
    client.post("/v1/models/m:predict", json={"instances": [[]]})
    after = [sample(client, line) for line in lines]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 2, 3]
    assert sample(client, 'request_predict_seconds_count{model_name="m"}') >= 2  # kserve's own are there too


def test_it_listens_on_the_loopback_address_only(client):
    import psutil

    port = client.base_url.port
    addresses = {c.laddr.ip for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port}
    assert addresses == {"127.0.0.1"}


def test_sigterm_lets_requests_in_flight_finish_and_exits_with_0(folder, bundle):
    with serving(bundle, folder / "slow.log", SLUICEWAY_FAULTS="delay_ms=2500") as (client, process):
        assert "FAULTS ARE INJECTED" in (folder / "slow.log").read_text()
        seen = []
        url = f"{client.base_url}/v1/models/m:predict"
        request = threading.Thread(target=lambda: seen.append(httpx.post(url, json={"instances": [ROW]})))
        request.start()
        time.sleep(1.2)  # it is there, and not yet answered, on a busy machine too
        process.send_signal(signal.SIGTERM)
        request.join()
        assert seen[0].status_code == 200
        assert process.wait(5) == 0


def run_to_end(*arguments):
    command = [sys.executable, "-m", "serving.server", "--name", "m", "--revision", "r", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)


def test_a_bundle_that_was_altered_ends_the_server_with_one_clear_line(bundle, tmp_path):
    subprocess.run(["cp", "-r", bundle, tmp_path / "bundle"], check=True)
    (tmp_path / "bundle" / "MLmodel").write_text("other")
    ended = run_to_end("--bundle", tmp_path / "bundle", "--port", free_port())
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("BadBundle: The bundle")
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_has_an_exit_code_of_its_own(bundle):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        ended = run_to_end("--bundle", bundle, "--port", other.getsockname()[1])
    assert ended.returncode == 98
    assert "cannot be used: Address already in use" in ended.stderr
