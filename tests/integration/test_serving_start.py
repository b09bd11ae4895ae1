"""How the server is started: several models, several workers, tokens, TLS, a read-only system, and by hand."""

import contextlib
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tarfile
from pathlib import Path

import httpx
import psutil
import pytest

from serving.local.processes import free_port
from tests.keys import write_certificate
from tests.prometheus import eventually
from tests.serving_bundle import write_bundle
from tests.serving_process import ROW

ROOT = Path(__file__).resolve().parents[2]
BODY = {"instances": [ROW]}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start") / "bundle"
    write_bundle(folder)
    return folder


@contextlib.contextmanager
def running(command, ready="", scheme="http", **how):
    """A server as a process; gives its address, and the process."""
    port = free_port()
    process = subprocess.Popen([*map(str, command), "--port", str(port)], cwd=ROOT, **how)
    try:
        address = f"{scheme}://127.0.0.1:{port}"

        def is_ready():
            assert process.poll() is None
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{address}{ready or '/v2/health/ready'}", verify=False).status_code == 200

        eventually(is_ready, 60)
        yield address, process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        finally:
            process.kill()


def server(bundle, *options):
    return [sys.executable, "-m", "serving.server", "--bundle", bundle, "--drain-seconds", "0", *options]


def test_a_folder_of_bundles_is_a_model_each_and_one_that_comes_later_can_be_loaded(bundle, tmp_path):
    models = tmp_path / "models"
    for name in ("a", "b"):
        shutil.copytree(bundle, models / name)
    with running(server(models, "--workers", "2", "--model-control", "explicit")) as (address, process):
        shutil.copytree(bundle, models / "c")
        shutil.copytree(bundle, models / "bad")
        (models / "bad" / "MLmodel").write_text("altered")
        with httpx.Client(base_url=address, headers={"connection": "close"}, timeout=20) as client:

            def codes(name):
                return {client.post(f"/v1/models/{name}:predict", json=BODY).status_code for _ in range(12)}

            assert (codes("a"), codes("c")) == ({200}, {404})
            assert client.post("/v2/repository/models/c/load").status_code == 200
            assert client.post("/v2/repository/models/b/unload").status_code == 200
            assert client.post("/v2/repository/models/bad/load").status_code == 400
            assert client.post("/v2/repository/models/..%2fa/load").status_code == 404
            wanted = {"a": {200}, "b": {503}, "c": {200}, "bad": {404}}
            assert {name: codes(name) for name in wanted} == wanted
            assert client.get("/v2/health/ready").status_code == 200  # what was unloaded is not waited for
            for child in psutil.Process(process.pid).children():
                child.kill()
            eventually(lambda: "worker_restarts_total 2.0" in client.get("/metrics").text, 20)
            assert {name: codes(name) for name in wanted} == wanted  # of those that took their places


def test_models_are_loaded_by_clients_only_where_the_server_was_started_so(bundle):
    with running(server(bundle, "--name", "m")) as (address, _):
        reply = httpx.post(f"{address}/v2/repository/models/m/unload")
        assert (reply.status_code, "--model-control" in reply.json()["error"]) == (403, True)
        assert httpx.post(f"{address}/v1/models/m:predict", json=BODY).status_code == 200


def test_tokens_and_tls_are_asked_for_and_changed_files_are_read(bundle, tmp_path):
    (tmp_path / "tokens").write_text("one\n")
    one, two = write_certificate(tmp_path, "one"), write_certificate(tmp_path, "two")
    tls = ("--tls-certificate", one[0], "--tls-key", one[1])
    options = ("--name", "m", "--workers", "2", "--tokens-file", tmp_path / "tokens", *tls)
    with running(server(bundle, *options), scheme="https") as (address, _):

        def codes(certificate=one[0], token="one"):
            trusted = ssl.create_default_context(cafile=certificate)
            with httpx.Client(base_url=address, verify=trusted, headers={"authorization": f"Bearer {token}"}) as client:
                return [
                    client.post(path, json=BODY).status_code for path in ("/v1/models/m:predict", "/v2/models/m/infer")
                ]

        assert codes() == [200, 400]
        assert codes(token="two") == [401, 401]
        with httpx.Client(base_url=address, verify=False) as client:
            assert client.post("/v1/models/m:predict", json=BODY).status_code == 401
            assert client.get("/v2/models/m").status_code == 401
            assert client.get("/metrics").status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(address.replace("https", "http"))
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(httpx.TransportError):
            httpx.get(address, verify=old)
        (tmp_path / "tokens").write_text("two\n")
        for mine, new in zip(one, two, strict=True):
            shutil.copy(new, mine.with_suffix(".aside"))
            os.replace(mine.with_suffix(".aside"), mine)

        def changed():
            with contextlib.suppress(httpx.TransportError):
                return all(codes(two[0], "two") == [200, 400] for _ in range(6))

        eventually(changed, 10)
        assert codes(two[0], "one") == [401, 401]


def test_what_is_wrong_ends_several_workers_with_one_clear_line(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "bad")
    (tmp_path / "bad" / "MLmodel").write_text("altered")

    def run(*options):
        command = map(str, server(*options, "--workers", "2"))
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    ended = run(tmp_path / "bad", "--port", "0")
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)
    assert ended.stderr.splitlines()[-1].startswith("BadBundle: The bundle")
    with running(server(bundle, "--workers", "2")) as (address, _):
        ended = run(bundle, "--port", address.rpartition(":")[2])
    assert ended.returncode == 98


def test_serve_by_hand_unpacks_an_archive_and_says_how_to_try_it(bundle, tmp_path):
    with tarfile.open(tmp_path / "churn.tar.gz", "w:gz") as archive:
        archive.add(bundle, "churn")
    command = [sys.executable, "-m", "pipelines.cli", "serve", tmp_path / "churn.tar.gz"]
    env = {**os.environ, "SLUICEWAY_HOME": str(tmp_path / "home")}
    with running(command, env=env, stdout=subprocess.PIPE, text=True) as (address, process):
        assert process.stdout.readline() == f"churn (churn, onnxruntime) is served at {address}/v2/models/churn\n"
        tried = process.stdout.readline().strip().removeprefix("try: ")
        if shutil.which("curl"):
            reply = subprocess.run(["sh", "-c", tried], capture_output=True, text=True, check=True).stdout
            assert '"predictions"' in reply


READ_ONLY = """
for at in $(awk '{print $5}' /proc/self/mountinfo); do mount -o remount,ro,bind "$at" 2>/dev/null; done
for at in / /tmp /dev/shm "$HOME" "$PWD"; do
    if touch "$at/written" 2>/dev/null; then echo "$at is writable"; exit 1; fi
done
exec setpriv --reuid 10001 --regid 10001 --clear-groups \
    --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search "$@"
"""


def can_unshare():
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        return False
    return subprocess.run(["unshare", "--mount", "mount", "-o", "remount,ro,bind", "/"], check=False).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="only root can make a file system read-only, and become another user")
def test_it_runs_as_another_user_on_a_file_system_that_is_read_only(bundle):
    # The user may read everything, since tests and the interpreter may lie in root's home; it may write nothing.
    command = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", *server(bundle, "--workers", "2", "--name", "m")]
    with running(command) as (address, process):
        assert psutil.Process(process.pid).uids().real == 10001
        assert httpx.post(f"{address}/v1/models/m:predict", json=BODY).status_code == 200
        assert 'code="200"' in httpx.get(f"{address}/metrics").text
