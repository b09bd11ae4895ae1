"""The accelerators of this machine: which one to train on, why there is none, and how busy they are."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from components.errors import BadInput
from components.train.contract import DeviceWish

LEAST_DRIVER = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
"""The oldest Linux driver for each major CUDA version (CUDA Toolkit release notes, minor version compatibility)."""
_EVERY = 0.25  # seconds between two samples


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver, as NVML tells it.

    Attributes:
        version: for instance ``535.104.05``.
        cuda: the newest CUDA version that it supports, as major and minor.
        gpus: how many GPUs it sees; a process may be allowed fewer.
    """

    version: str
    cuda: tuple[int, int]
    gpus: int


@dataclass(frozen=True)
class Accelerator:
    """GPUs of one kind that a framework can use.

    Attributes:
        kind: ``cuda`` or ``mps``.
        name: of the first, as its maker calls it.
        memory: of the first, in bytes; 0 where it is not known.
        count: how many this process may use.
        capability: CUDA compute capability.
    """

    kind: Literal["cuda", "mps"]
    name: str
    memory: int
    count: int = 1
    capability: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        """For instance ``NVIDIA H100 80GB HBM3 (80 GB)``."""
        size = f" ({self.memory / 1e9:.0f} GB)" if self.memory else ""
        return f"{f'{self.count} x ' if self.count > 1 else ''}{self.name}{size}"


@dataclass(frozen=True)
class Sight:
    """What a framework and the driver say of this machine.

    Attributes:
        framework: its name and version.
        accelerator: what the framework can use; None for nothing.
        built_for: the CUDA version that the framework is built for; empty for a build for CPUs.
        driver: None where no NVIDIA driver answers.
    """

    framework: str
    accelerator: Accelerator | None
    built_for: str
    driver: Driver | None


def choose(wish: DeviceWish, sight: Sight, say: Callable[[str], None]) -> Accelerator | None:
    """The accelerator to train on, or None for the CPU; says why where there is none.

    Raises:
        BadInput: a GPU is required and the framework can use none; says why.
    """
    if wish == "cpu":
        return None
    if sight.accelerator is not None:
        return sight.accelerator
    reason = why_none(sight)
    if wish == "gpu":
        raise BadInput(f"A GPU is required, but {reason}, or train with device auto or cpu.")
    say(f"Training on the CPU: {reason}.")
    return None


def why_none(sight: Sight) -> str:
    """Why a framework can use no GPU, and what to do; the middle of a sentence."""
    driver, framework = sight.driver, sight.framework
    if driver is None:
        return "no NVIDIA driver answers on this machine: run on a node with a GPU"
    if not driver.gpus:
        return f"the NVIDIA driver {driver.version} sees no GPU: ask for one for this step"
    if not sight.built_for:
        return f"{framework} is built for CPUs only: use the image with CUDA"
    major = int(sight.built_for.partition(".")[0])
    if driver.cuda[0] < major:
        least = f" ({LEAST_DRIVER[major]} or newer)" if major in LEAST_DRIVER else ""
        return (
            f"the NVIDIA driver {driver.version} is too old: it supports CUDA {'.'.join(map(str, driver.cuda))} and "
            f"{framework} is built for CUDA {sight.built_for}: update the driver{least}"
        )
    return f"{framework} finds none of the driver's {driver.gpus}: look at CUDA_VISIBLE_DEVICES"


def driver() -> Driver | None:
    """Ask NVML; None where no NVIDIA driver answers."""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            supported = pynvml.nvmlSystemGetCudaDriverVersion_v2()
            cuda = (supported // 1000, supported % 1000 // 10)
            return Driver(_text(pynvml.nvmlSystemGetDriverVersion()), cuda, pynvml.nvmlDeviceGetCount())
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None


def first(count: int) -> list[str]:
    """UUIDs of the first GPUs that this process may use, for a framework that does not tell them; empty without NVML.

    ``CUDA_VISIBLE_DEVICES`` names them by UUID or by NVML's number; in a pod the driver shows only the pod's own.
    """
    if not count:
        return []
    import pynvml

    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    try:
        pynvml.nvmlInit()
        try:
            named = visible or [str(index) for index in range(pynvml.nvmlDeviceGetCount())]
            return [
                _text(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(int(name))))
                if name.isdigit()
                else name
                for name in named[:count]
            ]
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return []


@dataclass
class Usage:
    """What the samples since the last report came to.

    Attributes:
        busy: percent of the time in which a kernel ran, one value per sample, the mean over the GPUs.
        memory: largest use of any GPU's memory, bytes.
    """

    busy: list[float] = field(default_factory=list)
    memory: int = 0

    def metrics(self) -> dict[str, float]:
        """``gpu_utilisation`` from 0 to 1 and ``gpu_memory_gb``; empty without a sample."""
        if not self.busy:
            return {}
        return {"gpu_utilisation": sum(self.busy) / len(self.busy) / 100, "gpu_memory_gb": self.memory / 1e9}


class Sampler:
    """Samples use and memory of GPUs in a thread; does nothing where NVML does not answer.

    Use it as a context. Whatever else runs on these GPUs is counted too.

    Args:
        names: PCI addresses or UUIDs of the GPUs, as the framework tells them; empty samples none.
    """

    def __init__(self, names: list[str]) -> None:
        """Nothing is sampled yet."""
        self._names = names
        self._usage, self._whole = Usage(), Usage()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Sampler":
        """Begin to sample."""
        if self._names:
            self._thread = threading.Thread(target=self._run, name="gpu sampler", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def metrics(self) -> dict[str, float]:
        """What was sampled since this was last asked; see :meth:`Usage.metrics`."""
        with self._lock:
            told, self._usage = self._usage, Usage()
        return told.metrics()

    def whole(self) -> dict[str, float]:
        """What was sampled since the beginning."""
        with self._lock:
            return self._whole.metrics()

    def _run(self) -> None:
        import pynvml

        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            return
        try:
            handles = [self._handle(pynvml, name) for name in self._names]
            while not self._stop.wait(_EVERY):
                self._add(pynvml, handles)
        except pynvml.NVMLError:
            return  # an epoch without these figures is better than none
        finally:
            pynvml.nvmlShutdown()

    @staticmethod
    def _handle(nvml: Any, name: str) -> Any:
        return nvml.nvmlDeviceGetHandleByUUID(name) if "-" in name else nvml.nvmlDeviceGetHandleByPciBusId(name)

    def _add(self, nvml: Any, handles: list[Any]) -> None:
        busy = [nvml.nvmlDeviceGetUtilizationRates(handle).gpu for handle in handles]
        memory = max(int(nvml.nvmlDeviceGetMemoryInfo(handle).used) for handle in handles)
        with self._lock:
            for usage in (self._usage, self._whole):
                usage.busy.append(sum(busy) / len(busy))
                usage.memory = max(usage.memory, memory)


def peak_memory() -> int:
    """The most main memory that this process has held at once, bytes."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
