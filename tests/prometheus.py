"""A real Prometheus for tests: the one on PATH, or Debian's package unpacked beside the environment, without root."""

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import yaml


def binary():
    """The path of Prometheus; skips the test where there is none, and fails it in CI."""
    with _cache() as cache:
        found = shutil.which("prometheus") or _unpacked(cache)
    if found is None:
        message = "there is no Prometheus here: neither on PATH nor by apt-get download prometheus"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def promtool():
    """The path of promtool, which comes with Prometheus; skips and fails as that does."""
    beside = Path(binary()).with_name("promtool")
    found = str(beside) if beside.exists() else shutil.which("promtool")
    return found or pytest.skip("there is a Prometheus here, and no promtool")


@contextlib.contextmanager
def _cache():
    folder = Path(sys.prefix) / "share" / "sluiceway-tests"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "prometheus.lock").open("w") as lock:  # several test processes ask at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _unpacked(cache):
    program = cache / "prometheus" / "usr" / "bin" / "prometheus"
    if not program.exists() and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        downloads = cache / "download"
        shutil.rmtree(downloads, ignore_errors=True)
        downloads.mkdir()
        packages = _downloaded(downloads) or _downloaded(downloads, *_own_lists(downloads))
        if packages:
            aside = cache / "prometheus.new"
            shutil.rmtree(aside, ignore_errors=True)
            if _run(["dpkg-deb", "-x", str(packages[0]), str(aside)], downloads):
                aside.rename(cache / "prometheus")
        shutil.rmtree(downloads)
    return str(program) if program.exists() and _run([str(program), "--version"], cache) else None


def _downloaded(folder, *options):
    _run(["apt-get", *options, "download", "prometheus"], folder)
    return sorted(folder.glob("prometheus_*.deb"))


def _own_lists(folder):
    """Package lists of our own, for a machine whose lists are empty or may not be renewed by this user."""
    options = []
    for name, kind in (("State::Lists", "lists"), ("Cache", "cache")):
        (folder / kind / "partial").mkdir(parents=True)
        options += ["-o", f"Dir::{name}={folder / kind}"]
    _run(["apt-get", *options, "-o", "APT::Sandbox::User=", "update"], folder)
    return options


def _run(command, folder):
    with contextlib.suppress(subprocess.TimeoutExpired, OSError):
        return subprocess.run(command, cwd=folder, capture_output=True, timeout=120).returncode == 0
    return False


class Prometheus:
    """The process; ``url`` stays over a restart, and so does what was scraped.

    Targets take it up to five seconds to notice, so they are best named before it starts.
    """

    def __init__(self, folder, interval="250ms", rules=()):
        self._program, self._folder = binary(), folder
        self._targets = {}
        self._process = None
        self._client = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.url = f"http://{self._address}"
        job = {"job_name": "tests", "file_sd_configs": [{"files": [str(folder / "targets.json")]}]}
        timing = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
        (folder / "rules.yml").write_text(yaml.safe_dump({"groups": list(rules)}))
        content = {"global": timing, "rule_files": ["rules.yml"], "scrape_configs": [job]}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(content))
        self._write()

    def start(self):
        command = [self._program, f"--config.file={self._folder / 'prometheus.yml'}", "--log.level=warn"]
        command += [f"--storage.tsdb.path={self._folder / 'data'}", f"--web.listen-address={self._address}"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        eventually(lambda: self._is_ready(), 20)

    def kill(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def scrape(self, address, path="/metrics", **labels):
        """Scrape an address from now on, with some labels; gives its ``instance`` label."""
        labels = {"instance": address, "__metrics_path__": path, **labels}
        self._targets[json.dumps(labels, sort_keys=True)] = {"targets": [address], "labels": labels}
        self._write()
        return labels["instance"]

    def value(self, query):
        """The one value of an instant query; None when there is none."""
        result = self.series(query)
        return float(result[0]["value"][1]) if result else None

    def shows(self, query, value):
        """Wait until a query gives a value."""
        eventually(lambda: self.value(query) == value)

    def series(self, query):
        """What an instant query gives: labels under ``metric``, and ``value``."""
        return self.ask("query", query=query)["result"]

    def ask(self, what, **parameters):
        """The data that its API answers with, at /api/v1/WHAT."""
        answer = self._client.get(f"{self.url}/api/v1/{what}", params=parameters).json()
        assert answer["status"] == "success", f"{answer['error']}: {parameters}"
        return answer["data"]

    def _is_ready(self):
        assert self._process.poll() is None, (self._folder / "log").read_text()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/-/ready").status_code == 200

    def _write(self):
        aside = self._folder / "targets.new"
        aside.write_text(json.dumps(list(self._targets.values())))
        aside.rename(self._folder / "targets.json")


def eventually(check, seconds=15.0):
    """Wait until a check holds; gives what it gave."""
    deadline = time.monotonic() + seconds
    while not (result := check()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return result


class Exporter:
    """Counters over HTTP, with names and labels as another program exports them; fails while ``up`` is False."""

    def __init__(self, up=True):
        self.up = up
        self._counters = {}
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = exporter.text().encode()
                self.send_response(200 if exporter.up else 503)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments):
                pass

        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def add(self, metric, count=1, **labels):
        """Count."""
        key = metric + "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"
        with self._lock:
            self._counters[key] = self._counters.get(key, 0) + count

    def observe(self, histogram, value, edges, **labels):
        """Count a value in a histogram's buckets."""
        for edge in (*edges, "+Inf"):
            self.add(f"{histogram}_bucket", int(value <= float(edge)), le=edge, **labels)
        self.add(f"{histogram}_count", 1, **labels)

    def restart(self):
        """Lose all counts."""
        with self._lock:
            self._counters.clear()

    def text(self):
        with self._lock:
            return "".join(f"{key} {value}\n" for key, value in self._counters.items())

    def close(self):
        self._server.shutdown()
        self._server.server_close()
