"""Who may do what: the Roles and bindings that the server holds. Without impersonation everything is allowed."""

from dataclasses import dataclass
from typing import Any

from tests.cluster.kinds import KINDS
from tests.cluster.storage import Storage

Plain = dict[str, Any]
_BY_KIND = {kind.kind: kind for kind in KINDS if kind.group == "rbac.authorization.k8s.io"}


@dataclass(frozen=True)
class Deed:
    """What somebody wants to do; ``resource`` with its subresource, as in ``pods/log``."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str = ""


def allowed(storage: Storage, user: str, deed: Deed) -> bool:
    """Whether an account may do that, by any binding of the cluster or of the namespace."""
    bindings = storage.all(_BY_KIND["ClusterRoleBinding"])
    bindings += storage.all(_BY_KIND["RoleBinding"], deed.namespace) if deed.namespace else []
    for binding in bindings:
        if any(_is(user, subject, binding) for subject in binding.get("subjects", [])):
            reference = binding["roleRef"]
            where = "" if reference["kind"] == "ClusterRole" else binding["metadata"]["namespace"]
            role = storage.get(_BY_KIND[reference["kind"]], where, reference["name"]) or {}
            if any(_covers(rule, deed) for rule in role.get("rules") or []):
                return True
    return False


def _is(user: str, subject: Plain, binding: Plain) -> bool:
    if subject["kind"] == "ServiceAccount":
        where = subject.get("namespace") or binding["metadata"].get("namespace", "")
        return user == f"system:serviceaccount:{where}:{subject['name']}"
    return subject["kind"] == "User" and subject["name"] == user


def _covers(rule: Plain, deed: Deed) -> bool:
    named = {"verbs": deed.verb, "apiGroups": deed.group, "resources": deed.resource}
    fits = all({value, "*"} & set(rule.get(key) or []) for key, value in named.items())
    return fits and (not rule.get("resourceNames") or deed.name in rule["resourceNames"])
