"""Where a pipeline trains: on CPUs, on GPUs, after a parallel search, or in more than one pod.

Each is a branch, so that what only some trainings need (a GPU's node, an image with CUDA) is asked for by no other.
What KFP fixes when it compiles is here; what it takes when a run starts comes from the resolve step.
"""

from typing import Any

from kfp import dsl, kubernetes

from components.train.component import search, train, train_job
from components.train.schedule import MOST_WORKERS, SHARED_MEMORY
from pipelines.policy import governed, needs


def trained(table: Any, source: dsl.PipelineTask, accelerator_type: str, nodes: int, **given: Any) -> dsl.OneOf:
    """Train where the resolve step says.

    Args:
        table: the feature set.
        source: the resolve step.
        accelerator_type: the resource's name.
        nodes: pods that train one model together.
        given: the train step's own parameters.

    Returns:
        The bundle, from whichever branch made it.
    """
    branch = source.outputs["Output"]

    def searched(gpu: bool) -> dsl.Collected:
        names = ("model_name", "trainer", "hyperparameters", "seed", "search", "device")
        # All at once: they share one list of trials.
        with dsl.ParallelFor(source.outputs["workers"], name="workers", parallelism=MOST_WORKERS) as worker:
            asked = {name: given[name] for name in names}
            task = search(features=table, worker=worker, workers=source.outputs["workers"], **asked)
            _placed(task, source, accelerator_type if gpu else "")
        return dsl.Collected(task.output)

    def made(gpu: bool, found: dsl.Collected | list[Any]) -> dsl.PipelineTask:
        return _placed(train(features=table, found=found, **given), source, accelerator_type if gpu else "")

    with dsl.If(branch == "cpu", name="on CPUs"):
        on_cpus = made(gpu=False, found=[])
    with dsl.Elif(branch == "gpu", name="on GPUs"):
        on_gpus = made(gpu=True, found=[])
    with dsl.Elif(branch == "cpu search", name="search on CPUs"):
        searched_on_cpus = made(gpu=False, found=searched(gpu=False))
    with dsl.Elif(branch == "gpu search", name="search on GPUs"):
        searched_on_gpus = made(gpu=True, found=searched(gpu=True))
    with dsl.Else(name="in several pods"):
        alone = {name: value for name, value in given.items() if name != "search"}
        job = train_job(features=table, image=source.outputs["python_image"], nodes=nodes, **alone)
        in_several_pods = _placed(job, source, accelerator_type, image=False)
    branches = (on_cpus, on_gpus, searched_on_cpus, searched_on_gpus, in_several_pods)
    return dsl.OneOf(*(task.outputs["model"] for task in branches))


def _placed(
    task: dsl.PipelineTask, source: dsl.PipelineTask, accelerator: Any, *, image: bool = True
) -> dsl.PipelineTask:
    """Say what a training step runs in and on which nodes."""
    asked = source.outputs
    governed(task)
    resources = {name: asked[name] for name in ("cpu_request", "cpu_limit", "memory_request", "memory_limit")}
    if accelerator:
        resources |= {"accelerator_type": accelerator, "accelerator_count": asked["accelerators"]}
    needs(task, **resources)
    if image:
        task.set_container_image(asked["python_image"])
    # KFP 2.17 leaves what resources refer to out of the inputs of the branch around the step.
    task.register_pipeline_channels(list(resources.values()))
    kubernetes.add_node_selector_json(task, asked["node_selector"])
    kubernetes.add_toleration_json(task, asked["tolerations"])
    if image:  # the pods of a job get theirs from the step that submits it
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", "Memory", SHARED_MEMORY)  # noqa: S108 - a mount
    return kubernetes.use_secret_as_volume(task, "sluiceway-signing", "/etc/sluiceway/signing", optional=True)
