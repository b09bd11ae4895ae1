"""What an HTTPRoute does with traffic, and whether it is in force."""

from typing import Any

from components.rollout.targets.kserve_fields import at

Plain = dict[str, Any]

_MUST = ("Accepted", "ResolvedRefs")


def shares(route: Plain | None) -> dict[str, int]:
    """Percent by backend in the route's first rule that has backends; one without a weight counts as 1."""
    rules = [rule for rule in at(route, "spec.rules") or [] if rule.get("backendRefs")]
    return _shares_of(rules[0]) if rules else {}


def _shares_of(rule: Plain) -> dict[str, int]:
    weights = {one["name"]: one.get("weight", 1) for one in rule["backendRefs"]}
    total = sum(weights.values())
    return (
        {name: round(100 * weight / total) for name, weight in weights.items()} if total else dict.fromkeys(weights, 0)
    )


def in_force(route: Plain | None, wanted: dict[str, int]) -> bool:
    """Whether a route has exactly these shares in every rule, and its gateway has taken over this state of it.

    A backend with no share may be left out.
    """
    if route is None:
        return False
    rules = [rule for rule in at(route, "spec.rules") or [] if rule.get("backendRefs")]
    given = {name: share for name, share in wanted.items() if share}
    exact = all({name: share for name, share in _shares_of(rule).items() if share} == given for rule in rules)
    return bool(rules) and exact and _taken_over(route)


def _taken_over(route: Plain) -> bool:
    parents = at(route, "status.parents") or []
    return bool(parents) and all(_says(parent, kind, route) for parent in parents for kind in _MUST)


def _says(parent: Plain, kind: str, route: Plain) -> bool:
    generation = route["metadata"].get("generation")
    for one in parent.get("conditions", []):
        if one["type"] == kind:
            return bool(one["status"] == "True" and one.get("observedGeneration", generation) == generation)
    return False
