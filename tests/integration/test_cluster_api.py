"""The Kubernetes API as the rollout uses it: against a server of ours, or with SLUICEWAY_TEST_KUBECONFIG a real one."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from components.cluster import credentials
from components.cluster.api import (
    CONFIG_MAP,
    DEPLOYMENT,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    LEASE,
    POD,
    Cluster,
    Conflict,
    Kind,
    connect,
)
from components.errors import BadInput, Unreachable
from tests.cluster.fixtures import RealServer, refused
from tests.cluster.server import ApiServer

pytest_plugins = ["tests.cluster.fixtures"]
pytestmark = pytest.mark.cluster

Plain = dict[str, Any]


def config_map(name: str = "iris", **data: str) -> Plain:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def model(image: str = "server:1", **more: Any) -> Plain:
    return {"name": "kserve-container", "modelFormat": {"name": "mlflow"}, "image": image} | more


def inference_service(spec: Plain, **metadata: Any) -> Plain:
    head = {"apiVersion": INFERENCE_SERVICE.api_version, "kind": INFERENCE_SERVICE.kind}
    return head | {"metadata": {"name": "iris"} | metadata, "spec": spec}


def later(seconds: float, call: Any, *args: Any) -> None:
    threading.Timer(seconds, call, args).start()


class TestObjects:
    def test_what_is_not_there_is_none_and_deleting_it_again_is_no_failure(self, cluster: Cluster) -> None:
        assert cluster.get(CONFIG_MAP, "iris") is None
        cluster.create(config_map(a="1"))
        assert cluster.get(CONFIG_MAP, "iris")["data"] == {"a": "1"}  # type: ignore[index]
        cluster.delete(CONFIG_MAP, "iris")
        cluster.delete(CONFIG_MAP, "iris")
        assert cluster.get(CONFIG_MAP, "iris") is None

    def test_only_one_of_two_creates_an_object(self, cluster: Cluster) -> None:
        cluster.create(config_map(a="1"))
        with pytest.raises(Conflict, match="already exists"):
            cluster.create(config_map(a="2"))

    def test_only_one_of_two_who_saw_the_same_version_replaces_it(self, cluster: Cluster) -> None:
        seen = cluster.create(config_map(a="1"))
        cluster.replace(seen | {"data": {"a": "2"}})
        with pytest.raises(Conflict, match="has been modified"):
            cluster.replace(seen | {"data": {"a": "3"}})
        assert cluster.get(CONFIG_MAP, "iris")["data"] == {"a": "2"}  # type: ignore[index]

    def test_replacing_what_was_deleted_is_a_conflict(self, cluster: Cluster) -> None:
        seen = cluster.create(config_map(a="1"))
        cluster.delete(CONFIG_MAP, "iris")
        with pytest.raises(Conflict):
            cluster.replace(seen)

    def test_a_write_that_changes_nothing_makes_no_new_version(self, cluster: Cluster) -> None:
        first = cluster.apply(config_map(a="1"))
        assert cluster.apply(config_map(a="1"))["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]

    def test_a_selector_selects_and_long_lists_are_followed_to_the_end(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("components.cluster.api._PAGE", 2)
        for number in range(5):
            made = config_map(f"c{number}")
            made["metadata"]["labels"] = {"half": str(number % 2)}
            cluster.create(made)
        found = [item["metadata"]["name"] for item in cluster.list(CONFIG_MAP, "half in (0,1)")]
        assert found == ["c0", "c1", "c2", "c3", "c4"]
        assert [item["metadata"]["name"] for item in cluster.list(CONFIG_MAP, "half=1")] == ["c1", "c3"]
        assert {item["kind"] for item in cluster.list(CONFIG_MAP, "half")} == {"ConfigMap"}

    def test_a_namespace_that_is_not_there_is_named(self, cluster: Cluster) -> None:
        with pytest.raises(BadInput, match='namespaces "nowhere" not found'):
            cluster.inside("nowhere").create(config_map())


class TestApply:
    def test_a_field_that_is_left_out_is_removed_and_another_manager_s_stays(self, cluster: Cluster) -> None:
        first = cluster.create(config_map(theirs="1"))
        cluster.apply(config_map(ours="1", too="1"))
        found = cluster.apply(config_map(ours="1"))
        assert found["data"] == {"theirs": "1", "ours": "1"}
        assert found["metadata"]["uid"] == first["metadata"]["uid"]

    def test_promoting_is_leaving_the_canary_percent_out(self, cluster: Cluster) -> None:
        cluster.apply(inference_service({"predictor": {"canaryTrafficPercent": 10, "model": model()}}))
        promoted = cluster.apply(inference_service({"predictor": {"model": model()}}))
        assert "canaryTrafficPercent" not in promoted["spec"]["predictor"]

    def test_another_manager_s_field_is_a_conflict_that_names_both(self, cluster: Cluster) -> None:
        cluster.create(config_map(a="1"))
        with pytest.raises(Conflict, match=r'conflict with "sluiceway" using v1: \.data\.a'):
            cluster.apply(config_map(a="2"))
        assert cluster.apply(config_map(a="2"), force=True)["data"] == {"a": "2"}

    def test_the_same_value_is_owned_together(self, cluster: Cluster) -> None:
        cluster.create(config_map(a="1"))
        cluster.apply(config_map(a="1", b="1"))
        assert cluster.apply(config_map(b="1"))["data"] == {"a": "1", "b": "1"}, "the other owner still wants it"

    def test_a_list_of_canaries_has_one_owner(self, cluster: Cluster) -> None:
        canary = [{"trafficPercent": 10, "predictor": {"name": "v2", "model": model("server:2")}}]
        cluster.apply(inference_service({"predictor": {"model": model()}, "canary": canary}))
        found = cluster.apply(inference_service({"predictor": {"model": model()}}))
        assert "canary" not in found["spec"]

    def test_lists_are_merged_by_key_where_the_schema_says_so(self, cluster: Cluster) -> None:
        def containers(*images: str) -> Plain:
            several = [{"name": f"c{number}", "image": image} for number, image in enumerate(images)]
            labels = {"app": "iris"}
            template = {"metadata": {"labels": labels}, "spec": {"containers": several}}
            spec = {"selector": {"matchLabels": labels}, "template": template}
            head = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "iris"}}
            return head | {"spec": spec}

        cluster.apply(containers("one", "two"))
        found = cluster.get(DEPLOYMENT, "iris")
        assert found is not None
        assert found["spec"]["replicas"] == 1, "filled in by the server"
        found["spec"]["template"]["spec"]["containers"].append({"name": "sidecar", "image": "proxy"})
        cluster.replace(found)
        now = cluster.apply(containers("three"))["spec"]["template"]["spec"]["containers"]
        assert {c["name"]: c["image"] for c in now} == {"c0": "three", "sidecar": "proxy"}

    def test_a_version_that_is_not_current_is_a_conflict(self, cluster: Cluster) -> None:
        old = cluster.apply(config_map(a="1"))["metadata"]["resourceVersion"]
        cluster.apply(config_map(a="2"))
        again = config_map(a="3")
        again["metadata"]["resourceVersion"] = old
        with pytest.raises(Conflict, match="has been modified"):
            cluster.apply(again)

    def test_a_dry_run_has_no_effect_and_finds_what_is_wrong(self, cluster: Cluster) -> None:
        assert cluster.apply(config_map(a="1"), dry_run=True)["metadata"]["creationTimestamp"]
        assert cluster.get(CONFIG_MAP, "iris") is None
        with pytest.raises(BadInput, match="Unsupported value"):
            cluster.apply(_route(kind_of_match="Fuzzy"), dry_run=True)

    def test_status_is_not_written_through_the_main_door(self, cluster: Cluster) -> None:
        made = inference_service({"predictor": {"model": model()}}) | {"status": {"url": "http://iris"}}
        assert "status" not in cluster.apply(made)

    def test_generation_counts_what_is_wanted_not_what_is_noted(self, cluster: Cluster) -> None:
        def generation(spec: Plain, **metadata: Any) -> int:
            return int(cluster.apply(inference_service(spec, **metadata))["metadata"]["generation"])

        first = {"predictor": {"model": model()}}
        assert generation(first) == 1
        assert generation(first, annotations={"a": "b"}) == 1
        assert generation({"predictor": {"model": model("server:2")}}) == 2


class TestRefusals:
    """The server's own reason, with the field, at once."""

    @pytest.mark.parametrize(
        ("spec", "reason"),
        [
            ({"predictor": {"model": model(), "minReplica": 1}}, "predictor.minReplica: field not declared"),
            ({"predictor": {"model": model(), "minReplicas": "1"}}, "spec.predictor.minReplicas: expected numeric"),
            (
                {
                    "predictor": {"model": model()},
                    "canary": [{"trafficPercent": 1, "predictor": {"model": {"modelFormat": {"name": "onnx"}}}}],
                },
                r"spec.canary\[0\].predictor.model.name: Required value",
            ),
            (
                {"predictor": {"model": {"modelFormat": {}}}},
                r"spec\.predictor\.model\.modelFormat\.name: Required value",
            ),
        ],
    )
    def test_of_an_applied_inference_service(self, cluster: Cluster, spec: Plain, reason: str) -> None:
        began = time.monotonic()
        with pytest.raises(BadInput, match=reason):
            cluster.apply(inference_service(spec))
        assert time.monotonic() - began < 1, "a refusal is not repeated"

    def test_of_a_created_one_with_an_unknown_field(self, cluster: Cluster) -> None:
        with pytest.raises(BadInput, match=r'unknown field "spec\.predictor\.minReplica"'):
            cluster.create(inference_service({"predictor": {"model": model(), "minReplica": 1}}))

    def test_of_a_weight_that_is_no_weight(self, cluster: Cluster) -> None:
        with pytest.raises(BadInput, match=r"spec.rules\[0\].backendRefs\[0\].weight.* greater than or equal to 0"):
            cluster.apply(_route(weight=-1))

    def test_of_a_name_that_is_no_name(self, cluster: Cluster) -> None:
        with pytest.raises(BadInput, match="RFC 1123"):
            cluster.create(config_map("Iris"))

    def test_of_a_kind_that_is_not_installed(self, cluster: Cluster) -> None:
        strange = Kind("example.com/v1", "Strange")
        assert not cluster.serves(strange)
        assert cluster.get(strange, "iris") is None
        with pytest.raises(BadInput, match="does not know Strange"):
            cluster.list(strange)


