"""SW003: every task asks for CPU and memory, and has a limit of both."""

from collections.abc import Iterator

from pipelines.lint.findings import Severity
from pipelines.lint.package import Package, Resolved, Task
from pipelines.lint.quantity import amount
from pipelines.lint.rule import Found, Rule, about
from pipelines.project import Project

_SETTERS = {
    "resourceCpuRequest": "set_cpu_request",
    "resourceCpuLimit": "set_cpu_limit",
    "resourceMemoryRequest": "set_memory_request",
    "resourceMemoryLimit": "set_memory_limit",
}


def _check(package: Package, _: Project) -> Iterator[Found]:
    for task in package.containers():
        resources = task.container["resources"]
        where = resources or task.container
        given = {field: _given(task, field) for field in _SETTERS}
        missing = [setter for field, setter in _SETTERS.items() if given[field].value == ""]
        if missing:
            yield about(task, where, f"does not say what it needs: call {', '.join(missing)} on it.")
        for kind, unit in (("Cpu", "CPU"), ("Memory", "memory")):
            request, limit = given[f"resource{kind}Request"].value, given[f"resource{kind}Limit"].value
            for text in (request, limit):
                if text and amount(text) is None:
                    yield about(
                        task, where, f"has {text!r} for {unit}, which Kubernetes does not take: write 500m, 2 or 4Gi."
                    )
            asked, most = amount(request or ""), amount(limit or "")
            if asked is not None and most is not None and asked > most:
                yield about(
                    task,
                    where,
                    f"requests more {unit} ({request}) than its limit ({limit}): Kubernetes refuses such a pod.",
                )


def _given(task: Task, field: str) -> Resolved:
    """What the package says, as a placeholder's value or, in packages of old compilers, as a number of cores or GB."""
    resources = task.container["resources"]
    if resources[field]:
        return task.resolve(resources[field])
    old = resources[field.removeprefix("resource")[0].lower() + field.removeprefix("resource")[1:]]
    return Resolved(f"{old.text()}{'G' if 'Memory' in field else ''}" if old else "")


RULE = Rule(
    id="SW003",
    name="resources",
    severity=Severity.ERROR,
    summary="Every task requests CPU and memory and has a limit of both; no request is above its limit.",
    why="""Without requests the scheduler takes the pod for one that needs nothing: it lands on a full node, is slow
there, and is the first to be evicted. Without a memory limit one leaking step takes its node down, and every other
pod on it. In a namespace with a ResourceQuota a pod without them is refused, which KFP shows as a task that never
starts.

```python
task.set_cpu_request("1").set_cpu_limit("2").set_memory_request("2Gi").set_memory_limit("4Gi")
```
A value that comes from a parameter or another task's output counts as said.""",
    check=_check,
)
