"""SW007 and SW008: whether a task is cached was decided, and what is cached may be."""

from collections.abc import Iterator

from pipelines.lint.findings import Severity
from pipelines.lint.package import Package, Task
from pipelines.lint.rule import Found, Rule, about
from pipelines.lint.spot import Spot
from pipelines.project import Project

_OF_THE_RUN = ("$.pipeline_job_", "$.pipeline_task_", "$.scheduled_time", "$.create_time")


def _check_stated(package: Package, _: Project) -> Iterator[Found]:
    for task in package.containers():
        if not task.node["cachingOptions"]:
            yield about(task, task.node, "does not say whether it is cached: call set_caching_options on it.")
    cached = [task for task in package.containers() if _cached(task)]
    if len(cached) > 1 and len(cached) == len(list(package.containers())):
        yield Found(
            cached[0].node["cachingOptions"].line,
            package.name,
            f"All {len(cached)} tasks of {package.name} are cached, which is what kfp writes where nobody decided: "
            "call set_caching_options(False) on those that act on the world or read what moves; where none does, "
            "suppress this and say so.",
            Severity.WARNING,
        )


def _check_safe(package: Package, _: Project) -> Iterator[Found]:
    for task in package.containers():
        options = task.node["cachingOptions"]
        if not _cached(task):
            continue
        outputs = task.component["outputDefinitions"]
        if not outputs["parameters"] and not outputs["artifacts"]:
            yield about(
                task,
                options,
                "is cached and has no output, so a hit skips all that it does: call set_caching_options(False) on it.",
                Severity.ERROR,
            )
        if options["cacheKey"]:
            yield about(
                task,
                options["cacheKey"],
                "has a cache key of its own, which hides a change of its image, code and inputs: leave cache_key out.",
            )
        for name, given in task.node["inputs"]["parameters"].items():
            if of_the_run := _of_the_run(task, given):
                yield about(
                    task,
                    given,
                    f"is cached, but its input {name} ({of_the_run}) differs in every run, so there is never a hit: "
                    "call set_caching_options(False) on it or leave the input out.",
                )


def _cached(task: Task) -> bool:
    return task.node["cachingOptions"]["enableCache"].value is True


def _of_the_run(task: Task, given: Spot) -> str:
    constant = given["runtimeValue"]["constant"].text()
    return constant if any(word in constant for word in _OF_THE_RUN) else ""


STATED = Rule(
    id="SW007",
    name="caching-stated",
    severity=Severity.ERROR,
    summary="Every task says whether it is cached.",
    why="""KFP caches a task unless told otherwise, and a cached task is not run: its outputs of some earlier run are
taken. That is right for a step whose inputs pin what it reads, and wrong for a step that reads a moving source or
acts on the world. Only a person knows which it is.

kfp writes `enableCache: true` both for a task that asked for it and for one that said nothing, so a package does not
tell them apart. `sluiceway compile` can, and refuses a pipeline in which a task does not say. Of packages that
something else compiled, this rule finds what can be seen: a task without caching options, and a package in which
everything is cached.

```python
task.set_caching_options(False)
```""",
    check=_check_stated,
)

SAFE = Rule(
    id="SW008",
    name="cached-safely",
    severity=Severity.WARNING,
    summary="A cached task has outputs, no cache key of its own, and no input that differs in every run.",
    why="""A task without outputs is run for what it does: sends, deploys, deletes. A cache hit skips that, silently.

`cache_key` replaces the key that KFP makes of the image, the command, the arguments and the inputs: change the code,
and the outputs of the old code are taken.

The id of the run or its start time as an input makes every key new: the cache costs a lookup and never hits, and what
the person who turned it on hoped for does not happen.""",
    check=_check_safe,
)
