"""Which metrics tell what, as data: one entry per kind of server or proxy that counts requests.

The names and labels are those of Knative (queue-proxy), Istio's standard metrics, Envoy's cluster statistics, KServe's
Python server and kube-state-metrics. Everything is selected by the revision's name, which is the Knative revision, or
the Deployment ``{service}-{name}-predictor`` in KServe's Standard mode.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_POD_END = "-[a-z0-9]{{1,10}}-[a-z0-9]{{5}}"
_SCRAPED_NAMESPACE = ("exported_namespace", "namespace", "kubernetes_namespace", "k8s_namespace_name")


@dataclass(frozen=True)
class Kind:
    """One kind of metrics.

    Attributes:
        name: for people.
        requests: counter of answered requests by status code; empty when it has none.
        code: the label with the status code.
        latency: the histogram's buckets; empty when it has none.
        unit_ms: milliseconds in one unit of that histogram.
        bins: buckets of predictions.
        labels: counter of predictions by label.
        restarts: counter of restarts of containers.
        by: the label that names the revision.
        pattern: what that label holds: a regular expression, with {revision} and {namespace} filled in.
        only: labels that must have a value.
        namespace: the label with the service's namespace; empty where the pattern has it, or else the label that the
            scrape adds.
        info: the metric that carries ``by`` and ``namespace`` in place of these metrics, joined by scrape target.
        one_process: whether a target's counters fall together, all at once, when its process is started again.
        sees_direct: whether requests to a version's own address, past the split, are counted too.
    """

    name: str
    requests: str = ""
    code: str = "code"
    latency: str = ""
    unit_ms: float = 1.0
    bins: str = ""
    labels: str = ""
    restarts: str = ""
    by: str = "revision"
    pattern: str = "{revision}"
    only: tuple[tuple[str, str], ...] = ()
    namespace: str = ""
    info: str = ""
    one_process: bool = False
    sees_direct: bool = True

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric of this kind."""
        return tuple(filter(None, (self.requests, self.latency, self.bins, self.labels, self.restarts)))

    def revision_matchers(self, namespace: str, revision: str) -> list[str]:
        """Label matchers that pick one revision.

        Args:
            namespace: of the service.
            revision: a regular expression that its name must match.
        """
        pattern = self.pattern.format(revision=revision, namespace=re.escape(namespace))
        matchers = [f"{self.by}=~{json.dumps(pattern)}"]
        if self.namespace:
            matchers.append(f"{self.namespace}={json.dumps(namespace)}")
        return matchers

    def selector(self, matchers: Iterable[str]) -> str:
        """PromQL that selects all metrics of this kind with some matchers."""
        names = f"__name__=~{json.dumps('|'.join(self.metrics))}"
        fixed = [f"{label}={json.dumps(value)}" for label, value in self.only]
        return "{" + ",".join([names, *matchers, *fixed]) + "}"

    def info_selector(self, matchers: Iterable[str]) -> str:
        """PromQL that selects what tells which scrape targets are the revision's."""
        return "{" + ",".join([f"__name__={json.dumps(self.info)}", *matchers]) + "}"

    def is_in(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether a series is about this namespace; one that does not say is taken to be."""
        if self.namespace or "{namespace}" in self.pattern:  # it was selected by it
            return True
        return next((labels[label] for label in _SCRAPED_NAMESPACE if label in labels), namespace) == namespace


OURS = Kind(
    "Sluiceway's model server",
    requests="sluiceway_requests_total",
    latency="sluiceway_request_seconds_bucket",
    unit_ms=1000,
    bins="sluiceway_prediction_bucket",
    labels="sluiceway_predicted_total",
    one_process=True,
)
KNATIVE = Kind(
    "Knative's queue-proxy, from 1.19",
    requests="kn_serving_invocation_duration_seconds_count",
    code="http_response_status_code",
    latency="kn_serving_invocation_duration_seconds_bucket",
    unit_ms=1000,
    by="kn_revision_name",
    namespace="k8s_namespace_name",
    info="target_info",
    one_process=True,
)
KNATIVE_1_18 = Kind(
    "Knative's queue-proxy, to 1.18",
    requests="revision_request_count",
    code="response_code",
    latency="revision_request_latencies_bucket",
    by="revision_name",
    namespace="namespace_name",
    one_process=True,
)
ISTIO = Kind(
    "Istio, at the server",
    requests="istio_requests_total",
    code="response_code",
    latency="istio_request_duration_milliseconds_bucket",
    by="destination_workload",
    pattern="{revision}(-deployment)?",
    namespace="destination_workload_namespace",
    only=(("reporter", "destination"),),
)
ISTIO_CLIENTS = Kind(
    "Istio, at the gateway and other clients",
    requests=ISTIO.requests,
    code=ISTIO.code,
    latency=ISTIO.latency,
    by=ISTIO.by,
    pattern=ISTIO.pattern,
    namespace=ISTIO.namespace,
    only=(("reporter", "source"),),
)
KOURIER = Kind(
    "Kourier",
    requests="envoy_cluster_upstream_rq",
    code="envoy_response_code",
    latency="envoy_cluster_upstream_rq_time_bucket",
    by="envoy_cluster_name",
    pattern="{namespace}/{revision}",
)
ENVOY = Kind(
    "an Envoy gateway with a cluster per version",
    requests=KOURIER.requests,
    code=KOURIER.code,
    latency=KOURIER.latency,
    by=KOURIER.by,
    pattern="(.*[/|_:])?{namespace}[/:_]{revision}([/|_:.].*)?",
    sees_direct=False,
)
KSERVE = Kind(
    "KServe's Python server",
    latency="request_predict_seconds_bucket",
    unit_ms=1000,
    by="pod",
    pattern="{revision}(-deployment)?" + _POD_END,
    one_process=True,
)
PODS = Kind(
    "kube-state-metrics",
    restarts="kube_pod_container_status_restarts_total",
    by="pod",
    pattern=KSERVE.pattern,
)

KINDS = (KNATIVE, KNATIVE_1_18, ISTIO, KOURIER, ENVOY, OURS, ISTIO_CLIENTS, KSERVE, PODS)
"""Best first: who stands nearest to the client and still counts every request that one version was sent.

Queue-proxy and Istio also count what a server left unanswered. Istio's clients come late because Knative's activator
hides the revision from them. Envoy Gateway keeps one cluster per rule of a route, which tells the versions apart only
when a backend has a filter of its own: then they are ``httproute/{namespace}/{route}/rule/{i}/backend/{j}``, and have
to be named for :class:`components.rollout.signals.prometheus.PrometheusSource`.
"""


def one_of(label: str, values: Iterable[str]) -> str:
    """A label matcher that takes any of some values, literally."""
    return f"{label}=~{json.dumps('|'.join(map(re.escape, values)))}"


def is_failure(code: str) -> bool:
    """Whether a status code is a server's failure: 5xx, or 0 and the like where no answer was given."""
    return code[:1] not in ("1", "2", "3", "4")
