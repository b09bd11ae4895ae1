"""Computes features on Kubernetes: submits a SparkApplication, follows it, brings the result, leaves nothing behind."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from components.cluster.api import Cluster
from components.errors import SluicewayError
from components.exchange import Exchange
from components.features.spark.application import SPARK_APPLICATION, Job, rendered
from components.train.interrupt import Interrupt, Interrupted

Plain = dict[str, Any]

RESULT, FAILURE = "result.json", "failure.json"
_FAILED = ("FAILED", "SUBMISSION_FAILED")
_GOING = 120.0  # seconds that a removed object may take to go


class JobFailed(SluicewayError):
    """The Spark job failed."""


def computed(
    cluster: Cluster,
    job: Job,
    prepare: Callable[[], None],
    *,
    exchange: Exchange,
    say: Callable[[str], None],
    every: float = 5.0,
) -> Any:
    """Run a job to its end; what its driver left as the result.

    A job of the same name that another attempt left is followed, not made again; one that has failed is replaced.
    However this ends, also by SIGTERM, the job is removed.

    Args:
        cluster: where the pods run.
        job: what they run.
        prepare: writes what the driver reads; only called when the job is made.
        exchange: what step and driver share.
        say: told what a person who watches wants to know.
        every: seconds between two looks at whether to stop.

    Raises:
        BadInput: there is no Spark Operator, or the cluster refuses the job.
        JobFailed: the job failed; the message is the driver's own where it could leave one.
        Unreachable: the cluster or the store does not answer.
        Interrupted: SIGTERM came.
    """
    body = rendered(job)
    with Interrupt().listening() as interrupt:
        try:
            if not _there(cluster, job.name, exchange, say):
                exchange.remove()
                prepare()
                cluster.apply(body, force=True)
                say(f"SparkApplication {job.name}: {job.options.executors} executors")
            _follow(cluster, job, exchange, interrupt, say, every)
            result = exchange.read(RESULT)
            if result is None:
                raise JobFailed(
                    f"The SparkApplication {job.name} ended without a result at {exchange.uri}: its driver does not "
                    "write where this step reads; give both the same store."
                )
        except BaseException:
            _remove_quietly(cluster, job.name, say)
            raise
    cluster.delete(SPARK_APPLICATION, job.name)
    return result


def _there(cluster: Cluster, name: str, exchange: Exchange, say: Callable[[str], None]) -> bool:
    """Whether an earlier attempt's job runs or has ended well."""
    found = cluster.get(SPARK_APPLICATION, name)
    if found is None:
        return exchange.read(RESULT) is not None
    if _state(found) in _FAILED or found["metadata"].get("deletionTimestamp"):
        cluster.delete(SPARK_APPLICATION, name)
        uid = found["metadata"]["uid"]
        cluster.wait(
            SPARK_APPLICATION, name, lambda left: (left is None or left["metadata"]["uid"] != uid) or None, _GOING
        )
        return False
    say(f"SparkApplication {name} is there already: following it")
    return True


def _follow(
    cluster: Cluster,
    job: Job,
    exchange: Exchange,
    interrupt: Interrupt,
    say: Callable[[str], None],
    every: float,
) -> None:
    """Wait until the job has ended well; says how far it is meanwhile."""
    end, said = time.monotonic() + job.options.timeout_seconds, ""

    def ended(now: Plain | None) -> bool | None:
        nonlocal said
        if interrupt:
            raise Interrupted("The Spark job was told to stop, and is removed; run again to compute anew.")
        if now is None:
            if exchange.read(RESULT) is not None:
                return True
            raise JobFailed(f"The SparkApplication {job.name} was removed while it ran: run again.")
        state = _state(now)
        if state in _FAILED:
            raise JobFailed(f"The SparkApplication {job.name} failed: {_why(now, exchange)}")
        told = progress(now)
        if told != said:
            say(told)
            said = told
        return True if state == "COMPLETED" else None

    while not cluster.wait(SPARK_APPLICATION, job.name, ended, every):
        if time.monotonic() > end:
            raise JobFailed(
                f"The SparkApplication {job.name} had not ended after {job.options.timeout_seconds} s and is removed: "
                "give it more executors, or a longer timeout_seconds."
            )


def _state(found: Plain) -> str:
    return str(((found.get("status") or {}).get("applicationState") or {}).get("state") or "")


def progress(found: Plain) -> str:
    """How far a SparkApplication is, by its status."""
    state = _state(found) or "waiting for the Spark Operator"
    executors = Counter(((found.get("status") or {}).get("executorState") or {}).values())
    counts = ", ".join(f"{count} {name.lower()}" for name, count in sorted(executors.items()))
    return f"{state.lower()}; executors: {counts}" if counts else state.lower()


def _why(found: Plain, exchange: Exchange) -> str:
    """The driver's own sentence, else what the operator says."""
    said = exchange.read(FAILURE)
    if said is not None:
        return str(said["message"])
    message = str(found["status"]["applicationState"].get("errorMessage") or "").strip()
    return message or "neither its driver nor the operator says why"


def _remove_quietly(cluster: Cluster, name: str, say: Callable[[str], None]) -> None:
    """Remove the job after a failure, which must not hide it."""
    try:
        cluster.delete(SPARK_APPLICATION, name)
    except SluicewayError as error:
        say(f"The SparkApplication {name} could not be removed: {error}")
