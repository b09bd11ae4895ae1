"""Where a training runs, decided before anything else does: image, node, accelerators, parallel search or more pods.

What KFP can take only as text when a run starts (its back end reads an accelerator count that is a number as none at
all), what Kubernetes would refuse hours later, and what no trainer could use is settled here.
"""

import re
from dataclasses import dataclass
from typing import Any, get_args

from components.errors import BadInput
from components.features.schema import Task
from components.images import for_training
from components.train.contract import DeviceWish, Trainer
from components.train.hyperparameters import near
from components.train.space import plan
from components.train.trainers import find

SHARED_MEMORY = "2Gi"
"""Size of ``/dev/shm`` in a training pod; Kubernetes counts what is used of it against the memory limit."""

RESOURCES = {"cpu_request": "1", "cpu_limit": "4", "memory_request": "2Gi", "memory_limit": "8Gi"}
MOST_WORKERS = 64

_SPOT: dict[str, tuple[dict[str, str], list[dict[str, str]]]] = {
    "gke": (
        {"cloud.google.com/gke-spot": "true"},
        [{"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}],
    ),
    "eks": ({"eks.amazonaws.com/capacityType": "SPOT"}, []),
    "karpenter": ({"karpenter.sh/capacity-type": "spot"}, []),
    "aks": (
        {"kubernetes.azure.com/scalesetpriority": "spot"},
        [
            {
                "key": "kubernetes.azure.com/scalesetpriority",
                "operator": "Equal",
                "value": "spot",
                "effect": "NoSchedule",
            }
        ],
    ),
}
_TASKS = {"auto": get_args(Task), "classification": ("binary", "multiclass")}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|[MGTPE]|[KMGTPE]i)?")
_POWERS = {"": 1.0, "m": 1e-3, "k": 1e3, "Ki": 1024.0} | {
    letter + binary: base ** (2 + index)
    for index, letter in enumerate("MGTPE")
    for binary, base in (("", 1000.0), ("i", 1024.0))
}


@dataclass(frozen=True)
class Wish:
    """What the user asks for; the names are the pipeline's parameters.

    Attributes:
        trainer: name, or ``package.module:callable``.
        hyperparameters: their names are checked.
        task: ``auto``, or what the target is.
        device: ``auto``, ``gpu`` or ``cpu``.
        search: budget and space; ``workers`` above 1 searches in as many pods.
        train_image: the user's own image; empty takes ours.
        nodes: pods that train one model together.
        accelerator_type: the resource's name on the node.
        accelerator_count: in each pod.
        resources: what differs from :data:`RESOURCES`; the limit of memory includes shared memory.
        node_selector: labels that the node must have.
        tolerations: taints that it may have.
        spot: whose spot nodes to use; empty uses those that stay.
    """

    trainer: str
    hyperparameters: dict[str, Any]
    task: str
    device: str
    search: dict[str, Any]
    train_image: str
    nodes: int
    accelerator_type: str
    accelerator_count: int
    resources: dict[str, str | float]
    node_selector: dict[str, str]
    tolerations: list[dict[str, Any]]
    spot: str


@dataclass(frozen=True)
class Schedule:
    """Where the training runs.

    Attributes:
        branch: of the pipeline: ``cpu``, ``gpu``, ``cpu search``, ``gpu search`` or ``nodes``.
        image: of the pods that train.
        accelerators: in each pod, as text.
        resources: a Kubernetes quantity for each key of :data:`RESOURCES`.
        node_selector: with what spot nodes are called.
        tolerations: with those of spot nodes.
        workers: numbers of the pods that search; empty where none do.
    """

    branch: str
    image: str
    accelerators: str
    resources: dict[str, str]
    node_selector: dict[str, str]
    tolerations: list[dict[str, Any]]
    workers: list[int]


def schedule(wish: Wish) -> Schedule:
    """Check a wish and say where it is trained.

    Raises:
        BadInput: a name, a number or a quantity cannot be what is meant; nothing has been read or trained yet.
    """
    trainer = _trainer(wish)
    _check_devices(wish)
    workers = _workers(wish.search)
    gpu = wish.accelerator_count > 0
    if trainer is not None:
        _check_names(wish, trainer)
        _check_search(wish, trainer)
        _check_fit(wish, trainer)
    if wish.search and wish.nodes > 1:
        raise BadInput(
            "A search trains every trial in one pod: set nodes to 1, or search first and then train in several."
        )
    labels, taints = _spot(wish.spot)
    if gpu:  # as nodes with accelerators are tainted, by GKE and NVIDIA's operator
        taints = [*taints, {"key": wish.accelerator_type, "operator": "Exists", "effect": "NoSchedule"}]
    return Schedule(
        branch="nodes" if wish.nodes > 1 else ("gpu" if gpu else "cpu") + (" search" if workers else ""),
        image=wish.train_image or for_training(trainer.framework if trainer else "sklearn", gpu=gpu),
        accelerators=str(wish.accelerator_count),
        resources=_resources(wish.resources),
        node_selector=labels | wish.node_selector,
        tolerations=[*taints, *wish.tolerations],
        workers=workers,
    )


def amount(name: str, quantity: str) -> float:
    """A Kubernetes quantity as a number, ``"1.5Gi"`` in bytes and ``"500m"`` in CPUs.

    Raises:
        BadInput: it is not one; ``name`` says whose it is.
    """
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise BadInput(f'{name} is {quantity!r}; it must be a Kubernetes quantity such as "2", "500m" or "8Gi".')
    return float(match[1]) * _POWERS[match[2] or ""]


def _trainer(wish: Wish) -> Trainer | None:
    """The trainer; None for one that only the user's own image holds."""
    try:
        return find(wish.trainer)
    except BadInput as error:
        if ":" not in wish.trainer:
            raise
        if wish.train_image:
            return None
        raise BadInput(f"{error} Name the image that holds it with train_image.") from error


def _check_devices(wish: Wish) -> None:
    if wish.device not in get_args(DeviceWish):
        raise BadInput(f"The device is {wish.device!r}; it must be one of {', '.join(get_args(DeviceWish))}.")
    if wish.accelerator_count < 0 or wish.nodes < 1:
        raise BadInput(
            f"accelerator_count is {wish.accelerator_count} and nodes is {wish.nodes}; they must be at least 0 and 1."
        )
    if wish.accelerator_count and not wish.accelerator_type:
        raise BadInput(
            'accelerator_count asks for accelerators: name their resource in accelerator_type, as in "nvidia.com/gpu".'
        )
    if wish.accelerator_count and wish.device == "cpu":
        raise BadInput(
            f'accelerator_count is {wish.accelerator_count}, which device "cpu" would not use: set it to 0, or the '
            'device to "auto".'
        )


def _resources(given: dict[str, str | float]) -> dict[str, str]:
    for name in given:
        if name not in RESOURCES:
            raise BadInput(f"resources has no {name!r}{near(name, list(RESOURCES))}.")
    full = RESOURCES | {name: value if isinstance(value, str) else f"{value:g}" for name, value in given.items()}
    amounts = {name: amount(f"resources.{name}", quantity) for name, quantity in full.items()}
    for kind in ("cpu", "memory"):
        least, most = f"{kind}_request", f"{kind}_limit"
        if amounts[least] > amounts[most]:
            raise BadInput(
                f"resources asks for a {least} of {full[least]}, which is more than its {most}, {full[most]}."
            )
    if amounts["memory_limit"] <= amount("shared memory", SHARED_MEMORY):
        raise BadInput(
            f"resources gives a memory_limit of {full['memory_limit']}, of which up to {SHARED_MEMORY} is shared "
            "memory: give more than that."
        )
    return full


def _check_names(wish: Wish, trainer: Trainer) -> None:
    if not wish.hyperparameters:  # only asking for the names imports the framework
        return
    tasks = _TASKS.get(wish.task, (wish.task,))
    known = {name for task in tasks for name in trainer.parameters(task)}
    for name in wish.hyperparameters:
        if name == "random_state":
            raise BadInput("The hyperparameter 'random_state' is set by the parameter 'seed': use that.")
        if name not in known:
            raise BadInput(f"The trainer {wish.trainer!r} has no hyperparameter {name!r}{near(name, sorted(known))}.")


def _check_search(wish: Wish, trainer: Trainer) -> None:
    """A plan must do for one of the tasks that it may be."""
    if not wish.search:
        return
    refused = []
    for task in _TASKS.get(wish.task, (wish.task,)):
        try:
            plan(budget(wish.search), wish.trainer, trainer, task, wish.hyperparameters)
        except BadInput as error:
            refused.append(error)
        else:
            return
    raise refused[0]


def budget(search: dict[str, Any]) -> dict[str, Any]:
    """A search as each worker knows it."""
    return {name: value for name, value in search.items() if name != "workers"}


def _check_fit(wish: Wish, trainer: Trainer) -> None:
    if wish.accelerator_count and trainer.framework == "sklearn":
        raise BadInput(f"The trainer {wish.trainer!r} uses no accelerator: set accelerator_count to 0.")
    if wish.nodes > 1 and (trainer.framework == "sklearn" or wish.trainer == "keras"):
        raise BadInput(f"The trainer {wish.trainer!r} trains in one pod: set nodes to 1.")


def _workers(search: dict[str, Any]) -> list[int]:
    count = search.get("workers", 1)
    if not isinstance(count, int | float) or count != int(count) or not 1 <= count <= MOST_WORKERS:
        raise BadInput(f"search.workers is {count!r}; it must be a whole number from 1 to {MOST_WORKERS}.")
    return list(range(int(count))) if count > 1 else []


def _spot(whose: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    if whose and whose not in _SPOT:
        raise BadInput(f"There are no spot nodes called {whose!r}{near(whose, list(_SPOT))}.")
    return _SPOT.get(whose, ({}, []))
