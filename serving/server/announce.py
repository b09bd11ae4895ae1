"""What is said on standard output once a server that was started by hand is ready."""

import json
from pathlib import Path
from typing import Any

from serving.bundle import Model
from serving.server.served import Served
from serving.server.settings import Settings

_EXAMPLE = "serving_input_example.json"
_VALUES = {"number": 0.0, "boolean": False, "string": "", "timestamp": "1970-01-01T00:00:00"}
_EXAMPLE_CHARS = 4_000


def facts(served: Served, folder: Path) -> dict[str, str]:
    """A model's name, revision, runtime, and one row of its inputs as JSON."""
    row = json.dumps(_row(served.model, folder))
    return {"name": served.name, "version": served.version, "runtime": served.runtime, "row": row}


def announce(settings: Settings, port: int, models: list[dict[str, str]]) -> None:
    """Say where the models are and how to try them."""
    scheme = "https" if settings.certificate else "http"
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - read, not bound
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    token = " -H 'Authorization: Bearer TOKEN'" if settings.tokens else ""
    for model in models:
        print(f"{model['name']} ({model['version']}, {model['runtime']}) is served at {url}/v2/models/{model['name']}")
        body = '{"instances": [' + model["row"].replace("'", "'\\''") + "]}"
        if len(body) <= _EXAMPLE_CHARS:
            print(f"try: curl {url}/v1/models/{model['name']}:predict{token} -d '{body}'", flush=True)


def _row(model: Model, folder: Path) -> dict[str, Any]:
    """The first row of the bundle's example; else a row of nothings."""
    names = [column.name for column in model.schema.inputs]
    if _EXAMPLE in model.manifest.files:
        table = json.loads((folder / _EXAMPLE).read_bytes()).get("dataframe_split", {})
        if table.get("data") and set(names) <= set(table.get("columns", ())):
            example = dict(zip(table["columns"], table["data"][0], strict=False))
            return {name: example[name] for name in names}
    return {column.name: _VALUES[column.type] for column in model.schema.inputs}
