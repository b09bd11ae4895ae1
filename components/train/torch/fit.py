"""Fits the network: looks at the machine, encodes the rows, trains, and hands back the best weights."""

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.features.schema import FeatureSchema
from components.train.checkpoints import NoCheckpoints
from components.train.contract import MEASURED_ROWS, Data, Run
from components.train.devices import Sampler
from components.train.feature_set import check_classes, check_target
from components.train.torch import device as devices
from components.train.torch import distributed
from components.train.torch.device import Device
from components.train.torch.distributed import Group
from components.train.torch.fitted import FittedNetwork
from components.train.torch.learner import Learner
from components.train.torch.loop import Fit, Valid, stop_before_training
from components.train.torch.prepare import Prepared, prepare
from components.train.torch.settings import Settings
from components.train.torch.table import ParquetRows, Resident, Rows, Source, Streamed, bytes_per_row, encoded, mixed
from serving.torch_model import TorchModel
from serving.torch_net import Net, Piecewise

_COMPILED_STEPS = 20_000
"""Compiling takes about a minute; below so many steps that is not won back."""


def fit(data: Data, settings: Settings, run: Run) -> FittedNetwork:
    """Fit, in one process per GPU where there are several and the table is large enough.

    Raises:
        BadInput: the device, the data or the checkpoint cannot be used, or the fit diverged.
        Interrupted: SIGTERM came; the state is saved.
    """
    device = device_of(settings, run, distributed.local_rank())
    gpus = device.accelerator.count if device.accelerator and device.accelerator.kind == "cuda" else 1
    rows = data.schema.rows.get("train") or len(data.train.inputs)
    size = distributed.processes(gpus, settings.batch(rows))
    work = {
        "features": str(data.folder.absolute()),
        "settings": settings.model_dump(mode="json"),
        "seed": run.seed,
        "device": run.device,
    }
    with distributed.group(size, device.torch, work) as group:
        run.used, run.gpus = str(device.accelerator or "cpu"), group.size if device.accelerator else 0
        if group.size > 1:
            run.say(f"{group.size} processes train together.")
        if not group.first:  # in a group of torchrun's: rank 0 saves and tells
            run = replace(run, checkpoints=NoCheckpoints(), listeners=(), say=lambda _message: None)
        return fitted_in(group, data, settings, run, device)


def device_of(settings: Settings, run: Run, local: int) -> Device:
    """The device of this process.

    Raises:
        BadInput: a GPU is required and there is none.
    """
    return devices.choose(run.device, settings.precision, local, run.say)


def fitted_in(group: Group, data: Data, settings: Settings, run: Run, device: Device) -> FittedNetwork:
    """Fit as one process of a group; every one of them returns the same model."""
    target = _Target.of(data, settings)
    batch = settings.batch(len(target.values))
    prepared = prepare(data.sample("train").inputs, data.schema, settings)
    architecture = prepared.encoder.architecture
    threads = max(1, (os.cpu_count() or 1) // group.size)
    work = (
        batch
        * architecture.members
        * architecture.width
        * (architecture.inputs + 2 * architecture.blocks * architecture.width)
    )
    with devices.exact(device, work, threads):
        torch.manual_seed(mixed(run.seed))
        net = _network(prepared)
        learner = Learner(net, data.schema.task, target.weights, settings, device, group, run.say)
        source = _source(data, prepared, target, device, batch, run)
        fit = Fit(learner, source, _valid(data, prepared, target, device), data.schema.task, settings, run)
        fit.resume()
        _make_ready(learner, source, settings, group)
        with Sampler(device.sampled if group.first else []) as sampler:
            fit.through(sampler)
        if whole := sampler.whole():
            run.say(f"The GPU was busy {whole['gpu_utilisation']:.0%} of the time.")
        return _fitted(prepared, learner, fit, target)


@dataclass(frozen=True)
class _Target:
    """The target of the whole train split.

    Attributes:
        values: class indices, or values, ``(rows,)``.
        centre: mean of a regression's target.
        spread: its standard deviation.
        weights: by class, with a mean of 1 over the rows; None where all weigh the same.
    """

    values: NDArray[Any]
    centre: float = 0.0
    spread: float = 1.0
    weights: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, data: Data, settings: Settings) -> "_Target":
        schema = data.schema
        values = data.sample("train").target if _held(data) else _whole_column(data)
        if schema.task == "regression":
            spread = float(values.std())
            return cls(values, float(values.mean()), spread if spread > 0 else 1.0)
        return cls(values, weights=_weights(values, schema, settings))

    def tensor(self, values: NDArray[Any], schema: FeatureSchema) -> Tensor:
        """Values of the target as the loss takes them."""
        if schema.task != "regression":
            return torch.from_numpy(np.array(values, "int64"))
        return torch.from_numpy(((np.asarray(values, "float64") - self.centre) / self.spread).astype("float32"))


