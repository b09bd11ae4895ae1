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
        tolerance: largest absolute difference allowed; see :func:`allowed`.

    Raises:
        NotReady: the server does not answer.
        SkewFound: a prediction differs by more, or a row is refused; names the row.
    """
    tolerance = allowed(rows, classes, tolerance)
    single = min(_SINGLE, len(rows.instances))
    starts = [*((i, i + 1) for i in range(single))]
    starts += [(i, min(i + _BATCH, len(rows.instances))) for i in range(single, len(rows.instances), _BATCH)]
    worst = 0.0
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        for first, last in starts:
            for row, served in enumerate(_ask(client, name, rows, classes, first, last), start=first):
                offline = rows.predictions[row]
                apart = difference(served, offline)
                if apart > tolerance:
                    raise SkewFound(
                        f"Test row {row} is predicted as {list(served)} over HTTP but {list(offline)} offline: "
                        f"a difference of {apart:.3g}, {tolerance:.3g} allowed. The model is not served as it "
                        "was evaluated; compare the bundle's requirements with the server's versions."
                    )
                worst = max(worst, apart)
    return Skew(len(rows.instances), worst, tolerance)


def allowed(rows: Rows, classes: Sequence[str], tolerance: float) -> float:
    """The largest difference allowed between a served and an offline prediction.

    Of values (regression), the tolerance times their mean size where that is above 1: a float32 network rounds a
    prediction of a million by more than one of 1. Of probabilities, the tolerance itself.
    """
    if classes or not rows.predictions:
        return tolerance
    return tolerance * max(1.0, sum(abs(value) for (value,) in rows.predictions) / len(rows.predictions))


def answers_of(
    answer: httpx.Response, classes: Sequence[str], count: int, asked: str = "test rows"
) -> list[tuple[float, ...]]:
    """The predictions in an answer, each in the form of an offline prediction.

    Args:
        answer: to a request of the V1 protocol (``:predict``).
        classes: class labels in the order of the offline probabilities; empty for regression.
        count: how many rows were asked about.
        asked: what they are called in a message.

    Raises:
        SkewFound: the rows were refused, or the answer is not one prediction per row; quotes it.
    """
    if answer.status_code != 200:
        raise SkewFound(f"The server refuses {asked} with {answer.status_code}: {answer.text[:300]}")
    try:
        served = [_values(one, classes) for one in answer.json()["predictions"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # not JSON, or JSON of another shape
        raise SkewFound(f"The server's answer to {asked} is no prediction: {answer.text[:300]}") from error
    if len(served) != count:
        raise SkewFound(f"The server answers {asked} with {len(served)} predictions for {count}: {answer.text[:300]}")
    return served


def difference(served: Sequence[float], offline: Sequence[float]) -> float:
    """Largest absolute difference of a probability or value; infinite where one is missing or not a number."""
    if len(served) != len(offline):
        return math.inf
    apart = [abs(a - b) for a, b in zip(served, offline, strict=True)]
    return math.inf if any(map(math.isnan, apart)) else max(apart, default=0.0)


def _ask(
    client: httpx.Client, name: str, rows: Rows, classes: Sequence[str], first: int, last: int
) -> list[tuple[float, ...]]:
    asked = f"test rows {first} to {last - 1}"
    try:
        answer = client.post(f"/v1/models/{name}:predict", json={"instances": list(rows.instances[first:last])})
    except httpx.HTTPError as error:
        raise NotReady(f"The staged server does not answer {asked}: {error!r}.") from error
    return answers_of(answer, classes, last - first, asked)


def _values(served: Any, classes: Sequence[str]) -> tuple[float, ...]:
    if classes:
        return tuple(float(served["probabilities"].get(label, math.nan)) for label in classes)
    return (float(served),)
