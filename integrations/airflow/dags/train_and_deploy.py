"""Train and deploy every night; a model that fails its gates, or its canary, never replaces the one that serves."""

from datetime import datetime, timedelta

from airflow.sdk import DAG

from sluiceway_airflow.operator import SluicewayRunOperator

with DAG(
    dag_id="sluiceway_train_and_deploy",
    description="Train a challenger on last night's data and let its canary decide",
    schedule="0 3 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={
        # A try that lost its worker or could not reach KFP waits for the run that it had started.
        "retries": 3,
        "retry_delay": timedelta(minutes=2),
        "retry_exponential_backoff": True,
    },
    tags=["sluiceway"],
):
    SluicewayRunOperator(
        task_id="train_and_deploy",
        pipeline="train-and-deploy",
        parameters={"source_uri": "gs://your-bucket/churn/{{ ds }}/*.parquet", "target": "Churn"},
        deferrable=True,
    )