def _route(weight: int = 90, kind_of_match: str = "PathPrefix") -> Plain:
    backends = [
        {"name": "iris-stable", "port": 80, "weight": weight},
        {"name": "iris-canary", "port": 80, "weight": 10},
    ]
    rule = {"backendRefs": backends, "matches": [{"path": {"type": kind_of_match, "value": "/"}}]}
    head = {"apiVersion": HTTP_ROUTE.api_version, "kind": HTTP_ROUTE.kind, "metadata": {"name": "iris"}}
    return head | {"spec": {"parentRefs": [{"name": "gateway"}], "rules": [rule]}}


class TestWait:
    def test_what_is_so_already_ends_it_at_once(self, cluster: Cluster) -> None:
        cluster.create(config_map(a="1"))
        assert cluster.wait(CONFIG_MAP, "iris", lambda found: found and found["data"]["a"], 5) == "1"
        assert cluster.wait(CONFIG_MAP, "none", lambda found: "gone" if found is None else None, 5) == "gone"

    def test_it_sees_creation_changes_and_the_end(self, cluster: Cluster) -> None:
        seen: list[str] = []

        def done(found: Plain | None) -> bool | None:
            seen.append("none" if found is None else found["data"]["a"])
            return True if found is None and len(seen) > 1 else None

        later(0.2, cluster.apply, config_map(a="1"))
        later(0.4, lambda: cluster.apply(config_map(a="2")))
        later(0.5, lambda: cluster.apply(config_map("other", a="x")))
        later(0.6, lambda: cluster.delete(CONFIG_MAP, "iris"))
        assert cluster.wait(CONFIG_MAP, "iris", done, 5)
        assert seen == ["none", "1", "2", "none"]

    def test_it_ends_when_its_time_is_over(self, cluster: Cluster) -> None:
        began = time.monotonic()
        assert cluster.wait(CONFIG_MAP, "iris", lambda _found: None, 0.7) is None
        assert 0.6 < time.monotonic() - began < 1.2

    def test_what_the_callback_raises_ends_it(self, cluster: Cluster) -> None:
        def done(_found: Plain | None) -> None:
            raise BadInput("no")

        with pytest.raises(BadInput, match="no"):
            cluster.wait(CONFIG_MAP, "iris", done, 5)

    @pytest.mark.parametrize("trouble", ["cut watches", "half an event", "410 event", "410 answer", "429", "away"])
    def test_it_goes_on_through(self, fake: ApiServer, cluster: Cluster, trouble: str) -> None:
        cluster.create(config_map(a="1"))
        happen = {
            "cut watches": lambda: later(0.1, fake.cut_watches),
            "half an event": lambda: fake.faults.add("cut", method="WATCH"),
            "410 event": lambda: fake.faults.add("gone", method="WATCH", times=2),
            "410 answer": lambda: fake.faults.add("answer", method="WATCH", code=410),
            "429": lambda: fake.faults.add("answer", method="WATCH", code=429, retry_after=1),
            "away": lambda: later(0.1, _away_for, fake, 0.5),
        }
        happen[trouble]()
        later(0.3 if trouble != "away" else 1.0, lambda: cluster.apply(config_map(a="2"), force=True))
        assert cluster.wait(CONFIG_MAP, "iris", lambda found: True if found and found["data"]["a"] == "2" else None, 6)

    def test_what_happened_while_the_watch_was_down_and_forgotten_is_seen(
        self, fake: ApiServer, cluster: Cluster
    ) -> None:
        cluster.create(config_map(a="1"))
        versions: list[str] = []

        def done(found: Plain | None) -> bool | None:
            assert found is not None
            versions.append(found["data"]["a"])
            if len(versions) == 1:
                cluster.apply(config_map(a="2"), force=True)
                fake.storage.forget()
            return True if found["data"]["a"] == "2" else None

        assert cluster.wait(CONFIG_MAP, "iris", done, 5)
        assert versions == ["1", "2"]

    @pytest.mark.parametrize("silence", ["hang", "mute"], ids=["from the start", "after an event"])
    def test_a_server_that_keeps_a_silent_connection_open_does_not_hold_it_up(
        self, fake: ApiServer, cluster: Cluster, silence: str
    ) -> None:
        fake.faults.add(silence, method="WATCH", times=9)
        later(0.6, cluster.apply, config_map(a="1"))
        began = time.monotonic()
        assert cluster.wait(CONFIG_MAP, "iris", lambda _found: None, 0.9) is None
        assert time.monotonic() - began < 1.3

    def test_a_server_that_is_away_for_longer_than_our_patience_ends_it(
        self, fake: ApiServer, cluster: Cluster
    ) -> None:
        cluster.patience_seconds = 0.5

        def done(_found: Plain | None) -> None:
            threading.Thread(target=_away_for, args=(fake, 2.0)).start()

        began = time.monotonic()
        with pytest.raises(Unreachable, match="watch the ConfigMap iris"):
            cluster.wait(CONFIG_MAP, "iris", done, 30)
        assert time.monotonic() - began < 2
        time.sleep(max(0.0, 2.2 - (time.monotonic() - began)))


