"""Registration against a real MLflow: SQLite, a server over HTTP, crashes between any two calls."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from components.errors import BadBundle, BadInput, Unreachable
from components.evaluate.decision import Decision
from components.evaluate.run import evaluate
from components.register import registry
from components.register import run as registration
from components.register.mlflow_client import client
from components.register.publish import local_path
from components.register.run import register
from components.train.run import train
from serving.bundle import verify
from serving.fetch import fetch
from tests.feature_sets import feature_set, sklearn_frame

NAME = "cancer"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two bundles and their decisions."""
    home = tmp_path_factory.mktemp("register")
    features = feature_set(home / "features", sklearn_frame("breast_cancer"), "binary")
    for seed in (0, 1):
        bundle = home / f"bundle{seed}"
        train(features, bundle, trainer="linear", seed=seed)
        decision = evaluate(features, bundle, draws=50).decision
        (home / f"decision{seed}").write_text(decision.model_dump_json())
    return home


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real `mlflow server` that hands out artifacts itself."""
    home = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{home}/m.db", "--artifacts-destination", str(home / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.25)
        else:
            pytest.fail((home / "log").read_text()[-2000:])
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def go(made, seed=0, name=NAME):
    return register(made / f"bundle{seed}", made / f"decision{seed}", name)


def versions(name=NAME):
    return sorted(client().search_model_versions(f"name = '{name}'"), key=lambda found: int(found.version))


def alias(which, name=NAME):
    found = registry.by_alias(client(), name, which)
    return None if found is None else str(found.version)


def test_a_model_that_passed_becomes_the_challenger_with_its_lineage(made, sqlite):
    done = go(made)
    assert (done.version, done.already_champion, done.reused) == ("1", False, False)
    (version,) = versions()
    manifest = verify(made / "bundle0")
    assert version.tags[registry.RECIPE] == manifest.recipe_digest
    assert version.tags[registry.DATA_VERSION] == "v1"
    assert version.tags["sluiceway.bundle_digest"]
    assert alias("challenger") == "1"
    assert alias("champion") is None
    run = client().get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_roc_auc"] > 0.9
    assert run.data.params["trainer"] == "linear"


def test_the_model_uri_is_a_whole_bundle_that_mlflow_loads_with_its_signature(made, sqlite, monkeypatch):
    import mlflow

    done = go(made)
    assert done.model_uri.startswith("file:///")
    assert verify(local_path(done.model_uri)) == verify(made / "bundle0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{sqlite}/mlflow.db")
    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}@challenger")
    assert loaded.metadata.signature.inputs.input_names()[0] == "mean radius"


def test_registering_again_finds_the_version_and_moves_nothing(made, sqlite):
    first, again = go(made), go(made)
    assert (again.version, again.reused, again.model_uri) == (first.version, True, first.model_uri)
    assert len(versions()) == 1
    other = go(made, seed=1)
    assert (other.version, alias("challenger")) == ("2", "2")


def test_serve_fetches_a_version_by_alias_or_number_once_and_again_when_it_is_damaged(made, sqlite, tmp_path):
    go(made)
    by_alias = fetch(f"models:/{NAME}@challenger", tmp_path)
    assert (by_alias.name, by_alias.revision) == (NAME, f"{NAME}-1")
    assert verify(by_alias.folder) == verify(made / "bundle0")
    model = by_alias.folder / "model.onnx"
    whole, since = model.read_bytes(), model.stat().st_mtime_ns
    assert fetch(f"models:/{NAME}/1", tmp_path) == by_alias
    assert model.stat().st_mtime_ns == since
    model.write_bytes(b"damaged")
    assert fetch(f"models:/{NAME}/1", tmp_path) == by_alias
    assert model.read_bytes() == whole
    for unknown in (f"models:/{NAME}@champion", f"models:/{NAME}/7", "models:/nobody/1"):
        with pytest.raises(BadInput, match="The registry has no version"):
            fetch(unknown, tmp_path)
    for wrong in ("models:/", f"models:/{NAME}", f"models:/{NAME}/latest"):
        with pytest.raises(BadInput, match="names no model"):
            fetch(wrong, tmp_path)


class _Interrupted(Exception):
    """Stands for a kill."""


class _Dying:
    """A client that dies before, or just after, its n-th call."""

    def __init__(self, inner, left, after):
        self._inner, self._left, self._after = inner, left, after

    def __getattr__(self, name):
        method = getattr(self._inner, name)

        def call(*args, **kwargs):
            self._left -= 1
            if self._left < 0 and not self._after:
                raise _Interrupted(name)
            result = method(*args, **kwargs)
            if self._left < 0:
                raise _Interrupted(name)
            return result

        return call


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
def test_a_crash_at_any_call_leaves_what_the_next_try_completes(made, sqlite, monkeypatch, after):
    for calls in range(40):
        name = f"crash-{calls}"
        with monkeypatch.context() as patch:
            patch.setattr(registration, "client", lambda calls=calls: _Dying(client(), calls, after))
            try:
                go(made, name=name)
                finished = True
            except _Interrupted:
                finished = False
        done = go(made, name=name)
        (version,) = versions(name)
        assert alias("challenger", name) == str(version.version) == done.version
        experiment = client().get_experiment_by_name(name)
        assert len(client().search_runs([experiment.experiment_id])) == 1
        assert verify(local_path(done.model_uri))
        if finished:
            break
    assert finished
    assert calls >= 10


def test_a_published_bundle_that_was_lost_or_altered_is_published_again(made, sqlite):
    folder = local_path(go(made).model_uri)
    (folder / "model.onnx").write_bytes(b"else")
    again = go(made)
    assert again.reused
    assert verify(folder)


def test_of_two_versions_made_at_once_the_first_stays(made, sqlite, monkeypatch):
    inner = registration.publish
    raced = []

    def publish_while_another_registers(*args):
        if not raced:
            raced.append(1)
            go(made)
        return inner(*args)

    monkeypatch.setattr(registration, "publish", publish_while_another_registers)
    assert go(made).version == "1"
    assert [str(found.version) for found in versions()] == ["1"]
    assert alias("challenger") == "1"


def altered(made, tmp_path, **change):
    decision = Decision.read(made / "decision0").model_copy(update=change)
    (tmp_path / "decision").write_text(decision.model_dump_json())
    return tmp_path / "decision"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"passed": False}, "did not pass"),
        ({"recipe_digest": "f" * 64}, "not this bundle"),
        ({"bundle_digest": "f" * 64}, "not this bundle"),
    ],
)
def test_a_decision_that_did_not_pass_or_is_of_another_model_is_refused(made, sqlite, tmp_path, change, said):
    with pytest.raises(BadInput, match=said):
        register(made / "bundle0", altered(made, tmp_path, **change), NAME)
    assert not versions()


def test_an_altered_bundle_is_refused(made, sqlite, tmp_path):
    shutil.copytree(made / "bundle0", tmp_path / "b")
    (tmp_path / "b" / "model.skops").write_bytes(b"else")
    with pytest.raises(BadBundle):
        register(tmp_path / "b", made / "decision0", NAME)


def test_there_is_no_champion_before_the_first_and_no_database_is_made_to_find_out(tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICEWAY_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert registry.champion(NAME) is None
    assert not list(tmp_path.iterdir())


def test_promotion_moves_the_alias_and_remembers_who_was_champion(made, sqlite):
    first, second = go(made), go(made, seed=1)
    registry.promote(NAME, first.version)
    assert (alias("champion"), alias("challenger")) == ("1", "2")
    for _ in range(2):  # a second time changes nothing
        registry.promote(NAME, second.version)
        assert (alias("champion"), alias("challenger")) == ("2", None)
    serving = registry.champion(NAME)
    assert (serving.version, serving.uri, serving.data_version) == ("2", second.model_uri, "v1")
    assert client().get_model_version(NAME, "2").tags[registry.PREVIOUS] == "1"
    assert client().get_model_version(NAME, "1").tags[registry.STATE] == "retired"


def test_the_champion_registered_again_is_no_challenger(made, sqlite):
    registry.promote(NAME, go(made).version)
    again = go(made)
    assert again.already_champion
    assert alias("challenger") is None


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_call_of_a_promotion_is_completed(made, sqlite, monkeypatch, after):
    first, second = go(made), go(made, seed=1)
    for calls in range(12):
        registry.promote(NAME, first.version)
        client().set_registered_model_alias(NAME, "challenger", second.version)
        client().delete_model_version_tag(NAME, second.version, registry.PREVIOUS)
        with monkeypatch.context() as patch:
            patch.setattr(registry, "client", lambda calls=calls: _Dying(client(), calls, after))
            try:
                registry.promote(NAME, second.version)
                break
            except _Interrupted:
                assert alias("champion") in ("1", "2")
        registry.promote(NAME, second.version)
        assert (alias("champion"), alias("challenger")) == ("2", None)
        assert client().get_model_version(NAME, "2").tags[registry.PREVIOUS] == "1"
        assert client().get_model_version(NAME, "1").tags[registry.STATE] == "retired"
    else:
        pytest.fail("the promotion never finished")


def test_a_rejected_challenger_loses_its_alias_and_keeps_the_reason(made, sqlite):
    registry.promote(NAME, go(made).version)
    second = go(made, seed=1)
    for _ in range(2):
        registry.reject(NAME, second.version, "4 % of requests failed")
    assert (alias("champion"), alias("challenger")) == ("1", None)
    assert client().get_model_version(NAME, "2").tags[registry.REASON] == "4 % of requests failed"
    with pytest.raises(BadInput, match="is the champion"):
        registry.reject(NAME, "1", "no")


@pytest.mark.parametrize("call", [registry.promote, lambda name, version: registry.reject(name, version, "no")])
def test_a_version_that_does_not_exist_is_named(made, sqlite, call):
    go(made)
    with pytest.raises(BadInput, match=r"no version 7 of cancer"):
        call(NAME, "7")


def test_a_tracking_server_over_http_works_the_same(made, server, tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICEWAY_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert registry.champion(NAME) is None
    first = go(made)
    assert verify(local_path(first.model_uri))
    again = go(made)
    assert (again.version, again.reused) == (first.version, True)
    registry.promote(NAME, first.version)
    assert registry.champion(NAME).uri == first.model_uri
    fetched = registry.download(f"models:/{NAME}@champion", tmp_path / "fetched")
    assert verify(fetched) == verify(made / "bundle0")
    features = made / "features"
    decision = evaluate(
        features, made / "bundle1", champion_uri=f"models:/{NAME}@champion", champion_version="1", draws=50
    ).decision
    assert decision.metrics["roc_auc"].champion is not None


def test_no_mlflow_is_one_sentence_within_seconds(made, tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICEWAY_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"MLflow at http://127\.0\.0\.1:9 cannot be used \(Connection refused\)"):
        go(made)
    assert time.monotonic() - began < 8
