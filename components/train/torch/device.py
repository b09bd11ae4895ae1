"""What torch trains on here, in which arithmetic, and how much fits."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.amp.autocast_mode import autocast

from components.errors import BadInput
from components.train import devices
from components.train.contract import DeviceWish
from components.train.devices import Accelerator, Sight

_TYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_SHARE = 0.5  # of the memory that is free, for the encoded rows
_WORK = 100_000_000  # multiplications per batch that are worth a thread of their own


@dataclass(frozen=True)
class Device:
    """What to train on.

    Attributes:
        torch: the device.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        accelerator: None on the CPU.
    """

    torch: torch.device
    precision: str
    accelerator: Accelerator | None = None

    @property
    def autocast(self) -> autocast:
        """A context in which matrix products are of the precision."""
        kind = _TYPES[self.precision]
        return autocast(self.torch.type, kind or torch.bfloat16, enabled=kind is not None)

    @property
    def sampled(self) -> list[str]:
        """The GPU that this process trains on, as NVML knows it."""
        if self.torch.type != "cuda":
            return []
        return [f"GPU-{torch.cuda.get_device_properties(self.torch).uuid}"]

    def room(self) -> int:
        """Bytes that encoded rows may take on it."""
        if self.torch.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.torch)
            return int(free * _SHARE)
        if self.torch.type == "mps":
            return int((torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()) * _SHARE)
        return int(free_memory() * _SHARE)

    def wait(self) -> None:
        """Wait until everything that was asked of it is done."""
        if self.torch.type == "cuda":
            torch.cuda.synchronize(self.torch)
        elif self.torch.type == "mps":
            torch.mps.synchronize()

    def reseed(self, seed: int) -> None:
        """Draw from here on as this seed says, on this device."""
        if self.torch.type == "cuda":
            torch.cuda.default_generators[self.torch.index or 0].manual_seed(seed)
        elif self.torch.type == "mps":
            torch.mps.manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)


def look() -> Sight:
    """What torch and the driver say of this machine."""
    name, built = f"torch {torch.__version__}", torch.version.cuda or ""
    driver = devices.driver()
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        capability = (properties.major, properties.minor)
        count = torch.cuda.device_count()
        found = Accelerator("cuda", properties.name, properties.total_memory, count, capability)
        return Sight(name, found, built, driver)
    if torch.backends.mps.is_available():
        return Sight(name, Accelerator("mps", "Apple GPU", torch.mps.recommended_max_memory()), built, driver)
    return Sight(name, None, built, driver)


def precision(wanted: str, accelerator: Accelerator | None) -> str:
    """The arithmetic of matrix products: bf16 from Ampere on, fp16 on Volta and Turing, else fp32.

    Raises:
        BadInput: fp16 where there is no GPU for it.
    """
    if wanted == "fp16" and (accelerator is None or accelerator.kind != "cuda"):
        raise BadInput(
            "The hyperparameter 'precision' is 'fp16', which needs an NVIDIA GPU: choose auto, fp32 or bf16."
        )
    if wanted != "auto":
        return wanted
    if accelerator is None or accelerator.kind != "cuda":
        return "fp32"
    if accelerator.capability >= (8, 0):
        return "bf16"
    return "fp16" if accelerator.capability >= (7, 0) else "fp32"


def choose(wish: DeviceWish, wanted: str, local: int, say: Callable[[str], None], sight: Sight | None = None) -> Device:
    """The device of this process, said with its name and memory.

    Args:
        wish: what the user wants to train on.
        wanted: the precision asked for.
        local: which of the machine's GPUs is this process's.
        say: told one sentence.
        sight: what there is; looked for where it is not given.

    Raises:
        BadInput: a GPU is required and there is none; or the precision does not go with the device.
    """
    accelerator = devices.choose(wish, sight or look(), say)
    chosen = precision(wanted, accelerator)
    if accelerator is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        say(f"Training on the CPU ({cores} cores, {free_memory() / 1e9:.1f} GB of memory free) in {chosen}.")
        return Device(torch.device("cpu"), chosen)
    say(f"Training on {accelerator} in {chosen}.")
    return Device(torch.device(accelerator.kind, local % accelerator.count), chosen, accelerator)


def free_memory() -> int:
    """Main memory that this process may still take, bytes; a container's limit counts."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # not in a container, or without a limit ("max")
            continue
    return max(free, 0)


@contextmanager
def exact(device: Device, work: int, threads: int) -> Iterator[None]:
    """Within the block torch gives the same bits for the same seed, and draws do not disturb the caller's.

    The number of threads decides how sums are split, so it follows from the work and the machine, never from its load.
    TF32 is on unless full precision is asked for.

    Args:
        device: what is trained on.
        work: multiplications per batch.
        threads: how many this process may use on the CPU.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    filling: Any = torch.utils.deterministic
    fills, matmul = filling.fill_uninitialized_memory, torch.get_float32_matmul_precision()
    indices = [device.torch.index or 0] if device.torch.type == "cuda" else []
    for index in indices:
        torch.cuda.set_device(index)  # what NCCL and the compiler go by
    with torch.random.fork_rng(devices=indices):
        try:
            torch.set_num_threads(max(1, min(threads, work // _WORK)) if device.torch.type == "cpu" else 1)
            torch.use_deterministic_algorithms(True)
            filling.fill_uninitialized_memory = False
            torch.set_float32_matmul_precision("highest" if device.precision == "fp32" else "high")
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.use_deterministic_algorithms(before[1])
            filling.fill_uninitialized_memory = fills
            torch.set_float32_matmul_precision(matmul)
