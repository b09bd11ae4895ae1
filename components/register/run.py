"""Registers a bundle that passed the gate: one run, one version per recipe, however often it is tried."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import BadInput
from components.evaluate.decision import FILE as DECISION_FILE
from components.evaluate.decision import Decision
from components.evaluate.run import bundle_digest
from components.ingest.catalog import Entry
from components.register import dataset, registry, runs
from components.register.mlflow_client import client, reaching
from components.register.publish import FOLDER, arrived, publish
from serving.schema import BundleManifest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Registered:
    """A registered version.

    Attributes:
        version: in the registry.
        model_uri: where its bundle lies, fit for an InferenceService's ``storageUri``.
        already_champion: it serves already; there is nothing to roll out.
        reused: it had been registered before.
        run_id: its MLflow run.
        lineage: what it was made from, as it was registered: the same for every later run.
    """

    version: str
    model_uri: str
    already_champion: bool
    reused: bool
    run_id: str
    lineage: Mapping[str, str]

    def fact(self) -> str:
        """The one thing worth knowing."""
        if self.already_champion:
            return f"version {self.version} is the champion already"
        return f"version {self.version} is the challenger" + (" (registered before)" if self.reused else "")


def register(bundle: Path, decision: Path, model_name: str) -> Registered:
    """Register a bundle and give it the alias ``challenger``, unless it is the champion.

    A version of the same recipe is the same model and is used again. A crash between any two calls leaves a run or
    a version that the next try finds by its recipe and completes.

    Args:
        bundle: what was trained.
        decision: ``decision.json`` of the gate, or the folder that holds it.
        model_name: the registered model.

    Raises:
        BadInput: the decision did not pass, or is about another model.
        BadBundle: the bundle does not verify.
        Unreachable: MLflow cannot be used.
        StorageFull: the artifact store has no space left.
    """
    from serving.bundle import verify

    judged = Decision.read(decision)
    manifest = verify(bundle)
    _check(judged, manifest, bundle)
    with reaching():
        mlflow = client()
        found = _version(mlflow, model_name, manifest.recipe_digest)
        reused = found is not None
        if found is None:
            found = _create(mlflow, model_name, bundle, manifest, judged)
        elif not arrived(found.tags[registry.STORAGE_URI]):
            publish(mlflow, mlflow.get_run(str(found.run_id)), bundle, model_name)
        version = str(found.version)
        serving = registry.by_alias(mlflow, model_name, registry.CHAMPION)
        already_champion = serving is not None and str(serving.version) == version
        if not already_champion:
            mlflow.set_model_version_tag(model_name, version, registry.STATE, registry.CHALLENGER)
            mlflow.set_registered_model_alias(model_name, registry.CHALLENGER, version)
        uri, run_id = found.tags[registry.STORAGE_URI], str(found.run_id)
        return Registered(version, uri, already_champion, reused, run_id, registry.lineage(found.tags))


def _check(judged: Decision, manifest: BundleManifest, bundle: Path) -> None:
    if not judged.passed:
        reasons = "; ".join(check.reason for check in judged.failures()) or "no reason given"
        raise BadInput(f"The gate did not pass this model ({reasons}): it cannot be registered.")
    if judged.recipe_digest != manifest.recipe_digest or judged.bundle_digest != bundle_digest(bundle):
        raise BadInput(
            f"The decision is about model {judged.recipe_digest[:12]} and not this bundle, "
            f"{manifest.recipe_digest[:12]}: evaluate this bundle, then register it."
        )


def _version(mlflow: "MlflowClient", model_name: str, recipe_digest: str) -> "ModelVersion | None":
    """The first version of a recipe."""
    found = mlflow.search_model_versions(f"name = '{model_name}' and tag.`{registry.RECIPE}` = '{recipe_digest}'")
    return min(found, key=lambda version: int(version.version), default=None)


def _create(
    mlflow: "MlflowClient", model_name: str, bundle: Path, manifest: BundleManifest, judged: Decision
) -> "ModelVersion":
    """Log the run, upload the bundle, then create the version with its tags in one call."""
    _ensure_model(mlflow, model_name)
    tags = _tags(manifest, judged)
    run = _run(mlflow, model_name, tags)
    data = dataset.listed(model_name, tags[registry.DATA_VERSION])
    if data is not None:
        tags |= dataset.tags(data)
    _log(mlflow, run, manifest, judged, data)
    storage_uri = publish(mlflow, run, bundle, model_name)
    mlflow.set_terminated(run.info.run_id)
    made = mlflow.create_model_version(
        model_name,
        source=f"{run.info.artifact_uri}/{FOLDER}",
        run_id=run.info.run_id,
        tags=tags | {registry.STORAGE_URI: storage_uri},
        description=_description(judged),
    )
    first = _version(mlflow, model_name, manifest.recipe_digest)
    if first is not None and str(first.version) != str(made.version):  # another run registered it meanwhile
        mlflow.delete_model_version(model_name, str(made.version))
        return first
    return made


def _ensure_model(mlflow: "MlflowClient", model_name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        mlflow.create_registered_model(model_name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _run(mlflow: "MlflowClient", model_name: str, tags: dict[str, str]) -> "Run":
    """The run of this recipe: the one that training or an earlier try began, KFP's for this task, or a new one."""
    experiment, digest = runs.experiment(mlflow, model_name), tags[registry.RECIPE]
    found = runs.tagged(mlflow, experiment, registry.RECIPE, digest) or runs.of_this_task(mlflow)
    return found or mlflow.create_run(experiment, tags=tags, run_name=digest[:12])


def _log(mlflow: "MlflowClient", run: "Run", manifest: BundleManifest, judged: Decision, data: Entry | None) -> None:
    import time

    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    values: dict[str, float | None] = {}
    for name, measured in judged.metrics.items():
        values |= {f"test_{name}": measured.value, f"test_{name}_low": measured.interval.low}
        values |= {f"test_{name}_high": measured.interval.high}
    mlflow.log_batch(
        run.info.run_id,
        metrics=[Metric(name, value, now, 0) for name, value in values.items() if value is not None],
        params=[Param(name, value) for name, value in runs.parameters(run, manifest.recipe).items()],
        tags=[RunTag(name, value) for name, value in _tags(manifest, judged).items()],
    )
    if data is not None:
        mlflow.log_inputs(run.info.run_id, [dataset.dataset_input(data)])
    mlflow.log_text(run.info.run_id, judged.model_dump_json(indent=2), DECISION_FILE)


def _tags(manifest: BundleManifest, judged: Decision) -> dict[str, str]:
    """Lineage: which data, code, run and model."""
    origin: dict[str, Any] = manifest.origin
    tags = {
        registry.RECIPE: manifest.recipe_digest,
        registry.DATA_VERSION: str(manifest.recipe["data_version"]),
        registry.BUNDLE: judged.bundle_digest,
        registry.RUN: str(origin.get("run_id", "")),
        "sluiceway.version": str(manifest.recipe["versions"]["sluiceway"]),
        "sluiceway.runtime": manifest.runtime,
        registry.NATIVE: manifest.framework if manifest.runtime == "native" else "",
        "sluiceway.compared_with": judged.champion_version,
        registry.COMMIT: str(origin.get("git_commit", "")),
    }
    return {name: value for name, value in tags.items() if value}


def _description(judged: Decision) -> str:
    measured = judged.metrics[judged.primary_metric]
    low, high = measured.interval.low, measured.interval.high
    return f"{judged.primary_metric} {measured.value:.4g} [{low:.4g}, {high:.4g}] on {judged.rows:,} test rows"
