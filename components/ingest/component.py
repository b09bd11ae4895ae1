"""The ingest steps as KFP components: `resolve` (never cached) and `ingest` (cached by content)."""

from typing import NamedTuple

from kfp import dsl

from components.images import CONTROL, DATA


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def resolve(
    source_uri: str,
    model_name: str = "",
    read_options: dict = {},  # noqa: B006  KFP reads the default and never changes it
    plan: dict = {},  # noqa: B006
    deployment: dict = {},  # noqa: B006
    load: dict = {},  # noqa: B006
    task: str = "auto",
    trainer: str = "hist_gradient_boosting",
    hyperparameters: dict = {},  # noqa: B006
    device: str = "auto",
    search: dict = {},  # noqa: B006
    train_image: str = "",
    nodes: int = 1,
    accelerator_type: str = "nvidia.com/gpu",
    accelerator_count: int = 0,
    resources: dict = {},  # noqa: B006
    node_selector: dict = {},  # noqa: B006
    tolerations: list = [],  # noqa: B006
    spot: str = "",
    feature_tables: dict = {},  # noqa: B006
    feature_engine: str = "duckdb",
) -> NamedTuple(  # type: ignore[valid-type]  # KFP's way to name outputs
    "Resolved",
    [
        ("Output", str),
        ("source_version", str),
        ("pinned_uri", str),
        ("feature_tables", dict),
        ("features_image", str),
        ("model_name", str),
        ("champion_version", str),
        ("champion_uri", str),
        ("champion_data_version", str),
        ("contract_digest", str),
        ("python_image", str),
        ("accelerators", str),
        ("cpu_request", str),
        ("cpu_limit", str),
        ("memory_request", str),
        ("memory_limit", str),
        ("node_selector", dict),
        ("tolerations", list),
        ("workers", list),
    ],
):
    """Pin what the run starts from, so that every later step can be cached by content, and where it will train.

    Args:
        source_uri: Where the data is: a file, folder or glob (path or file://), gs://, s3://, https://, postgresql://,
            mysql://, sqlite://, kafka://, a Delta table, or sklearn://breast_cancer, wine, digits, diabetes.
        model_name: Name of the model and its service; empty names it after the source.
        read_options: How to read it, where the files do not say it: format, delimiter, header, names, quote, escape,
            skip, null_values, encoding, date_format, timestamp_format, types; of a database table or query; of
            Kafka value; and what to do with personal_data.
        plan: The rollout's steps and margins, checked here so that a wrong one does not cost a training.
        deployment: Where and how to serve; checked likewise.
        load: What the staged server must withstand; checked likewise.
        task: See features; the names of hyperparameters depend on it.
        trainer: See train; checked here, as are the next inputs, so that a wrong one does not cost anything.
        hyperparameters: See train; their names are checked.
        device: See train.
        search: See train; "workers" above 1 searches in as many pods.
        train_image: Image that trains; empty takes the one of the trainer's framework.
        nodes: Pods that train one model together.
        accelerator_type: Name of the accelerator's resource on the nodes.
        accelerator_count: Accelerators in each pod; 0 takes an image without CUDA, and no such node.
        resources: What a training pod asks for, where it is not the default: cpu_request, cpu_limit, memory_request,
            memory_limit, as Kubernetes quantities.
        node_selector: Labels that the nodes of the training must have.
        tolerations: Taints that they may have.
        spot: Whose spot nodes to train on: gke, eks, karpenter or aks; empty for nodes that stay.
        feature_tables: Tables that the feature spec joins: by name a URI, or an object with source_uri and
            read_options.
        feature_engine: See features, as engine; checked here.

    Returns:
        Output: Which branch trains: cpu, gpu, cpu search, gpu search or nodes.
        source_version: sha256 of the source's content and the options; same bytes, same version, on any machine.
        pinned_uri: The source as it is now, where the given URI would mean more later (a Kafka topic).
        feature_tables: The same, with each one's version.
        features_image: The image that computes features: without Spark where it is not used.
        model_name: The name that was given or derived.
        champion_version: The registered version that is champion; empty before the first.
        champion_uri: Where its bundle lies.
        champion_data_version: The snapshot that it was trained on.
        contract_digest: sha256 of the data contract as it is now; empty when the data set has none yet.
        python_image: The image that trains.
        accelerators: The accelerator count as text, the only form in which KFP takes it when a run starts.
        cpu_request: Least CPU of a training pod.
        cpu_limit: Most CPU.
        memory_request: Least memory.
        memory_limit: Most memory, shared memory included.
        node_selector: With the labels of spot nodes.
        tolerations: With those of spot nodes.
        workers: Numbers of the pods that search.
    """
    from components.images import for_features
    from components.ingest.resolve import resolve as look
    from components.ingest.resolve import resolve_tables
    from components.naming import model_name as derive
    from components.register.registry import champion as current_champion
    from components.rollout.deployment import parse_deployment
    from components.rollout.halted import refuse_halted
    from components.rollout.place import store_for
    from components.rollout.plan import parse_plan
    from components.settings import settings
    from components.stage.load import parse_load
    from components.step import step
    from components.store import Store, contract_digest
    from components.train.schedule import Wish, schedule

    with step("resolve") as current:
        parse_plan(plan)
        served = parse_deployment(deployment)
        parse_load(load)
        where = schedule(
            Wish(
                trainer=trainer,
                hyperparameters=hyperparameters,
                task=task,
                device=device,
                search=search,
                train_image=train_image,
                nodes=nodes,
                accelerator_type=accelerator_type,
                accelerator_count=accelerator_count,
                resources=resources,
                node_selector=node_selector,
                tolerations=tolerations,
                spot=spot,
            )
        )
        name = derive(model_name, source_uri)
        refuse_halted(store_for(served, name))  # a run that could not be rolled out is not worth a training
        source = look(source_uri, read_options)
        tables = resolve_tables(feature_tables)
        champion = current_champion(name)
        against = f"champion is version {champion.version}" if champion else "no champion yet"
        current.fact = f"{source.bytes / 1e6:,.1f} MB, version {source.version[:12]}; {against}"
        found = (champion.version, champion.uri, champion.data_version) if champion else ("", "", "")
        contract = contract_digest(Store(settings().store), name)
    asked = tuple(where.resources[key] for key in ("cpu_request", "cpu_limit", "memory_request", "memory_limit"))
    return (
        *(where.branch, source.version, source.uri, tables, for_features(feature_engine), name, *found, contract),
        *(where.image, where.accelerators, *asked, where.node_selector, where.tolerations, where.workers),
    )


