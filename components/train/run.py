"""Trains a model from a feature set and writes its bundle."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from components.errors import BadInput
from components.evaluate.metrics import PRIMARY, measure
from components.features.schema import FILE as FEATURES_FILE
from components.features.schema import FeatureSchema
from components.files import whole_folder
from components.settings import settings
from components.train import mlmodel
from components.train.checkpoints import StoredCheckpoints
from components.train.contract import Data, DeviceWish, Fitted, NoGraph, Run
from components.train.feature_set import Split
from components.train.history import History
from components.train.hyperparameters import checked
from components.train.parity import compare, not_measured, probes
from components.train.recipe import digest, origin, recipe
from components.train.report import report
from components.train.threads import suited_to, wait_without_spinning
from components.train.trainers import find
from serving.schema import FILE, ONNX_FILE, BundleManifest, Framework, Parity

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import pandas as pd

EXAMPLE_ROWS = 3
TOLERANCE: dict[Framework, float] = {"sklearn": 1e-6, "torch": 1e-5, "tensorflow": 1e-5, "onnx": 1e-5}
BINS = 20


@dataclass(frozen=True)
class Trained:
    """What a training made.

    Attributes:
        manifest: the manifest that was written.
        metrics: by name, ``train_`` and ``valid_`` in front; and the fit's own facts.
        history: what the fit reported per epoch.
    """

    manifest: BundleManifest
    metrics: dict[str, float]
    history: History = field(default_factory=History)

    def page(self) -> str:
        """The training as an HTML page."""
        return report(self.manifest, self.metrics, self.history)

    def metadata(self) -> dict[str, Any]:
        """What the KFP UI shows of the model artifact."""
        manifest = self.manifest
        shown = {"max_abs", "rows", "tolerance", "reason"}
        return {
            "framework": manifest.framework,
            "task": manifest.task,
            "classes": list(manifest.classes),
            "runtime": manifest.runtime,
            "parity": manifest.parity.model_dump(include=shown) if manifest.parity else {},
            "recipe_digest": manifest.recipe_digest,
            "data_version": manifest.recipe["data_version"],
            "trainer": manifest.recipe["trainer"],
            "seed": manifest.recipe["seed"],
            "git_commit": manifest.origin["git_commit"],
            "bytes": sum(file.bytes for file in manifest.files.values()),
        }

    def fact(self) -> str:
        """The one thing worth knowing, for instance ``valid roc_auc 0.848, served by onnx``."""
        name = PRIMARY[self.manifest.task]
        return f"valid {name} {self.metrics[f'valid_{name}']:.4g}, served by {self.manifest.runtime}"


def train(
    features: Path,
    bundle: Path,
    *,
    trainer: str = "hist_gradient_boosting",
    hyperparameters: dict[str, Any] | None = None,
    seed: int = 0,
    parity_tolerance: float | None = None,
    device: str = "auto",
    checkpoint_uri: str = "",
    say: Callable[[str], None] = lambda _message: None,
) -> Trained:
    """Fit on the train split, measure on train and valid, and write the bundle whole.

    A training that was killed goes on from its last checkpoint when it is called again with the same arguments.

    Args:
        features: a feature set.
        bundle: folder to write.
        trainer: a name that :func:`components.train.trainers.find` knows.
        hyperparameters: what differs from the trainer's defaults.
        seed: every random choice follows from it.
        parity_tolerance: largest difference between ONNX and native predictions that counts as the same; None goes by
            the framework's arithmetic: 1e-6 for doubles, 1e-5 for the float32 of networks.
        device: ``auto`` takes a GPU where there is one, ``gpu`` fails without one, ``cpu`` takes none.
        checkpoint_uri: folder or fsspec URI for the state of this training; empty takes one under SLUICEWAY_STORE.
        say: told what a person who watches wants to know.

    Raises:
        BadInput: the feature set, a hyperparameter, the device or the checkpoint cannot be used.
        StorageFull: the bundle or a checkpoint does not fit on the disk.
        Interrupted: SIGTERM came; the state is saved.
    """
    began = time.monotonic()
    wait_without_spinning()
    _check_seed(seed)
    data, maker = Data.read(features), find(trainer)
    parameters = checked(trainer, maker, data.schema, hyperparameters or {})
    tolerance = TOLERANCE[maker.framework] if parity_tolerance is None else parity_tolerance
    identity = recipe(data.schema, trainer, maker.framework, parameters, seed, tolerance)
    history = History()
    kept = _checkpoints(checkpoint_uri, digest(identity))
    run = Run(seed, _device(device), kept, listeners=(history,), say=say)
    with run.interrupt.listening():
        fitted = maker.fit(data, parameters, run)
    made, metrics = _measured(data, maker.framework, fitted, identity, tolerance)
    manifest = _write(bundle, made, began)
    run.checkpoints.clear()
    return Trained(manifest, {**metrics, **fitted.facts}, history)


def _measured(
    data: Data, framework: Framework, fitted: Fitted, identity: dict[str, Any], tolerance: float
) -> "tuple[_Made, dict[str, float]]":
    """Metrics on train and valid, and what goes into the bundle."""
    schema, splits = data.schema, {"train": data.sample("train"), "valid": data.sample("valid")}
    with suited_to(splits["train"].inputs.size):
        scores = {name: fitted.predict(split.inputs) for name, split in splits.items()}
        graph, parity = _graph(fitted, splits["valid"], scores["valid"], schema, (tolerance, identity["seed"]))
    metrics = {
        f"{name}_{key}": value
        for name, split in splits.items()
        for key, value in measure(schema.task, split.target, scores[name]).items()
    }
    made = _Made(
        schema=schema,
        framework=framework,
        fitted=fitted,
        example=splits["train"].inputs.head(EXAMPLE_ROWS),
        bins=prediction_bins(schema.task, scores["valid"]),
        recipe=identity,
        graph=graph,
        parity=parity,
    )
    return made, metrics


@dataclass(frozen=True)
class _Made:
    """What goes into the bundle."""

    schema: FeatureSchema
    framework: Framework
    fitted: Fitted
    example: "pd.DataFrame"
    bins: tuple[float, ...]
    recipe: dict[str, Any]
    graph: "onnx.ModelProto | None"
    parity: Parity


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise BadInput(f"The seed is {seed}; it must be from 0 to {2**32 - 1}.")


def _device(wish: str) -> DeviceWish:
    for known in get_args(DeviceWish):
        if wish == known:
            return cast(DeviceWish, known)
    raise BadInput(f"The device is {wish!r}; it must be one of {', '.join(get_args(DeviceWish))}.")


def _checkpoints(uri: str, identity: str) -> StoredCheckpoints:
    return StoredCheckpoints(uri or f"{settings().store}/checkpoints/{identity}", identity)


def _graph(
    fitted: Fitted, valid: Split, scores: "np.ndarray[Any, Any]", schema: FeatureSchema, limits: tuple[float, int]
) -> "tuple[onnx.ModelProto | None, Parity]":
    """The ONNX graph and its parity; no graph where it cannot be built or does not hold."""
    import numpy as np
    import pandas as pd

    tolerance, seed = limits
    try:
        graph = fitted.graph(schema)
    except NoGraph as error:
        return None, not_measured(tolerance, str(error))
    made_up = probes(valid.inputs, schema, fitted, seed)
    wanted = np.concatenate([scores, fitted.predict(made_up)])
    rows = pd.concat([valid.inputs, made_up], ignore_index=True)
    measured = compare(graph, rows, wanted, schema, tolerance)
    return (graph if measured.holds else None), measured


def _write(bundle: Path, made: _Made, began: float) -> BundleManifest:
    from serving.bundle import digest_files

    schema, identity = made.schema, digest(made.recipe)
    with whole_folder(bundle) as folder:
        flavor = made.fitted.save(folder)
        if made.graph is not None:
            (folder / ONNX_FILE).write_bytes(made.graph.SerializeToString(deterministic=True))
        (folder / FEATURES_FILE).write_text(schema.model_dump_json(indent=2) + "\n", encoding="utf-8")
        mlmodel.write(folder, schema, made.example, flavor, identity)
        manifest = BundleManifest(
            framework=made.framework,
            task=schema.task,
            classes=schema.classes,
            runtime="native" if made.graph is None else "onnx",
            prediction_bins=made.bins,
            recipe=made.recipe,
            recipe_digest=identity,
            origin=origin(time.monotonic() - began),
            parity=made.parity,
            files=digest_files(folder),
        )
        (folder / FILE).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def prediction_bins(task: str, scores: "np.ndarray[Any, Any]") -> tuple[float, ...]:
    """Edges for counting live predictions: twenty equal ones of probability, or quantiles of values on valid."""
    import numpy as np

    if task == "multiclass":
        return ()
    if task == "binary":
        return tuple(index / BINS for index in range(BINS + 1))
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, BINS + 1)))
    return tuple(map(float, edges)) if len(edges) > 1 else ()
