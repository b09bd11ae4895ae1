"""Trains a model from a feature set and writes its bundle."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from components.errors import BadInput
from components.evaluate.metrics import PRIMARY, measure
from components.features.schema import FeatureSchema
from components.settings import settings
from components.train import background
from components.train.checkpoints import StoredCheckpoints
from components.train.contract import Data, DeviceWish, Fitted, Listener, NoGraph, Run, Trainer
from components.train.environment import Meter
from components.train.event_file import EventFile
from components.train.exports import check_kinds
from components.train.feature_set import Split
from components.train.history import History, Progress
from components.train.hyperparameters import checked
from components.train.parity import REAL_ROWS, compare, not_measured, probes
from components.train.recipe import digest, recipe
from components.train.report import report
from components.train.search import Found, Sought
from components.train.search import search as look
from components.train.space import plan
from components.train.threads import suited_to, wait_without_spinning
from components.train.tracking import tracked
from components.train.trainers import find
from components.train.trials import TrialRuns
from components.train.write import Made, write
from serving.schema import BundleManifest, Framework, Parity

if TYPE_CHECKING:
    import numpy as np
    import onnx

TRAIN_ROWS = 50_000
"""Metrics on the train split only show by how much the fit is closer to rows that it has seen: so many are enough."""

TOLERANCE: dict[Framework, float] = {"sklearn": 1e-6, "torch": 1e-5, "tensorflow": 1e-5, "onnx": 1e-5}


@dataclass(frozen=True)
class Trained:
    """What a training made.

    Attributes:
        manifest: the manifest that was written.
        metrics: by name, ``train_`` and ``valid_`` in front; and the fit's own facts.
        history: what the fit reported per epoch.
        trials: what each trial of a search reached, in order.
    """

    manifest: BundleManifest
    metrics: dict[str, float]
    history: History = field(default_factory=History)
    trials: tuple[float, ...] = ()

    def page(self) -> str:
        """The training as an HTML page."""
        return report(self.manifest, self.metrics, self.history, self.trials)

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
    search: dict[str, Any] | None = None,
    checkpoint_uri: str = "",
    exports: Sequence[str] = (),
    logs: Path | None = None,
    model_name: str = "",
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
        search: budget and space of a search (:class:`components.train.space.SearchPlan`), whose best trial is trained;
            empty searches nothing.
        checkpoint_uri: folder or fsspec URI for the state of this training; empty takes one under SLUICEWAY_STORE.
        exports: other forms of the graph to write; see :mod:`components.train.exports`.
        logs: folder for TensorBoard's events; None writes none.
        model_name: names the MLflow experiment that epochs and trials are logged to; without it they are not.
        say: told what a person who watches wants to know.

    Raises:
        BadInput: the feature set, a hyperparameter, the device or the checkpoint cannot be used.
        StorageFull: the bundle or a checkpoint does not fit on the disk.
        Interrupted: SIGTERM came; the state is saved.
    """
    meter = Meter()
    wait_without_spinning()
    _check_seed(seed)
    check_kinds(exports)
    data, maker = Data.read(features), find(trainer)
    chosen, run = hyperparameters or {}, Run(seed, _device(device), say=say)
    with run.interrupt.listening():
        found = _searched(data, trainer, maker, chosen, search, run, model_name) if search else None
        parameters = found.parameters if found else checked(trainer, maker, data.schema, chosen)
        tolerance = TOLERANCE[maker.framework] if parity_tolerance is None else parity_tolerance
        identity = recipe(data.schema, trainer, maker.framework, parameters, seed, tolerance)
        run = replace(run, checkpoints=_checkpoints(checkpoint_uri, digest(identity)))
        history = History()
        with _epoch_log(model_name, maker, identity, found, say) as log, _event_file(logs) as events:
            live = () if maker.framework == "sklearn" else (Progress(say),)  # its rounds are told when all are done
            run = replace(run, listeners=(history, *live, *log, *events))
            with _installed(trainer, maker):
                fitted = maker.fit(data, parameters, run)
    made, metrics = _measured(data, maker.framework, fitted, identity, tolerance)
    made = replace(made, device=run.used, search=found.facts() if found else {}, exports=tuple(exports))
    made = replace(made, background=background.draw(features, data.schema, seed))
    manifest = write(bundle, made, meter)
    run.checkpoints.clear()
    for file in events if history.epochs else ():
        file.finish(parameters, metrics)
    return Trained(manifest, {**metrics, **fitted.facts}, history, tuple(found.values()) if found else ())


