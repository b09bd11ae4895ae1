"""What a model was trained on, as MLflow tells it: a registered version leads back to its bytes.

MLflow's own digest of a data set is of its first rows, a label; ours is the snapshot's version, cut to what MLflow
takes. The whole of it, and where the bytes are, is in the tags.
"""

import json
from typing import TYPE_CHECKING

from components.ingest.catalog import Entry, lookup
from components.register import registry

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

LONGEST_DIGEST, LONGEST_SCHEMA = 36, 1_000_000
"""What MLflow takes, in characters."""

_SOURCES = {"gs": "gs", "s3": "s3", "file": "local", "": "local", "http": "http", "https": "http"}
"""MLflow's word for where data comes from, by scheme; it knows none for databases and topics."""

_TYPES = {"BOOLEAN": "boolean", "BIGINT": "long", "DOUBLE": "double", "FLOAT": "float", "DATE": "datetime"}


def listed(model_name: str, version: str) -> Entry | None:
    """The snapshot's entry, where the pipeline listed it under the model's name; None for one that is kept nowhere.

    Raises:
        Unreachable: the store cannot be used.
    """
    return lookup(model_name, version)


def tags(entry: Entry) -> dict[str, str]:
    """Where a version's bytes are, and what they were made of."""
    return {
        registry.DATASET: entry.dataset,
        registry.DATA_VERSION: entry.version,
        registry.DATA_SOURCE: entry.snapshot.source_uri[:5000],
        registry.DATA_REMOTE: entry.remote,
        registry.DATA_OBJECT: entry.directory,
    }


def dataset_input(entry: Entry) -> "DatasetInput":
    """The version as an input of an MLflow run, with the context ``training``."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    made, told = entry.snapshot, tags(entry)
    uri = made.source_uri
    scheme = uri.partition("://")[0].lower() if "://" in uri else ""
    columns = [
        {"name": column.name, "type": _type(column.type), "required": not column.nulls} for column in made.columns
    ]
    schema = json.dumps({"mlflow_colspec": columns})
    return DatasetInput(
        dataset=Dataset(
            name=entry.dataset,
            digest=entry.version[:LONGEST_DIGEST],
            source_type=_SOURCES.get(scheme, "code"),
            source=json.dumps({"uri": uri, "url": uri, "tags": told}),
            schema=schema if len(schema) <= LONGEST_SCHEMA else None,
            profile=json.dumps({"num_rows": made.rows, "num_elements": made.rows * len(columns)}),
        ),
        tags=[InputTag("mlflow.data.context", "training"), *(InputTag(name, text) for name, text in told.items())],
    )


def _type(duckdb: str) -> str:
    """MLflow's word for a DuckDB type."""
    if duckdb in _TYPES:
        return _TYPES[duckdb]
    if duckdb.startswith("TIMESTAMP"):
        return "datetime"
    if duckdb.startswith("DECIMAL"):
        return "double"
    return "long" if duckdb.endswith(("INT", "INTEGER")) else "string"
