"""The rules that every reply keeps, whatever was asked."""

import json
import math
import re
from pathlib import Path
from typing import Any

from tests.bench.fuzzing.attack import Attack
from tests.bench.fuzzing.target import Target
from tests.bench.fuzzing.wire import Exchange, Reply

ROOT = str(Path(__file__).resolve().parents[3])
_LEAKS = re.compile(
    rb"Traceback|File \"|\.py\b|site-packages|line \d+, in |/usr/|/home/|/root/|/tmp/|0x[0-9a-f]{8,}|"
    rb"\b(?:Value|Type|Key|Attribute|Index|Runtime|Unicode\w+|Recursion|Overflow|Assertion|Memory)Error\b|"
    rb"<class '|onnxruntime\.|numpy\.|object at |NoneType"
)


_FIELDS = ("instances", "inputs", "outputs", "id", "parameters", "body", "tensor", "tensors")
_FIELDS += ("Inference-Header-Content-Length",)


def problems(attack: Attack, exchange: Exchange, target: Target) -> list[str]:
    """What is wrong with how an attack was answered; nothing where it was answered well."""
    said = []
    if exchange.malformed:
        said.append(f"malformed reply: {exchange.malformed}")
    if exchange.hung:
        said.append("neither a reply nor an end of the connection")
    if len(exchange.replies) > attack.replies:
        said.append(f"{len(exchange.replies)} replies to {attack.replies} requests: a smuggled request was answered")
    if attack.end == "reply" and not exchange.replies and not exchange.hung and not exchange.malformed:
        said.append("closed without a reply")
    for reply in exchange.replies:
        said += _reply(attack, reply, target)
    return said


def _reply(attack: Attack, reply: Reply, target: Target) -> list[str]:
    said = []
    if reply.status >= 500:
        said.append(f"status {reply.status}: {reply.body[:200]!r}")
    for leak in _LEAKS.finditer(reply.body):
        if leak.group() not in attack.wire and not _told_of_the_wire(leak.group(), attack):
            said.append(f"gives away {leak.group()!r}: {reply.body[:300]!r}")
    if ROOT.encode() in reply.body:
        said.append(f"gives away a path: {reply.body[:300]!r}")
    if reply.status == 200:
        said += _prediction(reply, target)
    elif 400 <= reply.status < 500 and attack.has_body:
        said += _refusal(attack, reply, target)
    return said


def _told_of_the_wire(found: bytes, attack: Attack) -> bool:
    """Whether the request said it in another spelling, such as an escape of JSON."""
    return found.lower() in attack.wire.lower() or b"\\u" in attack.wire


def _refusal(attack: Attack, reply: Reply, target: Target) -> list[str]:
    try:
        message = json.loads(reply.body)["error"]
    except (ValueError, KeyError, TypeError):
        return [f"status {reply.status} without an error text: {reply.body[:200]!r}"]
    if not isinstance(message, str) or len(message) < 10:
        return [f"status {reply.status} says too little: {message!r}"]
    if len(message) > 4_000:
        return [f"status {reply.status} says too much: {len(message)} characters"]
    if reply.status == 400 and attack.names_field and not _names_field(message, target):
        return [f"400 names no field: {message[:200]!r}"]
    return []


def _names_field(message: str, target: Target) -> bool:
    fields = [*_FIELDS, *(name for name, _ in target.columns)]
    return any(re.search(rf"\b{re.escape(name)}\b", message) for name in fields)


def _prediction(reply: Reply, target: Target) -> list[str]:
    try:
        document = json.loads(reply.body)
    except ValueError:
        return []  # binary tensors
    rows = document.get("predictions") if isinstance(document, dict) else None
    if not isinstance(rows, list):
        return []
    return [f"no prediction: {row!r}" for row in rows if not _is_prediction(row)][:1]


def _is_prediction(row: Any) -> bool:
    if isinstance(row, float | int):
        return math.isfinite(row)
    if not isinstance(row, dict) or "probabilities" not in row:
        return False
    shares = row["probabilities"].values()
    return all(isinstance(share, float) and 0 <= share <= 1 for share in shares) and math.isclose(
        sum(shares), 1, abs_tol=1e-5
    )