def _held(data: Data) -> bool:
    """Whether the train split is short enough to be held as a frame."""
    return data.schema.rows.get("train", 0) <= MEASURED_ROWS


def _whole_column(data: Data) -> NDArray[Any]:
    import pyarrow.parquet as pq

    schema = data.schema
    column = pq.read_table(data.folder / "train.parquet", columns=[schema.target]).column(0)
    values = check_target(column.to_numpy().astype("float64"), schema, "train")
    check_classes(schema, values)
    return values


def _weights(values: NDArray[Any], schema: FeatureSchema, settings: Settings) -> NDArray[np.float32] | None:
    if settings.class_weight == "none":
        return None
    counts = np.bincount(values, minlength=len(schema.classes)).astype("float64")
    weights = 1 / counts
    if isinstance(settings.class_weight, dict):
        weights = np.array([settings.class_weight.get(index, 1.0) for index in range(len(counts))])
    normed: NDArray[np.float32] = (weights * counts.sum() / (weights @ counts)).astype("float32")
    return normed


def _network(prepared: Prepared) -> Net:
    net = Net(prepared.encoder.architecture)
    if isinstance(net.embedded, Piecewise):
        net.embedded.start.copy_(torch.from_numpy(prepared.start))
        net.embedded.inverse.copy_(torch.from_numpy(prepared.inverse))
    if net.category is not None:
        with torch.no_grad():  # what is in no vocabulary looks like nothing, until such rows say otherwise
            net.category.weight[prepared.encoder.architecture.offsets] = 0.0
    return net


def _source(data: Data, prepared: Prepared, target: _Target, device: Device, batch: int, run: Run) -> Source:
    schema, encoder, stop = data.schema, prepared.encoder, stop_before_training(run)
    fits = len(target.values) * bytes_per_row(encoder.architecture) <= device.room()
    if fits and _held(data):
        sample = data.sample("train").inputs
        columns = {str(name): sample[name].to_numpy() for name in sample}
        rows = encoded(encoder, columns, target.tensor(target.values, schema))
        return Resident(rows, device.torch, batch, run.seed)
    file = ParquetRows(data.folder / "train.parquet", schema, encoder, lambda values: target.tensor(values, schema))
    if fits:
        return Resident(file.whole(device.torch, stop), device.torch, batch, run.seed)
    run.say("The rows do not fit into the device's memory: they are streamed from Parquet.")
    return Streamed(file.read, file.sizes, device.torch, batch, run.seed)


def _valid(data: Data, prepared: Prepared, target: _Target, device: Device) -> Valid:
    split, schema = data.sample("valid"), data.schema
    columns = {str(name): split.inputs[name].to_numpy() for name in split.inputs}
    rows: Rows = encoded(prepared.encoder, columns, target.tensor(split.target, schema))
    if len(rows) * bytes_per_row(prepared.encoder.architecture) <= device.room() // 4:
        rows = rows.to(device.torch)
    return Valid(rows, split.target, target.centre, target.spread, target.weights)


def _make_ready(learner: Learner, source: Source, settings: Settings, group: Group) -> None:
    """Compile where that pays, and find what the memory of a group's devices holds."""
    steps = source.steps * settings.epochs
    pays = learner.device.torch.type == "cuda" and steps >= _COMPILED_STEPS
    if settings.compile == "on" or (settings.compile == "auto" and pays):
        learner.compile(-(-source.batch // group.size))
    if group.size > 1:
        learner.fit_in_memory(next(iter(source.batches(0, 0))))


def _fitted(prepared: Prepared, learner: Learner, fit: Fit, target: _Target) -> FittedNetwork:
    net = Net(prepared.encoder.architecture)
    net.load_state_dict(learner.best())
    model = TorchModel(prepared.encoder, net.eval().requires_grad_(False), target.centre, target.spread)
    facts = {
        "epochs": float(fit.position.epoch),
        "best_epoch": float(fit.position.best_epoch),
        "weights": float(sum(parameter.numel() for parameter in net.parameters())),
    }
    return FittedNetwork(model, prepared.edges, facts)
