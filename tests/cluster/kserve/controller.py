"""KServe's controller, and Knative's below it: brings the cluster from what InferenceServices ask for to what is."""

import copy
from collections.abc import Callable
from typing import Any

from tests.cluster.kserve import knative, standard, templates
from tests.cluster.kserve.deployments import ours
from tests.cluster.kserve.things import DIGEST, Plain, covers, digest, is_true, key, mark, owned_by, selects

Attempt = Callable[..., None]


class Controller:
    """Looks at everything anew each time; every step can be repeated."""

    def __init__(
        self, view: Any, options: Any, attempt: Attempt, shares: Callable[[str], dict[str, int] | None]
    ) -> None:
        """Wire it.

        Args:
            view: the mirrored API.
            options: of the simulation.
            attempt: calls a step, and leaves it for the next time when the API does not let it.
            shares: the split that the data plane has in force for a host name.
        """
        self._view, self._options, self._attempt, self._shares = view, options, attempt, shares

    def reconcile(self) -> None:
        for isvc in self._view.all("InferenceService"):
            if isvc["metadata"].get("deletionTimestamp"):
                continue
            if templates.mode_of(isvc, self._options.default_mode) == "Knative":
                self._attempt(self._knative, isvc)
            else:
                self._attempt(self._standard, isvc)
        for service in self._view.all("KnativeService"):
            self._attempt(self._knative_service, service)
        self._collect()

    def _runtimes(self, namespace: str) -> list[Plain]:
        near = [one for one in self._view.all("ServingRuntime") if one["metadata"]["namespace"] == namespace]
        return near + list(self._view.all("ClusterServingRuntime"))

    def _knative(self, isvc: Plain) -> None:
        desired = knative.desired_service(isvc, self._runtimes(key(isvc)[0]))
        self._write("KnativeService", desired)
        service = self._view.get("KnativeService", *key(desired))
        if service.get("status"):
            self._view.set_status("InferenceService", isvc, knative.isvc_status(isvc, service))

    def _knative_service(self, service: Plain) -> None:
        uid = service["metadata"]["uid"]
        revisions = [one for one in self._view.all("Revision") if owned_by(one, uid)]
        made = knative.next_revision(service, revisions)
        if made:
            revisions.append(self._view.create("Revision", made))
        for index, revision in enumerate(revisions):
            revisions[index] = self._revision(revision, service, revisions)
        targets = knative.traffic_status(service, knative.latest_ready(service, revisions))
        host = f"{service['metadata']['name']}.{key(service)[0]}.svc.cluster.local"
        served = self._shares(host) == shares_of(targets, key(service)[0])
        status = knative.service_status(service, revisions, served=served)
        self._view.set_status("KnativeService", service, status)

    def _revision(self, revision: Plain, service: Plain, revisions: list[Plain]) -> Plain:
        count = knative.replicas(revision, service, revisions)
        desired = knative.desired_deployment(revision, count, self._options.deadline)
        deployment = self._write("Deployment", desired)
        label = {knative.REVISION_LABEL: revision["metadata"]["name"]}
        pods = [pod for pod in self._view.all("Pod") if selects(label, pod)]
        status = knative.revision_status(revision, deployment, pods)
        self._view.set_status("Revision", revision, status)
        return {**revision, "status": status}

    def _standard(self, isvc: Plain) -> None:
        """In KServe's order: canaries, what is left over, the stable predictor, the routes, the status."""
        isvc = copy.deepcopy(isvc)
        before = copy.deepcopy(isvc)
        runtimes = self._runtimes(key(isvc)[0])
        predictor = isvc["spec"]["predictor"]
        expected = {templates.predictor_name(isvc, predictor)}
        for canary in isvc["spec"].get("canary", []):
            merged = standard.canary_predictor(isvc, canary)
            expected.add(templates.predictor_name(isvc, merged))
            self._workload(isvc, merged, runtimes, merged["minReplicas"])
        status = isvc.setdefault("status", {})
        status["canaryStatuses"] = standard.canary_statuses(isvc, self._deployments(isvc))
        standard.mark_canaries(status)
        if not status["canaryStatuses"]:
            del status["canaryStatuses"]
        self._remove_others(isvc, expected)
        deployment = self._workload(isvc, predictor, runtimes, standard.stable_least(isvc))
        standard.mark_predictor(status, deployment)
        self._ingress(isvc)
        name, (namespace, _) = templates.predictor_name(isvc, predictor), key(isvc)
        part = status.setdefault("components", {}).setdefault("predictor", {})
        if is_true(isvc, "PredictorReady"):
            part["url"] = f"http://{standard.host_of(name, namespace)}"
        if is_true(isvc, "IngressReady"):
            status["url"] = f"http://{standard.host_of(isvc['metadata']['name'], namespace)}"
            status["address"] = {"url": f"http://{name}.{namespace}.svc.cluster.local"}
        status["deploymentMode"] = "Standard"
        self._view.set_status("InferenceService", before, status)

    def _deployments(self, isvc: Plain) -> dict[str, Plain]:
        namespace, name = key(isvc)
        found = [one for one in self._view.all("Deployment") if key(one)[0] == namespace and ours(one)]
        return {key(one)[1]: one for one in found if one["metadata"]["labels"].get(standard.ISVC_LABEL) == name}

    def _workload(self, isvc: Plain, predictor: Plain, runtimes: list[Plain], least: int | None) -> Plain:
        self._write("Service", standard.desired_service(isvc, predictor))
        existing = self._deployments(isvc).get(templates.predictor_name(isvc, predictor))
        desired = standard.desired_deployment(isvc, predictor, runtimes, existing, least, self._options.deadline)
        return self._write("Deployment", desired)

    def _remove_others(self, isvc: Plain, expected: set[str]) -> None:
        for name, deployment in self._deployments(isvc).items():
            if name not in expected:
                self._view.delete("Deployment", deployment)
        labels = {standard.ISVC_LABEL: isvc["metadata"]["name"], "component": "predictor"}
        for service in self._view.all("Service"):
            mine = key(service)[0] == key(isvc)[0] and owned_by(service, isvc["metadata"]["uid"])
            if mine and covers(service["metadata"].get("labels", {}), labels) and key(service)[1] not in expected:
                self._view.delete("Service", service)

    def _ingress(self, isvc: Plain) -> None:
        routes: list[Plain] = []
        if self._options.gateway_api:
            desired = standard.desired_routes(isvc, self._options.gateway, splits=self._options.splits)
            if is_true(isvc, "PredictorReady"):  # else the routes stay as they were
                for route in desired:
                    self._write("HTTPRoute", route)
            found = (self._view.get("HTTPRoute", *key(route)) for route in desired)
            routes = [route for route in found if route]
        standard.mark_ingress(isvc["status"], routes, gateway_api=self._options.gateway_api)

    def _write(self, kind: str, desired: Plain) -> Plain:
        """Make or change an object; what it was made from is known by a digest, so that defaults are no difference."""
        desired = copy.deepcopy(desired)
        annotations = desired["metadata"].setdefault("annotations", {})
        existing: Plain | None = self._view.get(kind, *key(desired))
        known = desired["spec"]["template"] if kind == "Deployment" else desired["spec"]
        annotations[DIGEST] = digest(known)
        if existing is None:
            made: Plain = self._view.create(kind, desired)
            return made
        same = existing["metadata"].get("annotations", {}).get(DIGEST) == annotations[DIGEST]
        if kind == "Deployment":
            same = same and existing["spec"].get("replicas") == desired["spec"]["replicas"]
        if same:
            return existing
        changed = copy.deepcopy(existing)
        changed["spec"] = {**existing["spec"], **desired["spec"]}
        for part in ("annotations", "labels"):
            changed["metadata"][part] = existing["metadata"].get(part, {}) | desired["metadata"].get(part, {})
        written: Plain = self._view.update(kind, changed)
        return written

    def _collect(self) -> None:
        """Remove what belongs to objects that are gone, as the garbage collector does."""
        kinds = ("InferenceService", "KnativeService", "Revision", "Deployment")
        alive = {one["metadata"]["uid"] for kind in kinds for one in self._view.all(kind)}
        for kind in ("KnativeService", "Revision", "Deployment", "Service", "HTTPRoute"):
            for item in self._view.all(kind):
                refs = [one for one in item["metadata"].get("ownerReferences", []) if one["kind"] in _OWNERS]
                if refs and not any(one["uid"] in alive for one in refs):
                    self._attempt(self._view.delete, kind, item)