def _away_for(server: ApiServer, seconds: float) -> None:
    with server.away():
        time.sleep(seconds)


class TestPatience:
    @pytest.mark.parametrize(
        ("verb", "fault"),
        [
            *((verb, {"how": "lose"}) for verb in ("create", "apply", "replace", "delete")),
            *((verb, {"how": "drop"}) for verb in ("get", "list", "create", "apply", "replace", "delete")),
            *(("apply", {"how": "answer", "code": code}) for code in (410, 500, 502, 503, 504)),
            ("get", {"how": "answer", "code": 503, "times": 2}),
            ("list", {"how": "cut"}),
            ("replace", {"how": "cut"}),
        ],
        ids=str,
    )
    def test_what_passes_is_waited_out(self, fake: ApiServer, cluster: Cluster, verb: str, fault: Plain) -> None:
        made = cluster.create(config_map(a="1"))
        methods = {
            "get": "GET",
            "list": "GET",
            "create": "POST",
            "apply": "PATCH",
            "replace": "PUT",
            "delete": "DELETE",
        }
        injected = fake.faults.add(**fault, method=methods[verb], path="configmaps")
        fresh = config_map("new", a="1")
        calls = {
            "get": lambda: cluster.get(CONFIG_MAP, "iris"),
            "list": lambda: cluster.list(CONFIG_MAP),
            "create": lambda: cluster.create(fresh),
            "apply": lambda: cluster.apply(fresh),
            "replace": lambda: cluster.replace(made | {"data": {"a": "2"}}),
            "delete": lambda: cluster.delete(CONFIG_MAP, "iris"),
        }
        calls[verb]()
        assert injected.happened == injected.times
        expected = {"create": "1", "apply": "1", "replace": "2"}.get(verb)
        if expected:
            name = "iris" if verb == "replace" else "new"
            assert cluster.get(CONFIG_MAP, name)["data"] == {"a": expected}  # type: ignore[index]

    def test_a_pause_that_the_server_asks_for_is_kept(self, fake: ApiServer, cluster: Cluster) -> None:
        cluster.serves(CONFIG_MAP)
        fake.faults.add("answer", code=429, retry_after=1)
        began = time.monotonic()
        cluster.get(CONFIG_MAP, "iris")
        assert 0.95 < time.monotonic() - began < 1.5

    def test_patience_ends(self, fake: ApiServer, cluster: Cluster) -> None:
        cluster.patience_seconds = 0.5
        fake.faults.add("answer", code=503, times=1000, message="etcd is away")
        began = time.monotonic()
        with pytest.raises(Unreachable, match=r"could not get the ConfigMap iris .*503|etcd is away"):
            cluster.get(CONFIG_MAP, "iris")
        assert time.monotonic() - began < 1

    def test_a_server_that_hangs_is_left(self, fake: ApiServer, cluster: Cluster) -> None:
        cluster.patience_seconds = 1
        fake.faults.add("hang", times=9, seconds=20)
        began = time.monotonic()
        with pytest.raises(Unreachable, match="within 1 s"):
            cluster.get(CONFIG_MAP, "iris")
        assert time.monotonic() - began < 2.5

    def test_a_server_that_is_not_there_is_said_to_be_so(self) -> None:
        with ApiServer() as server:
            client = server.client()
        with pytest.raises(Unreachable, match="check that it is up"):
            Cluster(client, "default", patience_seconds=0.3).get(CONFIG_MAP, "iris")

    def test_a_kind_is_not_said_to_be_missing_while_its_server_is_down(self, fake: ApiServer, cluster: Cluster) -> None:
        fake.faults.add("answer", code=503, path="/apis/serving.kserve.io/v1beta1$", times=2)
        assert cluster.serves(INFERENCE_SERVICE)

    def test_somebody_else_s_write_is_not_taken_for_our_own(self, fake: ApiServer, cluster: Cluster) -> None:
        seen = cluster.create(config_map(a="1"))
        cluster.apply(config_map(a="theirs"), force=True)
        fake.faults.add("drop", method="PUT")
        with pytest.raises(Conflict):
            cluster.replace(seen | {"data": {"a": "ours"}})

    def test_a_race_inside_the_server_is_run_again(self, fake: ApiServer, cluster: Cluster) -> None:
        fake.faults.add("answer", code=409, method="PATCH", message="the object has been modified")
        assert cluster.apply(config_map(a="1"))["data"] == {"a": "1"}


