"""Lines of a real step through a real Fluent Bit, to a stand-in that speaks Loki's and Elasticsearch's protocol.

Fluent Bit has no package in Debian: the tests run where one is installed (https://docs.fluentbit.io/manual/installation)
or named in FLUENT_BIT, and are skipped elsewhere.
"""

import contextlib
import datetime
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import yaml

from serving.local.processes import free_port
from tests.exported import NO_REAL_DATA
from tests.prometheus import eventually

ROOT = Path(__file__).resolve().parents[2]
LOGGING = ROOT / "manifests/logging"
POD, CONTAINER_ID = "train-and-deploy-x7k2p-1", "0123456789abcdef" * 4
STEP = """
from components.errors import BadInput
from components.step import step
with step("rollout") as current:
    current.progress("asking with token=s3cr3t")
    current.fact = "rolled back: more errors " + "." * 20000
    current.labels = {"service": "ours", "outcome": "rolled_back"}
with step("ingest"):
    raise BadInput("Column age has text.")
"""


class Store:
    """Takes what is shipped, as Loki or Elasticsearch, and answers as the Kubernetes API what is asked about pods."""

    def __init__(self):
        self.up, self.asked, self.bodies = True, [], []
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                store.asked.append((self.path, self.headers["Authorization"]))
                self._answer(200, {"kind": "Pod", "metadata": {"name": POD, "labels": {"pipeline/runid": "run-77"}}})

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not store.up:
                    self._answer(503, {})
                    return
                text = gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body
                store.bodies.append((self.path, text.decode(), self.headers["Authorization"]))
                self._answer(200, {"errors": False, "items": []} if self.path == "/_bulk" else {})

            def _answer(self, status, content):
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def loki(self):
        """What Loki would hold: each line with its labels."""
        streams = [stream for path, text, _ in self.bodies for stream in json.loads(text)["streams"]]
        assert all(path == "/loki/api/v1/push" for path, _, _ in self.bodies)
        return [{**json.loads(line), **one["stream"]} for one in streams for _, line in one["values"]]

    def close(self):
        self._server.shutdown()
        self._server.server_close()


