"""The API's contract: every request and every response is checked against KFP's own Swagger document."""

import gzip
import json
import re
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from jsonschema import Draft4Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

Plain = dict[str, Any]

_FORMATS = FormatChecker(())


@_FORMATS.checks("date-time")
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or bool(
        re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", value)
    )


@_FORMATS.checks("int64")
def _is_long(value: object) -> bool:
    return not isinstance(value, str) or bool(re.fullmatch(r"-?\d+", value))


@dataclass(frozen=True)
class Operation:
    """One operation: a method on a path."""

    name: str
    method: str
    path: re.Pattern[str]
    parameters: tuple[Plain, ...]
    response: Plain
    literal: int = field(compare=False)

    def given(self, where: str) -> dict[str, Plain]:
        """Its parameters of a kind: path, query, body or formData."""
        return {one["name"]: one for one in self.parameters if one["in"] == where}


class Contract:
    """KFP's Swagger document."""

    def __init__(self) -> None:
        """Read it."""
        packed = (Path(__file__).parent / "swagger.json.gz").read_bytes()
        self.document: Plain = json.loads(gzip.decompress(packed))
        self.version: str = self.document["info"]["version"]

    @cached_property
    def operations(self) -> list[Operation]:
        """All of them, those with fewer parameters in their paths first."""
        found = [
            Operation(
                about["operationId"],
                method.upper(),
                re.compile(re.sub(r"\\\{[^}]*\\\}", "([^/:]+)", re.escape(path))),
                tuple(about.get("parameters", ())),
                about["responses"]["200"]["schema"],
                -path.count("{"),
            )
            for path, methods in self.document["paths"].items()
            for method, about in methods.items()
        ]
        return sorted(found, key=lambda one: -one.literal)

    def find(self, method: str, path: str) -> tuple[Operation, tuple[str, ...]] | None:
        """The operation of a request, and what stands for its path's parameters."""
        for one in self.operations:
            match = one.path.fullmatch(path) if one.method == method else None
            if match:
                return one, match.groups()
        return None

    def faults_of_request(self, operation: Operation, query: dict[str, str], body: Any) -> list[str]:
        """What is wrong with a request: unknown names count, since the server refuses them in bodies."""
        known = operation.given("query")
        wrong = [f"query parameter {name} is unknown" for name in query if name not in known]
        for name, value in query.items():
            kind = known.get(name, {}).get("type")
            if (kind == "integer" and not re.fullmatch(r"-?\d+", value)) or (
                kind == "boolean" and value not in ("true", "false", "True", "False")
            ):
                wrong.append(f"query parameter {name} is no {kind}: {value!r}")
        for about in operation.given("body").values():
            if body is None:
                wrong.append(f"body {about['name']} is missing")
            else:
                wrong += self._faults(about["schema"], body, strict=True)
        return wrong

    def faults_of_response(self, operation: Operation, body: Any) -> list[str]:
        """What is wrong with a response."""
        return self._faults(operation.response, body, strict=False)

    def faults_of(self, definition: str, body: Any) -> list[str]:
        """What is wrong with a value that should be as a definition says."""
        return self._faults({"$ref": f"#/definitions/{definition}"}, body, strict=True)

    def _faults(self, schema: Plain, body: Any, strict: bool) -> list[str]:
        found = _validator(json.dumps(schema, sort_keys=True), strict, self).iter_errors(body)
        return [f"{error.json_path}: {error.message}" for error in found]

    def __hash__(self) -> int:
        """One per process."""
        return id(self)


@cache
def contract() -> Contract:
    """The document, read once."""
    return Contract()


@cache
def _validator(schema: str, strict: bool, document: Contract) -> Draft4Validator:
    definitions = document.document["definitions"]
    whole = {"definitions": _closed(definitions) if strict else definitions}
    resource = Resource.from_contents(whole, default_specification=DRAFT4)
    registry: Registry[Any] = Registry().with_resource("swagger", resource)
    own = json.loads(schema.replace('"#/definitions/', '"swagger#/definitions/'))
    return Draft4Validator(_closed(own) if strict else own, registry=registry, format_checker=_FORMATS)


def _closed(schema: Any) -> Any:
    """A schema as the server reads requests: no properties but those that it names."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(one) for name, one in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema["properties"] and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    if schema.get("format") == "int64":  # protobuf's JSON reads numbers too, and kfp's client sends them
        closed["type"] = ["string", "integer"]
    return closed
