"""The train steps' KFP faces: `train` in this pod, `search` in one of several, `train_job` in several at once."""

from kfp import dsl

from components.images import CONTROL, TRAIN_SKLEARN

_KEPT = (dsl.TaskConfigField.ENV, dsl.TaskConfigField.KUBERNETES_VOLUMES)
_PASSED_ON = (
    dsl.TaskConfigField.RESOURCES,
    dsl.TaskConfigField.KUBERNETES_NODE_SELECTOR,
    dsl.TaskConfigField.KUBERNETES_TOLERATIONS,
    dsl.TaskConfigField.KUBERNETES_AFFINITY,
)


@dsl.component(base_image=TRAIN_SKLEARN, install_kfp_package=False)
def train(
    features: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    logs: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    mlpipeline_ui_metadata: dsl.Output[dsl.Artifact],
    trainer: str = "hist_gradient_boosting",
    hyperparameters: dict = {},  # noqa: B006 - KFP reads the default, nothing changes it
    seed: int = 0,
    parity_tolerance: float = 0.0,
    device: str = "auto",
    search: dict = {},  # noqa: B006
    found: list = [],  # noqa: B006
    checkpoint_uri: str = "",
    exports: list = [],  # noqa: B006
    model_name: str = "",
) -> str:
    """Train a model and write it as a bundle: MLflow model, ONNX graph, digests.

    Args:
        features: Feature set to learn from: the train split, with the valid split deciding when to stop.
        model: The bundle.
        metrics: Metrics on the train and valid splits.
        logs: What TensorBoard opens.
        report: How the fit went, as a page.
        mlpipeline_ui_metadata: What makes the KFP UI offer TensorBoard, by this name alone.
        trainer: hist_gradient_boosting, random_forest, linear, torch or keras; or package.module:callable, a trainer of
            your own in the image.
        hyperparameters: What differs from the trainer's defaults, by the estimator's own parameter names.
        seed: Every random choice follows from it; same data, parameters and seed make the same model.
        parity_tolerance: Largest difference between ONNX and native predictions at which ONNX is served; 0 goes by the
            framework's arithmetic.
        device: auto takes a GPU where there is one, gpu fails without one, cpu takes none.
        search: Budget and space of a hyperparameter search; empty searches none.
        found: What the search steps say, so that they come first; empty searches here.
        checkpoint_uri: Where the state of a training is kept, so that one that was killed goes on; empty takes a place
            under SLUICEWAY_STORE.
        exports: Other forms of the ONNX graph to write: int8, fp16, ort.
        model_name: Name of the model; its MLflow experiment gets every epoch. Empty logs none.

    Returns:
        The recipe digest, which is the model's identity.
    """
    from pathlib import Path

    from components.step import step

    with step("train") as current:
        from components.train.event_file import ui_metadata
        from components.train.run import train as run
        from components.train.schedule import budget

        Path(logs.path).mkdir(parents=True, exist_ok=True)
        trained = run(
            Path(features.path),
            Path(model.path),
            trainer=trainer,
            hyperparameters=hyperparameters,
            seed=seed,
            parity_tolerance=parity_tolerance or None,
            device=device,
            search=budget(search),
            checkpoint_uri=checkpoint_uri,
            exports=exports,
            logs=Path(logs.path),
            model_name=model_name,
            say=current.progress,
        )
        Path(report.path).write_text(trained.page(), encoding="utf-8")
        Path(mlpipeline_ui_metadata.path).write_text(ui_metadata(logs.uri), encoding="utf-8")
        for name, value in trained.metrics.items():
            metrics.log_metric(name, value)
        model.metadata.update(trained.metadata())
        current.fact = trained.fact()
    return trained.manifest.recipe_digest


@dsl.component(base_image=TRAIN_SKLEARN, install_kfp_package=False)
def search(
    features: dsl.Input[dsl.Dataset],
    model_name: str,
    trainer: str,
    search: dict,
    worker: int,
    workers: list,
    hyperparameters: dict = {},  # noqa: B006
    seed: int = 0,
    device: str = "auto",
) -> int:
    """Do one worker's share of a hyperparameter search; the workers find each other's trials in MLflow.

    Args:
        features: Feature set: trials learn from the train split and are judged on the valid split.
        model_name: Name of the model; its MLflow experiment keeps the trials.
        trainer: See train.
        search: Budget and space.
        worker: Which worker this is.
        workers: All of them.
        hyperparameters: See train; what they set is not searched.
        seed: Every random choice follows from it.
        device: See train.

    Returns:
        How many trials of the search are done, as far as this worker knows.
    """
    from pathlib import Path

    from components.step import step

    with step("search") as current:
        from components.train.share import share

        done = share(
            Path(features.path),
            trainer=trainer,
            hyperparameters=hyperparameters,
            search=search,
            seed=seed,
            device=device,
            model_name=model_name,
            worker=(worker, len(workers)),
            say=current.progress,
        )
        current.fact = f"{done} trials done"
    return done


@dsl.component(
    base_image=CONTROL,
    install_kfp_package=False,
    task_config_passthroughs=[
        *_PASSED_ON,
        *(dsl.TaskConfigPassthrough(field=field, apply_to_task=True) for field in _KEPT),
    ],
)
def train_job(
    features: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    logs: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    mlpipeline_ui_metadata: dsl.Output[dsl.Artifact],
    task_config: dsl.TaskConfig,
    image: str,
    nodes: int = 2,
    trainer: str = "torch",
    hyperparameters: dict = {},  # noqa: B006
    seed: int = 0,
    parity_tolerance: float = 0.0,
    device: str = "auto",
    checkpoint_uri: str = "",
    exports: list = [],  # noqa: B006
    model_name: str = "",
) -> str:
    """Train one model in several pods: submit a TrainJob (or PyTorchJob, TFJob), follow it, and bring its bundle back.

    Resources, node selector, tolerations, environment and volumes of this task are given to those pods; this one only
    waits. Feature set and bundle travel through SLUICEWAY_STORE, which must be a bucket or a volume that all can see.

    Args:
        features: See train.
        model: See train.
        metrics: See train.
        logs: See train.
        report: See train.
        mlpipeline_ui_metadata: See train.
        task_config: What KFP gives this task, for the pods.
        image: The image that trains.
        nodes: How many pods.
        trainer: See train; one of scikit-learn trains in one pod.
        hyperparameters: See train.
        seed: See train.
        parity_tolerance: See train.
        device: See train.
        checkpoint_uri: See train.
        exports: See train.
        model_name: See train.

    Returns:
        The recipe digest, which is the model's identity.
    """
    from pathlib import Path

    from components.step import step

    with step("train-job") as current:
        from components.train.event_file import ui_metadata
        from components.train.trainjob.run import Outputs, launch
        from components.train.trainjob.work import Work

        result = launch(
            Work(
                trainer=trainer,
                hyperparameters=hyperparameters,
                seed=seed,
                parity_tolerance=parity_tolerance,
                device=device,
                checkpoint_uri=checkpoint_uri,
                exports=exports,
                model_name=model_name,
            ),
            Path(features.path),
            Outputs(Path(model.path), Path(logs.path), Path(report.path)),
            image=image,
            nodes=nodes,
            pod=vars(task_config),
            say=current.progress,
        )
        Path(mlpipeline_ui_metadata.path).write_text(ui_metadata(logs.uri), encoding="utf-8")
        for name, value in result.metrics.items():
            metrics.log_metric(name, value)
        model.metadata.update(result.metadata)
        current.fact = result.fact
    return result.recipe_digest