class Agent:
    """A Fluent Bit with the configuration of the manifests and folders of its own."""

    def __init__(self, program, folder, store, output=LOGGING / "agent/output.yaml"):
        self._program, self._folder = program, folder
        for name in ("config", "logs", "state", "account"):
            (folder / name).mkdir()
        for file in (LOGGING / "agent/fluent-bit.yaml", LOGGING / "agent/lines.lua", output):
            shutil.copy(file, folder / "config")
        (folder / "account/token").write_text("the-token")
        (folder / "account/namespace").write_text("sluiceway-logging")
        self.metrics, self.counts = free_port(), free_port()
        self._env = {
            **os.environ,
            "LOGS": str(folder / "logs"),
            "TAG_PREFIX": "kube." + str(folder / "logs").strip("/").replace("/", ".") + ".",
            "KUBERNETES": f"http://127.0.0.1:{store.port}",
            "ACCOUNT": str(folder / "account"),
            "STATE": str(folder / "state"),
            "METRICS_PORT": str(self.metrics),
            "COUNTS_PORT": str(self.counts),
            "STORE_HOST": "127.0.0.1",
            "STORE_PORT": str(store.port),
            "STORE_TLS": "false",
            "STORE_USER": "shipper",
            "STORE_PASSWORD": "pw",
        }
        self._process = None

    def start(self):
        with (self._folder / "agent.log").open("ab") as log:
            command = [self._program, "--config=fluent-bit.yaml"]
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._folder / "config", env=self._env
            )
        eventually(lambda: self.get(self.metrics, "/api/v2/metrics/prometheus"))

    def kill(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def get(self, port, path):
        assert self._process.poll() is None, (self._folder / "agent.log").read_text()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{port}{path}").text
        return ""

    def write(self, lines, pod=POD, namespace="kubeflow", container="main"):
        """Have a container print lines, as containerd writes them: long ones in parts."""
        with (self._folder / "logs" / f"{pod}_{namespace}_{container}-{CONTAINER_ID}.log").open("a") as log:
            for line in lines:
                now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
                parts = [line[start : start + 16384] for start in range(0, len(line), 16384)]
                for part in parts[:-1]:
                    log.write(f"{now} stdout P {part}\n")
                log.write(f"{now} stdout F {parts[-1]}\n")


@pytest.fixture(scope="module")
def program():
    found = os.environ.get("FLUENT_BIT") or shutil.which("fluent-bit", path=os.environ["PATH"] + ":/opt/fluent-bit/bin")
    return found or pytest.skip("there is no Fluent Bit here: install it or name it in FLUENT_BIT")


@pytest.fixture
def store():
    made = Store()
    yield made
    made.close()


@pytest.fixture
def agent(program, store, tmp_path):
    made = Agent(program, tmp_path, store)
    yield made
    made.kill()


@pytest.fixture(scope="module")
def said():
    """What a real step prints."""
    run = subprocess.run([sys.executable, "-c", STEP], cwd=ROOT, capture_output=True, text=True)
    return run.stdout.splitlines()


def test_a_step_s_lines_reach_loki_whole_with_who_said_them_and_without_secrets(agent, store, said):
    agent.write(said)
    agent.write(["not for us"], pod="other-0", namespace="elsewhere")
    agent.write(["not for us"], pod="ours-predictor-1", namespace="models", container="queue-proxy")
    agent.start()
    eventually(lambda: len(store.loki()) == 5)
    by_event = {(line["step"], line["event"]): line for line in store.loki()}
    finished = by_event["rollout", "finished"]
    assert finished["message"] == "rolled back: more errors " + "." * 20000  # containerd wrote it in two parts
    assert (finished["namespace"], finished["pod"], finished["container"]) == ("kubeflow", POD, "main")
    assert (finished["run"], finished["service"], finished["job"]) == ("run-77", "ours", "sluiceway")
    assert by_event["ingest", "failed"]["level"] == "error"
    assert "s3cr3t" not in json.dumps(store.loki())
    assert store.bodies[0][2].startswith("Basic ")


def test_what_it_asks_of_kubernetes_is_what_its_role_allows(agent, store, said):
    agent.write(said)
    agent.start()
    eventually(lambda: store.loki())
    (rule,) = [
        rule
        for manifest in yaml.safe_load_all((LOGGING / "access.yaml").read_text())
        if manifest["kind"] == "ClusterRole"
        for rule in manifest["rules"]
    ]
    assert (rule["resources"], rule["verbs"]) == (["pods"], ["get"])
    assert f"/api/v1/namespaces/kubeflow/pods/{POD}" in {path for path, _ in store.asked}
    for path, authorization in store.asked:
        assert re.fullmatch(r"/api/v1/namespaces/[^/?]+/pods/[^/?]+", path)  # one pod: get
        assert authorization == "Bearer the-token"


def test_steps_that_end_are_counted_with_the_labels_that_alerts_select_by(agent, said):
    agent.write(said)
    agent.start()
    text = eventually(lambda: "sluiceway_step_seconds_count" in (seen := agent.get(agent.counts, "/metrics")) and seen)
    own = agent.get(agent.metrics, "/api/v2/metrics/prometheus")
    for metric, value, labels in NO_REAL_DATA["Fluent Bit"]:
        written = metric + "{" + ",".join(f'{label}="{held}"' for label, held in labels.items()) + "}"
        assert (f"{written} {value}" if metric.startswith("sluiceway") else written) in text + own


def test_nothing_is_lost_while_the_store_is_away_and_the_agent_is_killed(agent, store, said):
    store.up = False
    agent.write(said)
    agent.start()
    eventually(lambda: 'retries_total{name="logs"} 1' in agent.get(agent.metrics, "/api/v2/metrics/prometheus"))
    agent.kill()
    agent.write(["printed while no agent ran"])
    agent.start()
    store.up = True
    eventually(lambda: len(store.loki()) >= 6)
    sent = Counter((line.get("step"), line["message"]) for line in store.loki())
    assert len(sent) == 6
    assert set(sent.values()) == {1}


def test_a_component_sends_the_same_to_elasticsearch(program, store, said, tmp_path):
    agent = Agent(program, tmp_path, store, LOGGING / "elasticsearch/output.yaml")
    agent.write(said)
    try:
        agent.start()
        eventually(lambda: store.bodies)
    finally:
        agent.kill()
    lines = [json.loads(line) for path, text, _ in store.bodies for line in text.splitlines() if path == "/_bulk"]
    actions, documents = lines[::2], lines[1::2]
    today = datetime.datetime.now(datetime.UTC).strftime("%Y.%m.%d")
    assert {action["create"]["_index"] for action in actions} == {f"sluiceway-{today}"}
    assert len({action["create"]["_id"] for action in actions}) == 5
    assert documents[-1]["run"] == "run-77"
    assert documents[-1]["@timestamp"].startswith(today.replace(".", "-"))
