"""The features step as a KFP component."""

from kfp import dsl

from components.images import DATA


@dsl.component(base_image=DATA, install_kfp_package=False)
def features(
    snapshot: dsl.Input[dsl.Dataset],
    quarantine: dsl.Input[dsl.Dataset],
    contract: dsl.Input[dsl.Artifact],
    target: str,
    features: dsl.Output[dsl.Dataset],
    feature_spec: str = "",
    task: str = "auto",
    split_key: str = "",
    split_seed: int = 0,
    feature_tables: dict = {},  # noqa: B006  KFP reads the default and never changes it
    engine: str = "duckdb",
    spark: dict = {},  # noqa: B006
) -> None:
    """Parse, derive and split: the tables that a model is trained, tuned and tested on.

    Args:
        snapshot: The snapshot made by ingest.
        quarantine: Rows to leave out, found by validate.
        contract: What the columns mean, and what they hold, from validate.
        target: The column to predict.
        features: train.parquet, valid.parquet, test.parquet and features.json.
        feature_spec: YAML with derive, drop, key, time, split, tables, windows, joins and encodings (docs/features.md);
            empty uses the columns as they are.
        task: auto, classification, binary, multiclass or regression.
        split_key: Columns (separated by commas) whose rows stay in one split; by default the identifier, else the row.
        split_seed: Another seed is another split.
        feature_tables: Tables that the spec joins, as resolve pinned them.
        engine: Where to compute: duckdb, in this pod; local[N], spark://host:port or sc://host:port (Spark Connect); or
            kubernetes, for a SparkApplication.
        spark: What the Spark job asks for, where it is not the default.
    """
    from pathlib import Path

    from components.features.run import run
    from components.step import step

    with step("features") as current:
        made = run(
            Path(snapshot.path),
            Path(quarantine.path),
            Path(contract.path),
            target,
            feature_spec,
            task,
            split_key,
            split_seed,
            Path(features.path),
            feature_tables,
            engine,
            spark,
        )
        schema = made.schema
        features.metadata.update(
            task=schema.task,
            target=target,
            data_version=schema.data_version,
            rows=schema.rows,
            classes=made.classes,
            features=[column.name for column in schema.features],
            dropped={column.name: column.reason for column in schema.dropped},
            rows_quarantined=made.quarantined,
            rows_without_target=made.unlabelled,
        )
        counts = " / ".join(f"{schema.rows[name]:,} {name}" for name in schema.rows)
        current.fact = f"{counts}, {len(schema.features)} features, {len(schema.dropped)} columns dropped"
