"""SW005: every task has an end."""

from collections.abc import Iterator

from pipelines.lint.findings import Severity
from pipelines.lint.package import Package
from pipelines.lint.rule import Found, Rule, about
from pipelines.project import Project


def _check(package: Package, _: Project) -> Iterator[Found]:
    for task in package.containers():
        if not task.kubernetes["activeDeadlineSeconds"]:
            yield about(
                task, task.node, "has no timeout: call kubernetes.set_timeout(task, seconds) of kfp-kubernetes on it."
            )


RULE = Rule(
    id="SW005",
    name="timeout",
    severity=Severity.ERROR,
    summary="Every task has a timeout.",
    why="""A step that waits for an answer that never comes holds its node, perhaps with a GPU, until somebody looks.
Nobody looks at a schedule: its next run then waits for the concurrency limit, or runs beside the stuck one.

```python
from kfp import kubernetes

kubernetes.set_timeout(task, 3600)
```
It counts for each attempt, from the pod's start. Choose what the slowest sound run takes, times a few.""",
    check=_check,
)
