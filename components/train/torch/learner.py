"""Steps of gradient descent on a device: arithmetic, memory, optimiser and its state."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from components.errors import BadInput
from components.features.schema import Task
from components.train.torch.device import Device
from components.train.torch.distributed import Group
from components.train.torch.settings import Settings
from components.train.torch.table import Rows, mixed, parts
from serving.torch_net import Net

_WARM_UP = 0.05
_LAST_RATE = 0.01


class Objective(nn.Module):
    """The network and its loss, the sum over the rows of the mean over the members."""

    def __init__(self, net: Net, task: Task, weights: Tensor | None) -> None:
        """``weights`` are by class, with a mean of 1 over the train split."""
        super().__init__()
        self.net, self.task = net, task
        self.weights: Tensor | None
        self.register_buffer("weights", weights, persistent=False)
        self.call: Callable[..., Tensor] = net.forward

    def forward(self, numbers: Tensor, missing: Tensor, codes: Tensor, target: Tensor) -> Tensor:
        """The loss, a float32 scalar."""
        raw = self.call(numbers, missing, codes).float()
        members = raw.shape[0]
        if self.task == "regression":
            losses = (raw.squeeze(2) - target).square()
        elif self.task == "binary":
            wanted = target.to(raw.dtype).expand(members, -1)
            losses = functional.binary_cross_entropy_with_logits(raw.squeeze(2), wanted, reduction="none")
        else:
            wanted = target.repeat(members)
            losses = functional.cross_entropy(raw.flatten(0, 1), wanted, reduction="none").view(members, -1)
        losses = losses.mean(0)
        return (losses if self.weights is None else losses * self.weights[target]).sum()


class Learner:
    """Trains a network step by step.

    Attributes:
        micro: rows that go through the network at once; halved where memory runs out. A step adds up as many parts as
            it needs, so that the batch stays what it was.
        summed: the loss over the rows of the epoch so far, float64 scalar on the device.
    """

    def __init__(
        self,
        net: Net,
        task: Task,
        weights: NDArray[np.float32] | None,
        settings: Settings,
        device: Device,
        group: Group,
        say: Callable[[str], None],
    ) -> None:
        """Move the network to the device."""
        self.net = net.to(device.torch)
        self.device, self.group, self._say = device, group, say
        by_class = None if weights is None else torch.from_numpy(weights).to(device.torch)
        self._objective = Objective(self.net, task, by_class)
        self._wrapped: nn.Module = self._objective
        if group.size > 1:
            ids = [device.torch] if device.torch.type == "cuda" else None
            self._wrapped = DistributedDataParallel(self._objective, device_ids=ids, forward_sync_buffers=False)
        self._optimiser = _optimiser(self.net, settings, device)
        self._scaler = torch.amp.GradScaler(device.torch.type, enabled=device.precision == "fp16")
        self._best: dict[str, Tensor] = {}
        self.micro = 1 << 62
        self._compiled = False
        kind = torch.float32 if device.torch.type == "mps" else torch.float64
        self.summed = torch.zeros((), dtype=kind, device=device.torch)

    def compile(self, rows: int) -> None:
        """From here on compile the network for parts of so many rows; falls back where the compiler fails."""
        fast = torch.compile(self.net.forward, dynamic=False)

        def call(numbers: Tensor, missing: Tensor, codes: Tensor) -> Tensor:
            run = fast if len(numbers) == rows else self.net.forward  # a rest is not worth a compilation
            raw: Tensor = run(numbers, missing, codes)
            return raw

        self._objective.call, self._compiled = call, True

    def fit_in_memory(self, rows: Rows) -> None:
        """Find how many rows every process of the group has memory for, by a step that changes nothing."""
        self._accumulated(rows, 1, 0)
        self._optimiser.zero_grad(set_to_none=True)
        self.micro = self.group.least(self.micro, self.device.torch)

    def step(self, rows: Rows, total: int, rate: float, seed: int) -> None:
        """One step of the optimiser.

        Args:
            rows: this process's share of the batch, on the device.
            total: rows of the whole batch.
            rate: the learning rate.
            seed: of dropout in this step.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self.net.train()
        loss = self._accumulated(rows, total, seed, last=True)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._optimiser.zero_grad(set_to_none=True)
        self.summed += loss

    def _accumulated(self, rows: Rows, total: int, seed: int, last: bool = False) -> Tensor:
        """Gradients of the rows' loss divided by ``total``; in smaller parts as long as memory runs out."""
        while True:
            self.device.reseed(mixed(seed, self.group.rank))
            try:
                return self._backward(rows, total, last)
            except torch.OutOfMemoryError as error:
                self._halve(min(self.micro, len(rows)), error, last)
            except RuntimeError as error:  # what a compiler raises has no nearer base that is cheap to import
                if not self._compiled:
                    raise
                self._say(f"Going on without compiling the network: {(str(error).splitlines() or [''])[0]}")
                self._objective.call, self._compiled = self.net.forward, False
            self._optimiser.zero_grad(set_to_none=True)

    def _backward(self, rows: Rows, total: int, last: bool) -> Tensor:
        summed = torch.zeros_like(self.summed)
        starts = range(0, max(len(rows), 1), self.micro)
        for start in starts:
            part = rows.between(start, min(start + self.micro, len(rows)))
            together = last and start == starts[-1]
            with self._alone(together), self.device.autocast:
                loss = self._wrapped(part.numbers, part.missing, part.codes, part.target)
                # DistributedDataParallel divides by the number of processes
                self._scaler.scale(loss * (self.group.size / total)).backward()
            summed += loss.detach()
        return summed

    def _alone(self, together: bool) -> AbstractContextManager[Any]:
        if isinstance(self._wrapped, DistributedDataParallel) and not together:
            return self._wrapped.no_sync()
        return nullcontext()

    def _halve(self, tried: int, error: torch.OutOfMemoryError, last: bool) -> None:
        grouped = self.group.size > 1 and last  # the others may have added this step up already
        if tried <= 1 or grouped:
            raise BadInput(
                f"The device {self.device.torch} has no memory for {tried:,} rows at once: choose a smaller width, "
                "fewer members or a smaller batch_size."
            ) from error
        self.micro = tried // 2
        if self.device.torch.type == "cuda":
            torch.cuda.empty_cache()
        self._say(f"Out of memory with {tried:,} rows at once: going on with {self.micro:,}.")

    def loss(self, rows: int) -> float:
        """The loss over the epoch so far, of all processes, per row of so many."""
        return float(self.group.total(self.summed.clone())) / rows

    def diverged(self) -> bool:
        """Whether this process's loss is no number any more."""
        return not math.isfinite(float(self.summed))

    def begin_epoch(self) -> None:
        """Begin to sum up anew."""
        self.summed = torch.zeros_like(self.summed)

    def predict(self, rows: Rows, stop: Callable[[], None]) -> NDArray[np.float64]:
        """Probabilities ``(n, classes)`` or standardised values ``(n,)``; ``stop`` is called now and then."""
        self.net.eval()
        predicted = []
        for part in parts(rows):
            part = part.to(self.device.torch)
            with torch.inference_mode():
                raw = self.net(part.numbers, part.missing, part.codes)
            predicted.append(_mean(raw, self._objective.task).cpu().numpy())
            stop()
        return np.concatenate(predicted).astype("float64")

    def keep(self) -> None:
        """These weights are the best so far."""
        self._best = {name: value.detach().clone() for name, value in self.net.state_dict().items()}

    def best(self) -> dict[str, Tensor]:
        """The best weights, on the CPU."""
        return {name: value.cpu() for name, value in (self._best or self.net.state_dict()).items()}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that the next step follows from, as arrays."""
        return {name: value.detach().cpu().numpy() for name, value in self._tensors()}

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield "summed", self.summed
        for name, value in self.net.state_dict().items():
            yield f"net.{name}", value
        for name, value in self._best.items():
            yield f"best.{name}", value
        for name, parameter in self.net.named_parameters():
            for key, value in self._optimiser.state[parameter].items():
                yield f"optimiser.{key}.{name}", value

    def facts(self) -> dict[str, Any]:
        """What of the state is no array."""
        return {"scaler": self._scaler.state_dict()}

    def restore(self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
        """Go back to a state that :meth:`arrays` and :meth:`facts` told."""
        tensors = {name: torch.from_numpy(np.array(value)).to(self.device.torch) for name, value in arrays.items()}
        self.summed = tensors["summed"].to(self.summed.dtype)
        self.net.load_state_dict(_under("net.", tensors))
        self._best = _under("best.", tensors)
        moments = {key: _under(f"optimiser.{key}.", tensors) for key in ("step", "exp_avg", "exp_avg_sq")}
        for name, parameter in self.net.named_parameters():
            if name in moments["step"]:
                state = {key: values[name] for key, values in moments.items()}
                if self.device.torch.type == "mps":
                    state["step"] = state["step"].cpu()  # where an optimiser that is not fused has it
                self._optimiser.state[parameter] = state
        self._scaler.load_state_dict(dict(facts["scaler"]))


def rate(settings: Settings, step: int, steps: int) -> float:
    """The learning rate of a step: a linear rise, then half a cosine."""
    warm = max(1, round(steps * _WARM_UP))
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    return settings.learning_rate * (_LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * done)) / 2)


def _optimiser(net: Net, settings: Settings, device: Device) -> torch.optim.AdamW:
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in net.named_parameters():
        matrix = name == "head" or (name.endswith("weight") and "norm" not in name)
        (decayed if matrix else others).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    fused = device.torch.type in ("cuda", "cpu")
    return torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=fused)


def _mean(raw: Tensor, task: Task) -> Tensor:
    if task == "regression":
        return raw.mean(0).squeeze(1)
    if task == "binary":
        last = raw.sigmoid().mean(0)
        return torch.cat([1 - last, last], 1)
    return raw.softmax(2).mean(0)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
