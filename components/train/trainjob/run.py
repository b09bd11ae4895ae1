"""Trains in several pods: submits the job, follows it, brings the bundle back, and leaves nothing behind."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.cluster.owner import owner
from components.errors import BadInput, SluicewayError, Unreachable
from components.exchange import Exchange
from components.features.schema import FILE as FEATURES_FILE
from components.files import whole_folder
from components.settings import settings
from components.step import MARK
from components.train.interrupt import Interrupt, Interrupted
from components.train.recipe import digest
from components.train.trainers import find
from components.train.trainjob.cluster import Cluster, Seen, inside
from components.train.trainjob.manifest import Framework, Job, Plain
from components.train.trainjob.work import FEATURES, OUT, RESULT, WORK, Result, Work

EVERY = 5.0
"""Seconds between two looks."""
TRIES = 12
"""Looks in a row that may fail before the API server counts as gone."""
LAST_LINES = 200
LONGEST = 7 * 24 * 60 * 60
"""Seconds after which Kubernetes ends a job whose launcher is gone."""


class JobFailed(SluicewayError):
    """The pods of a training failed."""


@dataclass(frozen=True)
class Outputs:
    """Where the results of a training go.

    Attributes:
        bundle: folder of the bundle.
        logs: folder of the TensorBoard files.
        report: page of the training.
    """

    bundle: Path
    logs: Path
    report: Path


def launch(
    work: Work,
    features: Path,
    outputs: Outputs,
    *,
    image: str,
    nodes: int,
    pod: dict[str, Any],
    say: Callable[[str], None],
) -> Result:
    """Train in several pods of the cluster that this one runs in.

    Args:
        work: what they do.
        features: the feature set.
        outputs: where the results go.
        image: of the pods.
        nodes: how many.
        pod: what KFP gives the task, by the names of its TaskConfig.
        say: told what a person who watches wants to know.

    Raises:
        BadInput: this is no cluster, or the trainer trains in one pod.
    """
    api, namespace, account = inside()
    name = work.name(features_digest(features), image, nodes)
    exchange = exchange_for(name)
    job = Job(
        name=name,
        namespace=namespace,
        framework=framework_of(work.trainer),
        image=image,
        work=exchange.uri,
        nodes=nodes,
        seconds=LONGEST,
        pod={
            "resources": pod["resources"],
            "env": pod["env"],
            "volumes": pod["volumes"],
            "volumeMounts": pod["volume_mounts"],
            "nodeSelector": pod["node_selector"],
            "tolerations": pod["tolerations"],
            "affinity": pod["affinity"],
            "serviceAccountName": account,
        },
        owner=owner(),
    )
    return train(Cluster(api, namespace), job, work, features, outputs, exchange=exchange, say=say)


def framework_of(trainer: str) -> Framework:
    """How the pods of a trainer find each other; one that only its own image knows is taken to be PyTorch's.

    Raises:
        BadInput: it trains in one pod.
    """
    try:
        framework = find(trainer).framework
    except BadInput:
        if ":" not in trainer:
            raise
        return "torch"
    if framework in ("torch", "tensorflow"):
        return framework
    raise BadInput(f"The trainer {trainer!r} trains in one pod: set nodes to 1.")


def exchange_for(name: str) -> Exchange:
    """The folder of a job in the settings' store."""
    return Exchange(f"{settings().store}/train-jobs/{name}")


def features_digest(features: Path) -> str:
    """What identifies a feature set."""
    return digest(json.loads((features / FEATURES_FILE).read_text(encoding="utf-8")))


def train(
    cluster: Cluster,
    job: Job,
    work: Work,
    features: Path,
    outputs: Outputs,
    *,
    exchange: Exchange,
    say: Callable[[str], None],
    every: float = EVERY,
) -> Result:
    """Train in several pods.

    A job of the same name that another attempt left is followed, not made again; one that has failed is replaced, and
    goes on from its checkpoint. However this ends, also by SIGTERM, the job is removed.

    Args:
        cluster: where the pods run.
        job: what they run.
        work: what they do.
        features: the feature set.
        outputs: where the results go.
        exchange: what the pods can see.
        say: told what a person who watches wants to know.
        every: seconds between two looks.

    Raises:
        BadInput: no operator for such jobs is installed, or the cluster refuses the job.
        JobFailed: the pods failed; the message is the last thing that they said.
        Unreachable: the cluster or the store does not answer.
        Interrupted: SIGTERM came.
    """
    body = cluster.render(job)
    with Interrupt().listening() as interrupt:
        try:
            if not _there(cluster, body, exchange, say):
                exchange.put(features, FEATURES)
                exchange.write(WORK, asdict(work))
                cluster.submit(body)
                say(f"{body['kind']} {job.name}: {job.nodes} pods, {job.processes} processes each")
            _follow(cluster, body, exchange, interrupt, say, every)
            result = _collect(exchange, outputs, body)
        except BaseException:
            _remove_quietly(cluster, body, say)
            raise
    cluster.remove(body)
    exchange.remove()
    return result


