"""Several processes that train one network: one per GPU of this pod, or those of a torchrun or TrainJob group.

The process that was asked to train is rank 0; it starts the others of its pod and ends them. They get the same rows in
the same order, each takes its share of every batch, and DistributedDataParallel adds the gradients up.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from components.errors import BadInput
from components.train.checkpoints import State

LEAST_SHARE = 256
"""Rows per step below which a further GPU costs more than it saves."""
_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class Group:
    """The processes that train together; alone by default."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process measures, saves and tells."""
        return self.rank == 0

    def total(self, value: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def least(self, value: int, device: torch.device) -> int:
        """The least of the processes' values."""
        if self.size == 1:
            return value
        told = torch.tensor(value, device=device)
        dist.all_reduce(told, dist.ReduceOp.MIN)
        return int(told)

    def agreed(self, value: float, device: torch.device) -> float:
        """Rank 0's value."""
        if self.size == 1:
            return value
        told = torch.tensor(value, dtype=torch.float64, device=device)
        dist.broadcast(told, 0)
        return float(told)

    def shared(self, state: State | None, device: torch.device) -> State | None:
        """Rank 0's state of the training, as plain bytes."""
        if self.size == 1:
            return state
        from safetensors.numpy import load, save

        data = b"" if state is None else save(dict(state.arrays), {"facts": json.dumps(dict(state.facts))})
        length = int(self.agreed(float(len(data)), device))
        if not length:
            return None
        told = torch.empty(length, dtype=torch.uint8)
        if self.first:
            told = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        told = told.to(device)
        dist.broadcast(told, 0)
        data = told.cpu().numpy().tobytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return State(load(data), json.loads(header["__metadata__"]["facts"]))


def local_rank() -> int:
    """Which of its pod's processes this one is, in a group that somebody else has started."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def started_by_others() -> bool:
    """Whether torchrun, or a TrainJob, has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ and "MASTER_ADDR" in os.environ


def processes(gpus: int, batch: int) -> int:
    """How many processes train together: one per GPU, as long as each has enough of a batch.

    Args:
        gpus: how many this process may use.
        batch: rows per step, over all of them.

    Raises:
        BadInput: ``SLUICEWAY_TRAIN_PROCESSES``, which overrides it, is no count.
    """
    wanted = os.environ.get("SLUICEWAY_TRAIN_PROCESSES", "")
    if not wanted:
        return max(1, min(gpus, batch // LEAST_SHARE))
    if not wanted.isdecimal() or not 1 <= int(wanted) <= 64:
        raise BadInput(f"SLUICEWAY_TRAIN_PROCESSES is {wanted!r}; it must be a number from 1 to 64.")
    return int(wanted)


@contextmanager
def group(size: int, device: torch.device, work: dict[str, Any]) -> Iterator[Group]:
    """Join the group that this process was started in, or start one of the given size; alone for 1.

    Args:
        size: how many processes to start, this one included.
        device: of this process; CUDA talks by NCCL, everything else by Gloo.
        work: what :mod:`components.train.torch.worker` is told.
    """
    backend = "nccl" if device.type == "cuda" else "gloo"
    if started_by_others():
        dist.init_process_group(backend, timeout=_TIMEOUT)
        with _ended():
            yield Group(dist.get_rank(), dist.get_world_size())
    elif size > 1:
        with tempfile.TemporaryDirectory(prefix="sluiceway-group-") as folder:
            store = Path(folder, "store").as_uri()
            with _workers(size, {**work, "store": store, "size": size, "ready": folder}) as workers:
                _wait_until_ready(Path(folder), workers)
                join(backend, store, 0, size)
                with _ended():
                    yield Group(0, size)
    else:
        yield Group()


def join(backend: str, store: str, rank: int, size: int) -> None:
    """Join a group on this machine that meets at a file."""
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(backend, init_method=store, rank=rank, world_size=size, timeout=_TIMEOUT)


@contextmanager
def _ended() -> Iterator[None]:
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def _workers(size: int, work: dict[str, Any]) -> Iterator[list[subprocess.Popen[str]]]:
    """The processes of rank 1 and up. They end with the block, and when this process is killed: their input closes."""
    started: list[subprocess.Popen[str]] = []
    try:
        for rank in range(1, size):
            command = [sys.executable, "-m", "components.train.torch.worker"]
            worker = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=_environment(size)
            )
            started.append(worker)
            assert worker.stdin is not None
            with suppress(BrokenPipeError):  # it has ended already, which is noticed below
                worker.stdin.write(json.dumps({**work, "rank": rank}) + "\n")
                worker.stdin.flush()
        yield started
    finally:
        for worker in started:
            worker.kill()
            worker.wait()
            if worker.stdin is not None:
                with suppress(BrokenPipeError):
                    worker.stdin.close()


def _wait_until_ready(folder: Path, workers: list[subprocess.Popen[str]]) -> None:
    """Wait for the workers where their end is seen: a group waits half an hour for one that is gone."""
    for rank, worker in enumerate(workers, 1):
        while not (folder / str(rank)).exists():
            if worker.poll() is not None:
                raise RuntimeError(f"The training process {rank} ended with {worker.returncode}; its error is above.")
            time.sleep(0.02)


def _environment(size: int) -> dict[str, str]:
    threads = str(max(1, (os.cpu_count() or 1) // size))
    path = os.pathsep.join(entry for entry in sys.path if entry)  # as here, wherever the package came from
    return {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": path}
