"""SW015: a loop says how much of it runs at once."""

from collections.abc import Iterator

from pipelines.lint.findings import Severity
from pipelines.lint.package import Package
from pipelines.lint.rule import Found, Rule
from pipelines.project import Project


def _check(package: Package, _: Project) -> Iterator[Found]:
    for group in package.groups:
        iterator = group.node["parameterIterator"] or group.node["artifactIterator"]
        known = iterator["items"]["raw"]  # a list that is written in the pipeline has the length it has
        if iterator and not known and not group.node["iteratorPolicy"]["parallelismLimit"].value:
            yield Found(
                iterator.line,
                group.name,
                f"Loop {group.name} starts a pod for every item at once, and only a run knows how many: give "
                "dsl.ParallelFor a parallelism.",
            )


RULE = Rule(
    id="SW015",
    name="loop-bounded",
    severity=Severity.WARNING,
    summary="A loop over what only a run knows says how many of its tasks run at once.",
    why="""`dsl.ParallelFor` over the output of a task starts all of its pods at once: ten on the data it was tried
with, ten thousand on the day that somebody passes another. They fill the namespace's quota, and every other run
waits.

```python
with dsl.ParallelFor(parts.output, parallelism=10) as part:
```""",
    check=_check,
)