def _there(cluster: Cluster, body: Plain, exchange: Exchange, say: Callable[[str], None]) -> bool:
    """Whether an earlier attempt's job runs or has ended well."""
    found = cluster.look(body)
    if found is None:
        return exchange.read(RESULT) is not None
    if found.state == "failed":
        cluster.remove(body)
        while (left := cluster.look(body)) is not None and left.uid == found.uid:
            time.sleep(0.2)
        return False
    say(f"{body['kind']} {body['metadata']['name']} is there already: following it")
    return True


def _follow(
    cluster: Cluster, body: Plain, exchange: Exchange, interrupt: Interrupt, say: Callable[[str], None], every: float
) -> None:
    """Wait until the job has ended well; says what its first pod says meanwhile."""
    missed, said = 0, ""
    while True:
        try:
            now, missed = cluster.look(body), 0
        except Unreachable:
            missed += 1
            if missed >= TRIES:
                raise
        else:
            if _ended(now, cluster, body, exchange):
                return
            assert now is not None
            told = _last_progress(cluster.log(body, LAST_LINES)) or now.message
            if told != said:
                say(told)
                said = told
        _pause(interrupt, every)


def _ended(now: Seen | None, cluster: Cluster, body: Plain, exchange: Exchange) -> bool:
    name = f"{body['kind']} {body['metadata']['name']}"
    if now is None:
        if exchange.read(RESULT) is not None:
            return True
        raise JobFailed(f"The {name} was removed while it ran: run again to go on from its checkpoint.")
    if now.state == "failed":
        log = cluster.log(body, LAST_LINES)
        print(log, flush=True)  # the pods go with the job, and their logs with them
        raise JobFailed(f"The {name} failed: {_last_failure(log) or now.message or 'its pods do not say why'}")
    return now.state == "succeeded"


def _pause(interrupt: Interrupt, seconds: float) -> None:
    until = time.monotonic() + seconds
    while True:
        if interrupt:
            raise Interrupted("The training in several pods was told to stop: its job is removed; run again to go on.")
        left = until - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, 0.2))


def _events(log: str) -> list[dict[str, Any]]:
    """What the step said in a log, in order."""
    found = []
    for line in log.splitlines():
        _, start, rest = line.partition(f'{{"{MARK}"')
        if start:
            try:
                event, _ = json.JSONDecoder().raw_decode(start + rest)
            except json.JSONDecodeError:  # cut by the number of lines, or by another writer
                continue
            found.append(event)
    return found


def _last_progress(log: str) -> str:
    told = [event["message"] for event in _events(log) if event[MARK] == "progress"]
    return str(told[-1]) if told else ""


def _last_failure(log: str) -> str:
    told = [event["message"] for event in _events(log) if event[MARK] == "failed"]
    return str(told[-1]) if told else ""


def _collect(exchange: Exchange, outputs: Outputs, body: Plain) -> Result:
    said = exchange.read(RESULT)
    if said is None:
        raise JobFailed(
            f"The {body['kind']} {body['metadata']['name']} ended without a result at {exchange.uri}: its first pod "
            "does not write where this step reads; give both the same SLUICEWAY_STORE."
        )
    with tempfile.TemporaryDirectory(dir=outputs.bundle.parent) as scratch:
        out = Path(scratch) / OUT
        exchange.get(OUT, out)
        for made, wanted in ((out / "bundle", outputs.bundle), (out / "logs", outputs.logs)):
            with whole_folder(wanted) as aside:
                if made.is_dir():
                    shutil.copytree(made, aside, dirs_exist_ok=True)
        shutil.copyfile(out / "report.html", outputs.report)
    return Result(**said)


def _remove_quietly(cluster: Cluster, body: Plain, say: Callable[[str], None]) -> None:
    """Remove the job after a failure, which must not hide it."""
    try:
        cluster.remove(body)
    except SluicewayError as error:
        say(f"The job could not be removed: {error}")