class TestAccounts:
    def test_may_answers_for_this_account(self, cluster: Cluster, account: Any) -> None:
        limited = account([{"apiGroups": [""], "resources": ["configmaps", "pods/log"], "verbs": ["get"]}])
        assert limited.may("get", CONFIG_MAP)
        assert limited.may("get", POD, "log")
        assert not limited.may("patch", CONFIG_MAP)
        assert not limited.may("get", LEASE)
        assert cluster.may("delete", LEASE)

    def test_what_it_may_not_do_is_refused_with_the_server_s_reason(self, cluster: Cluster, account: Any) -> None:
        cluster.create(config_map(a="1"))
        limited = account([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}])
        assert limited.get(CONFIG_MAP, "iris")["data"] == {"a": "1"}
        with pytest.raises(BadInput, match=r"cannot patch resource .?\"configmaps"):
            limited.apply(config_map(a="2"), force=True)
        assert refused(lambda: limited.get(LEASE, "iris"))
        assert refused(lambda: limited.inside("default").get(CONFIG_MAP, "iris"))


class TestFields:
    def test_the_fields_of_a_custom_kind(self, cluster: Cluster) -> None:
        schema = cluster.fields(INFERENCE_SERVICE)
        assert schema is not None
        assert {"predictor", "canary"} <= set(schema["properties"]["spec"]["properties"])

    def test_references_of_a_built_in_kind_are_resolved(self, cluster: Cluster) -> None:
        schema = cluster.fields(DEPLOYMENT)
        assert schema is not None
        template = schema["properties"]["spec"]["properties"]["template"]["properties"]
        assert "containers" in template["spec"]["properties"]

    def test_a_kind_that_is_not_there_has_none(self, cluster: Cluster) -> None:
        assert cluster.fields(Kind("example.com/v1", "Strange")) is None


