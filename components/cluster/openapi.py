"""The schema of a kind as the API server publishes it (OpenAPI v3)."""

from typing import Any

Plain = dict[str, Any]


def schema_of(document: Plain, group: str, version: str, kind: str) -> Plain | None:
    """The schema of a kind, references resolved; None where the document has none.

    Args:
        document: what the server publishes for one group and version.
        group: empty for the core group.
        version: of the kind.
        kind: its name.
    """
    wanted = {"group": group, "version": version, "kind": kind}
    schemas: Plain = document.get("components", {}).get("schemas", {})
    for name, schema in schemas.items():
        if wanted in schema.get("x-kubernetes-group-version-kind", []):
            resolved: Plain = _resolved(schema, schemas, (name,))
            return resolved
    return None


def _resolved(part: Any, schemas: Plain, inside: tuple[str, ...]) -> Any:
    """A part of a schema with every reference replaced by what it refers to; a type within itself ends as an object."""
    if isinstance(part, list):
        return [_resolved(item, schemas, inside) for item in part]
    if not isinstance(part, dict):
        return part
    only = part.get("allOf", [])
    if len(only) == 1 and "$ref" in only[0]:  # how the server writes a reference with a default or description
        rest = {key: value for key, value in part.items() if key != "allOf"}
        return _resolved(only[0], schemas, inside) | rest
    if "$ref" not in part:
        return {key: _resolved(value, schemas, inside) for key, value in part.items()}
    name = str(part["$ref"]).rpartition("/")[2]
    if name in inside:
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return _resolved(schemas[name], schemas, (*inside, name))
