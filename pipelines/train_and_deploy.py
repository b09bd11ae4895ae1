"""``train-and-deploy``: from raw data to a champion that serves. Only wiring; the work is in the components."""

from kfp import dsl

from components.evaluate.component import evaluate
from components.features.component import features
from components.ingest.component import ingest, resolve
from components.register.component import register
from components.rollout.component import rollout, settle
from components.stage.component import stage
from components.validate.component import validate
from pipelines.policy import governed, with_webhook
from pipelines.training import trained


@dsl.pipeline(
    name="train-and-deploy",
    display_name="Train and deploy",
    description=(
        "From raw data to canary traffic: trains a challenger, holds it against the champion at a gate, and rolls it "
        "out in steps under a judge. Set source_uri and target; everything else has a default that works. An object "
        "such as plan or resources holds only what is to differ from its own defaults. What each parameter means is "
        "written beside it under Pipeline Spec."
    ),
)
def train_and_deploy(
    source_uri: str = "sklearn://breast_cancer",
    target: str = "target",
    model_name: str = "",
    task: str = "auto",
    read_options: dict = {},  # noqa: B006 - KFP reads the defaults, nobody mutates them
    feature_spec: str = "",
    feature_tables: dict = {},  # noqa: B006
    feature_engine: str = "duckdb",
    spark: dict = {},  # noqa: B006
    split_key: str = "",
    split_seed: int = 0,
    max_quarantine_share: float = 0.05,
    trainer: str = "hist_gradient_boosting",
    hyperparameters: dict = {},  # noqa: B006
    seed: int = 0,
    parity_tolerance: float = 0.0,
    device: str = "auto",
    search: dict = {},  # noqa: B006
    checkpoint_uri: str = "",
    exports: list = [],  # noqa: B006
    train_image: str = "",
    nodes: int = 1,
    accelerator_type: str = "nvidia.com/gpu",
    accelerator_count: int = 0,
    resources: dict = {},  # noqa: B006
    node_selector: dict = {},  # noqa: B006
    tolerations: list = [],  # noqa: B006
    spot: str = "",
    primary_metric: str = "auto",
    minimum_metric: str = "auto",
    margin: float = 0.02,
    deployment: dict = {},  # noqa: B006
    server_env: dict = {},  # noqa: B006
    skew_tolerance: float = 1e-4,
    load: dict = {},  # noqa: B006
    plan: dict = {},  # noqa: B006
    replay_per_second: int = -1,
    wait_seconds: int = 0,
) -> None:
    """From raw data to canary traffic.

    1. resolve  what exactly the source holds now, and who is champion
    2. ingest   a versioned snapshot
    3. validate against the data contract; bad rows are put aside
    4. features parsed, derived, split
    5. train    a bundle that is safe to open
    6. evaluate against the champion: the gate
    7. register the challenger, if it passed
    8. stage    beside the live service, without traffic
    9. rollout  in steps under the judge, then promoted or rolled back

    Args:
        source_uri: Data to train on: a path, gs://, s3://, https://, postgresql://, kafka://, …, or sklearn://NAME.
        target: Column to predict.
        model_name: Name of the model and its service, a DNS label; empty names it after the source.
        task: "binary", "multiclass", "regression", or "auto" to go by the target's values.
        read_options: How to read the source, for instance {"delimiter": ";"}; empty goes by the file's name.
        feature_spec: YAML with columns to derive, join, aggregate, drop and split by; empty takes them as they are.
        feature_tables: Tables that the spec joins: by name a URI, or {"source_uri": "…", "read_options": {…}}.
        feature_engine: "duckdb", or Spark: "local[4]", "spark://host:7077", "sc://host:15002", or "kubernetes".
        spark: What a Spark job on Kubernetes asks for, for instance {"executors": 8, "executor_memory": "8g"}.
        split_key: Column that keeps rows together in one split; empty takes the data set's identifier.
        split_seed: Another number gives another split into train, valid and test.
        max_quarantine_share: Largest share of rows that may break the data contract before the run stops.
        trainer: "hist_gradient_boosting", "random_forest", "linear", "torch", "keras", or "package.module:yours".
        hyperparameters: The trainer's own parameters, for instance {"learning_rate": 0.1, "max_iter": 300}.
        seed: Seed of everything random in training.
        parity_tolerance: Largest difference at which ONNX is served instead of the model; 0 goes by the framework.
        device: "auto" takes a GPU where there is one, "gpu" fails without one, "cpu" takes none.
        search: Hyperparameter search, for instance {"trials": 30, "minutes": 20, "workers": 4}; empty for none.
        checkpoint_uri: Where a training keeps its state, to go on after a kill; empty for a place in the store.
        exports: Other forms of the ONNX graph to add to the bundle, of "int8", "fp16" and "ort".
        train_image: Image to train in, for instance yours with a trainer of your own; empty goes by the trainer.
        nodes: Pods that train one model together, as a TrainJob; 1 trains in the step's own pod.
        accelerator_type: Resource that an accelerator is on the nodes.
        accelerator_count: Accelerators for each training pod; 0 takes nodes and an image without any.
        resources: For each training pod, for instance {"cpu_request": "4", "cpu_limit": "8", "memory_limit": "32Gi"}.
        node_selector: Labels that the training's nodes must have.
        tolerations: Taints that the training's nodes may have, as Kubernetes writes them.
        spot: Train on the spot nodes of "gke", "eks", "karpenter" or "aks"; empty for nodes that stay.
        primary_metric: Metric that the gate goes by; "auto" takes roc_auc, or rmse for regression.
        minimum_metric: Worst value of that metric that may pass; "auto" asks for better than a constant prediction.
        margin: How much worse than the champion's the metric may be, as a share of its scale.
        deployment: Where and how to serve, for instance {"namespace": "models"}; empty goes by the settings.
        server_env: Environment variables of the model server.
        skew_tolerance: Largest difference between a prediction over HTTP and offline.
        load: What the staged server must withstand, for instance {"requests_per_second": 50, "p99_ms": 100}.
        plan: Rollout steps and margins, for instance {"steps": [10, 50, 100], "min_requests": 200}.
        replay_per_second: Held-out rows sent per second while the judge watches; -1: 200 on one machine, else none.
        wait_seconds: How long to wait for another rollout of the same service to end.
    """
    run_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
    settled = settle(model_name=model_name, source_uri=source_uri, deployment=deployment, run_id=run_id)
    with dsl.ExitHandler(governed(settled)):
        asked = {"trainer": trainer, "hyperparameters": hyperparameters, "device": device, "search": search}
        source = resolve(
            source_uri=source_uri,
            model_name=model_name,
            read_options=read_options,
            plan=plan,
            deployment=deployment,
            load=load,
            task=task,
            train_image=train_image,
            nodes=nodes,
            accelerator_type=accelerator_type,
            accelerator_count=accelerator_count,
            resources=resources,
            node_selector=node_selector,
            tolerations=tolerations,
            spot=spot,
            feature_tables=feature_tables,
            feature_engine=feature_engine,
            **asked,
        )
        name = governed(source).outputs["model_name"]
        ingested = ingest(
            source_uri=source.outputs["pinned_uri"],
            source_version=source.outputs["source_version"],
            read_options=read_options,
            dataset=name,
        )
        snapshot = governed(ingested).outputs["snapshot"]
        checked = validate(
            snapshot=snapshot,
            dataset=name,
            target=target,
            max_quarantine_share=max_quarantine_share,
            champion_data_version=source.outputs["champion_data_version"],
            contract_digest=source.outputs["contract_digest"],
        )
        prepared = features(
            snapshot=snapshot,
            quarantine=governed(checked).outputs["quarantine"],
            contract=checked.outputs["contract"],
            target=target,
            feature_spec=feature_spec,
            task=task,
            split_key=split_key,
            split_seed=split_seed,
            feature_tables=source.outputs["feature_tables"],
            engine=feature_engine,
            spark=spark,
        )
        prepared.set_container_image(source.outputs["features_image"])
        table = governed(prepared).outputs["features"]
        model = trained(
            table,
            source,
            accelerator_type,
            nodes,
            seed=seed,
            parity_tolerance=parity_tolerance,
            checkpoint_uri=checkpoint_uri,
            exports=exports,
            model_name=name,
            **asked,
        )
        gate = evaluate(
            features=table,
            model=model,
            champion_uri=source.outputs["champion_uri"],
            champion_version=source.outputs["champion_version"],
            primary_metric=primary_metric,
            minimum=minimum_metric,
            margin=margin,
            seed=seed,
        )
        governed(gate)
        # KFP's local runner resolves a condition only on an output named Output, the one of a plain return value.
        with dsl.If(gate.outputs["Output"] == True, name="passed the gate"):  # noqa: E712 - builds the condition
            version = register(model=model, decision=gate.outputs["decision"], model_name=name)
            acted = {"service": name, "predictions": gate.outputs["predictions"], "skew_tolerance": skew_tolerance}
            acted |= {"deployment": deployment, "plan": plan, "wait_seconds": wait_seconds, "run_id": run_id}
            staged = stage(
                version=governed(version).outputs["version"],
                model_uri=version.outputs["model_uri"],
                lineage=version.outputs["lineage"],
                champion_version=source.outputs["champion_version"],
                champion_uri=source.outputs["champion_uri"],
                server_env=server_env,
                load=load,
                **acted,
            )
            rolled_out = rollout(
                revision=governed(staged).outputs["Output"],
                replay_per_second=replay_per_second,
                **acted,
            )
            with_webhook(governed(rolled_out))
