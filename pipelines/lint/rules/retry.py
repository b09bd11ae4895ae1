"""SW004 and SW006: every task says how often it is tried again, and a second attempt has the time it needs."""

from collections.abc import Iterator

from pipelines.lint.findings import Severity
from pipelines.lint.package import Package
from pipelines.lint.rule import Found, Rule, about
from pipelines.project import Project


def _check_policy(package: Package, _: Project) -> Iterator[Found]:
    for task in package.containers():
        if not task.node["retryPolicy"]:
            yield about(
                task,
                task.node,
                "does not say how often it is tried again: call set_retry on it; set_retry(0) for never.",
            )


def _check_window(package: Package, _: Project) -> Iterator[Found]:
    for task in package.containers():
        policy = task.node["retryPolicy"]
        window = policy["backoffMaxDuration"].text().removesuffix("s")
        timeout = task.kubernetes["activeDeadlineSeconds"].text()
        if not (policy["maxRetryCount"].value and window.isdigit() and timeout.isdigit()):
            continue
        if 2 * int(timeout) > int(window) > 0:
            yield about(
                task,
                policy["backoffMaxDuration"],
                f"may run {timeout} s but stops being tried again {window} s after its first attempt began: call "
                f"set_retry with backoff_max_duration='{2 * int(timeout)}s' or more, or set a shorter timeout.",
            )


POLICY = Rule(
    id="SW004",
    name="retry",
    severity=Severity.ERROR,
    summary="Every task says how often it is tried again.",
    why="""Nodes are drained, spot nodes are reclaimed, registries time out: a task without a retry policy fails the
whole run for what a second attempt would mend, and a schedule has nobody who presses retry. A task that must not run
twice says so with `set_retry(0)`, where the reader of the pipeline sees it.

```python
task.set_retry(num_retries=3, backoff_duration="30s", backoff_factor=2, backoff_max_duration="6h")
```
A retry starts the step again, so the step must be able to: the same outputs, nothing done twice.""",
    check=_check_policy,
)

WINDOW = Rule(
    id="SW006",
    name="retry-window",
    severity=Severity.WARNING,
    summary="The time in which a task is tried again is at least twice its timeout.",
    why="""`backoff_max_duration` reads like the longest pause between two attempts. It is not: Argo Workflows, which
runs KFP's pods, counts it from the start of the first attempt, tries nothing again after it, and ends a later attempt
when it is over. kfp's default is an hour: a training that may take six and is lost after two is never tried again,
whatever `num_retries` says.

```python
kubernetes.set_timeout(task, 6 * 3600)
task.set_retry(3, backoff_duration="30s", backoff_max_duration="24h")
```""",
    check=_check_window,
)
