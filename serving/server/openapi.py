"""The OpenAPI 3.1 document of the loaded models: what may be sent to each path, column by column, and what comes back.

It is made from the routes of the application themselves: one that is not described here fails, and so does a
description without a route.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import quote

from components.features.schema import InputColumn, InputType
from serving.protocol import V2_TYPES
from serving.schema import BundleManifest
from serving.server import v2
from serving.server.explaining import LEAST_SECONDS, MOST_ROWS
from serving.server.limits import Limits
from serving.server.served import Served

Schema = dict[str, Any]
Operation = dict[str, Any]

_VALUES: dict[InputType, Schema] = {
    "number": {"type": ["number", "null"]},
    "boolean": {"type": ["boolean", "null"]},
    "string": {"type": ["string", "null"]},
    "timestamp": {"type": ["string", "null"], "description": "ISO 8601, such as 2024-01-31T12:00:00Z"},
}
_EXAMPLES: dict[InputType, Any] = {
    "number": 1.5,
    "boolean": True,
    "string": "text",
    "timestamp": "2024-01-31T12:00:00Z",
}
_JSON = "application/json"
_BINARY = "application/octet-stream"
_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_NAMES: Schema = {"type": "array", "items": _TEXT}
_PARAMETERS: Schema = {"type": "object"}
_SIZES: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 2}
_FAILURES = {
    400: "What was sent cannot be read or predicted from; the message names the field",
    401: "The request carries no token that the server knows",
    403: "The server was not started for what is asked",
    404: "There is no such model, version or path",
    413: "The body is longer than the server reads",
    500: "The server failed on this request",
    501: "This model cannot do what is asked",
    503: "The model does not answer now; try again after Retry-After seconds",
}
_BODY_FAILURES = (400, 404, 413, 500, 503)


def document(
    routes: Iterable[tuple[str, str]], models: Sequence[Served], version: str, limits: Limits, *, has_tokens: bool
) -> Schema:
    """The document.

    Args:
        routes: method and path of every route, with ``{name}`` and ``{version}`` for a model's.
        models: those that answer now.
        version: of the server.
        limits: what is refused.
        has_tokens: whether requests need a token.

    Raises:
        KeyError: a route is not described.
    """
    schemas: Schema = {"error": _object(error=_TEXT)}
    described: Schema = {}
    for place, served in enumerate(models):
        schemas.update(_model_schemas(_key(place, served), served, limits))
    for method, path in routes:
        describe = OPERATIONS[method, path]
        about: list[_Describe] = [_Describe("", None)]
        if "{name}" in path:
            about = [_Describe(_key(place, served), served) for place, served in enumerate(models)]
        for one in about:
            if path.endswith(":explain") and one.served.model.background is None:
                continue  # its bundle keeps no rows to explain against
            full, operation = one.path(path), describe(one)
            operation["operationId"] = re.sub(r"\W", "_", method.lower() + full)
            if has_tokens:
                operation["responses"]["401"] = _failure(401)
            described.setdefault(full, {})[method.lower()] = operation
    components: Schema = {"schemas": schemas}
    whole: Schema = {
        "openapi": "3.1.0",
        "info": {"title": "Sluiceway model server", "version": version, "license": {"name": "Apache-2.0"}},
        "paths": described,
        "components": components,
    }
    if has_tokens:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        whole["security"] = [{"token": []}]
    return whole


class _Describe:
    """Describes the operations of one model, or of none."""

    def __init__(self, key: str, served: Served | None) -> None:
        self._key = key
        self._served = served

    def path(self, path: str) -> str:
        if self._served is None:
            return path
        return path.format(name=quote(self.served.name, safe=""), version=quote(self.served.version, safe=""))

    def schema(self, what: str) -> Schema:
        return {"$ref": f"#/components/schemas/{self._key}.{what}"}

    @property
    def served(self) -> Served:
        assert self._served is not None
        return self._served

    def predict(self) -> Operation:
        row = {column.name: _EXAMPLES[column.type] for column in self.served.model.schema.inputs}
        examples = {"objects": {"instances": [row]}, "arrays": {"instances": [list(row.values())]}}
        return {
            "summary": "Predict, V1: rows as objects or as arrays",
            "requestBody": _body({_JSON: (self.schema("instances"), examples)}),
            "responses": _responses(self.schema("predictions"), *_BODY_FAILURES),
        }

    def explain(self) -> Operation:
        examples = self.predict()["requestBody"]["content"][_JSON]["examples"]
        return {
            "summary": "Explain predictions: what each column contributed, which takes a while",
            "requestBody": {
                "required": True,
                "content": {_JSON: {"schema": self.schema("to-explain"), "examples": examples}},
            },
            "responses": _responses(self.schema("explanations"), *_BODY_FAILURES, 501),
        }

    def infer(self) -> Operation:
        inputs = self.served.model.schema.inputs
        row = {
            "id": "1",
            "inputs": [
                {
                    "name": column.name,
                    "shape": [1],
                    "datatype": V2_TYPES[column.type],
                    "data": [_EXAMPLES[column.type]],
                }
                for column in inputs
            ],
        }
        asked = self.schema("infer-request")
        responses = _responses(self.schema("infer-response"), *_BODY_FAILURES)
        responses["200"]["content"][_BINARY] = {"schema": {}}
        return {
            "summary": "Predict, Open Inference Protocol: a tensor for each column",
            "description": "With the header Inference-Header-Content-Length the body begins with as many bytes of JSON "
            "and goes on with the tensors' bytes. Without it all is JSON.",
            "requestBody": _body({_JSON: (asked, {"columns": row}), _BINARY: (asked, {})}),
            "responses": responses,
        }

    def metadata(self) -> Operation:
        return _get("The model's inputs and outputs", _MODEL_METADATA, 404, 503)


def _get(summary: str, schema: Schema, *failures: int) -> Operation:
    return {"summary": summary, "responses": _responses(schema, *failures)}


def _control(summary: str, done: str) -> Callable[[_Describe], Operation]:
    asked = {"type": "object", "properties": {"parameters": {"type": "object", "maxProperties": 0}}}

    def describe(_: _Describe) -> Operation:
        return {
            "summary": summary,
            "requestBody": _body({_JSON: (asked, {})}, required=False),
            "responses": _responses(_object(name=_TEXT, **{done: {"const": True}}), 403, *_BODY_FAILURES),
        }

    return describe


def _index(_: _Describe) -> Operation:
    model = _object(name=_TEXT, version=_TEXT, state={"enum": ["READY", "UNAVAILABLE"]}, reason=_TEXT)
    asked = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
    return {
        "summary": "All models, or those that are ready",
        "requestBody": _body({_JSON: (asked, {})}, required=False),
        "responses": _responses({"type": "array", "items": model}, 400, 413),
    }


def _always(summary: str, schema: Schema, *failures: int) -> Callable[[_Describe], Operation]:
    return lambda _: _get(summary, schema, *failures)


def _readiness(summary: str, schema: Schema) -> Callable[[_Describe], Operation]:
    def describe(_: _Describe) -> Operation:
        operation = _get(summary, schema, 404)
        operation["responses"]["503"] = {"description": "Not ready", "content": {_JSON: {"schema": {"type": "object"}}}}
        return operation

    return describe


def _metrics(_: _Describe) -> Operation:
    page = {"description": "Prometheus' text format", "content": {"text/plain": {"schema": _TEXT}}}
    return {"summary": "Metrics", "responses": {"200": page}}


def _object(*optional: str, **properties: Schema) -> Schema:
    """An object with these properties, all of them required but the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


