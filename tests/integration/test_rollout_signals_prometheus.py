"""What the judge reads on a cluster: a real Prometheus that scrapes real servers, Envoy, and exporters of the names and
labels of Knative, Istio, KServe and kube-state-metrics."""

import contextlib
import http.server
import math
import threading
import time
from types import SimpleNamespace

import httpx
import pytest

from components.errors import BadInput, SignalsLost
from components.rollout.plan import Business
from components.rollout.signals.prometheus import PrometheusSource
from serving.local.envoy import Envoy
from serving.local.processes import free_port
from tests.prometheus import Exporter, Prometheus, eventually
from tests.serving_bundle import write_bundle
from tests.serving_process import Server

EDGES = ("5", "10", "25", "50", "100", "250", "500", "1000")
SCRAPED = 0.4
"""Seconds in which everything has been scraped again."""
SECONDS = ("0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Everything that is scraped, named before Prometheus starts, since new targets take it seconds to notice."""
    folder = tmp_path_factory.mktemp("world")
    prometheus = Prometheus(folder)
    names = ("kn18", "kn19_old", "kn19_new", "istio", "kserve", "pods", "late", "staging")
    exporters = {name: Exporter(up=name != "late") for name in names}
    servers = [
        Server(folder / "a", "ours-predictor-00001", folder / "a.log"),
        Server(folder / "a", "ours-predictor-00002", folder / "b.log", faults="errors=0.4"),
    ]
    with contextlib.ExitStack() as stack:
        envoy = stack.enter_context(envoy_before(folder / "envoy"))
        prometheus.scrape(envoy.admin, path="/stats/prometheus", namespace="envoy-gateway-system", pod="gateway")
        for number, server in enumerate(servers, 1):
            prometheus.scrape(server.address, job="pods", namespace="shop", pod=f"ours-{number}")
        # The second monitor that picks the same pod is a common mistake.
        prometheus.scrape(servers[0].address, job="annotated", namespace="shop", pod="ours-1")
        for name, exporter in exporters.items():
            stack.callback(exporter.close)
            namespace = "staging" if name == "staging" else "shop"
            prometheus.scrape(exporter.address, job=name, namespace=namespace, **labels_of(name))
        stack.callback(prometheus.kill)
        prometheus.start()
        write_bundle(folder / "a")
        for server in servers:
            stack.callback(server.kill)
            server.start()
        for server in servers:
            server.wait()
        eventually(lambda: prometheus.value("count(up)") == len(names) + 4, 20)
        yield SimpleNamespace(prometheus=prometheus, servers=servers, envoy=envoy, **exporters)


def labels_of(name):
    if name == "kserve":
        return {"pod": "legacy-predictor-00001-deployment-6f7d8c9b4-x2k9p"}
    return {} if name in ("istio", "pods") else {"pod": f"{name}-0"}


@contextlib.contextmanager
def envoy_before(folder):
    """A real Envoy that splits evenly between a server that answers and one that fails."""

    class Upstream(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            health = self.path.endswith("/ready")
            self.send_response(200 if health or self.server is not bad else 500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments):
            pass

    good, bad = (http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream) for _ in range(2))
    for server in (good, bad):
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    envoy, port = Envoy("split", folder), free_port()
    envoy.set_listener(port)
    envoy.set_clusters({"shop/split-predictor-00001": good.server_port, "shop/split-predictor-00002": bad.server_port})
    envoy.set_weights({"shop/split-predictor-00001": 50, "shop/split-predictor-00002": 50})
    envoy.start()

    def splits():
        with contextlib.suppress(OSError):  # it does not listen yet, or has no routes yet
            return envoy.weights() and len(envoy.active()) == 2

    try:
        eventually(envoy.answers)
        eventually(splits)
        yield SimpleNamespace(url=f"http://127.0.0.1:{port}", admin=f"127.0.0.1:{envoy.admin_port}")
    finally:
        envoy.stop()
        for server in (good, bad):
            server.shutdown()
            server.server_close()


def source(world, service, **options):
    return PrometheusSource(world.prometheus.url, "shop", service, **options)


def begun(world, service, first="-predictor-00001", second="-predictor-00002", **options):
    """A source that has begun on two revisions, once all that was counted before has been scraped."""
    time.sleep(SCRAPED)
    found = source(world, service, **options)
    found.begin(service + first, service + second)
    return found


def until(source, wanted):
    """Look again until the newest scrape has it, then once more after another scrape: it must not be counted twice."""
    seen = []

    def look():
        with contextlib.suppress(SignalsLost):
            seen.append(source.seen())
            return wanted(seen[-1])

    try:
        eventually(look)
    except AssertionError as error:
        raise AssertionError(f"not seen: {seen[-1] if seen else 'nothing'}") from error
    time.sleep(SCRAPED)
    return source.seen()


def test_our_server_s_requests_codes_latency_and_predictions_are_counted_exactly(world):
    first, second = world.servers
    first.send(7)  # before it begins
    source = begun(world, "ours")
    sent = first.send(30)
    refused = first.send(5, {"instances": [3]})
    failing = second.send(60)
    assert sent == {200: 30}
    assert refused == {400: 5}
    assert set(failing) == {200, 500}
    seen = until(source, lambda seen: seen.stable.requests >= 35 and seen.canary.requests >= 60)
    assert (seen.stable.requests, seen.stable.errors) == (35, 0)  # scraped twice, counted once; 400 is the client's
    assert (seen.canary.requests, seen.canary.errors) == (60, failing[500])
    assert (seen.stable.latency[math.inf], seen.canary.latency[math.inf]) == (35, 60)
    assert 1.0 in seen.stable.latency  # milliseconds
    assert list(seen.stable.predictions) == ["0.25", "0.5", "0.75", "+Inf"]
    assert sum(seen.stable.predictions.values()) == 30
    assert sum(seen.canary.predictions.values()) == failing[200]
    assert 0.15 < source.interval_seconds < 1  # as often as it is scraped
    assert source.baseline("ours-predictor-00001").requests >= 35


def test_a_server_that_is_started_again_is_counted_on(world):
    _, second = world.servers
    source = begun(world, "ours")
    before = second.send(20)
    until(source, lambda seen: seen.canary.requests == 20)
    second.kill()
    second.start()
    second.wait()
    after = second.send(45)  # some of its counters have overtaken what they were, others have not
    seen = until(source, lambda seen: seen.canary.requests >= 65)
    assert seen.canary.requests == 65
    assert seen.canary.errors == before.get(500, 0) + after.get(500, 0)
    assert seen.canary.latency[math.inf] == 65
    assert sum(seen.canary.predictions.values()) == before.get(200, 0) + after.get(200, 0)


def kn18(exporter, revision, code, milliseconds):
    who = {"namespace_name": "shop", "service_name": "kn18-predictor", "revision_name": revision}
    who |= {"response_code": code, "response_code_class": f"{code[0]}xx", "container_name": "queue-proxy"}
    exporter.add("revision_request_count", **who)
    exporter.observe("revision_request_latencies", milliseconds, EDGES, **who)


def test_knative_to_1_18_counts_in_milliseconds_also_from_a_pod_that_comes_later(world):
    kn18(world.kn18, "kn18-predictor-00001", "200", 7)
    source = begun(world, "kn18")
    for milliseconds in (3, 7, 30, 60):
        kn18(world.kn18, "kn18-predictor-00001", "200", milliseconds)
    kn18(world.kn18, "kn18-predictor-00002", "503", 700)  # a series that was not there when it began
    until(source, lambda seen: seen.canary.requests == 1)
    kn18(world.late, "kn18-predictor-00002", "200", 40)
    kn18(world.late, "kn18-predictor-00002", "404", 40)
    world.late.up = True
    seen = until(source, lambda seen: seen.canary.requests == 3)
    assert (seen.stable.requests, seen.stable.errors) == (4, 0)
    assert (seen.canary.requests, seen.canary.errors) == (3, 1)
    assert seen.stable.latency == {5: 1, 10: 2, 25: 2, 50: 3, 100: 4, 250: 4, 500: 4, 1000: 4, math.inf: 4}
    assert seen.canary.latency[500] == 2
    assert source.sees_direct


def test_a_restart_between_two_looks_far_apart_is_seen(world, monkeypatch):
    kn18(world.kn19_old, "gap-predictor-00002", "200", 7)
    source = begun(world, "gap")
    monkeypatch.setattr("components.rollout.signals.prometheus._OVERLAP_SECONDS", 0.1)
    for count in (9, 3):
        for _ in range(count):
            kn18(world.kn19_old, "gap-predictor-00002", "200", 7)
        time.sleep(2 * SCRAPED)
        if count == 9:
            world.kn19_old.restart()
    assert source.seen().canary.requests == 9 + 3  # 1, 10, 3: only the sample in between shows the restart


def test_knative_from_1_19_is_joined_with_target_info(world):
    for exporter, revision in ((world.kn19_old, "kn19-predictor-00001"), (world.kn19_new, "kn19-predictor-00002")):
        about = {"kn_revision_name": revision, "kn_service_name": "kn19-predictor", "k8s_namespace_name": "shop"}
        exporter.add("target_info", 1, **about)
    metric, scope = "kn_serving_invocation_duration_seconds", "knative.dev/serving/pkg/queue"
    source = begun(world, "kn19")
    for _ in range(6):
        world.kn19_old.observe(metric, 0.02, SECONDS, http_response_status_code="200", otel_scope_name=scope)
    for code in ("200", "502", "502"):
        world.kn19_new.observe(metric, 0.2, SECONDS, http_response_status_code=code, otel_scope_name=scope)
    seen = until(source, lambda seen: (seen.stable.requests, seen.canary.requests) == (6, 3))
    assert (seen.stable.errors, seen.canary.errors) == (0, 2)
    assert (seen.stable.latency[10.0], seen.stable.latency[25.0]) == (0, 6)
    assert (seen.canary.latency[100.0], seen.canary.latency[250.0]) == (0, 3)


def istio(exporter, workload, code, milliseconds, reporter="destination", namespace="shop"):
    who = {"reporter": reporter, "destination_workload": workload, "destination_workload_namespace": namespace}
    who |= {"response_code": code, "response_flags": "-", "source_workload": "istio-ingressgateway"}
    exporter.add("istio_requests_total", **who)
    exporter.observe("istio_request_duration_milliseconds", milliseconds, EDGES, **who)


@pytest.mark.parametrize(
    ("service", "revisions", "workloads"),
    [
        ("mesh", ("-predictor-00001", "-predictor-00002"), "mesh-predictor-0000{}-deployment"),  # Knative mode
        ("std", ("-v1-predictor", "-v2-predictor"), "std-v{}-predictor"),  # Standard mode
    ],
)
def test_istio_counts_each_request_once_and_in_this_namespace(world, service, revisions, workloads):
    first, second = workloads.format(1), workloads.format(2)
    istio(world.istio, first, "200", 8)
    source = begun(world, service, *revisions)
    for reporter in ("source", "destination"):  # both ends report
        for _ in range(5):
            istio(world.istio, first, "200", 8, reporter)
        for code in ("200", "503", "0"):  # 0: the connection ended before an answer
            istio(world.istio, second, code, 80, reporter)
    istio(world.istio, second, "500", 1, namespace="staging")
    seen = until(source, lambda seen: seen.stable.requests >= 5 and seen.canary.requests >= 3)
    assert (seen.stable.requests, seen.stable.errors) == (5, 0)
    assert (seen.canary.requests, seen.canary.errors) == (3, 2)
    assert (seen.canary.latency[50.0], seen.canary.latency[100.0]) == (0, 3)


@pytest.mark.parametrize("named", [False, True])
def test_envoy_counts_by_cluster(world, named):
    """Kourier names clusters after namespace and revision; other gateways' names are given."""
    clusters = {f"b{number}": f"shop/split-predictor-0000{number}" for number in (1, 2)}
    source = begun(world, "", "b1", "b2", clusters=clusters) if named else begun(world, "split")
    codes = [httpx.get(world.envoy.url).status_code for _ in range(40)]
    seen = until(source, lambda seen: seen.stable.requests + seen.canary.requests >= 40)
    assert (seen.stable.requests, seen.stable.errors) == (codes.count(200), 0)
    assert (seen.canary.requests, seen.canary.errors) == (codes.count(500), codes.count(500))
    seen = until(source, lambda seen: seen.canary.latency[math.inf] == codes.count(500))  # merged later
    assert seen.stable.latency[math.inf] == codes.count(200)
    assert source.sees_direct is not named


def test_restarts_are_counted_per_version(world):
    def pod(revision, end):
        return {"namespace": "shop", "pod": f"{revision}-deployment-{end}", "container": "kserve-container", "uid": end}

    metric = "kube_pod_container_status_restarts_total"
    world.pods.add(metric, 4, **pod("ours-predictor-00002", "5d4f6c7b8-abcde"))
    source = begun(world, "ours")
    world.pods.add(metric, 2, **pod("ours-predictor-00002", "5d4f6c7b8-abcde"))
    world.pods.add(metric, 1, **pod("ours-predictor-00002", "5d4f6c7b8-fghij"))  # a pod that is new
    world.pods.add(metric, 9, **pod("ours-predictor-00002x", "5d4f6c7b8-abcde"))  # another revision's
    seen = until(source, lambda seen: seen.canary.restarts >= 3)
    assert (seen.stable.restarts, seen.canary.restarts) == (0, 3)


def test_metrics_without_status_codes_are_refused_and_named(world):
    world.kserve.observe("request_predict_seconds", 0.02, SECONDS, model_name="legacy")
    eventually(lambda: world.prometheus.value('request_predict_seconds_count{model_name="legacy"}') == 1)
    lacking = source(world, "legacy")
    with pytest.raises(BadInput, match=r"no status codes of legacy in namespace shop\. It has only those of KServe's"):
        lacking.probe("legacy-predictor-00001")
    lacking.begin("legacy-predictor-00001", "legacy-predictor-00002")
    with pytest.raises(SignalsLost, match="no status codes of legacy"):
        lacking.seen()
    assert lacking.baseline("legacy-predictor-00001").requests == 0


def test_latency_of_kserve_s_server_helps_out_where_codes_come_without(world):
    who = {"revision": "legacy-predictor-00001", "code": "200"}
    world.staging.add("sluiceway_requests_total", 3, **who)  # the same names in another namespace
    eventually(lambda: world.prometheus.value('sluiceway_requests_total{namespace="staging"}') == 3)
    with pytest.raises(BadInput, match="no status codes"):
        source(world, "legacy").probe("legacy-predictor-00001")
    found = PrometheusSource(world.prometheus.url, "staging", "legacy").probe()
    assert (found.codes.name, found.latency) == ("Sluiceway's model server", None)


def test_no_traffic_is_no_evidence(world):
    source = begun(world, "ours")
    seen = source.seen()
    assert (seen.stable.requests, seen.canary.requests, seen.canary.latency) == (0, 0, {})
    assert math.isnan(seen.canary.latency_quantile(0.95))


def test_the_quantile_is_prometheus_own(world):
    source = begun(world, "kn18")
    for milliseconds in (2, 4, 6, 9, 12, 20, 33, 48, 70, 90, 130, 300, 800):
        kn18(world.kn18, "kn18-predictor-00001", "200", milliseconds)
    seen = until(source, lambda seen: seen.stable.requests == 13)
    # Over a stretch with no other counts, whose extrapolation scales all buckets alike.
    buckets = 'sum by (le) (increase(revision_request_latencies_bucket{revision_name="kn18-predictor-00001"}[4s]))'
    for q in (0.5, 0.9, 0.95):
        theirs = world.prometheus.value(f"histogram_quantile({q}, {buckets})")
        assert seen.stable.latency_quantile(q) == pytest.approx(theirs)


def test_the_business_metric_has_one_value_per_window_and_version(world):
    business = Business(
        query='sum(increase(offers_accepted{ns="{namespace}",by="{revision}"}[{window}]))',
        highest=10_000,
        window_seconds=1,
    )
    for version in (1, 2):
        world.kn18.add("offers_accepted", 1, ns="shop", by=f"ours-predictor-0000{version}")
    source = begun(world, "ours", business=business)
    ends = time.monotonic() + 2.6
    while time.monotonic() < ends:
        world.kn18.add("offers_accepted", 20, ns="shop", by="ours-predictor-00001")
        world.kn18.add("offers_accepted", 10, ns="shop", by="ours-predictor-00002")
        time.sleep(0.1)
    worse = source.seen().business
    assert 1 <= worse.windows <= 2
    assert worse.total / worse.windows == pytest.approx(0.01, rel=0.5)  # 200 against 100 a second, of 10,000
    assert source.seen().business.windows <= 3


def test_a_challenger_that_is_not_scraped_any_more_is_lost_and_not_healthy(world):
    kn18(world.late, "gone-predictor-00002", "200", 40)
    kn18(world.kn18, "gone-predictor-00001", "200", 40)
    source = begun(world, "gone")
    until(source, lambda seen: seen.canary.requests == 0)
    world.late.up = False
    with pytest.raises(SignalsLost, match="has not scraped gone-predictor-00002 for"):
        eventually(lambda: source.seen() is None, 10)


def test_prometheus_may_be_away_and_counts_go_on_when_it_is_back(world):
    source = begun(world, "kn18")
    kn18(world.kn18, "kn18-predictor-00001", "200", 7)
    until(source, lambda seen: seen.stable.requests == 1)
    world.prometheus.kill()
    with pytest.raises(SignalsLost, match=r"Prometheus at 127\.0\.0\.1:\d+ does not answer"):
        source.seen()
    kn18(world.kn18, "kn18-predictor-00001", "500", 7)
    world.prometheus.start()
    seen = until(source, lambda seen: seen.stable.requests == 2)
    assert (seen.stable.requests, seen.stable.errors, seen.canary.requests) == (2, 1, 0)


def test_an_address_that_is_not_prometheus_is_lost(world):
    lost = PrometheusSource(world.envoy.url, "shop", "ours")
    with pytest.raises(SignalsLost, match="refuses a query"):
        lost.begin("a", "b")
    with pytest.raises(BadInput, match="http://host:port"):
        PrometheusSource("prometheus:9090", "shop", "ours")
