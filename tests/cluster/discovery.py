"""What the server says about itself: versions, groups, kinds, and their schemas."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from tests.cluster.errors import Refused
from tests.cluster.kinds import Served

Plain = dict[str, Any]

_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
_REVIEWS = ("authorization.k8s.io", "v1")
_REVIEW = {
    "name": "selfsubjectaccessreviews",
    "singularName": "selfsubjectaccessreview",
    "namespaced": False,
    "kind": "SelfSubjectAccessReview",
    "verbs": ["create"],
}


class Discovery:
    """Answers about the kinds that are served."""

    def __init__(self, kinds: Iterable[Served]) -> None:
        """Serve these kinds."""
        self.kinds = tuple(kinds)
        self.hidden: set[str] = set()  # groups that are not there
        self._documents: dict[tuple[str, str], bytes] = {}

    def served(self) -> list[Served]:
        """The kinds that are there."""
        return [kind for kind in self.kinds if kind.group not in self.hidden]

    def find(self, group: str, version: str, plural: str) -> Served:
        """A kind by its place in a path.

        Raises:
            Refused: 404.
        """
        for kind in self.served():
            if (kind.group, kind.version, kind.plural) == (group, version, plural):
                return kind
        raise Refused(404, "the server could not find the requested resource")

    def answer(self, parts: list[str]) -> Plain:
        """The answer to a path of discovery.

        Raises:
            Refused: 404.
        """
        match parts:
            case ["version"]:
                return {"major": "1", "minor": "36", "gitVersion": "v1.36.0", "platform": "linux/amd64"}
            case ["api"]:
                return {"kind": "APIVersions", "versions": ["v1"]}
            case ["api", version]:
                return self._resources("", version)
            case ["apis"]:
                groups = sorted({(kind.group, kind.version) for kind in self.served() if kind.group} | {_REVIEWS})
                names = sorted({group for group, _ in groups})
                listed = [_group(name, [version for group, version in groups if group == name]) for name in names]
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
            case ["apis", group]:
                versions = sorted({kind.version for kind in self.served() if kind.group == group})
                if versions:
                    return {"kind": "APIGroup", "apiVersion": "v1"} | _group(group, versions)
            case ["apis", group, version]:
                return self._resources(group, version)
            case ["openapi", "v3"]:
                return self._index()
        raise Refused(404, "the server could not find the requested resource")

    def _resources(self, group: str, version: str) -> Plain:
        listed: list[Plain] = [_REVIEW] if (group, version) == _REVIEWS else []
        for kind in self.served():
            if (kind.group, kind.version) == (group, version):
                about = {"singularName": kind.kind.lower(), "namespaced": kind.namespaced, "kind": kind.kind}
                listed.append(about | {"name": kind.plural, "verbs": _VERBS})
                if kind.has_status:
                    listed.append(about | {"name": f"{kind.plural}/status", "verbs": ["get", "patch", "update"]})
        if not listed:
            raise Refused(404, "the server could not find the requested resource")
        name = f"{group}/{version}" if group else version
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": listed}

    def _index(self) -> Plain:
        paths = {}
        for group, version in sorted({(kind.group, kind.version) for kind in self.served()}):
            path = f"apis/{group}/{version}" if group else f"api/{version}"
            digest = hashlib.sha256(self.document(group, version)).hexdigest()[:16]
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
        return {"paths": paths}

    def document(self, group: str, version: str) -> bytes:
        """The schemas of one group and version.

        Raises:
            Refused: 404.
        """
        if (group, version) not in self._documents:
            schemas = {}
            for kind in self.served():
                if (kind.group, kind.version) == (group, version):
                    mark = {"group": group, "version": version, "kind": kind.kind}
                    schemas[f"{group or 'core'}.{version}.{kind.kind}"] = kind.schema | {
                        "x-kubernetes-group-version-kind": [mark]
                    }
            if not schemas:
                raise Refused(404, "the server could not find the requested resource")
            document = {"openapi": "3.0.0", "components": {"schemas": schemas}}
            self._documents[group, version] = json.dumps(document).encode()
        return self._documents[group, version]


def _group(name: str, versions: list[str]) -> Plain:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}
