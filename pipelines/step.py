"""One step of the road by itself, for tools that bring their own order: ``python -m pipelines.step validate``.

`dvc repro` runs the stages of dvc.yaml so. A step is the component that a cluster runs, called in this process:

* parameters come from params.yaml, by the names of the pipeline, or their defaults; over them, what `resolve` pinned;
* artifacts that it reads are looked up in the folder, where the steps before left them as ``<step>/<name>``;
* artifacts that it makes are left there, pages with the suffix .html, metrics as JSON;
* what it returns besides is left as ``<step>.json``.
"""

import argparse
import inspect
import json
from pathlib import Path
from typing import Any

import yaml
from kfp import dsl

from components.errors import BadInput
from components.files import write_json

STEPS = ("resolve", "ingest", "validate", "features", "train", "evaluate")
FOLDER, PARAMETERS = Path("build/road"), Path("params.yaml")

_SAID = {"dataset": "model_name", "engine": "feature_engine", "minimum": "minimum_metric"}
"""How the pipeline names what a component names otherwise."""

_PINNED = {"source_uri": "pinned_uri"}
"""What a step takes from `resolve` under another name."""

_FIRST = STEPS[0]


def main() -> None:
    """Run the step that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.step", description="Run one step of train-and-deploy.")
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where artifacts are kept (default: %(default)s)")
    parser.add_argument(
        "--params", type=Path, default=PARAMETERS, help="YAML with the pipeline's parameters (default: %(default)s)"
    )
    options = parser.parse_args()
    run(options.step, options.folder, options.params)


def run(step: str, folder: Path, parameters: Path) -> None:
    """Run a step.

    Args:
        step: its name.
        folder: where the artifacts of all steps are.
        parameters: YAML file with parameters of the pipeline.

    Raises:
        SystemExit: the step failed; it has said why.
        BadInput: the parameters cannot be read, or a step before has not run.
    """
    component = _component(step)
    spec = component.component_spec
    given = _given(parameters)
    if step != _FIRST:
        given |= _resolved(folder)
    arguments: dict[str, Any] = {}
    for name, inputs in (spec.inputs or {}).items():
        if _is_artifact(inputs):
            arguments[name] = dsl.Artifact(name=name, uri=str(_made(folder, name)))
        elif (said := _SAID.get(name, name)) in given:
            arguments[name] = given[said]
    made = {name: _kind(output) for name, output in (spec.outputs or {}).items() if _is_artifact(output)}
    outputs = {name: kind(name=name, uri=str(_place(folder / step, name, kind))) for name, kind in made.items()}
    (folder / step).mkdir(parents=True, exist_ok=True)
    returned = component.python_func(**arguments, **outputs)
    for name, output in outputs.items():
        if made[name] in (dsl.Metrics, dsl.ClassificationMetrics):
            write_json(Path(output.uri), output.metadata)
    if returned is not None:
        named = [name for name in spec.outputs if name not in outputs]
        write_json(folder / f"{step}.json", dict(zip(named, _values(returned), strict=True)))


def _component(step: str) -> Any:
    from components.evaluate.component import evaluate
    from components.features.component import features
    from components.ingest.component import ingest, resolve
    from components.train.component import train
    from components.validate.component import validate

    return dict(zip(STEPS, (resolve, ingest, validate, features, train, evaluate), strict=True))[step]


def _given(path: Path) -> dict[str, Any]:
    from pipelines.train_and_deploy import train_and_deploy

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError as error:
        raise BadInput(f"There is no {path}; name the file with the pipeline's parameters with --params.") from error
    except yaml.YAMLError as error:
        raise BadInput(f"{path} is not valid YAML ({error}); mend it.") from error
    known = inspect.signature(train_and_deploy.pipeline_func).parameters
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise BadInput(f"{path}: {', '.join(unknown)} is no parameter of train-and-deploy; it has {', '.join(known)}.")
    defaults = {name: parameter.default for name, parameter in known.items()}
    return defaults | found


def _resolved(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / f"{_FIRST}.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"{folder} has no {_FIRST}.json; run that step first.") from error
    return found | {name: found[other] for name, other in _PINNED.items()}


def _made(folder: Path, name: str) -> Path:
    found = [path for step in STEPS if (path := folder / step / name).exists()]
    if not found:
        raise BadInput(f"{folder} has no {name}; run the step first that makes it.")
    return found[0]


def _is_artifact(spec: Any) -> bool:
    return str(spec.type).startswith("system.")


def _kind(spec: Any) -> type[dsl.Artifact]:
    name = str(spec.type).removeprefix("system.").partition("@")[0]
    kind: type[dsl.Artifact] = getattr(dsl, name)
    return kind


def _place(folder: Path, name: str, kind: type[dsl.Artifact]) -> Path:
    suffix = {dsl.HTML: ".html", dsl.Metrics: ".json", dsl.ClassificationMetrics: ".json"}.get(kind, "")
    return folder / f"{name}{suffix}"


def _values(returned: Any) -> tuple[Any, ...]:
    return tuple(returned) if isinstance(returned, tuple) else (returned,)


if __name__ == "__main__":
    from pipelines.clear_errors import clear_errors

    with clear_errors():
        main()
