"""What a model was made with and what that took: packages, machine, device, time, memory, energy, cost.

None of it decides what the model is. What cannot be measured is left out, not guessed.
"""

import os
import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any

from components.errors import BadInput
from serving.schema import Framework

PACKAGES_FILE = "environment.txt"
"""In the bundle: every package that was installed, as ``requirements.txt`` names the few that loading needs."""
PRICE = "SLUICEWAY_PRICE_PER_HOUR"
RAPL = Path("/sys/class/powercap")
CGROUP = Path("/sys/fs/cgroup/cpu.max")
DISTRIBUTIONS: dict[Framework, str] = {
    "sklearn": "scikit-learn",
    "torch": "torch",
    "tensorflow": "tensorflow",
    "onnx": "onnxruntime",
}


def packages() -> str:
    """Every installed distribution as ``name==version``, a line each, sorted."""
    from importlib.metadata import distributions

    about = [found.metadata for found in distributions()]  # parsed anew at each look, which takes longest here
    return "".join(sorted({f"{found['Name']}=={found['Version']}\n" for found in about}, key=str.lower))


def machine(framework: Framework, device: str) -> dict[str, Any]:
    """What a model was made on.

    Args:
        framework: whose version is named.
        device: as the trainer named it, such as ``cuda:0 NVIDIA L4, 22.5 GB``; empty for the CPU.
    """
    from importlib.metadata import version

    return {
        "framework": f"{DISTRIBUTIONS[framework]} {version(DISTRIBUTIONS[framework])}",
        "device": device or "cpu",
        "cpu": _cpu_model(),
        "cpus": _cpus(CGROUP),
    }


class Meter:
    """Counts what a training takes, from when it is made.

    ``energy_joules`` is that of the processors of the whole machine, by Intel's RAPL counters, and of the GPUs that
    the training may use, by NVIDIA's; other pods on the same machine count in it. It is there only where one of
    them can be read. ``cost`` is there where ``SLUICEWAY_PRICE_PER_HOUR`` says what an hour of this pod costs, in
    whatever currency that is.

    Raises:
        BadInput: the price is not a number.
    """

    def __init__(self, gpus: int = 0, rapl: Path = RAPL) -> None:
        """Start counting.

        Args:
            gpus: how many GPUs the training uses, the first ones; 0 does not look for any.
            rapl: where the kernel shows the counters.
        """
        self._price = _price()
        self._gpus, self._rapl = gpus, rapl
        self._began, self._cpu = time.monotonic(), _cpu_seconds()
        self._energy = self._joules()

    def spent(self) -> dict[str, Any]:
        """What it took so far."""
        seconds = time.monotonic() - self._began
        spent: dict[str, Any] = {
            "seconds": round(seconds, 3),
            "cpu_seconds": round(_cpu_seconds() - self._cpu, 3),
            "peak_memory_mb": round(_peak_memory() / 1e6, 1),
        }
        now = self._joules()
        same = {name: value - self._energy[name] for name, value in now.items() if name in self._energy}
        if same and min(same.values()) >= 0:  # a counter that has wrapped round says nothing
            spent["energy_joules"] = round(sum(same.values()), 1)
        if self._price is not None:
            spent["cost"] = round(seconds / 3600 * self._price, 6)
        return spent

    def _joules(self) -> dict[str, float]:
        return _rapl_joules(self._rapl) | (_gpu_joules(self._gpus) if self._gpus else {})


def _price() -> float | None:
    text = os.environ.get(PRICE, "")
    if not text:
        return None
    try:
        price = float(text)
    except ValueError as error:
        raise BadInput(f"{PRICE} is {text!r}; it must be what an hour costs, as a number.") from error
    if not 0 <= price < float("inf"):
        raise BadInput(f"{PRICE} is {text!r}; it must be what an hour costs, as a number.")
    return price


def _cpu_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _peak_memory() -> int:
    """Bytes that this process held at most, or one that it started and waited for.

    ``getrusage`` counts for a process what the one held that started it; the kernel's own mark does not.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        own = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), own)
    except OSError:
        pass
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _cpus(limit: Path) -> float:
    """How many processors this process may use: of a pod its limit, which may be a part of one."""
    allowed = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        quota, period = limit.read_text().split()
        return allowed if quota == "max" else min(allowed, int(quota) / int(period))
    except (OSError, ValueError):
        return allowed


def _rapl_joules(folder: Path) -> dict[str, float]:
    """The energy counter of each processor package; only root reads them on most machines."""
    joules = {}
    for counter in sorted(folder.glob("intel-rapl:*/energy_uj")):
        if counter.parent.name.count(":") == 1:  # those below are parts of it
            try:
                joules[counter.parent.name] = int(counter.read_text()) / 1e6
            except (OSError, ValueError):
                continue
    return joules


def _gpu_joules(count: int) -> dict[str, float]:
    import pynvml

    joules: dict[str, float] = {}
    try:
        pynvml.nvmlInit()
        for index in range(count):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            joules[f"gpu {index}"] = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
    except pynvml.NVMLError:  # no driver here, or a GPU that does not count
        return joules
    return joules
