"""What a compiled package asks of a cluster, as tables that a person can read: from the YAML, not from the source."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from components import images
from pipelines.lint.package import Package, Task, read
from pipelines.lint.spot import Spot

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def tables(path: Path) -> str:
    """A package's tasks, what each may see, what goes in and out, and the pipeline's parameters.

    Raises:
        NotAPackage: it cannot be read, or is something else.
    """
    package = read(path)
    tasks = sorted(package.containers(), key=_name)
    parts = [
        _table(
            ("task", "image", "CPU", "memory", "accelerator", "attempts", "timeout of each", "cached"),
            (_resources(task) for task in tasks),
        ),
        _table(("task", "config maps", "secrets", "volumes", "nodes"), _together(_mounts(task) for task in tasks)),
        _table(("task", "takes", "makes"), _together(_artifacts(task) for task in tasks)),
        _table(("image that a run chooses", "task", "stands for"), _chosen(tasks)),
        _table(("parameter", "type", "default", "meaning"), _parameters(package)),
    ]
    return "\n".join(parts)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _together(rows: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Rows that differ in nothing but the task as one."""
    tasks: dict[tuple[str, ...], list[str]] = {}
    for name, *rest in rows:
        tasks.setdefault(tuple(rest), []).append(name)
    return (("<br>".join(names), *rest) for rest, names in tasks.items())


def _name(task: Task) -> str:
    """The component's name, and the branch or loop that the task is in where others of it are elsewhere."""
    around, parent = [], task.parent
    while parent is not None:
        around.append(parent.node["taskInfo"]["name"].text())
        parent = parent.parent
    branch = next((name for name in around if name.startswith(("on ", "search on ", "in "))), "")
    return f"{task.function.replace('_', '-')}{f' ({branch})' if branch else ''}"


def _resources(task: Task) -> tuple[str, ...]:
    asked, retry = task.container["resources"], task.node["retryPolicy"]
    seconds = int(task.kubernetes["activeDeadlineSeconds"].text() or 0)
    return (
        _name(task),
        _image(_shown(task, task.container["image"])),
        _range(task, asked["resourceCpuRequest"], asked["resourceCpuLimit"]),
        _range(task, asked["resourceMemoryRequest"], asked["resourceMemoryLimit"]),
        _accelerator(task),
        f"{1 + int(retry['maxRetryCount'].value or 0)} within {_time(retry['backoffMaxDuration'].text())}",
        _time(f"{seconds}s") if seconds else "none",
        "yes" if task.node["cachingOptions"]["enableCache"].value else "no",
    )


def _shown(task: Task, spot: Spot) -> str:
    """What a field comes to; in words where only a run knows."""
    found = task.resolve(spot)
    if found.value is not None:
        return found.value
    words = found.origin.split()  # "output NAME of task TASK"
    return f"{words[4]}'s {words[1]}" if found.origin.startswith("output ") else found.origin


def _range(task: Task, least: Spot, most: Spot) -> str:
    low, high = _shown(task, least) or "none", _shown(task, most) or "none"
    return low if low == high else f"{low} to {high}"


def _image(reference: str) -> str:
    return images.name_of(reference) if "/" in reference else reference


def _accelerator(task: Task) -> str:
    asked = task.container["resources"]["accelerator"]
    if not asked:
        return ""
    return f"{_shown(task, asked['resourceCount'])} of {_shown(task, asked['resourceType'])}"


def _time(text: str) -> str:
    seconds = float(text.removesuffix("s") or 0)
    for size, unit in _UNITS:
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _mounts(task: Task) -> tuple[str, ...]:
    pod = task.kubernetes
    return (
        _name(task),
        _cell(_sources(pod, "configMap")),
        _cell(_sources(pod, "secret")),
        _cell(_volumes(pod)),
        _cell(_nodes(task)),
    )


def _sources(pod: Spot, kind: str) -> Iterator[str]:
    """Config maps or secrets, each with the variables or the folder that the task sees of it."""
    for source in pod[f"{kind}AsEnv"].each():
        variables = [entry["envVar"].text() for entry in source["keyToEnv"].each()]
        yield f"{source[f'{kind}Name'].text()}: {', '.join(variables)}"
    for source in pod[f"{kind}AsVolume"].each():
        yield f"{source[f'{kind}Name'].text()}: {source['mountPath'].text()}"


def _volumes(pod: Spot) -> Iterator[str]:
    for mount in pod["emptyDirMounts"].each():
        size, medium = mount["sizeLimit"].text() or "any size", mount["medium"].text().lower() or "disk"
        yield f"{mount['mountPath'].text()}: {size} of {medium}"
    for mount in pod["pvcMount"].each():
        yield f"{mount['mountPath'].text()}: claim {mount['constant'].text()}"


def _nodes(task: Task) -> Iterator[str]:
    pod = task.kubernetes
    if selector := pod["nodeSelector"]:
        yield _given(task, selector["nodeSelectorJson"]) or json.dumps(selector["labels"].plain())
    for toleration in pod["tolerations"].each():
        yield _given(task, toleration["tolerationJson"]) or json.dumps(toleration.plain())


def _given(task: Task, given: Spot) -> str:
    if not given:
        return ""
    words = task.input(given).origin.split()
    return f"{words[4]}'s {words[1]}"


def _artifacts(task: Task) -> tuple[str, ...]:
    def typed(definitions: Spot) -> Iterator[str]:
        for name, one in definitions["artifacts"].items():
            listed = "list of " if one["isArtifactList"].value else ""
            yield f"{name}: {listed}{one['artifactType']['schemaTitle'].text().removeprefix('system.')}"
        for name, one in definitions["parameters"].items():
            if not name.startswith("pipelinechannel--"):
                yield f"{name}: {_type(one)}"

    return (
        _name(task),
        _cell(typed(task.component["inputDefinitions"])),
        _cell(typed(task.component["outputDefinitions"])),
    )


def _chosen(tasks: list[Task]) -> Iterator[tuple[str, ...]]:
    by_image: dict[tuple[str, str], list[str]] = {}
    for task in tasks:
        for variable in task.container["env"].each():
            if variable["name"].text() == images.VARIABLE:
                for name, reference in json.loads(variable["value"].text()).items():
                    by_image.setdefault((name, reference), []).append(_name(task))
    for (name, reference), where in sorted(by_image.items()):
        yield name, ", ".join(where), f"`{reference}`"


def _parameters(package: Package) -> Iterator[tuple[str, ...]]:
    for name, spec in package.parameters.items():
        default = spec["defaultValue"]
        value = default.plain()
        if spec["parameterType"].text() == "NUMBER_INTEGER" and value is not None:
            value = int(value)  # written as 0.0
        shown = f"`{json.dumps(value)}`" if default else "to be given"
        meaning = " ".join(spec["description"].text().split()).replace("|", "\\|")
        yield f"`{name}`", _type(spec), shown, meaning


def _type(spec: Spot) -> str:
    return {"NUMBER_INTEGER": "integer", "NUMBER_DOUBLE": "number"}.get(
        spec["parameterType"].text(), spec["parameterType"].text().lower()
    )


def _cell(entries: Iterable[str]) -> str:
    return "<br>".join(entries)
