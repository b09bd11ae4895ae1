"""What a schema makes of an object: unknown fields, defaults, everything that is wrong with it."""

import json
import re
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

_TIMES = {
    "date-time": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"),
    "micro-time": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)"),
}
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_GO = {dict: "map", list: "list", str: "string", int: "int", float: "float", bool: "bool", type(None): "null"}


def below(schema: Schema, value: Any) -> Iterator[tuple[str, Schema | None, Any]]:
    """The parts of a value, as they are written in a path, each with its schema; None for one that is not known."""
    if isinstance(value, dict):
        known, more = schema.get("properties", {}), schema.get("additionalProperties")
        free = bool(schema.get("x-kubernetes-preserve-unknown-fields")) or not schema.get("type")
        for name, part in value.items():
            anything: Schema | None = {} if free else None
            yield f".{name}", known.get(name, more if isinstance(more, dict) else anything), part
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield f"[{number}]", schema.get("items", {}), part


def unknown(schema: Schema, value: Any, path: str = "") -> Iterator[str]:
    """The paths of fields that the schema does not know."""
    for step, known, part in below(schema, value):
        if known is None:
            yield f"{path}{step}"
        else:
            yield from unknown(known, part, f"{path}{step}")


def pruned(schema: Schema, value: Any) -> Any:
    """A value without fields that the schema does not know."""
    if isinstance(value, dict):
        return {step[1:]: pruned(known, part) for step, known, part in below(schema, value) if known is not None}
    if isinstance(value, list):
        return [pruned(known or {}, part) for _, known, part in below(schema, value)]
    return value


def filled(schema: Schema, value: Any) -> Any:
    """A value with the schema's defaults where it says nothing."""
    if isinstance(value, dict):
        known = schema.get("properties", {})
        given = {name: part for name, part in value.items() if part is not None or "default" not in known.get(name, {})}
        missing = {name: copy(k["default"]) for name, k in known.items() if "default" in k and name not in given}
        value = given | missing
        return {step[1:]: filled(known or {}, part) for step, known, part in below(schema, value)}
    if isinstance(value, list):
        return [filled(known or {}, part) for _, known, part in below(schema, value)]
    return value


def mismatches(schema: Schema, value: Any, path: str = "") -> Iterator[str]:
    """The places where an applied value is not of the schema's form at all, as the merge says it."""
    wanted = schema.get("type")
    if value is not None and wanted and not _is(schema, value):
        expected = {"integer": "numeric (int or float)", "number": "numeric (int or float)", "object": "map"}
        form = expected.get(wanted, "list" if wanted == "array" else wanted)
        shown = f"&{{{json.dumps(value) if isinstance(value, str) else value}}}"
        yield f"{path}: expected {form}, got {shown if form in ('map', 'list') else _GO[type(value)]}"
        return
    for step, known, part in below(schema, value):
        if known is None:
            yield f"{path}{step}: field not declared in schema"
        else:
            yield from mismatches(known, part, f"{path}{step}")


def problems(schema: Schema, value: Any, path: str = "") -> Iterator[str]:
    """Everything that is wrong with a value, each as the API server words it."""
    name = path.lstrip(".")
    if value is None and schema.get("nullable"):
        return
    if not _is(schema, value):
        wanted = "integer,string" if schema.get("x-kubernetes-int-or-string") else schema["type"]
        shown = f'"{_kind(value)}"'
        yield f"{name}: Invalid value: {shown}: {name} in body must be of type {wanted}: {shown}"
        return
    yield from _limits(schema, value, name)
    if isinstance(value, dict):
        yield from (
            f"{name}.{key}: Required value".lstrip(".") for key in schema.get("required", []) if key not in value
        )
    yield from _duplicates(schema, value, name)
    for step, known, part in below(schema, value):
        yield from problems(known or {}, part, f"{path}{step}")


def _is(schema: Schema, value: Any) -> bool:
    if schema.get("x-kubernetes-int-or-string"):
        return isinstance(value, int | str) and not isinstance(value, bool)
    wanted = schema.get("type")
    if not wanted:
        return True
    if isinstance(value, bool) and wanted != "boolean":
        return False
    return isinstance(value, _TYPES[wanted]) or (
        wanted == "integer" and isinstance(value, float) and value.is_integer()
    )


def _kind(value: Any) -> str:
    return {dict: "object", list: "array", str: "string", int: "integer", float: "number", bool: "boolean"}.get(
        type(value), "null"
    )


def _limits(schema: Schema, value: Any, name: str) -> Iterator[str]:
    shown = json.dumps(value)
    if "enum" in schema and value not in schema["enum"]:
        allowed = ", ".join(json.dumps(one) for one in schema["enum"])
        yield f"{name}: Unsupported value: {shown}: supported values: {allowed}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        bad = f"{name}: Invalid value: {shown}: {name} in body should be"
        if value < schema.get("minimum", value):
            yield f"{bad} greater than or equal to {schema['minimum']}"
        if value > schema.get("maximum", value):
            yield f"{bad} less than or equal to {schema['maximum']}"
    if isinstance(value, str):
        if len(value) > schema.get("maxLength", len(value)):
            yield f"{name}: Too long: may not be more than {schema['maxLength']} bytes"
        if len(value) < schema.get("minLength", 0):
            yield f"{name}: Invalid value: {shown}: {name} in body should be at least {schema['minLength']} chars long"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{name}: Invalid value: {shown}: {name} in body should match '{schema['pattern']}'"
        if (form := schema.get("format")) in _TIMES and not _TIMES[form].fullmatch(value):
            yield f"{name}: Invalid value: {shown}: {name} in body must be of type {form}: {shown}"
    if isinstance(value, list):
        if len(value) > schema.get("maxItems", len(value)):
            yield f"{name}: Too many: {len(value)}: must have at most {schema['maxItems']} items"
        if len(value) < schema.get("minItems", 0):
            yield f"{name}: Invalid value: {len(value)}: {name} in body should have at least {schema['minItems']} items"


def _duplicates(schema: Schema, value: Any, name: str) -> Iterator[str]:
    keys = schema.get("x-kubernetes-list-map-keys")
    if not isinstance(value, list) or not keys:
        return
    seen = []
    for number, item in enumerate(value):
        if not isinstance(item, dict):
            continue
        key = {one: item[one] for one in keys if one in item}
        if key in seen:
            yield f"{name}[{number}]: Duplicate value: {json.dumps(key, separators=(',', ':'))}"
        seen.append(key)


def copy(value: Any) -> Any:
    """A deep copy of plain JSON."""
    if isinstance(value, dict):
        return {key: copy(part) for key, part in value.items()}
    return [copy(part) for part in value] if isinstance(value, list) else value
