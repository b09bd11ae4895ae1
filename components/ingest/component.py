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
) -> NamedTuple(  # type: ignore[valid-type]  # KFP's way to name outputs
    "Resolved",
    [
        ("source_version", str),
        ("model_name", str),
        ("champion_version", str),
        ("champion_uri", str),
        ("champion_data_version", str),
        ("contract_digest", str),
    ],
):
    """Pin what the run starts from, so that every later step can be cached by content: the source and the champion.

    Args:
        source_uri: Where the data is: a file, folder or glob (path or file://), gs://bucket/path, or
            sklearn://breast_cancer, wine, digits, diabetes.
        model_name: Name of the model and its service; empty names it after the source.
        read_options: How to read it, where the files do not say it: format, delimiter, header, names, quote, escape,
            skip, null_values, encoding, date_format, timestamp_format, types.
        plan: The rollout's steps and margins, checked here so that a wrong one does not cost a training.

    Returns:
        source_version: sha256 of the source's content and the options; same bytes, same version, on any machine.
        model_name: The name that was given or derived.
        champion_version: The registered version that is champion; empty before the first.
        champion_uri: Where its bundle lies.
        champion_data_version: The snapshot that it was trained on.
        contract_digest: sha256 of the data contract as it is now; empty when the data set has none yet.
    """
    from components.ingest.resolve import resolve as look
    from components.naming import model_name as derive
    from components.register.registry import champion as current_champion
    from components.rollout.plan import parse_plan
    from components.settings import settings
    from components.step import step
    from components.validate.store import Store, contract_digest

    with step("resolve") as current:
        parse_plan(plan)
        name = derive(model_name, source_uri)
        source = look(source_uri, read_options)
        champion = current_champion(name)
        against = f"champion is version {champion.version}" if champion else "no champion yet"
        current.fact = f"{source.bytes / 1e6:,.1f} MB, version {source.version[:12]}; {against}"
        found = (champion.version, champion.uri, champion.data_version) if champion else ("", "", "")
        contract = contract_digest(Store(settings().store), name)
    return (source.version, name, *found, contract)


@dsl.component(base_image=DATA, install_kfp_package=False)
def ingest(
    source_uri: str,
    source_version: str,
    snapshot: dsl.Output[dsl.Dataset],
    read_options: dict = {},  # noqa: B006  KFP reads the default and never changes it
) -> None:
    """Copy the source into an immutable, versioned snapshot: zstd Parquet, snapshot.json and a DVC pointer.

    Args:
        source_uri: Where the data is; see resolve.
        source_version: What resolve found; the step fails if the source changed since.
        snapshot: The snapshot folder; its metadata says version, rows, columns and size.
        read_options: How to read it; see resolve.
    """
    from pathlib import Path

    from components.ingest.run import run
    from components.step import step

    with step("ingest") as current:
        made = run(source_uri, source_version, read_options, Path(snapshot.path))
        snapshot.metadata.update(
            version=made.version,
            source_uri=source_uri,
            rows=made.rows,
            bytes=made.bytes,
            columns=len(made.columns),
            schema={column.name: column.type for column in made.columns},
            missing={column.name: column.nulls for column in made.columns if column.nulls},
        )
        current.fact = f"{made.rows:,} rows, {len(made.columns)} columns, version {made.version[:12]}"
