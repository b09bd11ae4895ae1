"""The model server beside other people's and beside bare ASGI applications: same model, same rows, in one run.

Each server has one core to itself (and all its threads and processes keep to it), the load generator the other one.
Every cell is a closed loop of a few seconds: so many connections, each of which waits for its reply.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import plots
from tests.bench.load.client import GENERATOR_CORE, ROOT, SERVER_CORE, Load, closed
from tests.bench.peers import models
from tests.bench.peers.environments import HERE, python
from tests.bench.peers.models import Served
from tests.bench.peers.servers import (
    BARE_SKLEARN,
    BENTOML,
    ECHO,
    FLOOR,
    KSERVE,
    MATRIX,
    MLFLOW,
    MLSERVER,
    OURS,
    OURS_TWICE,
    PEERS,
    Peer,
    Running,
    running,
)

SECONDS, WARM = 1.0, 0.3
ROWS = (1, 32)
CONNECTIONS = (1, 8, 32, 128)
VARIANTS = 16
"""Different requests of each size, sent in turn."""
NATIVE = ("torch", "keras")
"""Trainers whose own models are called in-process for comparison."""
NATIVE_SECONDS = 3.0
MEMORY_GOAL_MB, READY_GOAL_S = 150, 2.0
Cell = tuple[int, int]
"""Rows and connections."""


@dataclass(frozen=True)
class Measured:
    """One server with one model."""

    peer: Peer
    model: str
    cells: dict[Cell, Load]
    ready: float
    rss: float
    pss: float


@dataclass(frozen=True)
class Native:
    """A model of a framework that is not scikit-learn."""

    trainer: str
    calls: float
    p99: float
    natively: Load
    as_onnx: Load | None

    def row(self) -> str:
        """Of the table."""
        served = [self.natively, *([self.as_onnx] if self.as_onnx else [])]
        cells = " | ".join(f"{load.rate:,.0f} | {load.latency['p99']:.2f}" for load in served)
        return f"| {self.trainer} | {self.calls:,.0f} | {self.p99:.2f} | {cells} |"


def measure() -> str:
    """Measure every server; gives the section of RESULTS.md."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        found = _measured(models.available(), PEERS, folder)
        bare = [_bare_model(folder / name / "bundle" / "model.onnx", name) for name in models.available()]
        bare.append(_workers(models.make("numeric", folder / "twice")))
        native = [_native(trainer, folder) for trainer in NATIVE]
    return _report(found, bare, native)


def _measured(names: list[str], peers: Sequence[Peer], folder: Path) -> list[Measured]:
    made = {name: models.make(name, folder / name) for name in names}
    return [_server(peer, made[name]) for name in names for peer in peers if peer.only in ("", name)]


def _server(peer: Peer, model: Served) -> Measured:
    with running(peer, model) as server:
        cells = {(rows, count): _cell(peer, model, server, rows, count) for rows in ROWS for count in CONNECTIONS}
        rss, pss = server.memory()
    usual = cells[1, 32]
    print(f"{model.name}, {peer.name}: {usual.rate:,.0f}/s, p99 {usual.latency['p99']:.2f} ms", file=sys.stderr)
    return Measured(peer, model.name, cells, server.seconds_to_ready, rss, pss)


def _cell(peer: Peer, model: Served, server: Running, rows: int, connections: int) -> Load:
    requests = [peer.request(model, (model.rows * 2)[at : at + rows]) for at in range(VARIANTS)]
    load = closed(server.port, requests, connections, seconds=SECONDS, warm=WARM)
    if load.failed() or load.broken:
        raise RuntimeError(f"{peer.name} failed on {model.name}: {load.statuses}, {load.broken} connections broken.")
    return load


def _bare_model(graph: Path, name: str) -> str:
    """What a session of the model takes in a process that has imported nothing else, MB."""
    program = (
        "import os, sys, numpy, onnxruntime as o\n"
        "rss = lambda: int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6\n"
        "before = rss()\n"
        "options = o.SessionOptions(); options.intra_op_num_threads = 1\n"
        "session = o.InferenceSession(sys.argv[1], options, providers=['CPUExecutionProvider'])\n"
        "print(before, rss() - before)"
    )
    command = [str(python("bare")), "-c", program, str(graph)]
    before, grown = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    return (
        f"A process that imports only numpy and onnxruntime has {before:.0f} MB; the {name} model adds {grown:.1f} MB."
    )