@dsl.component(base_image=DATA, install_kfp_package=False)
def ingest(
    source_uri: str,
    source_version: str,
    snapshot: dsl.Output[dsl.Dataset],
    read_options: dict = {},  # noqa: B006  KFP reads the default and never changes it
    dataset: str = "",
) -> None:
    """Copy the source into an immutable, versioned snapshot: zstd Parquet, snapshot.json and a DVC pointer.

    Args:
        source_uri: Where the data is; see resolve.
        source_version: What resolve found; the step fails if the source changed since.
        snapshot: The snapshot folder; its metadata says version, rows, columns and size.
        read_options: How to read it; see resolve.
        dataset: Name under which the version is listed and can be restored; empty lists it nowhere.
    """
    from pathlib import Path

    from components.ingest.run import run
    from components.step import step

    with step("ingest") as current:
        made = run(source_uri, source_version, read_options, Path(snapshot.path), dataset, current.progress)
        snapshot.metadata.update(
            version=made.version,
            source_uri=source_uri,
            rows=made.rows,
            bytes=made.bytes,
            columns=len(made.columns),
            schema={column.name: column.type for column in made.columns},
            missing={column.name: column.nulls for column in made.columns if column.nulls},
        )
        current.fact = f"{made.rows:,} rows, {len(made.columns)} columns, version {made.version[:12]}{made.taken}"
