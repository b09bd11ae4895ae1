"""Every trainer on four real data sets, through the compiled pipeline until it serves.

Each model is trained, gated, registered and promoted by ``sluiceway run``, in a home of its own, and then answers a
request over HTTP. The telco set is also split with five seeds.
"""

import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

from tests.e2e.road import Road

DATA = Path(__file__).parents[3] / "shared" / "data"
TRAINERS = ("hist_gradient_boosting", "random_forest", "linear", "torch", "keras")
SEEDS = range(5)
TELCO_GOAL = 0.83


@dataclass(frozen=True)
class Case:
    """A data set and how it is asked for."""

    name: str
    parameters: dict[str, str]
    metric: str

    @property
    def model(self) -> str:
        """The service's name."""
        return self.name.replace("_", "-")


CASES = (
    Case("telco", {"source_uri": str(DATA / "telco_churn.csv"), "target": "Churn"}, "roc_auc"),
    Case(
        "electricity",
        {
            "source_uri": str(DATA / "electricity.csv"),
            "target": "class",
            "feature_spec": "{time: half_hour, split: {by: time}}",
        },
        "roc_auc",
    ),
    Case("diabetes", {"source_uri": "sklearn://diabetes"}, "rmse"),
    Case("digits", {"source_uri": "sklearn://digits"}, "accuracy"),
)


@dataclass(frozen=True)
class Outcome:
    """How one run ended."""

    state: str
    value: float
    low: float
    high: float
    train_seconds: float
    runtime: str
    parity: float

    def cells(self) -> str:
        """A row's last cells."""
        return (
            f"{self.value:.4f} | {self.low:.4f} to {self.high:.4f} | {self.train_seconds:.1f} | {self.runtime} | "
            f"{self.parity:.1e} | {self.state}"
        )


def measure() -> str:
    """Run the matrix; cases whose data is not beside the repository are left out and named."""
    lines = [
        "## Every trainer on real data, through the compiled pipeline, registered and served",
        "",
        "| data | trainer | metric | test value | 95 % interval | train, s | served by | ONNX differs by | outcome |",
        "| --- | --- | --- | ---: | --- | ---: | --- | ---: | --- |",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        for case in CASES:
            source = case.parameters["source_uri"]
            if "://" not in source and not Path(source).exists():
                lines.append(f"| {case.name} | not beside the repository | | | | | | | |")
                continue
            if case.name == "electricity":
                case = replace(case, parameters={**case.parameters, "source_uri": _timed(Path(source), Path(scratch))})
            for trainer in TRAINERS:
                outcome = _run(Path(scratch) / f"{case.name}-{trainer}", case, trainer)
                lines.append(f"| {case.name} | {trainer} | {case.metric} | {outcome.cells()} |")
                print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join([*lines, "", *_telco_seeds()])


def _timed(electricity: Path, folder: Path) -> str:
    """The electricity set with the time of its rows: half-hours from 7 May 1996 on."""
    path = folder / "electricity.csv"
    duckdb.execute(
        f"COPY (SELECT TIMESTAMP '1996-05-07' + INTERVAL 30 MINUTES * (row_number() OVER () - 1) AS half_hour, * "
        f"FROM read_csv('{electricity}')) TO '{path}'"
    )
    return str(path)


def _run(home: Path, case: Case, trainer: str) -> Outcome:
    road = Road(home)
    try:
        ended = road.run({**case.parameters, "model_name": case.model, "trainer": trainer})
        result = ended.result
        if "metrics" not in result or case.metric not in result["metrics"]:
            return Outcome(str(result.get("error", ended.err))[:80], *[float("nan")] * 4, "", float("nan"))
        found = result["metrics"][case.metric]
        (bundle,) = home.glob("runs/*/**/bundle.json")
        manifest = json.loads(bundle.read_text())
        return Outcome(
            state=result["state"],
            value=found["value"],
            low=found["interval"]["low"],
            high=found["interval"]["high"],
            train_seconds=result["steps"]["train"]["work_seconds"],
            runtime=manifest["runtime"],
            parity=manifest["parity"]["max_abs"],
        )
    finally:
        road.command("stop")


def _telco_seeds() -> list[str]:
    """Five splits of the telco set: the train and evaluate steps themselves, called without KFP."""
    from components.evaluate.run import evaluate
    from components.train.run import train
    from tests.feature_sets import TELCO, feature_set, telco_frame

    if not TELCO.exists():
        return []
    lines = [
        f"Telco over {len(SEEDS)} split seeds, test ROC AUC with the defaults (goal: {TELCO_GOAL} on average):",
        "",
        "| trainer | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " | mean | train, s |",
        "| --- | " + "---: | " * (len(SEEDS) + 2),
    ]
    with tempfile.TemporaryDirectory() as scratch:
        for trainer in TRAINERS:
            values: list[float] = []
            seconds: list[float] = []
            for seed in SEEDS:
                home = Path(scratch) / f"{trainer}-{seed}"
                features = feature_set(home / "features", telco_frame(), "binary", seed=seed)
                began = time.monotonic()
                train(features, home / "bundle", trainer=trainer)
                seconds.append(time.monotonic() - began)
                decision: Any = evaluate(features, home / "bundle", draws=200).decision
                values.append(decision.metrics["roc_auc"].value)
            shown = " | ".join(f"{value:.4f}" for value in values)
            lines.append(
                f"| {trainer} | {shown} | **{statistics.mean(values):.4f}** | {statistics.median(seconds):.1f} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    return [*lines, ""]
