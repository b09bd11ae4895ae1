"""What Schemathesis makes of the server's own OpenAPI document, valid and invalid."""

import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

from tests.bench.fuzzing.attack import Attack, request
from tests.bench.fuzzing.target import Target


def documented_attacks(port: int, target: Target) -> list[st.SearchStrategy[Attack]]:
    """A strategy per operation and mode."""
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    made = []
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in GenerationMode:
            if mode == GenerationMode.NEGATIVE and not _has_input(operation):
                continue
            made.append(operation.as_strategy(generation_mode=mode).map(lambda case: _attack(case, target)))
    return made


def _has_input(operation: schemathesis.schemas.APIOperation) -> bool:
    return bool(len(operation.body) or any(True for _ in operation.iter_parameters()))


def _attack(case: schemathesis.Case, target: Target) -> Attack:
    fields = case.as_transport_kwargs(base_url="http://x")
    prepared = requests.Request(
        method=fields["method"],
        url=fields["url"],
        params=fields.get("params"),
        headers={name: value for name, value in fields.get("headers", {}).items() if _is_sendable(value)},
        json=fields.get("json"),
        data=fields.get("data"),
        cookies=fields.get("cookies"),
    ).prepare()
    body = prepared.body or b""
    body = body.encode() if isinstance(body, str) else body
    headers: list[tuple[str, str | bytes]] = [
        (name, value if isinstance(value, bytes) else value.encode("utf-8"))
        for name, value in prepared.headers.items()
        if name.lower() != "content-length"
    ]
    wire = request(prepared.path_url, body, headers, method=str(prepared.method))
    return Attack(
        "openapi",
        wire,
        has_body=prepared.method != "HEAD",
        names_field=prepared.path_url in (target.v1_path, target.v2_path),
    )


def _is_sendable(value: str) -> bool:
    return value == value.strip() and value.isprintable()
