"""The features step as a job on Kubernetes: what travels to the driver, and the feature set back."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.exchange import Exchange
from components.features.schema import FeatureSchema
from components.features.spark.application import Job, store_settings
from components.features.spark.launch import computed
from components.features.spark.options import SparkOptions
from components.features.spark.places import bucket_of
from components.files import whole_folder
from components.ingest import snapshot as snapshots
from components.settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from components.cluster.api import Cluster
    from components.features.run import FeatureSet

WORK, OUT = "work.json", "out"
SNAPSHOT, QUARANTINE, CONTRACT = "snapshot", "quarantine", "contract"


def on_kubernetes(
    folders: Mapping[str, Path],
    out: Path,
    given: Mapping[str, Any],
    spark: Mapping[str, Any],
    cluster: "Cluster | None" = None,
    say: "Callable[[str], None] | None" = None,
    every: float = 5.0,
) -> "FeatureSet":
    """Make a feature set by a SparkApplication.

    Args:
        folders: of the snapshot, the quarantine and the contract.
        out: the folder to make.
        given: the other arguments of :func:`components.features.run.run`.
        spark: see :class:`components.features.spark.options.SparkOptions`.
        cluster: where the pods run; by default the one that this pod is in.
        say: told what a person who watches wants to know; by default the step's log.
        every: seconds between two looks at whether to stop.

    Raises:
        BadInput: an option is wrong, the store is none that executors can use, or the cluster refuses the job.
        JobFailed: the job failed.
        Unreachable: the cluster or the store does not answer.
        Interrupted: SIGTERM came.
    """
    from components.cluster.api import connect
    from components.cluster.owner import owner
    from components.features.run import FeatureSet

    options = SparkOptions.given(spark)
    name = f"sluiceway-features-{_digest(folders, given, options)[:16]}"
    exchange = Exchange(f"{settings().store}/spark-jobs/{name}")
    store_settings(exchange.uri, options)  # refuses a store that executors cannot see, before anything is asked
    own = connect() if cluster is None else cluster
    there = own.inside(options.namespace) if options.namespace else own
    job = Job(name, exchange.uri, options, owner() if there.namespace == own.namespace else None)
    parts = _place(folders[SNAPSHOT], exchange)
    work = {SNAPSHOT: parts, "spark": dict(spark), "given": dict(given)}

    def prepare() -> None:
        for one in (QUARANTINE, CONTRACT):
            exchange.put(folders[one], one)
        if parts.startswith(f"{exchange.uri}/"):
            exchange.put(folders[SNAPSHOT], SNAPSHOT)
        exchange.put_file(folders[SNAPSHOT] / snapshots.FILE, f"{SNAPSHOT}.json")
        exchange.write(WORK, work)

    result = computed(there, job, prepare, exchange=exchange, say=say or _said, every=every)
    with whole_folder(out) as aside:
        exchange.get(OUT, aside / OUT)
        for file in (aside / OUT).iterdir():
            file.rename(aside / file.name)
        (aside / OUT).rmdir()
        schema = FeatureSchema.read(aside)
    exchange.remove()
    return FeatureSet(schema, sum(schema.rows.values()), **result)


def _place(snapshot: Path, exchange: Exchange) -> str:
    """Where executors read the snapshot: in the bucket that it came from, else where it is put for them."""
    came_from = bucket_of(snapshot)
    scheme, separator, _ = exchange.uri.partition("://")
    return came_from if separator and came_from.startswith(f"{scheme}://") else f"{exchange.uri}/{SNAPSHOT}"


def _digest(folders: Mapping[str, Path], given: Mapping[str, Any], options: SparkOptions) -> str:
    """What the result depends on, as hexadecimal digits."""
    found = hashlib.sha256(json.dumps([given, options.model_dump()], sort_keys=True, default=str).encode())
    found.update(snapshots.read(folders[SNAPSHOT]).version.encode())
    for one in (QUARANTINE, CONTRACT):
        for file in sorted(folders[one].rglob("*")):
            if file.is_file():
                found.update(file.relative_to(folders[one]).as_posix().encode() + file.read_bytes())
    return found.hexdigest()


def _said(message: str) -> None:
    from components.step import emit

    emit("features", "progress", message=message)
