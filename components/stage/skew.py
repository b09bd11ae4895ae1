"""The skew check: predictions over HTTP against the offline predictions of the same rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from components.errors import NotReady, SkewFound
from components.rollout.traffic import Rows

_BATCH = 25
_SINGLE = 20  # rows sent one by one: batching must not change a prediction


@dataclass(frozen=True)
class Skew:
    """How far the served predictions are from the offline ones."""

    rows: int
    max_abs: float
    tolerance: float


def smoke_test(url: str, name: str) -> None:
    """Ask the server whether it is live, whether its model is ready and what the model is.

    Raises:
        NotReady: any of them is not answered as the Open Inference Protocol says.
    """
    with httpx.Client(base_url=url, timeout=10, trust_env=False) as client:
        for path in ("/v2/health/live", f"/v2/models/{name}/ready", f"/v2/models/{name}"):
            try:
                answer = client.get(path)
            except httpx.HTTPError as error:
                raise NotReady(f"The staged server does not answer GET {path}: {error}.") from error
            if answer.status_code != 200:
                raise NotReady(f"The staged server answers GET {path} with {answer.status_code}: {answer.text[:200]}")


def check_skew(url: str, name: str, rows: Rows, classes: Sequence[str], tolerance: float) -> Skew:
    """Replay rows over HTTP and compare every probability or value.

    Args:
        url: the staged server.
        name: the model's name.
        rows: raw rows with their offline predictions.
        classes: class labels in the order of the offline probabilities; empty for regression.
        tolerance: largest absolute difference allowed; of values (regression), times their mean size where that is
            above 1: a float32 network rounds a prediction of a million by more than one of 1.

    Raises:
        SkewFound: a prediction differs by more, or a row is refused; names the row.
    """
    if not classes and rows.predictions:
        tolerance *= max(1.0, sum(abs(value) for (value,) in rows.predictions) / len(rows.predictions))
    single = min(_SINGLE, len(rows.instances))
    starts = [*((i, i + 1) for i in range(single))]
    starts += [(i, min(i + _BATCH, len(rows.instances))) for i in range(single, len(rows.instances), _BATCH)]
    worst = 0.0
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        for first, last in starts:
            batch = list(rows.instances[first:last])
            answer = client.post(f"/v1/models/{name}:predict", json={"instances": batch})
            if answer.status_code != 200:
                raise SkewFound(
                    f"The staged server refuses test rows {first} to {last - 1} with {answer.status_code}: "
                    f"{answer.text[:300]}"
                )
            for offset, served in enumerate(answer.json()["predictions"]):
                offline = rows.predictions[first + offset]
                difference = _difference(_values(served, classes), offline)
                if not difference <= tolerance:
                    raise SkewFound(
                        f"Test row {first + offset} is predicted as {served} over HTTP but {list(offline)} offline: "
                        f"a difference of {difference:.3g}, {tolerance:.3g} allowed. The model is not served as it "
                        "was evaluated; compare the bundle's requirements with the server's versions."
                    )
                worst = max(worst, difference)
    return Skew(len(rows.instances), worst, tolerance)


def _values(served: Any, classes: Sequence[str]) -> tuple[float, ...]:
    if classes:
        return tuple(float(served["probabilities"].get(label, math.nan)) for label in classes)
    return (float(served),)


def _difference(served: Sequence[float], offline: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(served, offline, strict=True))