def _searched(
    data: Data,
    name: str,
    maker: Trainer,
    chosen: dict[str, Any],
    budget: dict[str, Any],
    run: Run,
    model_name: str,
) -> Found:
    """The best trial; those that other workers or a killed attempt have done are not done again."""
    sought = Sought(data, name, maker, chosen, plan(budget, name, maker, data.schema.task, chosen))
    found = look(sought, run, TrialRuns(model_name or "sluiceway", sought.key(run.seed), run.say, required=False))
    run.say(found.fact())
    return found


@contextmanager
def _installed(name: str, maker: Trainer) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "tensorflow", "keras"):
            raise
        raise BadInput(
            f"The trainer {name!r} needs {error.name}, which is not installed here: "
            f"pip install -c constraints.txt -e '.[{maker.framework}]', or use the image made for it."
        ) from error


@contextmanager
def _epoch_log(
    model_name: str, maker: Trainer, identity: dict[str, Any], found: Found | None, say: Callable[[str], None]
) -> Iterator[tuple[Listener, ...]]:
    """MLflow as a listener of trainers whose epochs take a while; importing it costs more than scikit-learn's fits."""
    if not model_name or (maker.framework == "sklearn" and found is None):
        yield ()
        return
    with tracked(model_name, identity, digest(identity), say, found.run_id if found else "") as log:
        yield (log,)


@contextmanager
def _event_file(logs: Path | None) -> Iterator[tuple[EventFile, ...]]:
    if logs is None:
        yield ()
        return
    file = EventFile(logs)
    try:
        yield (file,)
    finally:
        file.close()


def _measured(
    data: Data, framework: Framework, fitted: Fitted, identity: dict[str, Any], tolerance: float
) -> tuple[Made, dict[str, float]]:
    """Metrics on train and valid, and what goes into the bundle."""
    schema, fitted_on = data.schema, data.sample("train")
    splits = {"train": _some(fitted_on, TRAIN_ROWS, identity["seed"]), "valid": data.sample("valid")}
    with suited_to(fitted_on.inputs.size):
        scores = {name: fitted.predict(split.inputs) for name, split in splits.items()}
        graph, parity = _graph(fitted, splits["valid"], scores["valid"], schema, (tolerance, identity["seed"]))
    if framework == "onnx" and graph is None:
        raise BadInput(
            f"The ONNX graph of {identity['trainer']} is not the model it was made of: {parity.reason}, where "
            f"parity_tolerance allows {parity.tolerance:g}; mend the graph, or clip what float32 cannot hold."
        )
    metrics = {
        f"{name}_{key}": value
        for name, split in splits.items()
        for key, value in measure(schema.task, split.target, scores[name]).items()
    }
    made = Made(
        schema=schema,
        framework=framework,
        fitted=fitted,
        valid=splits["valid"],
        scores=scores["valid"],
        recipe=identity,
        graph=graph,
        parity=parity,
    )
    return made, metrics


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
    rows = _drawn(len(scores), REAL_ROWS, seed)
    wanted = np.concatenate([scores[rows], fitted.predict(made_up)])
    frame = pd.concat([valid.inputs.iloc[rows], made_up], ignore_index=True)
    measured = compare(graph, frame, wanted, schema, tolerance)
    return (graph if measured.holds else None), measured


def _some(split: Split, at_most: int, seed: int) -> Split:
    """A split, or so many rows of a longer one."""
    if len(split.target) <= at_most:
        return split
    rows = _drawn(len(split.target), at_most, seed)
    return Split(split.inputs.iloc[rows], split.target[rows])


def _drawn(rows: int, at_most: int, seed: int) -> "np.ndarray[Any, Any]":
    """Places of at most so many rows, drawn by the seed, in order."""
    import numpy as np

    return np.sort(np.random.default_rng(seed).permutation(rows)[:at_most])
