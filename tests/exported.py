"""Metrics of programs that tests cannot run, with the names and labels that their makers document."""

POD = {"namespace": "models", "pod": "ours-predictor-00001-deployment-6f7d8c9b4-x2k9p"}
SERVER = {**POD, "container": "kserve-container", "uid": "1"}
STEP = {"namespace": "kubeflow", "pod": "train-and-deploy-x7k2p-1"}
POSTGRES = {"namespace": "mlflow", "persistentvolumeclaim": "data-mlflow-postgresql-0"}
GPU = {"gpu": "0", "UUID": "GPU-1", "device": "nvidia0", "modelName": "NVIDIA L4", "Hostname": "node-1"}
QUOTA = {"namespace": "models", "resourcequota": "sluiceway", "resource": "requests.cpu"}
ENDED = {"step": "rollout", "event": "finished", "kind": "", "service": "ours", "outcome": "rolled_back"}
FAILED = {"step": "ingest", "event": "failed", "kind": "BadInput", "service": "", "outcome": ""}
NO_REAL_DATA = {
    "kube-state-metrics": [
        ("kube_pod_container_status_ready", 1, SERVER),
        ("kube_pod_container_status_restarts_total", 4, SERVER),
        ("kube_pod_container_status_restarts_total", 0, {**STEP, "container": "main"}),
        ("kube_pod_container_status_waiting_reason", 1, {**SERVER, "reason": "CrashLoopBackOff"}),
        ("kube_pod_container_status_terminated_reason", 1, {**STEP, "container": "main", "reason": "OOMKilled"}),
        ("kube_pod_container_status_last_terminated_reason", 1, {**SERVER, "reason": "OOMKilled"}),
        ("kube_pod_container_resource_limits", 2e9, {**SERVER, "resource": "memory", "unit": "byte"}),
        ("kube_pod_status_phase", 1, {**STEP, "phase": "Pending"}),
        ("kube_pod_owner", 1, {**STEP, "owner_kind": "Workflow", "owner_name": "train-and-deploy-x7k2p"}),
        ("kube_deployment_status_replicas_available", 2, {"namespace": "mlflow", "deployment": "mlflow"}),
        ("kube_deployment_status_replicas_available", 1, {"namespace": "models", "deployment": "ours-predictor"}),
        ("kube_deployment_status_replicas_available", 1, {"namespace": "kubeflow", "deployment": "ml-pipeline"}),
        ("kube_deployment_spec_replicas", 2, {"namespace": "mlflow", "deployment": "mlflow"}),
        ("kube_statefulset_status_replicas_ready", 1, {"namespace": "mlflow", "statefulset": "mlflow-postgresql"}),
        ("kube_statefulset_replicas", 1, {"namespace": "mlflow", "statefulset": "mlflow-postgresql"}),
        ("kube_resourcequota", 95, {**QUOTA, "type": "used"}),
        ("kube_resourcequota", 100, {**QUOTA, "type": "hard"}),
    ],
    "the kubelet": [
        ("kubelet_volume_stats_available_bytes", 4e9, POSTGRES),
        ("kubelet_volume_stats_capacity_bytes", 5e9, POSTGRES),
    ],
    "KFP's API server": [
        ("resource_manager_workflow_runs_failed", 1, {"profile": "kubeflow", "workflow": "train-and-deploy-x7k2p"}),
        ("resource_manager_workflow_runs_success", 1, {"profile": "kubeflow", "workflow": "train-and-deploy-b3m9q"}),
    ],
    "Argo's controller": [
        ("argo_workflows_gauge", 1, {"phase": "Running"}),
        ("argo_workflows_count", 1, {"status": "Running"}),
    ],
    "NVIDIA's DCGM exporter": [
        ("DCGM_FI_DEV_GPU_UTIL", 2, {**GPU, **STEP, "container": "main"}),
        ("DCGM_FI_DEV_FB_USED", 4000, {**GPU, **STEP, "container": "main"}),
        ("DCGM_FI_DEV_FB_FREE", 19000, {**GPU, **STEP, "container": "main"}),
        ("DCGM_FI_DEV_POWER_USAGE", 40, {**GPU, **STEP, "container": "main"}),
    ],
    "cert-manager": [
        ("certmanager_certificate_expiration_timestamp_seconds", 2e9, {"namespace": "mlflow", "name": "mlflow-tls"}),
    ],
    # tests/integration/test_observability_logs.py compares them with a real one's, where there is one.
    "Fluent Bit": [
        ("sluiceway_step_events_total", 1, {"namespace": "kubeflow", **ENDED}),
        ("sluiceway_step_events_total", 1, {"namespace": "kubeflow", **FAILED}),
        ("sluiceway_step_seconds_bucket", 1, {"le": "60.0", "namespace": "kubeflow", "step": "rollout"}),
        ("sluiceway_step_seconds_bucket", 1, {"le": "+Inf", "namespace": "kubeflow", "step": "rollout"}),
        ("fluentbit_output_proc_records_total", 5, {"name": "logs"}),
        ("fluentbit_output_dropped_records_total", 0, {"name": "logs"}),
        ("fluentbit_output_retries_total", 0, {"name": "logs"}),
    ],
}
"""By exporter: metric, value and labels, as pods are scraped where labels are honoured (manifests/monitoring)."""
