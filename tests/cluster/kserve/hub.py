"""What Prometheus finds on a cluster: the metrics of every pod with the labels of its target, and kube-state-metrics.

In one place, because Prometheus takes seconds to notice a new target, and pods come and go faster here.
"""

import contextlib
import re
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.cluster.kserve.kubelet import PORT, Container

_SERIES = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ")
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Hub:
    """An address to scrape: ``/metrics`` of everything."""

    def __init__(self, containers: Callable[[], list[Container]]) -> None:
        self._containers = containers
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="scrape")
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = hub.text().encode()
                self.send_response(200)
                self.send_header("content-type", "text/plain; version=0.0.4")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # whoever scrapes does not wait
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._pool.shutdown(wait=False)

    def text(self) -> str:
        """Everything, types first, each metric's series together."""
        containers = self._containers()
        series: dict[str, list[str]] = {}
        types: dict[str, str] = {}
        for lines in self._pool.map(_scraped, [one for one in containers if one.running]):
            for line in lines:
                if line.startswith("# TYPE "):
                    types[line.split(" ")[2]] = line
                elif found := _SERIES.match(line):
                    series.setdefault(re.sub("_(bucket|sum|count)$", "", found[1]), []).append(line)
        restarts = "kube_pod_container_status_restarts_total"
        types[restarts] = f"# TYPE {restarts} counter"
        series[restarts] = [f"{restarts}{{{labels_of(one)}}} {one.restarts}" for one in containers]
        return "".join(f"{line}\n" for name, lines in series.items() for line in [types.get(name, ""), *lines] if line)


def labels_of(container: Container) -> str:
    meta = container.pod["metadata"]
    return f'namespace="{meta["namespace"]}",pod="{meta["name"]}",container="kserve-container"'


def _scraped(container: Container) -> list[str]:
    more = labels_of(container)
    try:
        with _DIRECT.open(f"http://{container.address}:{PORT}/metrics", timeout=0.1) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return []
    return [_labelled(line, more) for line in lines]


def _labelled(line: str, more: str) -> str:
    found = _SERIES.match(line)
    if found is None or line.startswith("#"):
        return line
    return f"{found[1]}{{{','.join(filter(None, (found[2], more)))}}}{line[found.end() - 1 :]}"
