"""The way through the Kubernetes API to KFP's UI."""

import json
import socket
import threading

import pytest
from websockets.sync.server import serve

from components.errors import Unreachable
from pipelines.server.connection import connect
from pipelines.server.options import read_options

pytest_plugins = ["tests.kfp_api.fixtures"]

_SERVICE = {"spec": {"selector": {"app": "ml-pipeline-ui"}, "ports": [{"port": 80, "targetPort": "http"}]}}
_PORTS = {"containers": [{"name": "ui", "ports": [{"name": "http", "containerPort": 3000}]}]}


def _pod(name, ready):
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {"metadata": {"name": name}, "spec": _PORTS, "status": {"conditions": conditions}}


class Cluster:
    """As much of a Kubernetes API server as forwarding a port needs: two lists, and its web sockets."""

    def __init__(self, behind: str) -> None:
        self.behind = behind.removeprefix("http://").split(":")
        self.pods = [_pod("starting", False), _pod("ready", True)]
        self.paths: list[str] = []

    def look(self, connection, request):
        """Answer what is no web socket."""
        self.paths.append(request.path)
        if "portforward" in request.path:
            return None
        found = _SERVICE if "/services/ml-pipeline-ui" in request.path else {"items": self.pods}
        answer = connection.respond(200, json.dumps(found))
        del answer.headers["Content-Type"]
        answer.headers["Content-Type"] = "application/json"
        return answer

    def forward(self, connection) -> None:
        """Channel 0 is the port's data, channel 1 its errors; each begins with the port's number."""
        for channel in (0, 1):
            connection.send(bytes([channel, 3000 % 256, 3000 // 256]))
        with socket.create_connection((self.behind[0], int(self.behind[1]))) as pod:
            threading.Thread(target=self._back, args=(pod, connection), daemon=True).start()
            for frame in connection:
                pod.sendall(frame[1:])

    def _back(self, pod, connection) -> None:
        while data := pod.recv(65536):
            connection.send(b"\x00" + data)


@pytest.fixture
def cluster(kfp_api, tmp_path, monkeypatch):
    made = Cluster(kfp_api.url)
    with serve(made.forward, "127.0.0.1", 0, process_request=made.look, subprotocols=["v4.channel.k8s.io"]) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        port = listener.socket.getsockname()[1]
        config = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "u", "user": {}}],
        }
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(config))
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield made
        listener.shutdown()


def test_kfp_is_reached_through_a_ready_pod_of_its_ui(cluster, kfp_api):
    with connect(read_options(port_forward=True, timeout_seconds=2, patience_seconds=3)) as kfp:
        assert kfp.server.version == "2.17.0"
        made = kfp.client.pipelines.pipeline_service_create_pipeline(
            {"display_name": "x", "description": "d" * 100_000}
        )
        assert kfp.client.get_pipeline(made.pipeline_id).description == "d" * 100_000
    assert any("/namespaces/kubeflow/pods/ready/portforward?ports=3000" in path for path in cluster.paths)


def test_a_ui_without_a_ready_pod_is_said_to_have_none(cluster):
    cluster.pods.pop()
    told = pytest.raises(Unreachable, match="No pod of the service ml-pipeline-ui in namespace kubeflow is ready")
    with told, connect(read_options(port_forward=True)):
        pass


def test_without_a_cluster_it_is_said_how_to_name_one(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    told = pytest.raises(Unreachable, match=r"No cluster to forward a port from: .* Set KUBECONFIG or --kube-context")
    with told, connect(read_options(port_forward=True)):
        pass
