"""Runs of Kubeflow Pipelines from Airflow: trigger one, wait for it, and end it when the task is killed.

Needs nothing but Airflow: KFP is spoken to over plain HTTP, with the httpx that Airflow brings.
"""
