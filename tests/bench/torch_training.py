"""How fast the torch trainer goes through rows, against a plain PyTorch loop over a DataLoader on the same network.

Both train the same network with the same loss, batch and table, in turns, on whatever device there is. Where that is a
GPU, it also measures bf16 against fp32 and the share of time in which the GPU computes; everywhere, how long a table
may be before its rows are streamed, and what streaming costs.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, TensorDataset

from components.features.schema import FeatureColumn, FeatureSchema, InputColumn
from components.train.devices import Sampler
from components.train.torch.device import Device, choose, exact
from components.train.torch.distributed import Group
from components.train.torch.learner import Learner
from components.train.torch.prepare import Prepared, prepare
from components.train.torch.settings import Settings
from components.train.torch.table import ParquetRows, Resident, Rows, Source, Streamed, bytes_per_row, encoded
from serving.bundle import model_frame
from serving.torch_net import Net

NUMBERS, TEXTS, CATEGORIES = 12, 8, 50
TURNS, SECONDS = 3, 4.0
GOAL = 3.0


@dataclass(frozen=True)
class Case:
    """A network, and rows per step."""

    name: str
    settings: Settings
    batch: int


def measure() -> str:
    """Measure on the device that is there."""
    device = choose("auto", "auto", 0, lambda _sentence: None)
    on_gpu = device.torch.type != "cpu"
    rows = 4_000_000 if on_gpu else 200_000
    cases = [Case("defaults, automatic batch", Settings(), Settings().batch(rows))]
    if on_gpu:
        cases.append(Case("width 512, 4 blocks, 16 members", Settings(width=512, blocks=4, members=16), 8192))
    else:
        cases.append(Case("one member without embeddings", Settings(members=1, numeric_embedding="none"), 1024))
    schema, table = _table(rows)
    lines = [f"## Torch training on {device.accelerator or 'the CPU'} ({rows:,} rows, {NUMBERS + TEXTS} columns)", ""]
    lines += [
        f"| network | batch | this trainer ({device.precision}), rows/s | DataLoader loop (fp32), rows/s | ratio |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for case in cases:
        lines += _against_plain(case, schema, table, device)
    lines += ["", f"Goal: {GOAL:.0f} times a plain loop. Median of {TURNS} turns of about {SECONDS:.0f} s each.", ""]
    if on_gpu:
        lines += _arithmetic(cases[-1], schema, table, device)
    lines += _streaming(cases[0], schema, table, device)
    return "\n".join([*lines, ""])


def _table(rows: int) -> tuple[FeatureSchema, pd.DataFrame]:
    random = np.random.default_rng(0)
    columns = {f"n{index}": random.normal(size=rows) for index in range(NUMBERS)}
    words = np.array([f"word {index}" for index in range(CATEGORIES)], dtype=object)
    columns |= {f"t{index}": words[random.integers(CATEGORIES, size=rows)] for index in range(TEXTS)}
    target = (columns["n0"] + columns["n1"] * columns["n2"] + random.normal(size=rows) > 0).astype("int64")
    names = list(columns)
    schema = FeatureSchema(
        task="binary",
        target="target",
        classes=("no", "yes"),
        inputs=tuple(InputColumn(name=n, type="number" if n.startswith("n") else "string") for n in names),
        features=tuple(FeatureColumn(name=n, kind="numeric" if n.startswith("n") else "categorical") for n in names),
        data_version="bench",
    )
    return schema, pd.DataFrame(columns | {"target": target})


def _prepared(case: Case, schema: FeatureSchema, table: pd.DataFrame) -> tuple[Prepared, Rows]:
    prepared = prepare(model_frame(table.head(100_000), schema), schema, case.settings)
    frame = model_frame(table, schema)
    columns = {name: frame[name].to_numpy() for name in frame}
    return prepared, encoded(prepared.encoder, columns, torch.from_numpy(table["target"].to_numpy().copy()))


def _against_plain(case: Case, schema: FeatureSchema, table: pd.DataFrame, device: Device) -> list[str]:
    prepared, rows = _prepared(case, schema, table)
    source = Resident(rows, device.torch, case.batch, 0)
    ours, theirs = [], []
    for _ in range(TURNS):
        ours.append(_speed(_ours(case, prepared, source, device)))
        theirs.append(_speed(_plain(case, prepared, rows, device)))
    fast, slow = statistics.median(ours), statistics.median(theirs)
    line = f"| {case.name} | {case.batch:,} | {fast:,.0f} | {slow:,.0f} | **{fast / slow:.1f}** |"
    print(line, file=sys.stderr, flush=True)
    return [line]


def _speed(steps: Iterator[int]) -> float:
    """Rows per second of an endless iterator that does a step and says how many rows it took."""
    for _ in range(5):
        next(steps)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        done += next(steps)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return done / (time.perf_counter() - began)


def _ours(case: Case, prepared: Prepared, source: Source, device: Device) -> Iterator[int]:
    architecture = prepared.encoder.architecture
    width = architecture.width
    work = case.batch * architecture.members * width * (architecture.inputs + 2 * architecture.blocks * width)
    with exact(device, work, torch.get_num_threads()):
        learner = Learner(Net(architecture), "binary", None, case.settings, device, Group(), print)
        if device.torch.type == "cuda":
            learner.compile(case.batch)
        epoch = 0
        while True:
            for step, rows in enumerate(source.batches(epoch, 0)):
                learner.step(rows, len(rows), 1e-3, step)
                yield len(rows)
            epoch += 1


def _plain(case: Case, prepared: Prepared, rows: Rows, device: Device) -> Iterator[int]:
    """What a tutorial would write: a DataLoader over tensors, a step per batch, the loss added up."""
    loader = DataLoader(
        TensorDataset(rows.numbers, rows.missing, rows.codes, rows.target), batch_size=case.batch, shuffle=True
    )
    net = Net(prepared.encoder.architecture).to(device.torch).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=case.settings.weight_decay)
    criterion = torch.nn.BCEWithLogitsLoss()
    total = 0.0
    while True:
        for batch in loader:
            numbers, missing, codes, target = (part.to(device.torch) for part in batch)
            raw = net(numbers, missing, codes).squeeze(2)
            loss = criterion(raw, target.float().expand(len(raw), -1))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item()
            yield len(target)


def _arithmetic(case: Case, schema: FeatureSchema, table: pd.DataFrame, device: Device) -> list[str]:
    prepared, rows = _prepared(case, schema, table)
    lines = ["| arithmetic | rows/s | GPU busy | GPU memory, GB |", "| --- | ---: | ---: | ---: |"]
    for precision in ("fp32", "bf16", "fp16"):
        exactly = replace(device, precision=precision)
        source = Resident(rows, device.torch, case.batch, 0)
        with Sampler(device.sampled) as sampler:
            speed = _speed(_ours(case, prepared, source, exactly))
        used = sampler.whole()
        busy, memory = used.get("gpu_utilisation", float("nan")), used.get("gpu_memory_gb", float("nan"))
        lines.append(f"| {precision} | {speed:,.0f} | {busy:.0%} | {memory:.1f} |")
    return [f"The network of {case.name} in batches of {case.batch:,} (goal: busy 85 % of the time):", "", *lines, ""]


def _streaming(case: Case, schema: FeatureSchema, table: pd.DataFrame, device: Device) -> list[str]:
    prepared, rows = _prepared(case, schema, table)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.parquet"
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), path, row_group_size=100_000)
        file = ParquetRows(path, schema, prepared.encoder, lambda values: torch.from_numpy(np.array(values)))
        began = time.perf_counter()
        file.whole(torch.device("cpu"), lambda: None)
        encoding = len(rows) / (time.perf_counter() - began)
        sources: dict[str, Source] = {
            "resident": Resident(rows, device.torch, case.batch, 0),
            "streamed": Streamed(file.read, file.sizes, device.torch, case.batch, 0),
        }
        epochs = {name: _epochs(_ours(case, prepared, source, device), source) for name, source in sources.items()}
        turns = [{name: next(speeds) for name, speeds in epochs.items()} for _ in range(TURNS + 1)]
    whole = {name: statistics.median(turn[name] for turn in turns[1:]) for name in sources}  # the first warms up
    per_row = bytes_per_row(prepared.encoder.architecture)
    return [
        f"A row takes {per_row} bytes: a table of up to {device.room() / per_row / 1e6:,.0f} million rows trains from",
        f"memory here. A whole epoch from memory: {whole['resident']:,.0f} rows/s; streamed from Parquet: "
        f"{whole['streamed']:,.0f} rows/s",
        f"({whole['streamed'] / whole['resident']:.0%}). Reading and encoding alone: {encoding:,.0f} rows/s.",
    ]


def _epochs(steps: Iterator[int], source: Source) -> Iterator[float]:
    """Rows per second of each further epoch."""
    while True:
        began = time.perf_counter()
        for _ in range(source.steps):
            next(steps)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        yield source.rows / (time.perf_counter() - began)


if __name__ == "__main__":
    print(measure())
