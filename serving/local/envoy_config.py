"""Envoy's configuration, as data: one listener, one route table with weights, one cluster per revision."""

from pathlib import Path
from typing import Any

from serving.latency import LATENCY_MS
from serving.local.processes import HOST

LISTENER = "ingress"
ROUTES = "split"
REVISION_HEADER = "x-sluiceway-revision"

_TYPE = "type.googleapis.com/envoy"


def bootstrap(service: str, folder: Path) -> dict[str, Any]:
    """What Envoy starts with: everything that changes is read from files in ``folder``, watched for renames."""
    return {
        "node": {"id": service, "cluster": "sluiceway"},
        "admin": {"address": _address(0)},
        "dynamic_resources": {"lds_config": _file(folder / "lds.json"), "cds_config": _file(folder / "cds.json")},
        "stats_flush_interval": "0.5s",  # histograms are merged this often
        "stats_config": {
            "histogram_bucket_settings": [{"match": {"prefix": "cluster."}, "buckets": list(LATENCY_MS)}],
        },
    }


def listeners(version: int, port: int, folder: Path) -> dict[str, Any]:
    """The ingress listener; its route table is in a file of its own, so that weights change alone."""
    manager = {
        "@type": f"{_TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": LISTENER,
        "rds": {"route_config_name": ROUTES, "config_source": _file(folder / "rds.json")},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "@type": f"{_TYPE}.config.listener.v3.Listener",
        "name": LISTENER,
        "address": _address(port),
        # With it two proxies could share one port and each get part of the traffic.
        "enable_reuse_port": False,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return _discovery(version, [listener])


def clusters(version: int, service: str, ports: dict[str, int]) -> dict[str, Any]:
    """One cluster per revision, of one server each."""
    return _discovery(version, [_cluster(service, revision, port) for revision, port in sorted(ports.items())])


def routes(version: int, service: str, weights: dict[str, int]) -> dict[str, Any]:
    """The route table: revisions by weight, or 503 when there is none."""
    shares = {revision: weight for revision, weight in weights.items() if weight}
    route: dict[str, Any] = {"match": {"prefix": "/"}}
    if shares:
        route["route"] = {
            "weighted_clusters": {"clusters": [_share(revision, weight) for revision, weight in shares.items()]},
            "timeout": "60s",
            # Only what cannot have reached the model: a failed prediction is the revision's failure, and is counted.
            "retry_policy": {
                "retry_on": "connect-failure,reset-before-request",
                "num_retries": 3,
                "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
            },
        }
    else:
        body = '{"error":"No revision is ready."}'
        route["direct_response"] = {"status": 503, "body": {"inline_string": body}}
    table = {
        "@type": f"{_TYPE}.config.route.v3.RouteConfiguration",
        "name": ROUTES,
        "virtual_hosts": [{"name": service, "domains": ["*"], "routes": [route]}],
    }
    return _discovery(version, [table])


def weights_of(table: dict[str, Any]) -> dict[str, int]:
    """The weights that a route table of the admin's ``config_dump`` has in force."""
    (host,) = table["virtual_hosts"]
    shares = host["routes"][0].get("route", {}).get("weighted_clusters", {}).get("clusters", [])
    return {share["name"]: share["weight"] for share in shares}


def _share(revision: str, weight: int) -> dict[str, Any]:
    header = {"header": {"key": REVISION_HEADER, "value": revision}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    return {"name": revision, "weight": weight, "response_headers_to_add": [header]}


def _cluster(service: str, revision: str, port: int) -> dict[str, Any]:
    return {
        "@type": f"{_TYPE}.config.cluster.v3.Cluster",
        "name": revision,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": revision,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}],
        },
        "health_checks": [
            {
                "timeout": "2s",
                "interval": "1s",
                "no_traffic_interval": "1s",
                "unhealthy_interval": "0.25s",
                "unhealthy_threshold": 3,
                "healthy_threshold": 1,
                "http_health_check": {"path": f"/v2/models/{service}/ready"},
            }
        ],
        "circuit_breakers": {"thresholds": [{"max_retries": 1000}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
                # Shorter than uvicorn's keep-alive of 65 s, so that the proxy is the one to close idle connections.
                "common_http_protocol_options": {"idle_timeout": "30s"},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": HOST, "port_value": port}}


def _file(path: Path) -> dict[str, Any]:
    return {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}


def _discovery(version: int, resources: list[dict[str, Any]]) -> dict[str, Any]:
    return {"version_info": str(version), "resources": resources}
