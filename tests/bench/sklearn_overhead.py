"""What the train step costs over scikit-learn itself, on a table of more than 100,000 rows.

Both sides run in this process, one after the other and in turns, with every library imported before.
"""

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.train.contract import Data
from components.train.run import TRAIN_ROWS, Trained, train
from components.train.threads import suited_to
from serving.schema import NATIVE_FILES, ONNX_FILE
from serving.trust import load_native
from tests.feature_sets import feature_set

ROWS = 200_000
RUNS = 3
GOAL = 0.05
TRAINERS: dict[str, dict[str, Any]] = {"hist_gradient_boosting": {}, "random_forest": {"n_estimators": 50}}


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, and of processor time over all threads."""

    wall: float
    processor: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.wall + other.wall, self.processor + other.processor)

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.wall - other.wall, self.processor - other.processor)


@dataclass(frozen=True)
class Turn:
    """One run of each side."""

    fit: Cost
    direct: Cost
    step: Cost
    inside: Cost


def measure() -> str:
    """Time both sides for each trainer."""
    lines = [
        f"## The train step against scikit-learn on the same arrays, {ROWS:,} rows",
        "",
        f"A made-up table of 16 numbers with gaps and 4 text columns, split 70/15/15; medians of {RUNS} runs in turns; "
        f"goal: at most {GOAL:.0%} more than the estimator with its predictions.",
        "",
        "- *Fit* is the estimator with the same parameters on the matrix that the step prepares.",
        "- *Direct* adds `predict_proba` of the train and the valid split, which a script needs for its metrics.",
        "- *Step* is all of `components.train.run.train`: reading Parquet, preparing columns, the same fit, metrics "
        f"(of the train split on {TRAIN_ROWS:,} rows), building the ONNX graph, comparing it on real and made-up rows, "
        "writing and digesting the bundle.",
        "- *Inside* is what the estimator's own `fit` and `predict_proba` took of that step, *beside* all the rest.",
        "- Left out on both sides is importing libraries, and on the step's starting a pod. The forest has 50 trees "
        "instead of 200: a shorter fit makes the step's share larger.",
        "",
        "| trainer | | fit, s | direct, s | step, s | step over direct | inside, s | beside, s | beside over inside | "
        "model.onnx, MB | model.skops, MB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        features = feature_set(Path(scratch) / "features", _table(), "binary")
        train(features, Path(scratch) / "warm", hyperparameters={"max_iter": 2})
        for trainer, chosen in TRAINERS.items():
            step = partial(train, features, Path(scratch) / "bundle", trainer=trainer, hyperparameters=chosen)
            for line in _compare(Data.read(features), Path(scratch) / "bundle", step):
                lines.append(f"| {trainer} | {line}")
                print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join([*lines, ""])


def _table() -> pd.DataFrame:
    random = np.random.default_rng(0)
    numbers = random.normal(size=(ROWS, 16))
    words = {f"text {width}": random.integers(width, size=ROWS) for width in (3, 8, 40, 200)}
    signal = numbers[:, 0] * numbers[:, 1] + np.sin(3 * numbers[:, 2]) + numbers[:, 3] - 0.5 * numbers[:, 4] ** 2
    signal += sum(np.sin(codes) for codes in words.values()) + random.logistic(size=ROWS)
    numbers[random.random(numbers.shape) < 0.05] = np.nan
    frame = pd.DataFrame(numbers, columns=[f"number {index}" for index in range(16)])
    texts = {name: np.char.add("value ", codes.astype(str)).astype(object) for name, codes in words.items()}
    return frame.assign(**texts, target=np.where(signal > 0, "yes", "no"))


def _compare(data: Data, bundle: Path, step: Callable[[], Trained]) -> list[str]:
    """A row by the clock and one of processor time."""
    files = step().manifest.files  # for its parameters, and so that the first run warms neither side
    pipeline = load_native(bundle / NATIVE_FILES["sklearn"])
    inputs = {name: pipeline[:-1].transform(getattr(data, name).inputs) for name in ("train", "valid")}
    turns = [_turn(pipeline[-1], inputs, data, step) for _ in range(RUNS)]
    sizes = " | ".join(f"{files[name].bytes / 1e6:.1f}" for name in (ONNX_FILE, NATIVE_FILES["sklearn"]))
    rows = []
    for name, of in (("wall", "by the clock"), ("processor", "processor time")):
        fit, direct, step, inside = (
            statistics.median(getattr(getattr(turn, side), name) for turn in turns)
            for side in ("fit", "direct", "step", "inside")
        )
        over = f"**{step / direct - 1:+.1%}** | {inside:.1f} | {step - inside:.1f} | {step / inside - 1:+.1%}"
        rows.append(f"{of} | {fit:.1f} | {direct:.1f} | {step:.1f} | {over} | {sizes} |")
    return rows


def _turn(model: Any, inputs: dict[str, Any], data: Data, step: Callable[[], Any]) -> Turn:
    from sklearn.base import clone

    model = clone(model)
    held_out = {"X_val": inputs["valid"], "y_val": data.valid.target} if hasattr(model, "early_stopping") else {}
    if "n_jobs" in model.get_params():
        model.set_params(n_jobs=-1)
    with suited_to(inputs["train"].size):
        fit = _timed(lambda: model.fit(inputs["train"], data.train.target, **held_out))
        valid = _timed(lambda: model.predict_proba(inputs["valid"]))
        whole = _timed(lambda: model.predict_proba(inputs["train"]))
    with _inside(type(model)) as spent:
        whole_step = _timed(step)
    turn = Turn(fit, fit + valid + whole, whole_step, sum(spent, Cost(0.0, 0.0)))
    print(turn, file=sys.stderr, flush=True)
    return turn


def _timed(work: Callable[[], Any]) -> Cost:
    began = _now()
    work()
    return _now() - began


@contextmanager
def _inside(kind: type) -> Iterator[list[Cost]]:
    """What an estimator's own calls take within the block; calls side by side count once."""
    spent: list[Cost] = []
    began: list[Cost] = []
    lock = threading.Lock()

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            with lock:
                began.append(_now())
            result = method(*given, **named)
            with lock:
                first = began[0] if len(began) == 1 else None
                began.pop()
                if first:
                    spent.append(_now() - first)
            return result

        return call

    before = {name: getattr(kind, name) for name in ("fit", "predict_proba")}
    for name, method in before.items():
        setattr(kind, name, timed(method))
    try:
        yield spent
    finally:
        for name, method in before.items():
            setattr(kind, name, method)


def _now() -> Cost:
    return Cost(time.monotonic(), time.process_time())
