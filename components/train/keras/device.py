"""Which device TensorFlow trains on, and in which arithmetic."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from components.errors import BadInput
from components.train.contract import DeviceWish
from serving.keras_model import quiet, tensorflow

POLICIES = {"fp32": "float32", "bf16": "mixed_bfloat16", "fp16": "mixed_float16"}
"""Keras's name of each precision; ``auto`` is one of these by the device."""
_SHARE = 0.5  # of the free memory, that the table may take


@dataclass(frozen=True)
class Gpu:
    """A GPU that TensorFlow can use: its name, CUDA compute capability, and memory in bytes (0: not known)."""

    name: str
    capability: tuple[int, int]
    memory: int


@dataclass(frozen=True)
class Found:
    """What the machine offers.

    Attributes:
        gpus: those that TensorFlow can use.
        build: the CUDA version that TensorFlow was built for; empty for a build without GPU support.
        driver: the newest CUDA version that the NVIDIA driver supports; empty without a driver.
        processor: of the CPU, for the log.
        memory: free main memory in bytes.
    """

    gpus: tuple[Gpu, ...]
    build: str
    driver: str
    processor: str
    memory: int


@dataclass(frozen=True)
class Device:
    """What to train on.

    Attributes:
        names: TensorFlow's names of the devices, such as ``GPU:0``; more than one train together.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        room: bytes that the table may take on each of them.
        sentence: the beginning of what is said of it.
        used: its short name, for the record.
    """

    names: tuple[str, ...]
    precision: str
    room: int
    sentence: str
    used: str = "cpu"

    @property
    def policy(self) -> str:
        """Keras's name of the arithmetic."""
        return POLICIES[self.precision]

    @contextmanager
    def placed(self) -> Iterator[Any]:
        """Within the block tensors are made on the (first) device; yields the distribution strategy."""
        import tensorflow as tf

        if len(self.names) > 1:
            yield tf.distribute.MirroredStrategy(list(self.names))
            return
        with tf.device(f"/{self.names[0]}"):
            yield tf.distribute.get_strategy()


def choose(wish: DeviceWish, precision: str) -> Device:
    """Look at the machine, choose, and set TensorFlow up for it.

    GPU memory is taken as it is needed. What runs in one process twice gives the same bits, on a GPU too.

    Raises:
        BadInput: a GPU is required and there is none that TensorFlow can use; says why.
    """
    tf = tensorflow()
    with quiet():
        found = look()
    device = decide(wish, precision, found)
    _set_up(tf, device)
    return device


def decide(wish: DeviceWish, precision: str, found: Found) -> Device:
    """Choose among what was found.

    Raises:
        BadInput: a GPU is required and there is none; the precision is not one of those there are.
    """
    if precision not in ("auto", *POLICIES):
        raise BadInput(f"precision is {precision!r}; it must be one of auto, {', '.join(POLICIES)}.")
    if wish == "gpu" and not found.gpus:
        raise BadInput(f"A GPU is required and {_why_none(found)}. Choose device auto or cpu to train without one.")
    if wish == "cpu" or not found.gpus:
        asked = "" if wish == "cpu" else f": {_why_none(found)}"
        chosen = "fp32" if precision == "auto" else precision
        sentence = (
            f"Training on the CPU ({found.processor}, {found.memory / 1e9:.1f} GB of memory free) in {chosen}{asked};"
        )
        return Device(("CPU:0",), chosen, int(found.memory * _SHARE), sentence)
    least = min(gpu.capability for gpu in found.gpus)
    chosen = _suited(least) if precision == "auto" else precision
    memory = min(gpu.memory for gpu in found.gpus)
    count = f"{len(found.gpus)} GPUs, " if len(found.gpus) > 1 else ""
    size = f" with {memory / 1e9:.1f} GB of memory" if memory else ""
    sentence = f"Training on {count}{found.gpus[0].name}{size} in {chosen};"
    names = tuple(f"GPU:{index}" for index in range(len(found.gpus)))
    return Device(names, chosen, int(memory * _SHARE), sentence, f"{count}{found.gpus[0].name}{size}")


def _suited(capability: tuple[int, int]) -> str:
    """bf16 needs no loss scaling and is fast from Ampere on; Volta and Turing have fp16 only."""
    if capability >= (8, 0):
        return "bf16"
    return "fp16" if capability >= (7, 0) else "fp32"


def _why_none(found: Found) -> str:
    if not found.build:
        return "this TensorFlow is built without GPU support"
    if not found.driver:
        return "no NVIDIA driver answers on this machine"
    if _major(found.driver) < _major(found.build):
        return f"the NVIDIA driver is too old: it supports CUDA {found.driver}, TensorFlow needs {found.build}"
    return (
        f"TensorFlow finds no GPU although the driver supports CUDA {found.driver}: "
        "install tensorflow[and-cuda], and look at CUDA_VISIBLE_DEVICES"
    )


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def look() -> Found:
    """What this machine offers TensorFlow."""
    import psutil
    import tensorflow as tf

    driver, memories = _driver()
    gpus = []
    for index, gpu in enumerate(tf.config.list_physical_devices("GPU")):
        details = tf.config.experimental.get_device_details(gpu)
        memory = memories[index] if index < len(memories) else 0
        gpus.append(Gpu(details.get("device_name", "GPU"), tuple(details.get("compute_capability", (0, 0))), memory))
    build = str(tf.sysconfig.get_build_info().get("cuda_version", "")) if tf.test.is_built_with_cuda() else ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Found(tuple(gpus), build, driver, f"{cores} cores", psutil.virtual_memory().available)


def _driver() -> tuple[str, list[int]]:
    """The newest CUDA version that the NVIDIA driver supports, and each GPU's free memory in bytes."""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            version = pynvml.nvmlSystemGetCudaDriverVersion()
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            memories = [int(pynvml.nvmlDeviceGetMemoryInfo(handle).free) for handle in handles]
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return "", []
    return f"{version // 1000}.{version % 1000 // 10}", memories


def _set_up(tf: Any, device: Device) -> None:
    tf.config.experimental.enable_op_determinism()
    try:
        if device.names[0].startswith("CPU"):
            tf.config.set_visible_devices([], "GPU")
        for gpu in tf.config.get_visible_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:  # an earlier training in this process has set it up already
        return