_OWNERS = ("InferenceService", "Service", "Revision")


def shares_of(targets: list[Plain], namespace: str) -> dict[str, int]:
    """Weight by backend of a Knative route."""
    answer: dict[str, int] = {}
    for target in targets:
        name = f"{namespace}/{target['revisionName']}"
        answer[name] = answer.get(name, 0) + target["percent"]
    return answer


def route_status(route: Plain, gateway: str, missing: list[str]) -> Plain:
    """What a Gateway's controller says about an HTTPRoute that is in force."""
    generation = route["metadata"].get("generation", 1)
    parents = copy.deepcopy(route.get("status", {}).get("parents", []))
    answer = []
    for ref in route["spec"].get("parentRefs", []):
        if f"{ref.get('namespace', key(route)[0])}/{ref['name']}" != gateway:
            continue
        before = next((one for one in parents if one["parentRef"].get("name") == ref["name"]), {})
        conditions = before.get("conditions", [])
        mark(conditions, "Accepted", "True", "Accepted", "Route is accepted")
        if missing:
            message = f"Backend not found: {', '.join(missing)}"
            mark(conditions, "ResolvedRefs", "False", "BackendNotFound", message)
        else:
            mark(conditions, "ResolvedRefs", "True", "ResolvedRefs", "All references are resolved")
        for one in conditions:
            one["observedGeneration"] = generation
            one.setdefault("message", "")
        controller = "gateway.envoyproxy.io/gatewayclass-controller"
        answer.append({"parentRef": ref, "controllerName": controller, "conditions": conditions})
    return {"parents": answer}
