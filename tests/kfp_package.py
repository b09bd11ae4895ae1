"""A small package with the shape of ours: an exit handler, a gate, and a rollout behind it."""

from pathlib import Path
from typing import Any

import yaml

from pipelines.server.connection import Connection
from pipelines.server.upload import read_package

STEPS = ("resolve", "evaluate", "rollout", "settle")


def write_package(path: Path, name: str, content: str = "one") -> Path:
    """Write it; ``content`` makes it another one."""
    path.write_text(yaml.safe_dump(package(name, content)), encoding="utf-8")
    return path


def on_server(connection: Connection, path: Path) -> Any:
    """Have it on a server as the only version of its pipeline, as `sluiceway upload` would, in two requests."""
    package, client = read_package(path), connection.client
    made = client.pipelines.pipeline_service_create_pipeline({"display_name": package.pipeline})
    return client.pipeline_uploads.upload_pipeline_version(
        str(path), name=package.version, pipelineid=made.pipeline_id, description=package.description
    )


def package(name: str, content: str = "one") -> dict[str, Any]:
    """Its pipeline spec."""

    def task(step: str, component: str = "") -> dict[str, Any]:
        component = component or f"comp-{step}"
        return {
            "taskInfo": {"name": step},
            "componentRef": {"name": component},
            "cachingOptions": {"enableCache": True},
        }

    steps = {f"comp-{step}": {"executorLabel": f"exec-{step}"} for step in STEPS}
    image = {"image": f"example.com/{content}"}
    return {
        "pipelineInfo": {"name": name},
        "components": steps
        | {
            "comp-exit-handler-1": {
                "dag": {
                    "tasks": {
                        "resolve": task("resolve"),
                        "evaluate": task("evaluate"),
                        "condition-2": task("condition-2"),
                    }
                }
            },
            "comp-condition-2": {"dag": {"tasks": {"rollout": task("rollout")}}},
        },
        "deploymentSpec": {"executors": {f"exec-{step}": {"container": image} for step in STEPS}},
        "root": {
            "inputDefinitions": {
                "parameters": {
                    "target": {"parameterType": "STRING"},
                    "seed": {"parameterType": "NUMBER_INTEGER", "defaultValue": 0},
                    "plan": {"parameterType": "STRUCT", "defaultValue": {}},
                }
            },
            "dag": {"tasks": {"exit-handler-1": task("exit-handler-1"), "settle": task("settle")}},
        },
        "schemaVersion": "2.1.0",
        "sdkVersion": "kfp-2.17.0",
    }
