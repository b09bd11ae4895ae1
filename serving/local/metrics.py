"""What the judge of a canary reads: Envoy's counts per revision, and each server's counts of its predictions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlparse

from serving.local import loopback


@dataclass(frozen=True)
class RevisionStats:
    """Counts since Envoy started to know the revision; they fall to 0 when it restarts.

    Attributes:
        requests: requests answered, those that Envoy answered itself for want of a server included.
        errors: those with a 5xx status.
        latency_ms: cumulative counts by bucket edge in milliseconds, the last edge infinite; merged every 0.5 s.
    """

    requests: int = 0
    errors: int = 0
    latency_ms: Mapping[float, float] = field(default_factory=dict)


def revision_stats(document: dict[str, Any]) -> dict[str, RevisionStats]:
    """Requests, errors and latency per revision, from Envoy's statistics; empty when Envoy does not answer.

    Args:
        document: as :func:`serving.local.client.read` gives it.
    """
    admin = document.get("status", {}).get("local", {}).get("envoy", {}).get("admin")
    if not admin:
        return {}
    requests: dict[str, int] = {}
    errors: dict[str, int] = {}
    latency: dict[str, dict[float, float]] = {}
    for name, labels, value in _samples(admin, "/stats/prometheus"):
        revision = labels.get("envoy_cluster_name", "")
        # The parser ends every counter's name in _total: envoy_cluster_upstream_rq, by code, is in here too.
        if name == "envoy_cluster_upstream_rq_total":
            code = labels.get("envoy_response_code")
            requests[revision] = requests.get(revision, 0) + (int(value) if code else 0)
            if code and code.startswith("5"):
                errors[revision] = errors.get(revision, 0) + int(value)
        elif name == "envoy_cluster_upstream_rq_time_bucket":
            latency.setdefault(revision, {})[float(labels["le"])] = value
    return {
        revision: RevisionStats(count, errors.get(revision, 0), dict(sorted(latency.get(revision, {}).items())))
        for revision, count in requests.items()
    }


def prediction_counts(document: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Predictions per revision, from each server's metrics: by label, or by the upper edge of the bin.

    Bins are not cumulative; the last edge is ``+Inf``. A server that does not answer is left out; the counts start
    again from 0 with the server.
    """
    found: dict[str, dict[str, float]] = {}
    for server in document.get("status", {}).get("local", {}).get("servers", []):
        counts: dict[str, float] = {}
        edges: dict[str, float] = {}
        for name, labels, value in _samples(server["url"], "/metrics"):
            if name == "sluiceway_predicted_total":
                counts[labels["label"]] = value
            elif name == "sluiceway_prediction_bucket":
                edges[labels["le"]] = value
        below = 0.0
        for edge in sorted(edges, key=float):
            counts[edge] = edges[edge] - below
            below = edges[edge]
        if counts:
            found[server["revision"]] = counts
    return found


def _samples(base: str, path: str) -> Iterator[tuple[str, dict[str, str], float]]:
    from prometheus_client.parser import text_string_to_metric_families

    port = urlparse(base).port
    assert port is not None
    try:
        status, body = loopback.get(port, path, timeout_s=5.0)
    except OSError:
        return
    if status != 200:
        return
    for family in text_string_to_metric_families(body.decode("utf-8")):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value
