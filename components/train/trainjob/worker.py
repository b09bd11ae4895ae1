"""What runs in each pod of a training in several: ``python -m components.train.trainjob.worker URI``."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from components.errors import NotReady
from components.exchange import Exchange
from components.files import write_text
from components.step import step
from components.train.trainjob.manifest import PORT
from components.train.trainjob.work import FEATURES, OUT, RESULT, WORK, Result, Work

PATIENCE = 3600.0
"""Seconds that a pod's other processes wait until the first one has copied the feature set."""


def main() -> None:
    """Train; the first process of the first pod speaks, and brings the bundle back."""
    (uri,) = sys.argv[1:]
    environment = tf_config(os.environ)
    os.environ.update(environment)
    if rank(os.environ) > 0:
        work(uri, say=lambda _message: None)
        return
    with step("train") as current:
        current.fact = work(uri, say=current.progress).fact


def work(uri: str, say: Callable[[str], None]) -> Result:
    """Train what the job's folder asks for; every process must call it, the first one writes.

    Args:
        uri: of the job's folder.
        say: told what a person who watches wants to know.
    """
    from components.train.run import train

    exchange, here = Exchange(uri), Path(tempfile.gettempdir()) / "sluiceway" / uri.rstrip("/").rpartition("/")[2]
    asked, number = Work(**exchange.read(WORK)), rank(os.environ)
    out = here / f"out-{number}"
    trained = train(
        _features(exchange, here),
        out / "bundle",
        trainer=asked.trainer,
        hyperparameters=asked.hyperparameters,
        seed=asked.seed,
        parity_tolerance=asked.parity_tolerance or None,
        device=asked.device,
        checkpoint_uri=asked.checkpoint_uri,
        exports=asked.exports,
        logs=out / "logs" if number == 0 else None,
        model_name=asked.model_name if number == 0 else "",
        say=say,
    )
    result = Result(trained.metrics, trained.metadata(), trained.fact(), trained.manifest.recipe_digest)
    if number == 0:
        write_text(out / "report.html", trained.page())
        exchange.put(out, OUT)
        exchange.write(RESULT, asdict(result))  # last: it says that the rest is there
    return result


def rank(environment: Mapping[str, str]) -> int:
    """This process's number among all of the job's: from torchrun, or from the task in ``TF_CONFIG``."""
    if "RANK" in environment:
        return int(environment["RANK"])
    if "TF_CONFIG" in environment:
        return int(json.loads(environment["TF_CONFIG"])["task"]["index"])
    return 0


def tf_config(environment: Mapping[str, str]) -> dict[str, str]:
    """``TF_CONFIG`` for a pod of a ``TrainJob``, whose runtime for TensorFlow sets none; empty where it is not needed.

    A JobSet gives its pods the names ``JOB-node-0-INDEX.JOB``; see its ``network.enableDNSHostnames``.
    """
    own = ("SLUICEWAY_JOB", "SLUICEWAY_NODES", "JOB_COMPLETION_INDEX")
    if "TF_CONFIG" in environment or "RANK" in environment or any(name not in environment for name in own):
        return {}
    job, nodes, index = (environment[name] for name in own)
    workers = [f"{job}-node-0-{number}.{job}:{PORT}" for number in range(int(nodes))]
    return {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": int(index)}})}


def _features(exchange: Exchange, here: Path) -> Path:
    """The feature set, copied once for all processes of this pod."""
    features = here / FEATURES
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        exchange.get(FEATURES, features)
        return features
    deadline = time.monotonic() + PATIENCE
    while not features.is_dir():
        if time.monotonic() > deadline:
            raise NotReady(f"The feature set did not arrive in {PATIENCE:.0f} s: look at the pod's first process.")
        time.sleep(0.2)
    return features


if __name__ == "__main__":
    main()
