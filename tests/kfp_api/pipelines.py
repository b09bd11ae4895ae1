"""Pipelines and their versions, as KFP's API server keeps them."""

import json
import re
from typing import Any

import yaml

from tests.kfp_api.listing import page
from tests.kfp_api.refusals import EXISTS, INVALID, NOT_FOUND, Refusal
from tests.kfp_api.store import Store

Plain = dict[str, Any]

_SHARED = {"name": "name", "display_name": "display_name", "created_at": "created_at", "description": "description"}
_PIPELINE = _SHARED | {"id": "pipeline_id", "pipeline_id": "pipeline_id", "namespace": "namespace"}
_VERSION = _SHARED | {"id": "pipeline_version_id", "pipeline_version_id": "pipeline_version_id"}


class Pipelines:
    """Handlers by operation."""

    def __init__(self, store: Store) -> None:
        """Serve this store."""
        self.store = store

    def create_pipeline(self, body: Plain, **_: str) -> Plain:
        """Make a pipeline without versions."""
        store = self.store
        namespace = store.namespace(body.get("namespace", ""))
        store.allow(namespace)
        if store.old and ("name" in body or "tags" in body):
            raise Refusal(INVALID, 'proto: (line 1:2): unknown field "name"')
        name = body.get("name") or body.get("display_name") or ""
        display = body.get("display_name") or name
        return self._shown(self._add_pipeline(name, display, body.get("description", ""), namespace, body.get("tags")))

    def _add_pipeline(self, name: str, display: str, description: str, namespace: str, tags: Any = None) -> Plain:
        if not name:
            raise Refusal(INVALID, "pipeline's name cannot be empty")
        if len(name) > 128:
            raise Refusal(INVALID, "Pipeline.Name length cannot exceed 128")
        if any(one["name"] == name and one.get("namespace", "") == namespace for one in self.store.pipelines.values()):
            raise Refusal(
                EXISTS, f"Failed to create a new pipeline. The name {name} already exist. Please specify a new name"
            )
        made = {"pipeline_id": self.store.new_id(), "name": name, "display_name": display}
        made |= {"description": description, "created_at": self.store.now(), "namespace": namespace, "tags": tags}
        self.store.pipelines[made["pipeline_id"]] = made
        return made

    def get_pipeline(self, pipeline_id: str, **_: str) -> Plain:
        """One by id."""
        return self._shown(self.store.get(self.store.pipelines, "Pipeline", pipeline_id))

    def get_by_name(self, name: str, namespace: str = "") -> Plain:
        """One by name; without a namespace, of any."""
        for one in self.store.pipelines.values():
            if one["name"] == name and namespace in ("", one["namespace"]):
                self.store.allow(one["namespace"])
                return self._shown(one)
        raise Refusal(NOT_FOUND, f"Namespace/Pipeline {namespace}/{name} not found")

    def list_pipelines(self, **query: str) -> Plain:
        """Those of a namespace; shared ones are in none."""
        namespace = self.store.namespace(query.pop("namespace", ""))
        self.store.allow(namespace)
        found = (one for one in self.store.pipelines.values() if one["namespace"] == namespace)
        shown, rest = page(found, query, "pipeline_id", _PIPELINE)
        return ({"pipelines": [self._shown(one) for one in shown]} if shown else {}) | rest

    def delete_pipeline(self, pipeline_id: str, cascade: str = "false") -> Plain:
        """Delete one that has no versions, or all of it."""
        self.store.get(self.store.pipelines, "Pipeline", pipeline_id)
        held = [key for key, one in self.store.versions.items() if one["pipeline_id"] == pipeline_id]
        if held and cascade.lower() != "true":
            raise Refusal(
                INVALID,
                f"Failed to delete pipeline with id {pipeline_id} as it has existing pipeline versions "
                f"(e.g. {held[-1]}). Set cascade=true to delete all versions",
            )
        for key in [*held]:
            del self.store.versions[key]
        del self.store.pipelines[pipeline_id]
        return {}

    def upload(self, package: bytes, filename: str, **query: str) -> Plain:
        """Make a pipeline with a first version of the same name."""
        namespace = self.store.namespace(query.get("namespace", ""))
        self.store.allow(namespace)
        name = query.get("name") or query.get("display_name") or filename
        display, description = query.get("display_name") or name, query.get("description", "")
        spec = _spec(package)
        made = self._add_pipeline(name, display, description, namespace, json.loads(query.get("tags", "null")))
        self._add_version(made["pipeline_id"], name, display, description, spec)
        return self._shown(made)

    def upload_version(self, package: bytes, filename: str, **query: str) -> Plain:
        """Make a version of a pipeline."""
        pipeline_id = query.get("pipelineid", "")
        self.store.get(self.store.pipelines, "Pipeline", pipeline_id)
        name = query.get("name") or query.get("display_name") or filename
        display, description = query.get("display_name") or name, query.get("description", "")
        made = self._add_version(pipeline_id, name, display, description, _spec(package))
        made |= {"code_source_url": query.get("code_source_url"), "tags": json.loads(query.get("tags", "null"))}
        return self._shown(made)

    def _add_version(self, pipeline: str, name: str, display: str, text: str, spec: Plain) -> Plain:
        if len(name) > 127:
            raise Refusal(INVALID, "PipelineVersion.Name length cannot exceed 127")
        if any(one["pipeline_id"] == pipeline and one["name"] == name for one in self.store.versions.values()):
            raise Refusal(
                EXISTS,
                f"Failed to create a new pipeline version. The name {name} already exist. Please specify a new name",
            )
        made = {"pipeline_id": pipeline, "pipeline_version_id": self.store.new_id(), "name": name}
        made |= {"display_name": display, "description": text, "created_at": self.store.now(), "pipeline_spec": spec}
        self.store.versions[made["pipeline_version_id"]] = made
        return made

    def get_version(self, pipeline_id: str, pipeline_version_id: str, **_: str) -> Plain:
        """One by id; the server does not look at the pipeline's."""
        self._allowed(pipeline_id)
        return self._shown(self.store.get(self.store.versions, "PipelineVersion", pipeline_version_id))

    def list_versions(self, pipeline_id: str, **query: str) -> Plain:
        """Those of a pipeline."""
        self._allowed(pipeline_id)
        found = (one for one in self.store.versions.values() if one["pipeline_id"] == pipeline_id)
        shown, rest = page(found, query, "pipeline_version_id", _VERSION)
        return ({"pipeline_versions": [self._shown(one) for one in shown]} if shown else {}) | rest

    def delete_version(self, pipeline_id: str, pipeline_version_id: str, **_: str) -> Plain:
        """Delete one, whoever uses it."""
        self._allowed(pipeline_id)
        self.store.get(self.store.versions, "PipelineVersion", pipeline_version_id)
        del self.store.versions[pipeline_version_id]
        return {}

    def latest(self, pipeline_id: str) -> Plain:
        """The version that runs without one take."""
        self.store.get(self.store.pipelines, "Pipeline", pipeline_id)
        found = [one for one in self.store.versions.values() if one["pipeline_id"] == pipeline_id]
        if not found:
            raise Refusal(NOT_FOUND, f"PipelineVersion {pipeline_id} not found")
        return max(found, key=lambda one: one["created_at"])

    def _allowed(self, pipeline_id: str) -> None:
        self.store.get(self.store.pipelines, "Pipeline", pipeline_id)

    def _shown(self, one: Plain) -> Plain:
        hidden = ("name", "tags") if self.store.old else ()
        return {name: value for name, value in one.items() if value and name not in hidden}


def _spec(package: bytes) -> Plain:
    """A package's pipeline spec, with its platform spec where there is one."""
    try:
        documents = [one for one in yaml.load_all(package, yaml.CSafeLoader) if one]
    except yaml.YAMLError as error:
        raise Refusal(INVALID, f"Failed to parse the pipeline source: {error}") from error
    if not documents or "pipelineInfo" not in documents[0] or "root" not in documents[0]:
        raise Refusal(INVALID, "unknown template format: pipeline spec is invalid")
    name = documents[0]["pipelineInfo"].get("name", "")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name) or len(name) > 128:
        raise Refusal(
            INVALID,
            "pipeline's name must contain only lowercase alphanumeric characters or '-' and must start with "
            "alphanumeric characters",
        )
    if len(documents) == 1:
        return dict(documents[0])
    return {"pipeline_spec": documents[0], "platform_spec": documents[1]}
