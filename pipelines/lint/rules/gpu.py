"""SW010 and SW011: a task with a GPU reaches a node that has one, and has shared memory."""

from collections.abc import Iterator

from pipelines.lint.findings import Severity
from pipelines.lint.package import Package, Task
from pipelines.lint.quantity import amount
from pipelines.lint.rule import Found, Rule, about
from pipelines.lint.spot import Spot
from pipelines.project import Project

_SHARED = "/dev/shm"  # noqa: S108 - where it is mounted


def _check_tolerations(package: Package, _: Project) -> Iterator[Found]:
    for task in _with_gpu(package):
        if not any(_says_something(task, toleration) for toleration in task.kubernetes["tolerations"].each()):
            yield about(
                task,
                task.container["resources"]["accelerator"],
                "takes an accelerator and tolerates no taint: call kubernetes.add_toleration(task, "
                "key='nvidia.com/gpu', operator='Exists', effect='NoSchedule') or what your nodes are tainted with.",
            )


def _check_shared_memory(package: Package, _: Project) -> Iterator[Found]:
    for task in _with_gpu(package):
        if _passed_on(task):
            continue  # the accelerator is for the pods of a job that this task submits
        accelerator = task.container["resources"]["accelerator"]
        call = "kubernetes.empty_dir_mount(task, 'shared-memory', '/dev/shm', 'Memory', '2Gi')"
        where, size = _shared_memory(task)
        if not where:
            yield about(task, accelerator, f"takes an accelerator and has 64 MB of shared memory: call {call}.")
        elif not size:
            yield about(task, where, f"has shared memory without a limit, up to half its node's memory: call {call}.")
        else:
            most = task.resolve(task.container["resources"]["resourceMemoryLimit"]).value
            shared, limit = amount(size), amount(most or "")
            if shared is not None and limit is not None and shared >= limit:
                yield about(
                    task,
                    where,
                    f"may fill {size} of shared memory, which counts against its memory limit of {most}: raise the "
                    "limit by that much.",
                )


def _with_gpu(package: Package) -> Iterator[Task]:
    for task in package.containers():
        accelerator = task.container["resources"]["accelerator"]
        count = accelerator["resourceCount"] or accelerator["count"]
        if accelerator and task.resolve(count).value != "0":
            yield task


def _passed_on(task: Task) -> bool:
    """Whether the task's resources are not its own pod's, but a job's (``dsl.TaskConfigPassthrough``)."""
    return any(
        one["field"].text() == "RESOURCES" and not one["applyToTask"].value
        for one in task.component["taskConfigPassthroughs"].each()
    )


def _says_something(task: Task, toleration: Spot) -> bool:
    given = toleration["tolerationJson"]
    return task.input(given).value not in ("", "[]", "{}") if given else bool(toleration.value)


def _shared_memory(task: Task) -> tuple[Spot, str]:
    """Where the shared memory is mounted, and its size."""
    enabled = task.kubernetes["enabledSharedMemory"]
    if enabled:
        return enabled, enabled["size"].text()
    for mount in task.kubernetes["emptyDirMounts"].each():
        if mount["mountPath"].text().rstrip("/") == _SHARED and mount["medium"].text() == "Memory":
            return mount, mount["sizeLimit"].text()
    return Spot(None, 0), ""


TOLERATIONS = Rule(
    id="SW010",
    name="gpu-tolerations",
    severity=Severity.ERROR,
    summary="A task with an accelerator tolerates the taints of nodes that have one.",
    why="""Nodes with GPUs are tainted nearly everywhere, so that nothing cheap blocks them: GKE does it by itself. A
pod without a toleration for that taint stays Pending until its run times out, and KFP shows a task that is running.

```python
kubernetes.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
```
Spot nodes have another taint: tolerate both.""",
    check=_check_tolerations,
)

SHARED_MEMORY = Rule(
    id="SW011",
    name="gpu-shared-memory",
    severity=Severity.ERROR,
    summary="A task with an accelerator has /dev/shm in memory, with a size limit below its memory limit.",
    why="""Data loaders and NCCL pass tensors through `/dev/shm`, and a container gets 64 MB of it: a training with
more than one worker ends in "bus error" or hangs. Mount a volume in memory there.

Without a size limit it takes up to half of the node's memory, and what is in it counts as memory of the container: a
training that fills it is killed for memory that no profiler shows. So give it a limit, and count it in the memory
limit.

```python
kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", "Memory", "2Gi")
task.set_memory_limit("10Gi")  # 8 for the training, 2 for shared memory
```""",
    check=_check_shared_memory,
)
