"""From the cluster's Services and routes to the tables of the data plane."""

import re
import time
from typing import Any

from tests.cluster.kserve import knative
from tests.cluster.kserve.controller import route_status, shares_of
from tests.cluster.kserve.gateway import NOBODY, Address, Host, Rule
from tests.cluster.kserve.kubelet import PORT, Container
from tests.cluster.kserve.things import Plain, key, selects


class Network:
    """Endpoints from pods, host names from Services, Knative Services and HTTPRoutes."""

    def __init__(self, view: Any, gateway: str, lag: float) -> None:
        self.ready: dict[str, list[Address]] = {}
        self.activator: Address | None = None
        self._view, self._gateway, self._lag = view, gateway, lag
        self._taken_up: dict[str, tuple[Plain, float, Plain]] = {}
        self._missing: dict[tuple[str, str], list[str]] = {}

    def tables(self, containers: list[Container]) -> tuple[list[Host], dict[str, list[Address]]]:
        """Hosts and their rules; addresses by backend."""
        ready = [one for one in containers if one.ready and not one.ending]
        endpoints: dict[str, list[Address]] = {}
        hosts: list[Host] = []
        self._missing = {}
        backends: dict[tuple[str, str], dict[str, int]] = {}
        for revision in self._view.all("Revision"):
            namespace, name = key(revision)
            pods = _addresses({knative.REVISION_LABEL: name}, namespace, ready)
            self.ready[f"{namespace}/{name}"] = pods
            # Without a pod the requests go to the activator, which holds them.
            endpoints[f"{namespace}/{name}"] = pods or [one for one in (self.activator,) if one]
            backends[key(revision)] = {f"{namespace}/{name}": 1}
            hosts.append(_host([f"{name}.{namespace}"], {f"{namespace}/{name}": 1}))
        for service in self._view.all("KnativeService"):
            hosts += self._knative(service, backends)
        for service in self._view.all("Service"):
            namespace, name = key(service)
            if service["spec"].get("selector"):
                endpoints[f"{namespace}/{name}"] = _addresses(service["spec"]["selector"], namespace, ready)
                backends[key(service)] = {f"{namespace}/{name}": 1}
                hosts.append(_host([f"{name}.{namespace}"], {f"{namespace}/{name}": 1}))
        routes = sorted(self._view.all("HTTPRoute"), key=lambda one: one["metadata"].get("creationTimestamp", ""))
        taken_up = [self._late(route) for route in routes if self._ours(route)]
        return [self._route(route, backends) for route in taken_up] + hosts, endpoints

    def _late(self, route: Plain) -> Plain:
        """The route as the gateway knows it yet; endpoints change at once, routes have a longer way."""
        uid, now = route["metadata"]["uid"], time.monotonic()
        newest, since, known = self._taken_up.get(uid, (route, now - self._lag, route))
        if newest["spec"] != route["spec"]:
            since = now
        known = route if now - since >= self._lag else known
        self._taken_up[uid] = (route, since, known)
        return known

    def statuses(self, attempt: Any) -> None:
        """Say of every route that it is in force; called once the tables are."""
        for route in self._view.all("HTTPRoute"):
            in_force = self._taken_up.get(route["metadata"]["uid"], (None, 0.0, {}))[2]
            if key(route) in self._missing and in_force.get("spec") == route["spec"]:
                attempt(
                    self._view.set_status,
                    "HTTPRoute",
                    route,
                    route_status(route, self._gateway, self._missing[key(route)]),
                )

    def _ours(self, route: Plain) -> bool:
        refs = route["spec"].get("parentRefs", [])
        return any(f"{ref.get('namespace', key(route)[0])}/{ref['name']}" == self._gateway for ref in refs)

    def _knative(self, service: Plain, backends: dict[tuple[str, str], dict[str, int]]) -> list[Host]:
        namespace, name = key(service)
        uid = service["metadata"]["uid"]
        revisions = [one for one in self._view.all("Revision") if service["metadata"]["name"] == _service_of(one)]
        revisions = [one for one in revisions if key(one)[0] == namespace and uid]
        targets = knative.traffic_status(service, knative.latest_ready(service, revisions))
        if not targets:
            return []
        shares = backends[key(service)] = shares_of(targets, namespace)
        isvc = name.removesuffix("-predictor")
        hosts = [_host([f"{name}.{namespace}", f"{isvc}.{namespace}"], shares)]
        for target in targets:
            if "tag" in target:
                one = {f"{namespace}/{target['revisionName']}": 100}
                hosts.append(_host([f"{target['tag']}-{name}.{namespace}"], one))
        return hosts

    def _route(self, route: Plain, backends: dict[tuple[str, str], dict[str, int]]) -> Host:
        missing = self._missing.setdefault(key(route), [])
        rules = []
        for rule in route["spec"].get("rules", []):
            shares: dict[str, int] = {}
            for ref in rule.get("backendRefs", []):
                for name, weight in self._resolved(route, ref, backends, missing).items():
                    shares[name] = shares.get(name, 0) + weight * ref.get("weight", 1)
            mirrors = {}
            for one in rule.get("filters", []):
                if one["type"] == "RequestMirror":
                    target = self._resolved(route, one["requestMirror"]["backendRef"], backends, missing)
                    mirrors[next(iter(target))] = _percent(one["requestMirror"])
            for match in rule.get("matches") or [{}]:
                rules.append(Rule(shares, _match(match), mirrors, _seconds(rule)))
        return Host(tuple(route["spec"].get("hostnames", ["*"])), tuple(rules))

    def _resolved(self, route: Plain, ref: Plain, backends: Any, missing: list[str]) -> dict[str, int]:
        where = (ref.get("namespace", key(route)[0]), ref["name"])
        found: dict[str, int] | None = backends.get(where)
        if found is None:
            missing.append("/".join(where))
            return {NOBODY: 1}
        return found


def _service_of(revision: Plain) -> str:
    return str(revision["metadata"].get("labels", {}).get("serving.knative.dev/service", ""))


def _host(names: list[str], shares: dict[str, int]) -> Host:
    ends = (f".{knative.DOMAIN}", ".svc.cluster.local", ".svc", "")
    return Host(tuple(f"{name}{end}" for name in names for end in ends), (Rule(shares),))


def _addresses(selector: Plain, namespace: str, ready: list[Container]) -> list[Address]:
    chosen = [one for one in ready if key(one.pod)[0] == namespace and selects(selector, one.pod)]
    return [(one.address, PORT) for one in chosen]


def _match(match: Plain) -> Plain:
    path = match.get("path", {"type": "PathPrefix", "value": "/"})
    kind, value = path.get("type", "PathPrefix"), path.get("value", "/")
    answer: Plain = {"prefix": value} if kind == "PathPrefix" else {"path": value}
    if kind == "RegularExpression":
        answer = {"safe_regex": {"regex": value}}
    headers = [{"name": h["name"], "string_match": {"exact": h["value"]}} for h in match.get("headers", [])]
    return answer | ({"headers": headers} if headers else {})


def _percent(mirror: Plain) -> float:
    if "fraction" in mirror:
        return 100 * float(mirror["fraction"]["numerator"]) / float(mirror["fraction"].get("denominator", 100))
    return float(mirror.get("percent", 100))


def _seconds(rule: Plain) -> float:
    text = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m)", rule.get("timeouts", {}).get("request", "60s"))
    return float(text[1]) * {"ms": 0.001, "s": 1, "m": 60}[text[2]] if text else 60
