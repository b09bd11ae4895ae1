"""A compiled KFP package as the rules see it: its tasks, with all that is said about each of them in one place."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.errors import BadInput
from pipelines.lint.spot import Spot, documents

_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\[['\"](.+?)['\"]\]\}\}")
INJECTED = "pipelinechannel--"
"""How the names of inputs begin that the compiler adds to a component."""


class NotAPackage(BadInput):
    """A file cannot be linted: it cannot be read, or is not a whole KFP package."""

    exit_code = 2


@dataclass(frozen=True)
class Resolved:
    """What a field of a task comes to.

    Attributes:
        value: the text; None where only a run knows it.
        origin: where it comes from, for messages.
    """

    value: str | None
    origin: str = ""


@dataclass(frozen=True, eq=False)
class Task:
    """A task that runs something: not a condition, loop or pipeline around others.

    Attributes:
        name: its name in its pipeline.
        node: the task in the package.
        component: what it runs: inputs and outputs.
        executor: the component's container or importer.
        kubernetes: what the platform's part of the package says about its pod.
        parent: the task of the sub-pipeline that it is in.
        root: the pipeline.
    """

    name: str
    node: Spot
    component: Spot
    executor: Spot
    kubernetes: Spot
    parent: "Group | None"
    root: Spot

    @property
    def container(self) -> Spot:
        """Its container; without value for an importer."""
        return self.executor["container"]

    @property
    def function(self) -> str:
        """The component's name, the same for every task made of it."""
        args = [arg.text() for arg in self.container["args"].each()]
        if "--function_to_execute" in args[:-1]:
            return args[args.index("--function_to_execute") + 1]
        return re.sub(r"-\d+$", "", self.node["componentRef"]["name"].text().removeprefix("comp-"))

    def resolve(self, spot: Spot) -> Resolved:
        """Follow a placeholder to the constant or default behind it."""
        return _resolve(spot.text(), self)

    def input(self, given: Spot) -> Resolved:
        """Follow an input: of the task itself, or one that the platform's part names."""
        return _input(given, self)


@dataclass(frozen=True, eq=False)
class Group:
    """A task that holds others: a condition, a loop, a pipeline in a pipeline."""

    name: str
    node: Spot
    parent: "Group | None"
    root: Spot


@dataclass(frozen=True)
class Package:
    """A KFP package.

    Attributes:
        file: its name on the command line.
        text: the file.
        spec: the PipelineSpec.
        tasks: every task that runs something.
        groups: every task that holds others.
    """

    file: str
    text: str
    spec: Spot
    tasks: tuple[Task, ...]
    groups: tuple[Group, ...]

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.spec["pipelineInfo"]["name"].text()

    @property
    def parameters(self) -> Spot:
        """What whoever starts a run can set."""
        return self.spec["root"]["inputDefinitions"]["parameters"]

    def containers(self) -> Iterator[Task]:
        """The tasks that run in a pod of their own."""
        return (task for task in self.tasks if task.container)


def read(path: Path) -> Package:
    """Read a package: what kfp's compiler writes, on its own or as a PipelineVersion for Kubernetes.

    Raises:
        NotAPackage: it cannot be read, is cut off, or is something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise NotAPackage(f"{path} cannot be read: {why}; name a package that `sluiceway compile` wrote.") from error
    try:
        found = documents(text)
        spec, platforms = _parts(found)
        if not text.endswith("\n"):
            raise BadInput("ends in the middle of a line")
        kubernetes = platforms["kubernetes"]["deploymentSpec"]["executors"]
        tasks, groups = _walk(spec, kubernetes)
    except BadInput as error:
        raise NotAPackage(f"{path} {error}; compile it again.") from error
    return Package(str(path), text, spec, tasks, groups)


def _parts(found: list[Spot]) -> tuple[Spot, Spot]:
    """The pipeline and what the platform adds to it."""
    for document in found:
        if document["kind"].text() == "PipelineVersion":
            spec = document["spec"]
            _check(spec["pipelineSpec"])
            return spec["pipelineSpec"], spec["platformSpec"]["platforms"]
        if document["kind"].text() == "Workflow":
            raise BadInput("is an Argo workflow, as KFP 1 wrote them")
    if not found or not (found[0]["pipelineInfo"] or found[0]["root"]):
        raise BadInput("is not a KFP package: it has neither pipelineInfo nor root")
    _check(found[0])
    platforms = next((document["platforms"] for document in found[1:] if document["platforms"]), Spot(None, 1))
    return found[0], platforms


def _check(spec: Spot) -> None:
    for key in ("pipelineInfo", "root", "schemaVersion"):
        if not spec[key]:
            raise BadInput(f"is not whole: it has no {key}")
    if not spec["schemaVersion"].text().startswith("2."):
        raise BadInput(f"has schemaVersion {spec['schemaVersion'].text()}, and only 2.x is understood")
    if not spec["root"]["dag"]["tasks"]:
        raise BadInput("is not whole: its root has no tasks")


def _walk(spec: Spot, kubernetes: Spot) -> tuple[tuple[Task, ...], tuple[Group, ...]]:
    tasks: list[Task] = []
    groups: list[Group] = []

    def visit(dag: Spot, parent: Group | None, above: tuple[str, ...]) -> None:
        for name, node in dag["tasks"].items():
            key = node["componentRef"]["name"].text()
            component = spec["components"][key]
            if not component:
                raise BadInput(
                    f"is not whole: task {name} at line {node.line} runs {key or 'nothing'}, which is not there"
                )
            if component["dag"]:
                if key in above:
                    raise BadInput(f"goes in a circle: {key} at line {component.line} is a part of itself")
                group = Group(name, node, parent, spec["root"])
                groups.append(group)
                visit(component["dag"], group, (*above, key))
                continue
            label = component["executorLabel"].text()
            executor = spec["deploymentSpec"]["executors"][label]
            if not executor:
                raise BadInput(
                    f"is not whole: {key} at line {component.line} runs {label or 'nothing'}, which is not there"
                )
            platform = kubernetes[label] or Spot(None, node.line)
            tasks.append(Task(name, node, component, executor, platform, parent, spec["root"]))

    visit(spec["root"]["dag"], None, ())
    return tuple(tasks), tuple(groups)


def _resolve(text: str, at: Task | Group) -> Resolved:
    match = _PLACEHOLDER.fullmatch(text)
    if match is None:
        return Resolved(text) if "{{$" not in text else Resolved(None, "a placeholder")
    return _input(at.node["inputs"]["parameters"][match[1]], at)


def _input(given: Spot, at: Task | Group) -> Resolved:
    if producer := given["taskOutputParameter"]["producerTask"]:
        return Resolved(
            None, f"output {given['taskOutputParameter']['outputParameterKey'].text()} of task {producer.text()}"
        )
    if name := given["componentInputParameter"].text():
        if at.parent is not None:
            return _input(at.parent.node["inputs"]["parameters"][name], at.parent)
        declared = at.root["inputDefinitions"]["parameters"][name]
        origin = f"pipeline parameter {name}"
        return Resolved(declared["defaultValue"].text(), origin) if declared["defaultValue"] else Resolved(None, origin)
    constant = given["runtimeValue"]["constant"]
    if not constant:
        return Resolved(None, "something only a run knows")
    return _resolve(constant.text(), at) if isinstance(constant.value, str) else Resolved(str(constant.plain()))
