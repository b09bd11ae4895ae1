# Workload Identity: a pod's Kubernetes account has rights of its own, without a key that could leak and without an
# account of Google's in between. The accounts are those of manifests/base, as namespace and name.
locals {
  pool = "principal://iam.googleapis.com/projects/${data.google_project.this.number}/locations/global/workloadIdentityPools/${var.project}.svc.id.goog/subject"

  steps   = setproduct(var.pipelines_namespaces, ["sluiceway-train", "sluiceway-deploy"])
  servers = setproduct(var.serving_namespaces, ["sluiceway-server"])

  # Who may do what on which bucket. Steps log their models through MLflow, which keeps them; the rollout copies what is to
  # be served into the store, where the model servers read it.
  rights = concat(
    [for pod in local.steps : { pod = pod, bucket = "data", role = "roles/storage.objectUser" }],
    [for pod in local.servers : { pod = pod, bucket = "data", role = "roles/storage.objectViewer" }],
    [{ pod = ["mlflow", "mlflow"], bucket = "models", role = "roles/storage.objectUser" }],
  )
}

resource "google_storage_bucket_iam_member" "this" {
  for_each = { for right in local.rights : join("/", concat(right.pod, [right.bucket])) => right }

  bucket = google_storage_bucket.this[each.value.bucket].name
  role   = each.value.role
  member = "${local.pool}/ns/${each.value.pod[0]}/sa/${each.value.pod[1]}"

  # The pool is there once a cluster of the project uses it.
  depends_on = [google_container_cluster.this]
}