def _workers(model: Served) -> str:
    """Two workers on both cores, with the generator beside them: what their processes take."""
    with running(OURS_TWICE, model, core=None) as server:
        load = _cell(OURS_TWICE, model, server, 1, 32)
        rss, pss = server.memory()
        each = ", ".join(f"{one:.0f}" for one in server.each())
    return (
        f"With two workers on both cores, and the generator beside them ({load.rate:,.0f}/s at 32 connections): RSS "
        f"{each} MB by process,\n{rss:.0f} MB in all, PSS {pss:.0f} MB."
    )


def _native(trainer: str, scratch: Path) -> Native:
    """A bundle of another framework, called in-process, served natively, and served as ONNX where it may be."""
    model = models.make("numeric", scratch / trainer, trainer)
    native = models.natively(model, scratch / f"{trainer}-native")
    rows = scratch / f"{trainer}.json"
    rows.write_text(json.dumps(model.objects(model.rows[:VARIANTS])))
    command = [sys.executable, str(HERE / "pinned.py"), str(SERVER_CORE), sys.executable, "-m"]
    command += ["tests.bench.peers.native", str(native.bundle), str(rows), str(NATIVE_SECONDS)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    calls, p99 = map(float, said.split()[-2:])
    return Native(trainer, calls, p99, _served(native), _served(model) if model.is_onnx else None)


def _served(model: Served) -> Load:
    with running(OURS, model) as server:
        return _cell(OURS, model, server, 1, 32)


def _report(found: list[Measured], bare: list[str], native: list[Native]) -> str:
    by_name = {(one.model, one.peer.name): one for one in found}
    names = list(dict.fromkeys(one.model for one in found))
    lines = [
        "## The model server beside others",
        "",
        "`python -m tests.bench serving`. Same fitted model, same rows, one server after the other, each with all its",
        f"threads and processes on core {SERVER_CORE}, the load generator on core {GENERATOR_CORE}; a closed loop of "
        f"{SECONDS:g} s per cell after {WARM:g} s;",
        f"{VARIANTS} different requests in turn. Requests per second, and the 99th percentile in ms.",
        "",
        f"- numeric: 30 features of the breast cancer data, `{models.TRAINERS['numeric']}`; telco: 19 columns, 15 of",
        f"  them text, `{models.TRAINERS['telco']}`. Peers get the same scikit-learn pipeline with joblib; the numeric",
        "  one without its selection of columns by name, so that they need no pandas.",
        "- KServe's scikit-learn server is only published as an image: what is measured is a `kserve.Model` with the",
        "  same conversions around the same call. Its V1 takes a frame as one instance of lists; the others get rows.",
        "- MLServer gets V2 JSON, one tensor of all numbers or one per column, and runs without its further process,",
        "  since with one it never became ready here. BentoML and MLflow get JSON as their documentation shows it.",
        "- The floors are uvicorn, uvloop, httptools, orjson and onnxruntime, without a check, limit or metric: with",
        "  the bundle's own graph (an input per feature), and with a graph of the same model that takes one matrix.",
        f"- Versions: {_versions()}.",
        "",
    ]
    for name in names:
        mine = [one for one in found if one.model == name]
        lines += [
            f"### {name}",
            "",
            "| server | " + " | ".join(_heading(cell) for cell in mine[0].cells) + " |",
            "| --- |" + " ---: |" * len(mine[0].cells),
            *(f"| {one.peer.name} | {' | '.join(_shown(load) for load in one.cells.values())} |" for one in mine),
            "",
        ]
    lines += ["### Goals", "", "| goal | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    lines += [f"| {goal} | {' | '.join(cells)} |" for goal, cells in _goals(by_name, names)]
    lines += ["", plots.save(_plot(found, names), "serving"), "", "### Memory and start", ""]
    lines += [
        "RSS and PSS of all processes after the load, and seconds from the start of the process to its first 200 of",
        f"readiness (numeric; goals: at most {MEMORY_GOAL_MB} MB above the model, ready within {READY_GOAL_S:g} s).",
        *bare,
        "",
        "| server | RSS, MB | PSS, MB | ready, s |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {one.peer.name} | {one.rss:.0f} | {one.pss:.0f} | {one.ready:.2f} |"
            for one in found
            if one.model == "numeric"
        ),
        "",
        "### Bundles of other frameworks",
        "",
        "The numeric data, one row: calls of the framework's own model in-process (columns in, no HTTP), then the",
        "server at 32 connections, with the framework itself and with ONNX.",
        "",
        "| trainer | in-process, calls/s | p99, ms | served natively, /s | p99, ms | served as ONNX, /s | p99, ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(one.row() for one in native),
    ]
    return "\n".join(lines)


def _heading(cell: Cell) -> str:
    return f"{cell[0]} row{'s' * (cell[0] > 1)}, {cell[1]} conn."


def _shown(load: Load) -> str:
    return f"{load.rate:,.0f} ({load.latency['p99']:.2f})"


def _goals(by_name: dict[tuple[str, str], Measured], names: list[str]) -> list[tuple[str, list[str]]]:
    def ratio(name: str, other: Peer) -> str:
        value = _rate(by_name, name, OURS) / _rate(by_name, name, other)
        return f"{value:.1f}"

    def share(name: str, floor: Peer) -> str:
        if (name, floor.name) not in by_name:
            return ""
        return f"{_rate(by_name, name, OURS) / _rate(by_name, name, floor):.0%}"

    def tail(name: str, other: Peer) -> str:
        ours, theirs = (by_name[name, one.name].cells[1, 32].latency["p99"] for one in (OURS, other))
        return f"{ours / theirs:.3f}"

    goals = [
        (f"requests/s over {peer.name}, 1 row, 32 connections: at least 15", [ratio(name, peer) for name in names])
        for peer in (KSERVE, MLSERVER)
    ]
    goals += [
        (f"requests/s over {peer.name} (reported)", [ratio(name, peer) for name in names])
        for peer in (BENTOML, MLFLOW, BARE_SKLEARN)
    ]
    goals += [
        (f"share of {floor.name}, 1 row, 32 connections: {goal}", [share(name, floor) for name in names])
        for floor, goal in ((FLOOR, "at least 60%"), (MATRIX, "reported"), (ECHO, "reported"))
    ]
    goals += [
        (f"p99 over that of {peer.name}, 1 row, 32 connections: under 0.2", [tail(name, peer) for name in names])
        for peer in (KSERVE, MLSERVER)
    ]
    goals.append(("cells where a peer is faster: none", [_faster(by_name, name) for name in names]))
    return goals


def _rate(by_name: dict[tuple[str, str], Measured], name: str, peer: Peer) -> float:
    return by_name[name, peer.name].cells[1, 32].rate


def _faster(by_name: dict[tuple[str, str], Measured], name: str) -> str:
    ours = by_name[name, OURS.name].cells
    worse = [
        f"{peer.name} at {_heading(cell)}"
        for peer in (KSERVE, MLSERVER, BENTOML, MLFLOW)
        for cell, load in by_name[name, peer.name].cells.items()
        if load.rate > ours[cell].rate
    ]
    return ", ".join(worse) or "none"


def _plot(found: list[Measured], names: list[str]) -> Any:
    drawn, axes = plots.figure(2, len(names), width=10, height=6)
    for column, name in enumerate(names):
        mine = [one for one in found if one.model == name][::-1]
        labels = [one.peer.name for one in mine]
        colours = ["tab:blue" if "Sluiceway" in label else "tab:gray" for label in labels]
        for row, (title, values) in enumerate(
            (
                ("requests/s", [one.cells[1, 32].rate for one in mine]),
                ("p99, ms", [one.cells[1, 32].latency["p99"] for one in mine]),
            )
        ):
            axis = axes[row][column]
            bars = axis.barh(labels, values, color=colours)
            axis.bar_label(bars, [f"{value:,.0f}" if row == 0 else f"{value:.1f}" for value in values], padding=2)
            axis.set(title=f"{name}, 1 row, 32 connections: {title}", xscale="log")
            axis.margins(x=0.2)
    return drawn


def _versions() -> str:
    pinned = []
    for name in ("kserve", "mlserver", "bentoml", "mlflow", "bare"):
        pinned += (HERE / f"{name}.txt").read_text().split()
    return ", ".join(sorted(set(pinned))).replace("==", " ")


def main() -> None:
    """A part of it by hand, without recording: ``python -m tests.bench.serving --only Sluiceway onnxruntime``."""
    parser = argparse.ArgumentParser(prog="tests.bench.serving")
    parser.add_argument("--only", nargs="+", default=[], help="parts of servers' names")
    parser.add_argument("--models", nargs="+", default=models.available())
    given = parser.parse_args()
    chosen = [one for one in PEERS if not given.only or any(part in one.name for part in given.only)]
    with tempfile.TemporaryDirectory() as scratch:
        for one in _measured(given.models, chosen, Path(scratch)):
            cells = ", ".join(f"{_heading(cell)}: {_shown(load)}" for cell, load in one.cells.items())
            print(f"{one.model}, {one.peer.name}: {cells}; {one.rss:.0f} MB, ready after {one.ready:.2f} s")


if __name__ == "__main__":
    main()
