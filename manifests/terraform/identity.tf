# Workload Identity: a pod's Kubernetes account has rights of its own, without a key that could leak and without an
# account of Google's in between. The accounts are those of manifests/base.
locals {
  pool = "principal://iam.googleapis.com/projects/${data.google_project.this.number}/locations/global/workloadIdentityPools/${var.project}.svc.id.goog/subject"

  # Who may do what on which bucket.
  bucket_rights = merge(
    { for namespace in var.pipelines_namespaces : "steps/${namespace}/data" => {
      bucket = "data", role = "roles/storage.objectUser", member = "${local.pool}/ns/${namespace}/sa/pipeline-runner"
    } },
    { for namespace in var.pipelines_namespaces : "steps/${namespace}/models" => {
      bucket = "models", role = "roles/storage.objectViewer", member = "${local.pool}/ns/${namespace}/sa/pipeline-runner"
    } },
    { for namespace in var.serving_namespaces : "servers/${namespace}/models" => {
      bucket = "models", role = "roles/storage.objectViewer", member = "${local.pool}/ns/${namespace}/sa/sluiceway-server"
    } },
    # MLflow keeps the artifacts for everybody who logs through it.
    { "mlflow/models" = {
      bucket = "models", role = "roles/storage.objectUser", member = "${local.pool}/ns/mlflow/sa/mlflow"
    } },
  )
}

resource "google_storage_bucket_iam_member" "this" {
  for_each = local.bucket_rights

  bucket = google_storage_bucket.this[each.value.bucket].name
  role   = each.value.role
  member = each.value.member

  # The pool is there once a cluster of the project uses it.
  depends_on = [google_container_cluster.this]
}