class TestCredentials:
    def test_a_kubeconfig_gives_the_cluster_and_the_namespace(
        self, api_server: ApiServer | RealServer, tmp_path: Path
    ) -> None:
        path = Path(api_server.kubeconfig) if isinstance(api_server, RealServer) else _kubeconfig(tmp_path, api_server)
        cluster = connect(kubeconfig=str(path))
        assert cluster.namespace
        assert cluster.serves(CONFIG_MAP)
        assert connect("elsewhere", str(path)).namespace == "elsewhere"

    def test_none_at_all_is_said_to_be_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
        with pytest.raises(BadInput, match="No cluster to talk to"):
            connect()

    def test_a_pod_goes_by_its_service_account_and_by_its_newest_token(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, text in {"token": "first", "namespace": "pipelines", "ca.crt": "a certificate"}.items():
            (tmp_path / name).write_text(text)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
        monkeypatch.delenv("KUBECONFIG", raising=False)
        client, namespace = credentials.client("", tmp_path)
        assert (client.configuration.host, namespace) == ("https://127.0.0.1:443", "pipelines")
        with ApiServer() as server:
            client.configuration.host = server.url
            cluster = Cluster(client, "default", patience_seconds=1)
            server.tokens = {"first"}
            assert cluster.get(CONFIG_MAP, "iris") is None
            server.tokens = {"second"}
            with pytest.raises(Unreachable, match="does not accept our credentials"):
                cluster.get(CONFIG_MAP, "iris")
            (tmp_path / "token").write_text("second")
            assert cluster.get(CONFIG_MAP, "iris") is None


def _kubeconfig(folder: Path, server: ApiServer) -> Path:
    path = folder / "kubeconfig"
    path.write_text(
        f"""
apiVersion: v1
kind: Config
clusters: [{{name: test, cluster: {{server: "{server.url}"}}}}]
users: [{{name: test, user: {{token: test}}}}]
contexts: [{{name: test, context: {{cluster: test, user: test, namespace: mine}}}}]
current-context: test
"""
    )
    return path
