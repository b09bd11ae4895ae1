"""The validate step as a KFP component."""

from kfp import dsl

from components.images import DATA


@dsl.component(base_image=DATA, install_kfp_package=False)
def validate(
    snapshot: dsl.Input[dsl.Dataset],
    dataset: str,
    target: str,
    quarantine: dsl.Output[dsl.Dataset],
    contract: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    max_quarantine_share: float = 0.05,
    champion_data_version: str = "",
    contract_digest: str = "",
) -> None:
    """Check a snapshot against its data contract, which is inferred when the data set is seen for the first time.

    Args:
        snapshot: The snapshot made by ingest.
        dataset: Name of the data set; its contract is contracts/<dataset>.yaml in the store, and people may edit it.
        target: The column to predict.
        quarantine: Rows that break the contract: number, column, value, reason, place in the source (also as CSV).
        contract: The contract that was applied, and what the columns hold.
        report: Evidently's data summary, and drift against the champion's data, on a stratified sample.
        max_quarantine_share: The run stops when a larger share of the rows breaks the contract.
        champion_data_version: Snapshot version that the current champion was trained on; empty when there is none.
        contract_digest: The contract's digest as resolve found it: an edited contract is a new input, so that no
            outcome under an older one is kept.
    """
    from pathlib import Path

    from components.step import step
    from components.validate.run import run

    with step("validate") as current:
        found = run(
            Path(snapshot.path),
            dataset,
            target,
            max_quarantine_share,
            champion_data_version,
            Path(quarantine.path),
            Path(contract.path),
            Path(report.path),
        )
        quarantine.metadata.update(rows_checked=found.rows, rows=found.quarantined, rules=dict(found.broken))
        contract.metadata.update(
            dataset=dataset,
            version=found.contract.version,
            digest=found.contract.digest,
            new=found.is_new,
            uri=found.contract_uri,
            added_columns=list(found.added),
            schema_changes=[dict(vars(change)) for change in found.changes],
            personal_data=found.personal,
        )
        report.metadata.update(rows_sampled=found.sampled, champion_data_version=champion_data_version)
        if found.drift is not None:
            report.metadata.update(drift_share=found.drift.share, drifted_columns=found.drift.drifted)
        current.fact = f"{found.rows:,} rows checked, {found.quarantined:,} quarantined"
        known = f"contract version {found.contract.version} ({found.contract.digest[:12]})"
        current.fact += ", new contract" if found.is_new else f", {known}"