_TENSOR_METADATA = _object(name=_TEXT, datatype=_TEXT, shape={"type": "array", "items": {"type": "integer"}})
_TENSORS_METADATA: Schema = {"type": "array", "items": _TENSOR_METADATA}
_MODEL_METADATA = _object(
    name=_TEXT, versions=_NAMES, platform=_TEXT, inputs=_TENSORS_METADATA, outputs=_TENSORS_METADATA
)
_MODEL_READY = _object(name=_TEXT, ready={"const": True})
_SERVER = _always("The server", _object(name=_TEXT, version=_TEXT, extensions=_NAMES))
_MODELS = _always("Names of the models", _object(models=_NAMES))
_READY = _readiness("Whether the model answers", _MODEL_READY)

OPERATIONS: dict[tuple[str, str], Callable[[_Describe], Operation]] = {
    ("GET", "/"): _always("Whether the server is there", _object(status=_TEXT)),
    ("GET", "/v1/models"): _MODELS,
    ("GET", "/v1/models/{name}"): _READY,
    ("POST", "/v1/models/{name}:predict"): _Describe.predict,
    ("POST", "/v1/models/{name}:explain"): _Describe.explain,
    ("GET", "/v2"): _SERVER,
    ("GET", "/v2/"): _SERVER,
    ("GET", "/v2/health/live"): _always("Whether the server is there", _object(live={"const": True})),
    ("GET", "/v2/health/ready"): _readiness("Whether all models answer", _object(ready={"type": "boolean"})),
    ("GET", "/v2/models"): _MODELS,
    ("GET", "/v2/models/{name}"): _Describe.metadata,
    ("GET", "/v2/models/{name}/versions/{version}"): _Describe.metadata,
    ("GET", "/v2/models/{name}/ready"): _READY,
    ("GET", "/v2/models/{name}/versions/{version}/ready"): _READY,
    ("POST", "/v2/models/{name}/infer"): _Describe.infer,
    ("POST", "/v2/models/{name}/versions/{version}/infer"): _Describe.infer,
    ("POST", "/v2/repository/index"): _index,
    ("POST", "/v2/repository/models/{name}/load"): _control("Load the model, or load it anew", "load"),
    ("POST", "/v2/repository/models/{name}/unload"): _control("Let the model go", "unload"),
    ("GET", "/metrics"): _metrics,
    ("GET", "/openapi.json"): _always("This document", {"type": "object"}),
}
"""What each route takes and gives."""


