"""Which device a training takes, what it says, and how it is watched."""

import sys
import time
from types import SimpleNamespace

import pytest
import torch

from components.errors import BadInput
from components.train.devices import Accelerator, Driver, Sampler, Sight, choose, driver, first
from components.train.torch import device as torch_device
from components.train.torch.distributed import processes

H100 = Accelerator("cuda", "NVIDIA H100 80GB HBM3", 85_000_000_000, 1, (9, 0))
NEW = Driver("580.65.06", (13, 0), 1)
NONE = {
    "no driver": (
        Sight("torch 2.13.0", None, "13.0", None),
        "no NVIDIA driver answers on this machine: run on a node with a GPU",
    ),
    "no gpu": (
        Sight("torch 2.13.0", None, "13.0", Driver("580.65.06", (13, 0), 0)),
        "the NVIDIA driver 580.65.06 sees no GPU: ask for one for this step",
    ),
    "a build for CPUs": (
        Sight("torch 2.13.0+cpu", None, "", NEW),
        "torch 2.13.0+cpu is built for CPUs only: use the image with CUDA",
    ),
    "an old driver": (
        Sight("torch 2.13.0", None, "13.0", Driver("535.104.05", (12, 2), 1)),
        "the NVIDIA driver 535.104.05 is too old: it supports CUDA 12.2 and torch 2.13.0 is built for CUDA 13.0: "
        "update the driver (580.65.06 or newer)",
    ),
    "a hidden gpu": (Sight("torch 2.13.0", None, "12.8", NEW), "look at CUDA_VISIBLE_DEVICES"),
}


@pytest.mark.parametrize("case", NONE)
def test_a_gpu_that_is_required_and_not_there_fails_with_the_reason(case):
    sight, reason = NONE[case]
    with pytest.raises(BadInput, match="A GPU is required, but") as raised:
        choose("gpu", sight, print)
    assert reason in str(raised.value)


@pytest.mark.parametrize("case", NONE)
def test_a_gpu_that_is_preferred_and_not_there_is_said_and_the_cpu_taken(case):
    sight, reason = NONE[case]
    said = []
    assert torch_device.choose("auto", "auto", 0, said.append, sight).torch == torch.device("cpu")
    assert reason in said[0]
    assert said[1].startswith("Training on the CPU (")
    assert "GB of memory free) in fp32" in said[1]


def test_the_device_is_said_with_name_memory_and_arithmetic():
    said = []
    sight = Sight("torch 2.13.0", H100, "13.0", NEW)
    device = torch_device.choose("auto", "auto", 0, said.append, sight)
    assert device.torch == torch.device("cuda", 0)
    assert said == ["Training on NVIDIA H100 80GB HBM3 (85 GB) in bf16."]
    assert torch_device.choose("cpu", "auto", 0, said.append, sight).torch == torch.device("cpu")


def test_each_process_of_a_pod_takes_a_gpu_of_its_own():
    sight = Sight("torch", Accelerator("cuda", "T4", 0, 4, (7, 5)), "12.8", NEW)
    taken = [torch_device.choose("gpu", "auto", local, print, sight).torch.index for local in range(4)]
    assert taken == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("capability", "wanted", "chosen"),
    [
        ((9, 0), "auto", "bf16"),
        ((8, 0), "auto", "bf16"),
        ((7, 5), "auto", "fp16"),
        ((6, 1), "auto", "fp32"),
        ((9, 0), "fp32", "fp32"),
    ],
)
def test_the_arithmetic_follows_from_what_the_gpu_can(capability, wanted, chosen):
    assert torch_device.precision(wanted, Accelerator("cuda", "x", 0, 1, capability)) == chosen


def test_half_precision_without_a_gpu_is_refused():
    assert torch_device.precision("auto", None) == "fp32"
    assert torch_device.precision("auto", Accelerator("mps", "Apple GPU", 0)) == "fp32"
    with pytest.raises(BadInput, match="'fp16', which needs an NVIDIA GPU"):
        torch_device.precision("fp16", None)


def test_a_small_batch_is_not_spread_over_many_gpus(monkeypatch):
    monkeypatch.delenv("SLUICEWAY_TRAIN_PROCESSES", raising=False)
    assert [processes(8, batch) for batch in (64, 512, 1024, 8192)] == [1, 2, 4, 8]
    monkeypatch.setenv("SLUICEWAY_TRAIN_PROCESSES", "3")
    assert processes(1, 64) == 3
    monkeypatch.setenv("SLUICEWAY_TRAIN_PROCESSES", "many")
    with pytest.raises(BadInput, match="SLUICEWAY_TRAIN_PROCESSES is 'many'"):
        processes(1, 64)


def test_a_container_limit_counts_as_memory(monkeypatch):
    monkeypatch.setattr(
        torch_device.Path, "read_text", lambda path: {"memory.max": "3000", "memory.current": "1000"}.get(path.name, "")
    )
    assert torch_device.free_memory() == 2000


class Nvml:
    """NVML as far as it is asked, with a GPU that is busy to 80 % and then to 40 %."""

    class NVMLError(Exception):
        pass

    def __init__(self, answers=True):
        self.answers, self.asked, self.open = answers, [], 0

    def nvmlInit(self):  # noqa: N802
        if not self.answers:
            raise self.NVMLError
        self.open += 1

    def nvmlShutdown(self):  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, name):  # noqa: N802
        return name

    def nvmlDeviceGetUtilizationRates(self, name):  # noqa: N802
        self.asked.append(name)
        return SimpleNamespace(gpu=80 if len(self.asked) % 2 else 40)

    def nvmlDeviceGetMemoryInfo(self, name):  # noqa: N802
        return SimpleNamespace(used=2_000_000_000 * len(self.asked))


def test_use_and_memory_are_sampled_between_two_reports(monkeypatch):
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr("components.train.devices._EVERY", 0.005)
    with Sampler(["GPU-1"]) as sampler:
        while len(nvml.asked) < 4:
            time.sleep(0.005)
        first = sampler.metrics()
    assert set(nvml.asked) == {"GPU-1"}
    assert 0.4 <= first["gpu_utilisation"] <= 0.8
    assert first["gpu_memory_gb"] >= 8 - 2
    assert sampler.whole()["gpu_memory_gb"] >= first["gpu_memory_gb"]
    assert nvml.open == 0


def test_without_nvml_or_a_gpu_nothing_is_sampled(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(answers=False))
    assert driver() is None
    for names in (["GPU-1"], []):
        with Sampler(names) as sampler:
            pass
        assert sampler.metrics() == sampler.whole() == {}


def test_the_first_gpus_are_those_that_this_process_may_use(monkeypatch):
    class Numbered(Nvml):
        def nvmlDeviceGetCount(self):  # noqa: N802
            return 4

        def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
            return index

        def nvmlDeviceGetUUID(self, index):  # noqa: N802
            return f"GPU-{index}"

    monkeypatch.setitem(sys.modules, "pynvml", Numbered())
    assert first(0) == []
    assert first(2) == ["GPU-0", "GPU-1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 1")
    assert first(2) == ["GPU-3", "GPU-1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-abc")
    assert first(1) == ["GPU-abc"]