def _model_schemas(key: str, served: Served, limits: Limits) -> Schema:
    inputs = served.model.schema.inputs
    values = [_value(column, limits) for column in inputs]
    names = [column.name for column in inputs]
    as_object = {"type": "object", "properties": dict(zip(names, values, strict=True)), "required": names}
    as_array = {"type": "array", "prefixItems": values, "minItems": len(values), "maxItems": len(values)}
    instances = {"type": "array", "items": {"anyOf": [as_object, as_array]}, "maxItems": limits.rows}
    tensors = [_tensor(column, value) for column, value in zip(inputs, values, strict=True)]
    if served.reader.is_matrix:
        tensors.append(_object(name=_TEXT, shape=_SIZES, datatype={"enum": list(v2.DTYPES)}, data={"type": "array"}))
    how = {
        "type": "object",
        "properties": {
            "seconds": {"type": "number", "minimum": LEAST_SECONDS, "maximum": limits.explain_seconds},
            "class": {"enum": list(served.model.manifest.classes)},
        },
        "additionalProperties": False,
    }
    names_out = v2.output_names(served.model.manifest)
    outputs = {"type": "array", "items": _object("parameters", name={"enum": names_out}, parameters=_PARAMETERS)}
    return {
        f"{key}.instances": _object("parameters", instances=instances, parameters=_PARAMETERS),
        f"{key}.to-explain": _object("parameters", instances={**instances, "maxItems": MOST_ROWS}, parameters=how),
        f"{key}.predictions": _object(predictions={"type": "array", "items": _prediction(served.model.manifest)}),
        f"{key}.explanations": _object(explanations={"type": "array", "items": _explanation(names)}),
        f"{key}.infer-request": _object(
            "id",
            "parameters",
            "outputs",
            id=_TEXT,
            parameters=_PARAMETERS,
            inputs={"type": "array", "items": {"anyOf": tensors}, "minItems": 1, "maxItems": limits.columns},
            outputs=outputs,
        ),
        f"{key}.infer-response": _object(
            model_name={"const": served.name},
            model_version={"const": served.version},
            id=_TEXT,
            outputs={"type": "array", "items": {"anyOf": _outputs(served.model.manifest)}},
        ),
    }


def _value(column: InputColumn, limits: Limits) -> Schema:
    schema = _VALUES[column.type]
    if column.kind != "column":
        schema = {**schema, "description": f"{column.description}; as of now, null where it is not known"}
    return {**schema, "maxLength": limits.text_chars} if column.type == "string" else schema


def _tensor(column: InputColumn, value: Schema) -> Schema:
    numeric = column.type in ("number", "boolean")
    return _object(
        "parameters",
        name={"const": column.name},
        shape=_SIZES,
        datatype={"enum": [*v2.DTYPES, "BYTES"] if numeric else ["BYTES"]},
        data={"type": "array", "items": value},
        parameters=_PARAMETERS,
    )


def _prediction(manifest: BundleManifest) -> Schema:
    if manifest.task == "regression":
        return _NUMBER
    probabilities = _object(**dict.fromkeys(manifest.classes, _NUMBER))
    return _object(label={"enum": list(manifest.classes)}, probabilities=probabilities)


def _explanation(names: Sequence[str]) -> Schema:
    numbers = _object(**dict.fromkeys(names, _VALUES["number"]))
    count = {"type": "integer", "minimum": 0}
    return {
        "type": "object",
        "properties": {
            "class": _TEXT,
            "base_value": _NUMBER,
            "prediction": _NUMBER,
            "contributions": numbers,
            "standard_errors": numbers,
            "permutations": count,
            "background_rows": count,
            "ended": {"enum": ["exact", "precision", "seconds"]},
        },
        "required": ["base_value", "prediction", "contributions", "standard_errors"],
    }


def _outputs(manifest: BundleManifest) -> list[Schema]:
    kinds = {"value": ("FP64", _NUMBER), "probabilities": ("FP64", _NUMBER), "label": ("BYTES", _TEXT)}
    return [
        _object(
            "data",  # in a binary reply
            "parameters",
            name={"const": name},
            shape=_SIZES,
            datatype={"const": kinds[name][0]},
            data={"type": "array", "items": kinds[name][1]},
            parameters=_PARAMETERS,
        )
        for name in v2.output_names(manifest)
    ]


def _body(contents: dict[str, tuple[Schema, dict[str, Any]]], *, required: bool = True) -> Schema:
    content = {}
    for kind, (schema, examples) in contents.items():
        content[kind] = {"schema": schema}
        if examples:
            content[kind]["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"required": required, "content": content}


def _responses(schema: Schema, *failures: int) -> Schema:
    return {
        "200": {"description": "Done", "content": {_JSON: {"schema": schema}}},
        **{str(status): _failure(status) for status in failures},
    }


def _failure(status: int) -> Schema:
    return {
        "description": _FAILURES[status],
        "content": {_JSON: {"schema": {"$ref": "#/components/schemas/error"}}},
    }


def _key(place: int, served: Served) -> str:
    """The beginning of a model's schema names, in the letters that OpenAPI takes for them."""
    return f"{place}.{re.sub(r'[^A-Za-z0-9_-]', '-', served.name)}"
